"""What a cursor is worth after a crash, after a copy was put back, after a failover: all that came since, once, or a reset."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import Cluster

# What is not flushed by a COMMIT stays unflushed: a crash takes the most that it can.
DURABLE = {"fsync": "on", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB", "autovacuum": "off"}


class Reader:
    """Follows the feed by its cursor alone, and keeps the name of every table whose creation it was told, and the resets."""

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.created: list[str] = []
        self.resets: list[str] = []

    def read(self, cluster: Cluster, max_rows: int | None = None) -> Reader:
        rows = cluster.execute(f"""SELECT kind, "cursor", tag, objects #>> '{{0,identity}}'
            FROM schema_notifications.changes_since({"NULL" if self.cursor is None else f"'{self.cursor}'"}, {max_rows or "NULL"})""")
        for kind, cursor, tag, identity in rows:
            if kind == "change" and tag == "CREATE TABLE":
                self.created.append(str(identity))
            if kind == "reset":
                self.resets.append(str(tag))
            self.cursor = str(cursor) if cursor else self.cursor
        return self

    def twin(self) -> Reader:
        """Another reader that stands where this one stands."""
        twin = Reader()
        twin.cursor = self.cursor
        return twin


@contextlib.contextmanager
def feed(settings: dict[str, str] | None = None, version: int = 16) -> Iterator[Cluster]:
    with Cluster(version, DURABLE | (settings or {})) as cluster:
        cluster.execute("CREATE EXTENSION schema_notifications")
        cluster.execute("CREATE TABLE public.seed ()")
        yield cluster


def create(cluster: Cluster, *names: str) -> list[str]:
    for name in names:
        cluster.execute(f"CREATE TABLE public.{name} ()")
    return [f"public.{name}" for name in names]


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def roll_back(cluster: Cluster, count: int) -> None:
    """Transactions that take an id and leave nothing."""
    with psycopg.connect(cluster.url()) as connection:
        for _ in range(count):
            connection.execute("INSERT INTO public.seed DEFAULT VALUES")
            connection.rollback()


class Writers:
    """Sessions that create tables, some of which they take back, until told to stop; `committed` are those that must be told,
    `unknown` those whose COMMIT had no answer."""

    def __init__(self, cluster: Cluster, count: int, prefix: str) -> None:
        self.committed: list[str] = []
        self.unknown: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(cluster.url(), f"{prefix}_{n}", n)) for n in range(count)]

    def _write(self, url: str, prefix: str, seed: int) -> None:
        chance = random.Random(seed)
        number = 0
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url) as connection:
            while not self._stop.is_set():
                number += 1
                name = f"{prefix}_{number}"
                connection.execute(f"CREATE TABLE public.{name} ()")
                if chance.random() < 0.4:
                    connection.rollback()
                    continue
                self.unknown.append(f"public.{name}")
                connection.commit()
                self.unknown.remove(f"public.{name}")
                self.committed.append(f"public.{name}")

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def exists(cluster: Cluster, table: str) -> bool:
    return cluster.execute(f"SELECT to_regclass('{table}') IS NOT NULL") == [(True,)]


# ---- Crashes ----


@pytest.mark.parametrize(("rolled_back", "changes"), [(40, 60), (110, 110), (10, 42)])
def test_ids_of_transactions_that_were_rolled_back_come_again(rolled_back: int, changes: int) -> None:
    with feed() as cluster:
        roll_back(cluster, rolled_back)
        reader = Reader().read(cluster)
        cluster.kill()
        cluster.start()
        early = reader.twin().read(cluster)
        assert (early.created, early.resets) == ([], []), "nothing has happened since"
        made = create(cluster, *names("t", changes))
        assert reader.read(cluster).resets == []
        assert reader.created == made


def test_a_cursor_of_a_feed_that_is_empty() -> None:
    with Cluster(16, DURABLE) as cluster:
        cluster.execute("CREATE TABLE public.seed ()")
        cluster.execute("CREATE EXTENSION schema_notifications")
        cluster.execute("DELETE FROM schema_notifications.log")
        reader = Reader().read(cluster)
        roll_back(cluster, 30)
        again = Reader().read(cluster)
        cluster.kill()
        cluster.start()
        made = create(cluster, *names("t", 40))
        assert reader.read(cluster).created == made
        assert again.read(cluster).created == made
        assert reader.resets == again.resets == []


def test_twenty_crashes_under_writers() -> None:
    """Eight writers, rollbacks among them, and a server that is killed: every committed change is told once, with no reset."""
    chance = random.Random(0)
    with feed() as cluster:
        reader = Reader().read(cluster)
        committed: list[str] = []
        unknown: list[str] = []
        for crash in range(20):
            with Writers(cluster, 8, f"c{crash}") as writers:
                for _ in range(chance.randint(1, 6)):
                    time.sleep(chance.uniform(0.0, 0.05))
                    reader.read(cluster, chance.choice([None, 1, 3, 20]))
                cluster.kill()
            committed += writers.committed
            unknown += writers.unknown
            cluster.start()
            reader.read(cluster, chance.choice([None, 2]))
        while len(reader.created) < len(reader.read(cluster, 1000).created):
            pass
        expected = sorted(committed + [table for table in unknown if exists(cluster, table)])
        assert reader.resets == []
        assert sorted(reader.created) == expected
        assert len(expected) > 100


# ---- Copies of the data, put back ----


def put_back(cluster: Cluster, copy: Path) -> None:
    shutil.rmtree(cluster.data)
    shutil.copytree(copy, cluster.data)
    subprocess.run(["chown", "-R", cluster.user or str(os.getuid()), cluster.data], check=True)
    cluster.start()


def cold(cluster: Cluster, copy: Path) -> None:
    cluster.stop()
    shutil.copytree(cluster.data, copy)
    cluster.start()


def base_backup(cluster: Cluster, copy: Path) -> None:
    take_base_backup(cluster, copy, "--checkpoint=fast")


def crash_consistent(cluster: Cluster, copy: Path) -> None:
    cluster.kill()
    shutil.copytree(cluster.data, copy)
    cluster.start()


def take_base_backup(cluster: Cluster, folder: Path, *options: str) -> None:
    subprocess.run(
        [cluster.bin / "pg_basebackup", "-d", cluster.url(), "-D", folder, *options],
        check=True,
        capture_output=True,
        user=cluster.user,
        cwd="/",
    )


@pytest.mark.parametrize(("take", "since"), [(cold, 1), (cold, 30), (base_backup, 30), (crash_consistent, 1)])
def test_a_copy_that_is_put_back(take: Callable[[Cluster, Path], None], since: int) -> None:
    """A reader that has seen less than the copy has gets the rest; one that has seen more gets a reset, however many ids the server has
    used meanwhile; and none is ever told something else."""
    with feed() as cluster:
        before = Reader().read(cluster)
        covered = create(cluster, "covered")
        at_copy = Reader().read(cluster)
        copy = cluster.folder / "copy"
        take(cluster, copy)
        create(cluster, *names("undone", since))
        ahead = Reader().read(cluster)
        cluster.kill()
        put_back(cluster, copy)
        assert ahead.twin().read(cluster).resets
        redone = create(cluster, *names("redone", 2 * since))
        assert ahead.read(cluster).resets
        assert before.read(cluster).created == covered + redone
        assert at_copy.read(cluster).created == redone
        assert before.resets == at_copy.resets == []


# ---- Failovers ----


@contextlib.contextmanager
def standby_of(primary: Cluster, **settings: str) -> Iterator[Cluster]:
    """A streaming standby that has caught up."""
    standby = Cluster(16, DURABLE | settings)
    take_base_backup(primary, standby.data, "--checkpoint=fast", "--write-recovery-conf")
    standby.data.chmod(0o700)
    with standby:
        yield standby


def caught_up(primary: Cluster, standby: Cluster) -> None:
    ((position,),) = primary.execute("SELECT pg_current_wal_flush_lsn()::text")
    deadline = time.monotonic() + 30
    while standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != [(True,)]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def promote(standby: Cluster) -> None:
    standby.execute("SELECT pg_promote()")


def test_a_failover_is_no_reset() -> None:
    with feed() as primary:
        long_ago = Reader().read(primary)
        with standby_of(primary) as standby:
            told = create(primary, *names("a", 5))
            reader = Reader().read(primary)
            late = create(primary, *names("b", 5))
            caught_up(primary, standby)
            primary.stop()
            promote(standby)
            assert reader.twin().read(standby).created == late
            new = create(standby, *names("c", 5))
            assert reader.read(standby).created == late + new
            assert long_ago.read(standby).created == told + late + new
            assert reader.resets == long_ago.resets == []
            newest = create(standby, "d")
            assert reader.read(standby).created[-1:] == newest, "and a cursor of the new primary goes on there"


def test_a_failover_under_writers() -> None:
    """Eight writers, the primary killed: what was committed on it and reached the standby (synchronously) is told once."""
    with feed() as primary, standby_of(primary) as standby:
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        time.sleep(0.3)
        reader = Reader().read(primary)
        with Writers(primary, 8, "w") as writers:
            for _ in range(10):
                time.sleep(0.05)
                reader.read(primary, 50)
            time.sleep(0.5)  # what the reader stands at has reached the standby; a cursor from the last moment would be a reset
            primary.kill()
        promote(standby)
        with Writers(standby, 8, "x") as more:
            time.sleep(0.3)
            reader.read(standby)
        reader.read(standby)
        expected = writers.committed + more.committed + [table for table in writers.unknown if exists(standby, table)]
        assert reader.resets == []
        assert sorted(reader.created) == sorted(expected)


def test_a_standby_that_lagged() -> None:
    """The reader has seen changes that the new primary never got: a reset. One that had not seen them goes on."""
    with feed() as primary, standby_of(primary) as standby:
        behind = Reader().read(primary)
        shared = create(primary, "shared")
        caught_up(primary, standby)
        at_switch = Reader().read(primary)
        standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
        standby.execute("SELECT pg_reload_conf()")
        time.sleep(0.3)
        create(primary, *names("lost", 3))
        ahead = Reader().read(primary)
        primary.kill()
        promote(standby)
        assert ahead.twin().read(standby).resets
        new = create(standby, *names("n", 40))
        assert ahead.read(standby).resets
        assert behind.read(standby).created == shared + new
        assert behind.resets == []
        at_switch.read(standby)
        assert at_switch.resets or at_switch.created == new


def test_two_failovers_in_a_row() -> None:
    with feed() as first, standby_of(first) as second:
        reader = Reader().read(first)
        told = create(first, "a")
        caught_up(first, second)
        first.kill()
        promote(second)
        told += create(second, "b")
        with standby_of(second) as third:
            told += create(second, "c")
            caught_up(second, third)
            second.kill()
            promote(third)
            told += create(third, "d")
            assert reader.read(third).created == told
            assert reader.resets == []


def test_two_standbys_promoted_to_the_same_timeline() -> None:
    """Their timelines have one number and are not one: a cursor of the one is a reset on the other, unless it lies before both."""
    with feed() as primary, standby_of(primary) as one, standby_of(primary) as other:
        early = Reader().read(primary)
        told = create(primary, "a")
        caught_up(primary, one)
        caught_up(primary, other)
        primary.stop()
        promote(one)
        promote(other)
        create(one, *names("one", 3))
        strange = Reader().read(one)
        mine = create(other, *names("other", 9))
        assert strange.read(other).resets
        assert early.read(other).created == told + mine
        assert early.resets == []


def test_recovery_to_a_point_in_time() -> None:
    with feed({"archive_mode": "on", "archive_command": "cp %p ../archive/%f"}) as primary:
        archive = primary.folder / "archive"
        archive.mkdir()
        archive.chmod(0o777)
        base = primary.folder / "base"
        take_base_backup(primary, base, "--checkpoint=fast")
        before = Reader().read(primary)
        kept = create(primary, "kept")
        ((target,),) = primary.execute("SELECT pg_create_restore_point('here')::text")
        assert target
        create(primary, "undone")
        after = Reader().read(primary)
        ((segment,),) = primary.execute("SELECT pg_walfile_name(pg_switch_wal())")
        deadline = time.monotonic() + 30
        while not (archive / str(segment)).exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        primary.stop()
        restored = Cluster(
            16,
            DURABLE
            | {"restore_command": f"cp {archive}/%f %p", "recovery_target_name": "here", "recovery_target_action": "promote"},
        )
        shutil.copytree(base, restored.data)
        (restored.data / "recovery.signal").touch()
        subprocess.run(["chown", "-R", restored.user or str(os.getuid()), restored.data], check=True)
        restored.data.chmod(0o700)
        with restored:
            while restored.execute("SELECT pg_is_in_recovery()") == [(True,)]:
                time.sleep(0.05)
            assert not exists(restored, "public.undone")
            new = create(restored, *names("n", 5))
            assert after.read(restored).resets
            assert before.read(restored).created == kept + new
            assert before.resets == []
