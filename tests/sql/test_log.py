"""What a reader missed: exactly the committed changes that it has not seen, or "reset"; never a gap."""

import random
import subprocess
import threading
import time
import uuid

import psycopg
import pytest

from tests.sql.database import Database
from tests.support.postgres import Cluster


def test_from_now_on(database: Database) -> None:
    database.execute("CREATE TABLE before ()")
    assert database.changes_since(None)[:2] == ([], "cursor")


def test_a_row_tells_all(database: Database) -> None:
    _, _, cursor = database.changes_since(None)
    (notice,) = database.notices_of("CREATE TABLE t (id int)")
    change, end = database.execute(
        "SELECT kind, cursor, id, txid::text, changed_at, user_name, tag, objects FROM schema_notifications.changes_since(%s)",
        cursor,
    )
    assert change[:4] == ("change", None, notice["id"], notice["txid"])
    assert change[4].strftime("%H:%M:%S.%f")[:-3] in notice["timestamp"]
    assert change[5:] == (notice["user"], notice["tag"], notice["objects"])
    assert end[0] == "cursor"
    assert end[2:] == (None,) * 6


def test_each_change_once(database: Database) -> None:
    _, _, cursor = database.changes_since(None)
    for tag in ("CREATE TABLE", "ALTER TABLE", "DROP TABLE"):
        database.execute(
            {"CREATE TABLE": "CREATE TABLE t ()", "ALTER TABLE": "ALTER TABLE t ADD x int", "DROP TABLE": "DROP TABLE t"}[tag]
        )
        changes, kind, cursor = database.changes_since(cursor)
        assert (changes, kind) == ([tag], "cursor")
        assert database.changes_since(cursor)[0] == []


def test_an_old_cursor_may_be_used_again(database: Database) -> None:
    _, _, cursor = database.changes_since(None)
    database.execute("CREATE TABLE t ()")
    assert database.changes_since(cursor)[0] == database.changes_since(cursor)[0] == ["CREATE TABLE"]


def test_the_cursor_is_one_url_safe_word(database: Database) -> None:
    with database.connect() as one, database.connect() as two:
        one.execute("BEGIN; CREATE TABLE one ()")
        two.execute("BEGIN; CREATE TABLE two ()")
        database.execute("CREATE TABLE t ()")
        cursor = database.changes_since(None)[2]
    assert set(cursor) <= set("0123456789-._")
    assert cursor.count("_") == 1


def test_commits_out_of_order_are_not_skipped(database: Database) -> None:
    """The trap of max(id): the earlier id commits after the later one was read."""
    _, _, cursor = database.changes_since(None)
    with database.connect() as slow:
        slow.execute("BEGIN; CREATE TABLE early ()")
        database.execute("CREATE VIEW late AS SELECT 1 AS id")
        changes, _, cursor = database.changes_since(cursor)
        assert changes == ["CREATE VIEW"]
        slow.execute("COMMIT")
    assert database.changes_since(cursor)[0] == ["CREATE TABLE"]


def test_no_stall_behind_a_foreign_long_transaction(database: Database) -> None:
    with psycopg.connect(database.cluster.url("postgres")) as foreign:
        foreign.execute("SELECT pg_current_xact_id()")
        _, kind, cursor = database.changes_since(None)
        for number in range(5):
            database.execute(f"CREATE TABLE t{number} ()")
            changes, kind, cursor = database.changes_since(cursor)
            assert (changes, kind) == (["CREATE TABLE"], "cursor")


def test_savepoints_and_rollbacks(database: Database) -> None:
    _, _, cursor = database.changes_since(None)
    with database.connect() as session:
        session.execute(
            "BEGIN; CREATE TABLE a (); SAVEPOINT s; CREATE VIEW v AS SELECT 1 AS x; ROLLBACK TO s; CREATE SEQUENCE q; COMMIT"
        )
        session.execute("BEGIN; CREATE TYPE gone AS (x int); ROLLBACK")
    assert database.changes_since(cursor)[0] == ["CREATE TABLE", "CREATE SEQUENCE"]


