"""A schema change and its record commit together, or neither does.  What can be foreseen is steered round: whatever a user
may run or set, his command succeeds and is recorded as it would be without."""

import threading
import time

import psycopg
import pytest

from tests.sql.database import Database
from tests.support.postgres import Cluster


def version_of(cluster: Cluster) -> int:
    ((version,),) = cluster.execute("SHOW server_version_num")
    return int(str(version)) // 10000


def warnings_of(database: Database, *commands: str, user: str = "postgres") -> list[str]:
    """The warnings that commands raise, all of which must succeed."""
    warnings: list[str] = []
    with database.connect(user) as session:
        session.add_notice_handler(lambda notice: warnings.append(f"{notice.severity}: {notice.message_primary}"))
        for command in commands:
            session.execute(command)
    return warnings


# DDL on the extension itself, as a superuser may try it, without the extension's own commands.
BREAKING = [
    "ALTER TABLE schema_notifications.log DROP COLUMN objects",
    "ALTER TABLE schema_notifications.log ALTER tag TYPE varchar",
    "ALTER TABLE schema_notifications.log ADD CHECK (tag = 'x') NOT VALID",
    "ALTER TABLE schema_notifications.log RENAME TO lost",
    "ALTER TABLE schema_notifications.log SET SCHEMA public",
    "ALTER TABLE schema_notifications.log DISABLE TRIGGER keep_out",
    "ALTER TABLE schema_notifications.log ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE schema_notifications.log DROP CONSTRAINT log_pkey",
    "ALTER TABLE schema_notifications.state ADD x int",
    "CREATE TRIGGER t BEFORE INSERT ON schema_notifications.log FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE POLICY p ON schema_notifications.log",
    "CREATE RULE r AS ON INSERT TO schema_notifications.log DO INSTEAD NOTHING",
    "CREATE UNIQUE INDEX i ON schema_notifications.log (tag)",
    "DROP TRIGGER keep_out ON schema_notifications.log",
    "CREATE OR REPLACE FUNCTION schema_notifications.record(event text, tag text, list text) RETURNS void LANGUAGE plpgsql AS 'BEGIN END'",
    "ALTER FUNCTION schema_notifications.prune RENAME TO pruned",
    "ALTER FUNCTION schema_notifications.notify_schema_change RENAME TO gone",
    "ALTER FUNCTION schema_notifications.notify_schema_drop SECURITY INVOKER",
    "ALTER FUNCTION schema_notifications.record RESET ALL",
    "CREATE TABLE schema_notifications.mine ()",
    "ALTER FUNCTION schema_notifications.record SET SCHEMA public",
    "ALTER TABLE schema_notifications.state SET SCHEMA public",
    "ALTER SCHEMA schema_notifications RENAME TO mine",
]


@pytest.mark.every_version
def test_ddl_that_would_break_the_extension_is_refused(database: Database) -> None:
    _, _, cursor = database.changes_since(None)
    with database.connect() as session:
        for command in BREAKING:
            with pytest.raises(psycopg.Error) as refused:
                session.execute(command)
            assert "would change the extension schema_notifications" in str(refused.value), command
            assert "run DROP EXTENSION" in str(refused.value.diag.message_hint)
    assert database.status()["healthy"]
    database.execute("COMMENT ON TABLE schema_notifications.log IS 'ours'; GRANT SELECT ON schema_notifications.log TO alice")
    database.execute("REINDEX TABLE schema_notifications.log")
    assert database.status()["healthy"]
    assert "COMMENT" in database.changes_since(cursor)[0]


def test_event_triggers_can_always_be_disabled(database: Database) -> None:
    database.execute("; ".join(f"ALTER EVENT TRIGGER schema_notifications_{name} DISABLE"
                               for name in ("ddl_command_end", "sql_drop", "extension_start")))  # fmt: skip
    database.execute(
        "ALTER TABLE schema_notifications.log DROP COLUMN objects; CREATE TABLE t (); DROP EXTENSION schema_notifications"
    )
    assert database.value("SELECT to_regclass('t')") == "t"


