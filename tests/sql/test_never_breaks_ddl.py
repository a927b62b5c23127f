"""Whatever fails inside, the user's command succeeds, a WARNING says why, and a counter that survives shows the loss."""

import threading
import time

import psycopg
import pytest

from tests.sql.database import Database, described

# What may befall the feed (as a superuser may do it), and what the WARNING must say.
FAULTS = {
    "a dropped column of the log": ("ALTER TABLE schema_notifications.log DROP COLUMN objects", 'column "objects"'),
    "a column of the log of another type": (
        "ALTER TABLE schema_notifications.log ALTER tag TYPE int USING 1",
        'column "tag" is of type integer',
    ),
    "a log that refuses rows": (
        "ALTER TABLE schema_notifications.log ADD CHECK (tag = 'x') NOT VALID",
        "violates check constraint",
    ),
    # An error from within INSERT is what a full disk, a quota or a damaged page is.
    "a log that cannot grow": (
        "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE disk_full USING MESSAGE = 'no space left'; END$$;"
        "CREATE TRIGGER t BEFORE INSERT ON schema_notifications.log FOR EACH ROW EXECUTE FUNCTION full()",
        "no space left",
    ),
    "no log at all": ("ALTER TABLE schema_notifications.log RENAME TO lost", 'relation "schema_notifications.log" does not exist'),
    "a sequence at its end": (
        "ALTER SEQUENCE schema_notifications.log_id_seq MAXVALUE 10; SELECT setval('schema_notifications.log_id_seq', 10)",
        "reached maximum value",
    ),
    "a broken payload": (
        "CREATE OR REPLACE FUNCTION schema_notifications.payload(id bigint, txid xid8, changed_at timestamptz, user_name name, tag text,"
        " objects jsonb) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN 1 / 0; END$$",
        "division by zero",
    ),
    "a broken view": (
        "CREATE OR REPLACE VIEW schema_notifications.created_or_altered AS SELECT to_jsonb(1 / (random() * 0)::int) AS objects;"
        "CREATE OR REPLACE VIEW schema_notifications.dropped AS SELECT to_jsonb(1 / (random() * 0)::int) AS objects",
        "division by zero",
    ),
    "a function that is gone": (
        "DO $$BEGIN EXECUTE (SELECT string_agg(format('ALTER FUNCTION %s RENAME TO gone', oid::regprocedure), '; ') FROM pg_proc"
        " WHERE proname = 'announce_carefully'); END$$; ALTER TABLE schema_notifications.log DROP COLUMN objects",
        "announce_carefully",
    ),
}


def warnings_of(database: Database, *commands: str, user: str = "postgres") -> list[str]:
    """The warnings that commands raise, all of which must succeed."""
    warnings: list[str] = []
    with database.connect(user) as session:
        session.add_notice_handler(lambda notice: warnings.append(f"{notice.severity}: {notice.message_primary}"))
        for command in commands:
            session.execute(command)
    return warnings


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("user", ["postgres", "alice"])
def test_ddl_goes_on(database: Database, fault: str, user: str) -> None:
    break_it, reason = FAULTS[fault]
    database.execute("GRANT CREATE ON SCHEMA public TO alice")
    with database.connect() as session, session.transaction():
        session.execute("SET LOCAL schema_notifications.log = off")
        session.execute(break_it)
    before = database.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM schema_notifications.losses")
    commands = ["CREATE TABLE t (id int, x int)", "ALTER TABLE t DROP COLUMN x, ADD y int", "DROP TABLE t"]
    warnings = warnings_of(database, *commands, user=user)
    assert len(warnings) >= len(commands)
    assert all(warning.startswith("WARNING: schema change") for warning in warnings)
    assert all(reason in warning for warning in warnings), warnings
    assert database.value("SELECT to_regclass('t')") is None
    if "gone" not in fault:
        after = database.value("SELECT last_value FROM schema_notifications.losses")
        assert after - before >= len(commands)