def test_a_reader_within_a_transaction_of_its_own(database: Database) -> None:
    """Its own changes are not over: they come when it has committed, all of them."""
    query = "SELECT kind, cursor, tag FROM schema_notifications.changes_since(%s)"
    _, _, first = database.changes_since(None)
    with database.connect() as reader:
        reader.execute("BEGIN; CREATE TABLE own ()")
        database.execute("CREATE VIEW other AS SELECT 1 AS x")
        *changes, (kind, cursor, _) = reader.execute(query, (first,)).fetchall()
        assert ([tag for _, _, tag in changes], kind) == (["CREATE VIEW"], "cursor")
        reader.execute("CREATE SEQUENCE own_too; COMMIT")
    assert database.changes_since(cursor)[0] == ["CREATE TABLE", "CREATE SEQUENCE"]
    with database.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        *_, (_, cursor, _) = reader.execute(query, (cursor,)).fetchall()
        database.execute("DROP TABLE own")
        *changes, (_, cursor, _) = reader.execute(query, (cursor,)).fetchall()
        assert changes == []
        reader.execute("COMMIT")
    assert database.changes_since(cursor)[0] == ["DROP TABLE"]


@pytest.mark.parametrize("max_rows", [1, 2, 3, 7])
def test_batches_skip_and_repeat_nothing(database: Database, max_rows: int) -> None:
    _, _, cursor = database.changes_since(None)
    with database.connect() as running, database.connect() as second:
        running.execute("BEGIN; CREATE TABLE running1 (); CREATE TABLE running2 ()")
        for number in range(4):
            database.execute(f"CREATE TABLE t{number} ()")
        second.execute("BEGIN; CREATE TABLE second ()")
        database.execute("CREATE TABLE u ()")
        seen: list[str] = []

        def read() -> None:
            nonlocal cursor
            while True:
                rows = database.execute(
                    "SELECT cursor, objects->0->>'identity' FROM schema_notifications.changes_since(%s, %s)", cursor, max_rows
                )
                cursor = rows[-1][0]
                seen.extend(identity.removeprefix("public.") for _, identity in rows[:-1])
                assert len(rows) - 1 <= max_rows + 1  # a transaction is not split
                if len(rows) == 1:
                    return

        read()
        assert sorted(seen) == ["t0", "t1", "t2", "t3", "u"]
        running.execute("COMMIT")
        read()
        second.execute("COMMIT")
        read()
    assert sorted(seen) == ["running1", "running2", "second", "t0", "t1", "t2", "t3", "u"]


def test_reset_instead_of_a_gap(database: Database) -> None:
    database.execute("CREATE TABLE before ()")
    _, _, cursor = database.changes_since(None)
    parts = cursor.split("-")
    xmax = int(parts[8].split(".")[1])

    def altered(part: int, text: str) -> str:
        return "-".join([*parts[:part], text, *parts[part + 1 :]])

    cases = {
        "": "not a cursor",
        "banana": "not a cursor",
        cursor + " ": "not a cursor",
        altered(0, "1"): "not a cursor",
        altered(0, "3"): "not a cursor",
        "-".join(["1", *parts[1:4], "1", parts[8]]): "not a cursor",
        altered(8, "9.1."): "not a cursor",
        altered(8, "99999999999999999999999.999999999999999999999999999."): "from the future",
        altered(1, str(int(parts[1]) + 1)): "another cluster",
        altered(2, "1"): "another database",
        altered(3, "1"): "another installation",
        altered(4, "2.0"): "another timeline",
        altered(4, "1.17"): "another timeline",
        altered(4, f"{9**99}.{9**99}"): "another timeline",
        altered(6, "1"): "no longer has what the cursor has seen",
        altered(7, parts[7].split(".")[0] + ".1"): "no longer has what the cursor has seen",
        altered(8, f"{xmax - 1}.{xmax - 1}."): "no longer has what the cursor has seen",
        altered(8, f"{xmax + 9999}.{xmax + 9999}."): "from the future",
    }
    database.execute("CREATE TABLE t ()")
    for cursor_, reason in cases.items():
        ((kind, fresh, told),) = database.execute("SELECT kind, cursor, tag FROM schema_notifications.changes_since(%s)", cursor_)
        assert kind == "reset", cursor_
        assert reason in told, cursor_
        assert database.changes_since(fresh)[:2] == ([], "cursor")
    assert database.changes_since(cursor)[:2] == (["CREATE TABLE"], "cursor")