@pytest.mark.every_version
@pytest.mark.parametrize(
    "command", ["CREATE TABLE u ()", "ALTER TABLE t DROP COLUMN x", "DROP TABLE t", "GRANT SELECT ON t TO alice"]
)
def test_what_cannot_be_recorded_is_not_done(database: Database, command: str) -> None:
    """Here the log is locked; a full disk, no memory, no stack are alike."""
    database.execute("CREATE TABLE t (x int)")
    before = database.log()
    with database.connect() as other, database.connect() as session, database.listening() as notices:
        other.execute("BEGIN; LOCK TABLE schema_notifications.log")
        session.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            session.execute(command)
        other.execute("ROLLBACK")
    assert notices == []
    assert database.log() == before
    assert database.execute("SELECT relname, relacl::text, (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)"
                            " FROM pg_class AS c WHERE relnamespace = 'public'::regnamespace") == [("t", None, 1)]  # fmt: skip


@pytest.mark.every_version
@pytest.mark.parametrize("command", ["CREATE TABLE u ()", "DROP TABLE t", "ALTER TABLE t DROP COLUMN x"])
def test_at_the_bottom_of_the_stack(database: Database, command: str) -> None:
    """A user's own handler may swallow the error; then nothing was done. Otherwise it is recorded: never silent."""
    database.execute(
        "CREATE TABLE t (x int);"
        "CREATE FUNCTION deep(levels int) RETURNS int LANGUAGE plpgsql AS $$BEGIN"
        f" IF levels = 0 THEN EXECUTE '{command}'; RETURN 1; END IF; RETURN deep(levels - 1); END$$"
    )
    state = (
        "SELECT array_agg(relname ORDER BY relname), (SELECT array_agg(attname) FROM pg_attribute WHERE attrelid = to_regclass('t')"
        " AND attnum > 0 AND NOT attisdropped) FROM pg_class WHERE relname IN ('t', 'u')"
    )
    outcomes = []
    with database.connect() as session:
        session.execute("SET max_stack_depth = '200kB'")
        before = session.execute(state).fetchall()
        for levels in range(200):
            session.execute("BEGIN")
            try:
                session.execute("SELECT deep(%s)", (levels,))
            except psycopg.errors.StatementTooComplex:
                outcomes.append(False)
                session.execute("ROLLBACK")
                assert session.execute(state).fetchall() == before
                if outcomes[-5:] == [False] * 5:
                    break
                continue
            assert session.execute(
                "SELECT count(*) FROM schema_notifications.log WHERE txid = pg_current_xact_id() AND NOT unfinished"
            ).fetchone() == (1,)
            outcomes.append(True)
            session.execute("ROLLBACK")
    # Where exactly it ends is the server's: it needs more when it has to read its caches anew.
    assert outcomes[0] and outcomes[-5:] == [False] * 5


def test_a_user_with_no_rights_runs_ddl(database: Database) -> None:
    assert warnings_of(database, "CREATE TEMP TABLE t (id int)", "DROP TABLE t", user="alice") == []
    database.execute("GRANT CREATE ON SCHEMA public TO alice; REVOKE ALL ON SCHEMA schema_notifications FROM PUBLIC")
    notices = database.notices_of("CREATE TABLE t (id int)", "ALTER TABLE t DROP COLUMN id", "DROP TABLE t", user="alice")
    assert [notice["user"] for notice in notices] == ["alice"] * 3
    assert database.status()["healthy"]


@pytest.mark.parametrize(
    "command",
    [
        "CREATE INDEX CONCURRENTLY i ON t (name)",
        "CREATE INDEX i ON t (name); DROP INDEX CONCURRENTLY i",
        "CREATE TYPE y AS ENUM ('a'); ALTER TYPE y ADD VALUE 'b'",
        "REINDEX TABLE t",
        "REINDEX TABLE CONCURRENTLY t",
        "REINDEX SCHEMA public",
        "VACUUM t",
        "VACUUM FULL t",
        "ANALYZE t",
        "CLUSTER t USING t_pkey",
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN CREATE TABLE p1 ();COMMIT;CREATE TABLE p2 ();ROLLBACK;END'; CALL p()",
        "ALTER TABLE t SET UNLOGGED",
        "CREATE TABLE part (id int) PARTITION BY RANGE (id); CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (9); "
        "ALTER TABLE part DETACH PARTITION part1 CONCURRENTLY",
        "CREATE PUBLICATION pub FOR ALL TABLES",
    ],
)
def test_commands_with_rules_of_their_own_work(database: Database, command: str) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    assert warnings_of(database, *command.split("; ")) in ([], ['WARNING: "wal_level" is insufficient to publish logical changes'])
    assert database.status()["healthy"]