def test_what_fails_alone_is_lost_alone(database: Database) -> None:
    """A change that cannot be logged is announced all the same, without an id."""
    database.execute("ALTER TABLE schema_notifications.log ADD CHECK (tag = 'x') NOT VALID")
    notices = database.notices_of("CREATE TABLE t (id int)", "ALTER TABLE t DROP COLUMN id", "DROP TABLE t")
    assert [(notice["tag"], described(notice)) for notice in notices] == [
        ("CREATE TABLE", {"created table public.t"}),
        ("ALTER TABLE", {"dropped table column public.t.id", "altered table public.t"}),
        ("DROP TABLE", {"dropped table public.t"}),
    ]
    assert all("id" not in notice for notice in notices)


def test_what_is_not_known_is_announced_as_truncated(database: Database) -> None:
    database.execute("SET schema_notifications.log = off; " + FAULTS["a broken view"][0])
    notices = database.notices_of("CREATE TABLE t (id int)", "DROP TABLE t")
    assert [(n["tag"], n.get("truncated"), "objects" in n) for n in notices] == [
        ("CREATE TABLE", True, False),
        ("DROP TABLE", True, False),
    ]


def test_the_loss_survives_rollback_and_shows_in_the_status(database: Database) -> None:
    assert database.status()["losses"] == 0
    database.execute("ALTER TABLE schema_notifications.log ADD CHECK (tag = 'x') NOT VALID")
    with database.connect() as session:
        session.execute("BEGIN; CREATE TABLE t (); ROLLBACK")
    losses = database.status()["losses"]
    assert losses >= 1
    database.execute("ALTER TABLE schema_notifications.log DROP CONSTRAINT log_tag_check")
    status = database.status()
    assert status["healthy"] is False
    assert f"{status['losses']} changes were not logged or not announced" in status["problem"]
    database.execute("ALTER SEQUENCE schema_notifications.losses RESTART")
    assert database.status()["healthy"] is True


def test_the_warning_comes_once_per_loss(database: Database) -> None:
    database.execute("ALTER TABLE schema_notifications.log ADD CHECK (tag = 'x') NOT VALID")
    database.execute("SET schema_notifications.log = off; ALTER SEQUENCE schema_notifications.losses RESTART")
    assert len(warnings_of(database, "CREATE TABLE t ()", "DROP TABLE t")) == 2
    assert database.value("SELECT last_value FROM schema_notifications.losses") == 2


def test_a_user_with_no_rights_runs_ddl(database: Database) -> None:
    assert warnings_of(database, "CREATE TEMP TABLE t (id int)", "DROP TABLE t", user="alice") == []
    database.execute("GRANT CREATE ON SCHEMA public TO alice; REVOKE ALL ON SCHEMA schema_notifications FROM PUBLIC")
    notices = database.notices_of("CREATE TABLE t (id int)", "ALTER TABLE t DROP COLUMN id", "DROP TABLE t", user="alice")
    assert [notice["user"] for notice in notices] == ["alice"] * 3
    assert database.status()["losses"] == 0


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
    assert database.status()["losses"] == 0


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


@pytest.mark.parametrize("cluster", [18], indirect=True, ids=["postgres18"])  # the queue holds 8 GB before 17
def test_a_full_queue_stops_no_ddl(database: Database) -> None:
    with database.connect() as listener, database.connect() as session:
        listener.execute("LISTEN schema_changed")
        listener.execute("BEGIN; SELECT 1")  # holds the queue
        while session.execute("SELECT pg_notification_queue_usage() < 0.91").fetchone() == (True,):
            session.execute("SELECT pg_notify('schema_changed', repeat('x', 7000) || n) FROM generate_series(1, 3) AS n")
        cursor = database.changes_since(None)[2]
        warnings = warnings_of(database, *[f"CREATE TABLE t{n} ()" for n in range(20)])
        assert len(warnings) == 20
        assert "it was not announced: the notification queue is full" in warnings[0]
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
    """The handler swallows no cancel: DDL that waits for a lock within the feed ends when the user wants it to."""
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
    assert database.status()["losses"] == 0


def test_ddl_in_two_sessions_never_waits_for_the_feed(database: Database) -> None:
    with database.connect() as one, database.connect() as two:
        one.execute("BEGIN; CREATE TABLE one (x int); ALTER TABLE one DROP COLUMN x")
        two.execute("SET lock_timeout = '100ms'; CREATE TABLE two (x int); ALTER TABLE two DROP COLUMN x; DROP TABLE two")
        one.execute("COMMIT")
    assert database.status()["losses"] == 0


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
    assert database.status()["losses"] == 0