def test_reset_after_a_new_installation(database: Database) -> None:
    _, _, cursor = database.changes_since(None)
    database.execute("DROP EXTENSION schema_notifications; CREATE TABLE missed (); CREATE EXTENSION schema_notifications")
    assert database.changes_since(cursor)[:2] == ([], "reset")


def test_reset_in_a_copy_of_the_database(database: Database) -> None:
    """CREATE DATABASE copies the log too; its rows are of the original, and are never a change of the copy."""
    _, _, cursor = database.changes_since(None)
    database.execute("CREATE TABLE t ()")
    name = f"{database.name}_copy"
    Database(database.cluster, "postgres").execute(f"CREATE DATABASE {name} TEMPLATE {database.name}")
    copy = Database(database.cluster, name)
    assert copy.changes_since(cursor)[:2] == ([], "reset")
    _, _, cursor = copy.changes_since(None)
    copy.execute("DROP TABLE t")
    assert copy.changes_since(cursor)[0] == ["DROP TABLE"]
    database.execute(f"DROP DATABASE {name} WITH (FORCE)")


def change(database: Database, times: int) -> None:
    """So many changes, in as many transactions."""
    with database.connect() as session:
        session.execute(f"DO $$BEGIN FOR i IN 1..{times} LOOP COMMENT ON SCHEMA public IS 'x'; COMMIT; END LOOP; END$$")


def prune(database: Database) -> int:
    return int(database.value("SELECT schema_notifications.prune_now()"))


def test_retention_by_rows(database: Database) -> None:
    _, _, old = database.changes_since(None)
    change(database, 500)
    _, _, middle = database.changes_since(None)
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_rows = 100")
    assert database.changes_since(old)[0] == ["COMMENT"] * 500
    _, _, recent = database.changes_since(None)
    assert prune(database) == 400
    change(database, 20)
    prune(database)  # unless one of these did
    assert database.status()["log_rows"] == 100
    assert prune(database) == 0
    assert database.status()["log_rows"] == 100
    assert database.changes_since(old)[:2] == ([], "reset")
    assert len(database.changes_since(middle)[0]) == 20
    assert len(database.changes_since(recent)[0]) == 20


def test_the_log_stays_short_by_itself(database: Database) -> None:
    """About one command in 256 prunes, so that without a gap of 4,000 (one in six million) the log stays below 4,100 rows."""
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_rows = 100")
    change(database, 6000)
    assert 100 <= database.status()["log_rows"] <= 4100
    assert database.status()["healthy"]


def test_it_catches_up_with_a_retention_that_was_lowered(database: Database) -> None:
    database.execute(
        "INSERT INTO schema_notifications.log (id, txid, user_name, tag, objects)"
        " SELECT n, '3', 'alice', 'COMMENT', '[]' FROM generate_series(1, 3) AS n"
    )
    change(database, 20000)
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_rows = 100")
    change(database, 3200)
    assert database.status()["log_rows"] <= 3000


def test_retention_by_age(database: Database) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_age = '1 day'")
    change(database, 300)
    database.execute(
        "UPDATE schema_notifications.log AS l SET changed_at = l.changed_at - interval '2 days'"
        " WHERE (txid, id) IN (SELECT txid, id FROM schema_notifications.log ORDER BY txid LIMIT 200)"
    )
    assert prune(database) == 200
    assert database.status()["log_rows"] == 100


