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
    _, _, cursor = database.changes_since(None)
    version, system, db, log, timeline, snapshot = cursor.split("-")
    xmax = int(snapshot.split(".")[1])
    cases = {
        "": "not a cursor",
        "banana": "not a cursor",
        cursor + " ": "not a cursor",
        cursor.replace("1-", "2-", 1): "not a cursor",
        "-".join([version, system, db, log, timeline, "9.1."]): "not a cursor",
        "-".join([version, system, db, log, timeline, "99999999999999999999999.999999999999999999999999."]): "from the future",
        "-".join([version, str(int(system) + 1), db, log, timeline, snapshot]): "another cluster",
        "-".join([version, system, "1", log, timeline, snapshot]): "another database",
        "-".join([version, system, db, "1", timeline, snapshot]): "another installation",
        "-".join([version, system, db, log, str(int(timeline) + 1), snapshot]): "another timeline",
        "-".join([version, system, db, log, timeline, f"{xmax + 9999}.{xmax + 9999}."]): "from the future",
    }
    database.execute("CREATE TABLE t ()")
    for cursor_, reason in cases.items():
        ((kind, fresh, told),) = database.execute("SELECT kind, cursor, tag FROM schema_notifications.changes_since(%s)", cursor_)
        assert kind == "reset"
        assert reason in told
        assert database.changes_since(fresh)[:2] == ([], "cursor")


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


def prune(database: Database, rows: int = 600) -> None:
    """Enough changes, in as many transactions, for retention to run."""
    with database.connect() as session:
        session.execute(f"DO $$BEGIN FOR i IN 1..{rows} LOOP COMMENT ON SCHEMA public IS 'x'; COMMIT; END LOOP; END$$")


def test_retention_by_rows(database: Database) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_rows = 100")
    _, _, old = database.changes_since(None)
    prune(database, 500)
    assert len(database.changes_since(old)[0]) == 500
    _, _, recent = database.changes_since(None)
    prune(database, 20)
    assert 100 <= database.status()["log_rows"] <= 120
    assert database.changes_since(old)[:2] == ([], "reset")
    assert len(database.changes_since(recent)[0]) == 20
    prune(database, 2000)
    assert 100 <= database.status()["log_rows"] <= 100 + 512
    assert database.status()["losses"] == 0


def test_retention_by_age(database: Database) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_age = '1 day'")
    prune(database, 300)
    database.execute("UPDATE schema_notifications.log SET changed_at = changed_at - interval '2 days' WHERE id <= 200")
    prune(database, 250)
    assert database.value("SELECT min(id) FROM schema_notifications.log") == 201


def test_a_session_cannot_prune(database: Database) -> None:
    prune(database, 500)
    with database.connect() as session:
        session.execute("SET schema_notifications.retention_rows = 1; SET schema_notifications.retention_age = '0'")
        session.execute("DO $$BEGIN FOR i IN 1..30 LOOP COMMENT ON SCHEMA public IS 'x'; COMMIT; END LOOP; END$$")
    assert database.status()["log_rows"] == 530


def test_a_wrong_retention_setting_is_a_warning(database: Database) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_age = 'banana'")
    warnings: list[str] = []
    with database.connect() as session:
        session.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
        session.execute("DO $$BEGIN FOR i IN 1..520 LOOP COMMENT ON SCHEMA public IS 'x'; COMMIT; END LOOP; END$$")
    (warning,) = warnings
    assert "was not pruned" in warning
    assert "banana" in warning
    assert database.status()["log_rows"] == 520


def test_pruning_waits_for_nobody_and_keeps_what_runs(database: Database) -> None:
    """A pruner in an open transaction blocks no other; what a running transaction precedes stays."""
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_rows = 10")
    with database.connect() as pruner, database.connect() as other:
        prune(database, 511)
        pruner.execute("BEGIN; CREATE TABLE row512 ()")  # prunes, and holds what it deleted
        other.execute("SET lock_timeout = '500ms'")
        other.execute("DO $$BEGIN FOR i IN 1..1100 LOOP COMMENT ON SCHEMA public IS 'x'; COMMIT; END LOOP; END$$")
        pruner.execute("COMMIT")
    assert database.status()["losses"] == 0
    with database.connect() as running:
        running.execute("BEGIN; SELECT pg_current_xact_id()")
        prune(database, 1100)
        assert database.status()["log_rows"] >= 1100
        _, _, cursor = database.changes_since(None)
        prune(database, 600)
        assert database.changes_since(cursor)[1] == "cursor"
    prune(database, 1600)
    assert database.status()["log_rows"] <= 522


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


def test_a_standby_says_so_and_a_promoted_one_resets(cluster: Cluster) -> None:
    """After a failover the cursor is of another timeline, as what the lost primary told may not be there."""
    name = f"db{uuid.uuid4().hex[:12]}"
    cluster.execute(f"CREATE DATABASE {name}")
    database = Database(cluster, name)
    _, _, cursor = database.changes_since(None)
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
        assert other.changes_since(cursor)[:2] == ([], "reset")
        _, _, cursor = other.changes_since(None)
        other.execute("CREATE TABLE t ()")
        assert other.changes_since(cursor)[0] == ["CREATE TABLE"]
    cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


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