@pytest.mark.parametrize("command, tags", [
    ("CREATE INDEX CONCURRENTLY i ON t (name)", ["CREATE INDEX"]),
    ("CALL p()", ["CREATE TABLE"]),
])  # fmt: skip
def test_commands_that_commit_on_their_own_are_announced(database: Database, command: str, tags: list[str]) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    database.execute(
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN CREATE TABLE p1 (); COMMIT; CREATE TABLE p2 (); ROLLBACK; END'"
    )
    assert [notice["tag"] for notice in database.notices_of(command)] == tags
    assert [tag for tag, _ in database.log()][-1:] == tags


def test_create_database_works_while_template1_changes(database: Database) -> None:
    template = Database(database.cluster, "template1")
    with template.listening() as notices:
        template.execute("CREATE TABLE of_template1 (); DROP TABLE of_template1")
    assert [notice["tag"] for notice in notices] == ["CREATE TABLE", "DROP TABLE"]
    name = f"{database.name}_new"
    database.execute(f"CREATE DATABASE {name}")
    new = Database(database.cluster, name)
    assert [notice["database"] for notice in new.notices_of("CREATE TABLE t ()")] == [name]
    assert new.status()["healthy"]
    database.execute(f"DROP DATABASE {name} WITH (FORCE)")
    template.execute("TRUNCATE schema_notifications.log")


def test_prepared_transactions(database: Database) -> None:
    """NOTIFY and PREPARE TRANSACTION exclude each other in PostgreSQL, so the notice can be switched off; the log remains."""
    cursor = database.changes_since(None)[2]
    with database.connect() as session, database.listening() as notices:
        session.execute("BEGIN; SET LOCAL schema_notifications.notify = off; CREATE TABLE t (x int); ALTER TABLE t DROP COLUMN x")
        session.execute(f"PREPARE TRANSACTION '{database.name}'")
        assert database.changes_since(cursor)[0] == []
        session.execute(f"COMMIT PREPARED '{database.name}'")
    assert notices == []
    assert database.changes_since(cursor)[0] == ["CREATE TABLE", "ALTER TABLE"]
    with database.connect() as session:
        session.execute("BEGIN; CREATE TABLE u ()")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="NOTIFY"):
            session.execute("PREPARE TRANSACTION 'never'")


@pytest.mark.parametrize("off", ["off", "false", "no", "0", "OFF"])
def test_the_notice_can_be_switched_off(database: Database, off: str) -> None:
    with database.connect() as session, database.listening() as notices:
        session.execute(f"SET schema_notifications.notify = '{off}'; CREATE TABLE quiet (x int); ALTER TABLE quiet DROP x")
        session.execute("SET schema_notifications.notify = on; CREATE TABLE loud ()")
        session.execute("RESET schema_notifications.notify; DROP TABLE loud")
    assert [notice["tag"] for notice in notices] == ["CREATE TABLE", "DROP TABLE"]
    assert [tag for tag, _ in database.log()] == ["CREATE TABLE", "ALTER TABLE", "CREATE TABLE", "DROP TABLE"]


def test_the_log_can_be_switched_off_by_the_owner_alone(database: Database) -> None:
    database.execute(f"ALTER DATABASE {database.name} OWNER TO bob; GRANT CREATE ON SCHEMA public TO alice, bob, PUBLIC")
    database.execute("CREATE ROLE mallory LOGIN" if not database.execute("SELECT FROM pg_roles WHERE rolname = 'mallory'") else "")
    for user in ("bob", "mallory"):
        with database.connect(user) as session, database.listening() as notices:
            session.execute(f"SET schema_notifications.log = off; CREATE TABLE of_{user} (x int)")
        assert [("id" in notice) for notice in notices] == [user == "mallory"]
    assert [objects[0]["identity"] for tag, objects in database.log() if tag == "CREATE TABLE"] == ["public.of_mallory"]


def test_both_off_for_a_restore(database: Database) -> None:
    with database.connect() as session, database.listening() as notices:
        session.execute("SET schema_notifications.notify = off; SET schema_notifications.log = off; CREATE TABLE t (x int)")
        session.execute("ALTER TABLE t DROP COLUMN x; DROP TABLE t")
    assert notices == []
    assert database.log() == []