def test_a_quiet_database_keeps_its_readers(database: Database) -> None:
    """Who has seen the newest change is told nothing new, also when retention has taken that change away."""
    change(database, 50)
    _, _, early = database.changes_since(None)
    change(database, 50)
    _, _, cursor = database.changes_since(None)
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_age = '0'")
    assert prune(database) == 100
    assert database.changes_since(early)[:2] == ([], "reset")
    assert database.changes_since(cursor)[:2] == ([], "cursor")
    _, _, fresh = database.changes_since(None)
    database.execute("CREATE TABLE t ()")
    for one in (cursor, fresh):
        assert database.changes_since(one)[:2] == (["CREATE TABLE"], "cursor")


def test_a_session_cannot_prune(database: Database) -> None:
    change(database, 500)
    with database.connect() as session:
        session.execute("SET schema_notifications.retention_rows = 1; SET schema_notifications.retention_age = '0'")
        session.execute("DO $$BEGIN FOR i IN 1..2000 LOOP COMMENT ON SCHEMA public IS 'x'; COMMIT; END LOOP; END$$")
        session.execute("SELECT schema_notifications.prune_now()")
    assert database.status()["log_rows"] == 2500


@pytest.mark.parametrize(("setting", "value"), [("age", "banana"), ("age", "30 days or so"), ("rows", "many"), ("rows", "-1")])
def test_a_wrong_retention_setting_is_a_warning(database: Database, setting: str, value: str) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_{setting} = '{value}'")
    warnings: list[str] = []
    with database.connect() as session:
        session.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
        session.execute("CREATE TABLE t (); SELECT schema_notifications.prune_now()")
    (warning,) = warnings
    assert "was not pruned" in warning
    assert value in warning
    assert database.status()["log_rows"] == 1


@pytest.mark.parametrize(
    "age", ["30 days", "1 day", "90 minutes", "2 weeks 3 days", "1 year", "12:00", "720:00:00", "0", "1 mon", "45 min"]
)
def test_a_retention_age(database: Database, age: str) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_age = '{age}'; CREATE TABLE t ()")
    assert prune(database) == (1 if age == "0" else 0)


def test_pruning_waits_for_nobody_and_keeps_what_runs(database: Database) -> None:
    """A pruner in an open transaction blocks no other; what a running transaction precedes stays."""
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_rows = 10")
    with database.connect() as pruner, database.connect() as other:
        change(database, 100)
        pruner.execute("BEGIN; SELECT schema_notifications.prune_now()")  # holds what it deleted
        other.execute("SET lock_timeout = '500ms'")
        other.execute("DO $$BEGIN FOR i IN 1..1100 LOOP COMMENT ON SCHEMA public IS 'x'; COMMIT; END LOOP; END$$")
        assert other.execute("SELECT schema_notifications.prune_now()").fetchone() == (0,)
        pruner.execute("COMMIT")
    with database.connect() as running:
        running.execute("BEGIN; SELECT pg_current_xact_id()")
        change(database, 1100)
        prune(database)
        assert database.status()["log_rows"] >= 1100
        _, _, cursor = database.changes_since(None)
        change(database, 600)
        prune(database)
        assert database.changes_since(cursor)[1] == "cursor"
    prune(database)
    assert database.status()["log_rows"] == 10


def test_truncate_is_a_reset_and_no_gap(database: Database) -> None:
    database.execute("CREATE TABLE a ()")
    _, _, cursor = database.changes_since(None)
    database.execute("CREATE TABLE b (); TRUNCATE schema_notifications.log")
    assert database.changes_since(cursor)[:2] == ([], "reset")
    _, _, cursor = database.changes_since(None)
    database.execute("CREATE TABLE c ()")
    assert database.changes_since(cursor)[:2] == (["CREATE TABLE"], "cursor")
    assert database.status()["healthy"]


