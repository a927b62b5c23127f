"""status() is the one place that tells how the feed is."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.sql.database import Database


def test_all_is_well(database: Database) -> None:
    status = database.status()
    assert status["last_change"] is None
    database.execute("CREATE TABLE t ()")
    status = database.status()
    assert datetime.now(UTC) - datetime.fromisoformat(status.pop("last_change")) < timedelta(minutes=1)
    assert status.pop("log_bytes") >= 8192
    assert status == {
        "version_installed": "1.0", "version_available": "1.0", "triggers_enabled": True, "function_unaltered": True,
        "log_rows": 1, "queue_usage": 0, "healthy": True, "problem": None, "advice": None,
    }  # fmt: skip


TRIGGERS = ["ddl_command_end", "sql_drop", "extension_start"]


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize("change", ["DISABLE", "ENABLE", "ENABLE REPLICA"])
def test_a_trigger_that_is_not_always_on(database: Database, trigger: str, change: str) -> None:
    database.execute(f"ALTER EVENT TRIGGER schema_notifications_{trigger} {change}")
    status = database.status()
    assert status["triggers_enabled"] is False
    assert status["healthy"] is False
    assert f"ENABLE ALWAYS for schema_notifications_{trigger}" in status["problem"] or trigger in status["problem"]
    database.execute(f"ALTER EVENT TRIGGER schema_notifications_{trigger} ENABLE ALWAYS")
    assert database.status()["healthy"] is True


def test_a_trigger_that_is_gone(database: Database) -> None:
    database.execute("ALTER EXTENSION schema_notifications DROP EVENT TRIGGER schema_notifications_sql_drop")
    database.execute("DROP EVENT TRIGGER schema_notifications_sql_drop")
    assert "An event trigger is missing or disabled" in database.status()["problem"]


def test_under_session_replication_role(database: Database) -> None:
    with database.connect() as session, database.listening() as notices:
        session.execute("SET session_replication_role = replica; CREATE TABLE t (x int); ALTER TABLE t DROP COLUMN x; DROP TABLE t")
        assert session.execute("SELECT healthy FROM schema_notifications.status()").fetchone() == (True,)
    assert len(notices) == 3


@pytest.mark.versions(18)
def test_event_triggers_switched_off(database: Database) -> None:
    with database.connect() as session:
        session.execute("SET event_triggers = off")
        status = session.execute("SELECT healthy, problem FROM schema_notifications.status()").fetchone()
    assert status is not None
    assert status[0] is False
    assert "event_triggers" in status[1]


@pytest.mark.parametrize("alter", [
    "CREATE OR REPLACE FUNCTION schema_notifications.notify_schema_change() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END'",
    "CREATE OR REPLACE FUNCTION schema_notifications.truncated(notice text) RETURNS text LANGUAGE sql IMMUTABLE RETURN notice",
    "ALTER FUNCTION schema_notifications.prune SECURITY INVOKER",
    "ALTER FUNCTION schema_notifications.prune RESET ALL",
    "ALTER TABLE schema_notifications.log DISABLE TRIGGER keep_out",
    "DROP TRIGGER forget ON schema_notifications.log",
    "ALTER TABLE schema_notifications.log DROP COLUMN tag",
])  # fmt: skip
def test_what_was_altered_behind_the_triggers(database: Database, alter: str) -> None:
    disabled = [f"ALTER EVENT TRIGGER schema_notifications_{trigger} " for trigger in TRIGGERS]
    database.execute("; ".join(f"{trigger} DISABLE" for trigger in disabled))
    database.execute(alter)
    database.execute("; ".join(f"{trigger} ENABLE ALWAYS" for trigger in disabled))
    status = database.status()
    assert status["function_unaltered"] is False
    assert "was altered" in status["problem"]


def test_an_older_version(database: Database) -> None:
    database.execute("UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'schema_notifications'")
    assert (
        "Version 0.9 is installed, 1.0 is available: run ALTER EXTENSION schema_notifications UPDATE."
        in database.status()["problem"]
    )


def test_pg_monitor_may_ask(database: Database) -> None:
    database.execute("GRANT pg_monitor TO bob")
    with database.connect("bob") as session:
        assert session.execute("SELECT healthy FROM schema_notifications.status()").fetchone() == (True,)
    database.execute("REVOKE pg_monitor FROM bob")