@pytest.mark.versions(18)  # the queue holds 8 GB before 17
def test_a_full_queue_stops_no_ddl(database: Database) -> None:
    with database.connect() as listener, database.connect() as session:
        listener.execute("LISTEN schema_changed")
        listener.execute("BEGIN; SELECT 1")  # holds the queue
        while session.execute("SELECT pg_notification_queue_usage() < 0.91").fetchone() == (True,):
            session.execute("SELECT pg_notify('schema_changed', repeat('x', 7000) || n) FROM generate_series(1, 3) AS n")
        cursor = database.changes_since(None)[2]
        warnings = warnings_of(database, *[f"CREATE TABLE t{n} ()" for n in range(20)])
        assert len(warnings) == 20
        assert "was not announced, only logged: the notification queue is nearly full" in warnings[0]
        assert len(database.changes_since(cursor)[0]) == 20
        status = database.status()
        assert status["queue_usage"] > 0.9
        assert "notification queue is 9" in status["problem"]
        listener.execute("COMMIT")
    deadline = time.monotonic() + 10
    while database.status()["queue_usage"] > 0.5 and time.monotonic() < deadline:
        database.notices_of()
    assert [notice["tag"] for notice in database.notices_of("CREATE TABLE again ()")] == ["CREATE TABLE"]


def test_a_cancelled_command_is_cancelled(database: Database) -> None:
    """DDL that waits for a lock within the feed ends when the user wants it to."""
    with database.connect() as other, database.connect() as session:
        other.execute("BEGIN; LOCK TABLE schema_notifications.log")
        session.execute("SET statement_timeout = '200ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("CREATE TABLE t ()")
        other.execute("ROLLBACK")
    assert database.value("SELECT to_regclass('t')") is None


def test_serializable_and_repeatable_read(database: Database) -> None:
    for level in ("SERIALIZABLE", "REPEATABLE READ"):
        with database.connect() as one, database.connect() as two:
            one.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM pg_class")
            two.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM pg_class")
            one.execute("CREATE TABLE one (x int); ALTER TABLE one DROP COLUMN x")
            two.execute("CREATE TABLE two (x int); ALTER TABLE two DROP COLUMN x; COMMIT")
            one.execute("DROP TABLE one; COMMIT")
            two.execute("DROP TABLE two")
    assert database.status()["healthy"]


def test_ddl_in_two_sessions_never_waits_for_the_feed(database: Database) -> None:
    with database.connect() as one, database.connect() as two:
        one.execute("BEGIN; CREATE TABLE one (x int); ALTER TABLE one DROP COLUMN x")
        two.execute("SET lock_timeout = '100ms'; CREATE TABLE two (x int); ALTER TABLE two DROP COLUMN x; DROP TABLE two")
        one.execute("COMMIT")
    assert database.status()["healthy"]


def test_many_sessions_at_once(database: Database) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with database.connect() as session:
                for _ in range(20):
                    session.execute(f"CREATE TABLE t{number} (x int); ALTER TABLE t{number} DROP COLUMN x; DROP TABLE t{number}")
        except psycopg.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    with database.listening() as notices:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(notices) == 8 * 20 * 3
    assert database.status()["healthy"]


@pytest.mark.versions(17, 18)
def test_reindex_in_a_read_only_transaction(database: Database) -> None:
    """No other command that fires an event trigger runs in one; it is announced, and nothing can be logged."""
    database.execute("CREATE TABLE t (x int PRIMARY KEY)")
    before = database.log()
    with database.connect() as session, database.listening() as notices:
        session.execute("BEGIN READ ONLY; REINDEX TABLE t; COMMIT")
    assert [(notice["tag"], "id" in notice) for notice in notices] == [("REINDEX", False)]
    assert database.log() == before


def test_a_server_that_logs_the_minimum(cluster: Cluster) -> None:
    """PostgreSQL then writes no WAL for tables that the same transaction has made, so ids need not grow within the transaction
    that installs the extension: docs/feed.md says so. They do in every other."""
    with Cluster(version_of(cluster), {"wal_level": "minimal", "max_wal_senders": "0"}) as own:
        database = Database(own, "postgres")
        database.execute("CREATE EXTENSION schema_notifications")
        with database.connect() as session, session.transaction():
            session.execute("CREATE TABLE t ()")
            session.execute("DO $$BEGIN FOR i IN 1..50 LOOP EXECUTE 'ALTER TABLE t OWNER TO postgres'; END LOOP; END$$")
        assert len(database.log()) == 51