def test_exactly_once_under_concurrency(database: Database) -> None:
    """Ten writers with savepoints, rollbacks and sleeps, and three readers, one of them in batches: each reader sees every
    committed change exactly once and none else."""
    seed = random.randrange(2**32)
    committed: list[str] = []
    failures: list[BaseException] = []
    writing = threading.Event()
    writing.set()

    def write(number: int) -> None:
        dice = random.Random(f"{seed} {number}")
        try:
            with database.connect() as session:
                for turn in range(12):
                    made: list[str] = []
                    session.execute("BEGIN")
                    for part in range(dice.randrange(1, 4)):
                        name = f"w{number}_{turn}_{part}"
                        session.execute(f"SAVEPOINT s; CREATE SEQUENCE {name}")
                        if dice.random() < 0.3:
                            session.execute("ROLLBACK TO s")
                        else:
                            made.append(f"public.{name}")
                        time.sleep(dice.random() * 0.01)
                    if dice.random() < 0.25:
                        session.execute("ROLLBACK")
                    else:
                        session.execute("COMMIT")
                        committed.extend(made)
        except BaseException as error:
            failures.append(error)

    def read(seen: list[str], cursor: str | None, max_rows: int | None) -> None:
        try:
            with database.connect() as session:
                while True:
                    last = not writing.is_set()
                    query = "SELECT kind, cursor, objects->0->>'identity' FROM schema_notifications.changes_since(%s, %s)"
                    *changes, (kind, cursor, _) = session.execute(query, (cursor, max_rows)).fetchall()
                    assert kind == "cursor"
                    seen.extend(identity for _, _, identity in changes)
                    if last and not changes:
                        return
                    time.sleep(0.002)
        except BaseException as error:
            failures.append(error)

    _, _, start = database.changes_since(None)
    readers: list[tuple[list[str], int | None]] = [([], None), ([], None), ([], 3)]
    with psycopg.connect(database.cluster.url("postgres")) as foreign:
        foreign.execute("SELECT pg_current_xact_id()")
        reading = [threading.Thread(target=read, args=(seen, start, max_rows)) for seen, max_rows in readers]
        writers = [threading.Thread(target=write, args=(number,)) for number in range(10)]
        for thread in reading + writers:
            thread.start()
        for thread in writers:
            thread.join()
        writing.clear()
        for thread in reading:
            thread.join()
    assert failures == [], f"seed {seed}"
    assert len(committed) > 50
    for seen, _ in readers:
        assert sorted(seen) == sorted(committed), f"seed {seed}"


def version_of(cluster: Cluster) -> int:
    ((version,),) = cluster.execute("SHOW server_version_num")
    return int(str(version)) // 10000


def test_a_failover_is_no_reset(cluster: Cluster) -> None:
    """A standby has the same log and the same ids: a cursor from before it left the old timeline is exact on it."""
    name = f"db{uuid.uuid4().hex[:12]}"
    cluster.execute(f"CREATE DATABASE {name}")
    database = Database(cluster, name)
    _, _, cursor = database.changes_since(None)
    database.execute("CREATE VIEW missed AS SELECT 1 AS id")
    standby = Cluster(version_of(cluster), cluster.settings)
    subprocess.run(
        [standby.bin / "pg_basebackup", "-d", cluster.url(), "-D", standby.data, "-R", "-c", "fast"],
        check=True, capture_output=True, user=standby.user, cwd="/",
    )  # fmt: skip
    with standby:
        other = Database(standby, name)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="works on the primary only"):
            other.changes_since(cursor)
        other.execute("SELECT pg_promote()")
        # What the old primary is told from now on is not on the new one.
        database.execute("CREATE SEQUENCE lost")
        _, _, late = database.changes_since(cursor)
        other.execute("CREATE TABLE t ()")
        assert other.changes_since(cursor)[:2] == (["CREATE VIEW", "CREATE TABLE"], "cursor")
        assert other.changes_since(late)[:2] == ([], "reset")
        _, _, cursor = other.changes_since(cursor)
        other.execute("DROP TABLE t")
        assert other.changes_since(cursor)[0] == ["DROP TABLE"]
        assert database.changes_since(cursor)[:2] == ([], "reset")
    cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("rolled_back", [5, 40])
def test_ids_that_come_back_after_a_crash(cluster: Cluster, rolled_back: int) -> None:
    """Those of transactions that were rolled back and never flushed are given out again."""
    with Cluster(version_of(cluster), {"fsync": "on"}) as own:
        database = Database(own, "postgres")
        database.execute("CREATE EXTENSION schema_notifications; CREATE TABLE t (x int)")
        cursors = []
        for _ in range(2):
            database.execute("CREATE TABLE IF NOT EXISTS early ()")
            with database.connect() as session:
                for _ in range(rolled_back):
                    session.execute("BEGIN; INSERT INTO t VALUES (1); ROLLBACK")
                cursors.append(database.changes_since(None)[2])
        own.kill()
        own.start()
        assert database.changes_since(cursors[1])[:2] == ([], "cursor")
        with database.connect() as session:
            for number in range(60):
                session.execute(f"CREATE TABLE t{number} ()")
        assert database.changes_since(cursors[1])[:2] == (["CREATE TABLE"] * 60, "cursor")


# Nothing but a full buffer, or a COMMIT that waits, writes the log to disk.
UNFLUSHED = {
    "fsync": "on",
    "synchronous_commit": "off",
    "wal_writer_delay": "10s",
    "wal_writer_flush_after": "1GB",
    "autovacuum": "off",
}


def test_what_was_told_and_then_lost_in_a_crash_is_a_reset(cluster: Cluster) -> None:
    with Cluster(version_of(cluster), UNFLUSHED) as own:
        database = Database(own, "postgres")
        for command in ("CREATE EXTENSION schema_notifications", "CREATE TABLE t (x int)", "CHECKPOINT"):
            database.execute(command)
        _, _, before = database.changes_since(None)
        with database.connect() as session:
            session.execute("CREATE TABLE lost ()")
            changes, _, cursor = database.changes_since(before)
            assert changes == ["CREATE TABLE"]
            own.kill()
        own.start()
        assert database.value("SELECT to_regclass('lost')") is None
        for number in range(20):
            database.execute(f"CREATE TABLE t{number} ()")
        assert database.changes_since(cursor)[:2] == ([], "reset")
        assert len(database.changes_since(before)[0]) == 20


def test_a_crash_forgets_no_committed_change(cluster: Cluster) -> None:
    with Cluster(version_of(cluster), {"fsync": "on"}) as own:
        database = Database(own, "postgres")
        database.execute("CREATE EXTENSION schema_notifications")
        _, _, cursor = database.changes_since(None)
        database.execute("CREATE TABLE t ()")
        own.kill()
        own.start()
        changes, kind, cursor = database.changes_since(cursor)
        assert (changes, kind) == (["CREATE TABLE"], "cursor")
        database.execute("DROP TABLE t")
        assert database.changes_since(cursor)[0] == ["DROP TABLE"]


def test_a_long_log(database: Database) -> None:
    """Asking for what is new costs no more when the log is long."""
    database.execute(
        "INSERT INTO schema_notifications.log (id, txid, user_name, tag, objects)"
        " SELECT n, (n / 1000 + 3)::text::xid8, 'alice', 'COMMENT', '[]' FROM generate_series(1, 200000) AS n"
    )
    database.execute("ANALYZE schema_notifications.log")
    _, _, cursor = database.changes_since(None)
    database.execute("CREATE TABLE t ()")
    with database.connect() as session:
        session.execute("SELECT * FROM schema_notifications.changes_since(%s)", (cursor,))
        # The second time, since the first one in a session reads the catalogs too. The log has some 2,000 blocks.
        (((explained,),),) = session.execute(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM schema_notifications.changes_since(%s)", (cursor,)
        )
        assert explained["Plan"]["Actual Rows"] == 2
        assert explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"] < 50, explained
