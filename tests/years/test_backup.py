"""Backups: made, restored on trial, told, kept no longer than asked; and brought back when they are needed."""

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.docker import docker
from tests.years.conftest import DATA, ON_HOST, Database
from tests.years.test_upgrade import EVERY_KIND, MORE_KINDS, facts


class BackedUp(Database):
    """A database, and beside it the container that makes its backups, with schedules that are not due while a test runs."""

    def __init__(self, image: Callable[[int], str], folder: Path) -> None:
        super().__init__(image)
        self.folder = folder / self.name
        self.mount = f"{self.folder}:/backups"

    def start_backups(self, major: int, *options: str) -> None:
        environment = {
            "BACKUP_FOLDER": "/backups",
            "BACKUP_SCHEDULE": "0 0 1 1 *",
            "BACKUP_VERIFY": "0 0 1 1 *",
            "BACKUP_KEEP": "2",
            "PGHOST": "/var/run/postgresql",
            "PGUSER": "postgres",
        }
        words = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
        volumes = ["--volume", f"{self.name}-socket:/var/run/postgresql", "--volume", self.mount]
        label = f"notifying-postgres.backup={self.name}"
        command = (self.image(major), "schema-notifications-backup", "schedule")
        docker(
            "run",
            "--detach",
            "--init",
            "--name",
            f"{self.name}-backup",
            "--network",
            "none",
            "--label",
            label,
            *volumes,
            *words,
            *options,
            *command,
        )
        deadline = time.monotonic() + 100
        while "was restored" not in docker("logs", f"{self.name}-backup"):  # the first is made, and tried, at once
            assert time.monotonic() < deadline, docker("logs", f"{self.name}-backup")
            time.sleep(0.2)

    def backup(self, verb: str, check: bool = True) -> str:
        return docker("exec", f"{self.name}-backup", "schema-notifications-backup", verb, check=check, errors=True)

    def kept(self) -> list[str]:
        return sorted(one.name for one in self.folder.iterdir() if re.fullmatch(r"\d{8}T\d{6}Z", one.name))


@pytest.fixture
def backed_up(image: Callable[[int], str], tmp_path: Path) -> Iterator[BackedUp]:
    made = BackedUp(image, tmp_path)
    made.start(16, None, "--volume", f"{made.name}-socket:/var/run/postgresql")
    yield made
    made.remove()


def test_a_backup_is_restored_on_trial_and_brings_everything_back(backed_up: BackedUp, image: Callable[[int], str]) -> None:
    backed_up.run_file(EVERY_KIND)
    backed_up.run_file(MORE_KINDS)
    before = facts(backed_up)
    cursor = backed_up.psql("SELECT cursor FROM schema_notifications.changes_since()")
    backed_up.start_backups(16)
    status = backed_up.backup("status")
    (made,) = backed_up.kept()
    assert status == f"newest {made} of 1\nverified {made}"
    assert "postgres" not in docker("inspect", "--format", "{{.Config.Env}}", f"{backed_up.name}-backup").replace(
        "/postgresql", ""
    ).replace("PGUSER=postgres", "")

    # The disk dies: container and volume are gone. A new database begins with the newest backup.
    docker("rm", "--force", backed_up.name)
    docker("volume", "rm", backed_up.volume)
    docker("volume", "create", backed_up.volume)
    done = backed_up.deploy(16, str(backed_up.folder))
    assert (done.returncode, done.stdout) == (0, f"{backed_up.volume}\n"), done.stderr
    backed_up.start(16)
    assert sorted(facts(backed_up)) == sorted(before)
    assert backed_up.psql(f"SELECT kind FROM schema_notifications.changes_since('{cursor}')") == "reset"
    # From now on restoreFrom means nothing: what is there stays.
    backed_up.psql("CREATE TABLE since ()")
    assert backed_up.deploy(16, str(backed_up.folder)).returncode == 0
    backed_up.psql("TABLE since")


def test_a_table_that_was_dropped_comes_back_from_a_restore_beside(backed_up: BackedUp) -> None:
    backed_up.psql("CREATE TABLE orders AS SELECT g FROM generate_series(1, 100) AS g")
    backed_up.start_backups(16)
    backed_up.psql("DROP TABLE orders", "CREATE TABLE kept ()")
    (made,) = backed_up.kept()
    beside = f"{backed_up.name}-beside"
    # As docs/operations.md has it.
    mounts = ["--volume", f"{beside}:{DATA}", "--volume", f"{backed_up.folder}:/backups:ro"]
    image = backed_up.image(16)
    docker("run", "--rm", "--network", "none", *mounts, image, "schema-notifications-cluster", "restore", f"/backups/{made}", DATA)
    docker("run", "--detach", "--name", beside, "--network", "none", "--env", f"PGDATA={DATA}", *mounts, image)
    docker("exec", "-i", beside, "schema-notifications-converge")
    table = docker("exec", beside, "pg_dump", "--username", "postgres", "--table", "orders", "app")
    docker("exec", "-i", backed_up.name, "psql", "-X", "-v", "ON_ERROR_STOP=1", "--username", "postgres", "app", stdin=table)
    assert backed_up.psql("SELECT count(*) FROM orders") == "100"
    backed_up.psql("TABLE kept")


def test_only_what_backups_made_is_removed_and_the_newest_stays(backed_up: BackedUp) -> None:
    backed_up.start_backups(16)
    others = ["notes.txt", "20200101T000000Z", "20200101T000000Z.tar", "app-20200101"]
    for other in others:  # without what a backup has in it
        (backed_up.folder / other).mkdir()
    for _ in range(3):
        time.sleep(1.1)  # a backup's name has seconds
        backed_up.backup("now")
    assert all((backed_up.folder / other).exists() for other in others)
    assert len(backed_up.kept()) - 1 == 2 + 1, "the two newest, and the one that was restored on trial"
    backed_up.backup("verify")
    backed_up.backup("now")
    assert len(backed_up.kept()) - 1 == 2


@pytest.mark.parametrize("statement", ["CREATE ROLE x; ALTER DATABASE postgres ALLOW_CONNECTIONS false"])
def test_what_goes_wrong_is_told_until_it_went_well(backed_up: BackedUp, statement: str) -> None:
    backed_up.start_backups(16)
    backed_up.psql(*statement.split("; "))
    assert "no backup was made: " in backed_up.backup("now", check=False)
    status = docker("exec", f"{backed_up.name}-backup", "schema-notifications-backup", "status", check=False)
    assert "the last backup FAILED at 20" in status
    assert "the database postgres allows no connections" in status
    assert len(backed_up.kept()) == 1
    assert not [one for one in backed_up.folder.iterdir() if one.suffix == ".partial"]

    backed_up.psql("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
    backed_up.backup("now")
    assert "FAILED" not in backed_up.backup("status")


def test_a_backup_that_is_not_whole_is_found_by_the_trial_and_a_good_one_is_kept(backed_up: BackedUp) -> None:
    backed_up.psql("CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 1000) AS g", "CREATE DATABASE other")
    backed_up.start_backups(16)
    (good,) = backed_up.kept()
    time.sleep(1.1)  # a backup's name has seconds
    backed_up.backup("now")
    made = backed_up.folder / backed_up.kept()[-1]
    (data,) = (file for file in (made / "app").glob("*.gz") if file.stat().st_size > 10_000)

    def flipped(at: int) -> Callable[[bytes], bytes]:
        return lambda content: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    damages: list[tuple[Path, Callable[[bytes], bytes] | None]] = [
        (data, lambda content: content[: len(content) // 2]),
        (data, lambda _: b""),
        (data, None),
        (data, flipped(5000)),
        (made / "app" / "toc.dat", flipped(300)),
        (made / "globals.sql", lambda content: content.replace(b"SCRAM-SHA-256$4096:", b"SCRAM-SHA-256$4096:x")),
        (made / "config" / "file-pg_hba.conf", lambda content: content + b"host all all 0.0.0.0/0 trust\n"),
        (made / "proof" / "app.contents", lambda content: content + b"rows\tpublic.lost\t1\t1\n"),
        (made / "sums", None),
    ]
    for file, damage in damages:
        content = file.read_bytes()
        owner = file.stat()
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage(content))
        said = backed_up.backup("verify", check=False)
        assert f"{made.name} is not as it was written: " in said, (file, said)
        assert file.name in said
        file.write_bytes(content)
        os.chown(file, owner.st_uid, owner.st_gid)
    assert "the last trial FAILED at 20" in backed_up.backup("status", check=False)

    # What was well written, and is not what the database had: here what another database had.
    shutil.rmtree(made / "app")
    shutil.copytree(made / "other", made / "app")
    words = [
        "sh",
        "-c",
        f"cd /backups/{made.name} && rm sums && find . -type f | xargs sha256sum >/tmp/sums && mv /tmp/sums . && chown -R postgres .",
    ]
    docker("exec", f"{backed_up.name}-backup", *words)
    assert "cannot be loaded" in backed_up.backup("verify", check=False)
    # However many newer ones there are: the one that is known to be good stays.
    for _ in range(3):
        backed_up.backup("now")
    assert good in backed_up.kept()
    assert len(backed_up.kept()) == 3


def test_a_trial_that_is_killed_is_no_success(backed_up: BackedUp) -> None:
    backed_up.start_backups(16)
    script = "mkdir /tmp/killed && echo 'kill -9 $$' >/tmp/killed/schema-notifications-cluster && chmod -R a+rx /tmp/killed"
    docker("exec", f"{backed_up.name}-backup", "sh", "-c", script)
    run = ["sh", "-c", 'PATH=/tmp/killed:$PATH exec schema-notifications-backup "$0"']
    for verb, says in {"verify": "cannot be restored: (exit status 137)", "now": "no backup was made: (exit status 137)"}.items():
        assert says in docker("exec", f"{backed_up.name}-backup", *run, verb, check=False, errors=True)
    assert len(backed_up.kept()) == 1


def test_what_is_overdue_is_told_and_made_up_for(backed_up: BackedUp) -> None:
    backed_up.start_backups(16)
    (made,) = backed_up.kept()
    container = f"{backed_up.name}-backup"
    docker(
        "exec", container, "sh", "-c", f"cd /backups && mv {made} 20260101T030000Z && sed -i s/{made}/20260101T030000Z/ .verified"
    )
    status = backed_up.backup("status", check=False)
    assert "overdue: no backup was made since 20260101T030000Z" in status
    assert "overdue: no backup that was made after 20260101T030000Z was restored on trial" in status
    assert status.splitlines()[-1] == "unproven"
    docker("restart", container)  # as when the host was off at the time
    while len(backed_up.kept()) == 1 or "overdue" in backed_up.backup("status", check=False):
        time.sleep(0.2)
    assert backed_up.backup("status") == f"newest {backed_up.kept()[-1]} of 2\nverified {backed_up.kept()[-1]}"
    docker("restart", container)  # and not at each restart
    time.sleep(2)
    assert len(backed_up.kept()) == 2


def test_a_clock_that_was_wrong_does_not_make_new_backups_the_oldest(backed_up: BackedUp) -> None:
    backed_up.start_backups(16)
    docker("exec", f"{backed_up.name}-backup", "sh", "-c", f"cd /backups && cp -rp {backed_up.kept()[0]} 20990101T000000Z")
    assert "there is a backup of 20990101T000000Z: set the clock, or remove that one" in backed_up.backup("now", check=False)
    assert "20990101T000000Z: set the clock" in backed_up.backup("status", check=False)


def test_backups_at_once_and_beside_schema_changes(backed_up: BackedUp) -> None:
    backed_up.psql("CREATE TABLE kept AS SELECT 42 AS answer", "CREATE TABLE kept_empty ()")
    backed_up.start_backups(16)
    stop = threading.Event()

    def change() -> None:
        n = 0
        with backed_up.connect() as connection:
            while not stop.is_set():
                n += 1
                connection.execute(f"CREATE TABLE t{n} (id serial PRIMARY KEY); CREATE VIEW v{n} AS TABLE t{n}")
                connection.execute(f"CREATE FUNCTION f{n}(t{n}) RETURNS int LANGUAGE sql AS 'SELECT 1'")
                connection.execute(f"ALTER TABLE t{n} ADD more text; TRUNCATE kept_empty; DROP TABLE t{n} CASCADE")
                time.sleep(0.2)

    changes = threading.Thread(target=change)
    changes.start()
    try:
        command = ["docker", "exec", f"{backed_up.name}-backup", "schema-notifications-backup", "now"]
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
        said = [run.communicate(timeout=200)[0] for run in runs]
        assert [run.returncode for run in runs] == [0, 0], said
    finally:
        stop.set()
        changes.join()
    assert len(backed_up.kept()) == 3
    assert "was restored" in backed_up.backup("verify")


def test_a_full_disk_fails_the_backup_and_spares_the_rest(backed_up: BackedUp) -> None:
    """The disk of the backups has 64 MB, 40 of which are spared for others; the dump of what does not compress would fill it."""
    backed_up.start_backups(16, "--tmpfs", "/backups/small:size=64m", "--env", "BACKUP_SPARE=0")
    backed_up.psql("CREATE TABLE big AS SELECT encode(sha512(g::text::bytea), 'base64') FROM generate_series(1, 1000000) AS g")
    words = ["--env", "BACKUP_FOLDER=/backups/small", "--env", "BACKUP_SPARE=40"]
    docker("exec", f"{backed_up.name}-backup", "chown", "postgres", "/backups/small")
    said = docker("exec", *words, f"{backed_up.name}-backup", "schema-notifications-backup", "now", check=False, errors=True)
    assert re.search(r"the disk has \d+ MiB left, and 40 are spared for others", said), said
    left = docker("exec", f"{backed_up.name}-backup", "df", "-Pm", "/backups/small").split()[-3]
    assert int(left) >= 60
    assert backed_up.psql("SELECT count(*) FROM big") == "1000000"


def test_one_command_tells_of_all_databases(backed_up: BackedUp) -> None:
    backed_up.start_backups(16)
    told = subprocess.run(["sh", ON_HOST / "backups.sh"], stdout=subprocess.PIPE, text=True, check=False).stdout
    assert f"{backed_up.name}-backup\n  newest {backed_up.kept()[0]} of 1" in told
    docker("stop", f"{backed_up.name}-backup")
    words = ["preview", "here", "stack", "-", "image:16", backed_up.name, backed_up.volume]
    looked = subprocess.run(["sh", ON_HOST / "look.sh", *words], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert f"wrong {backed_up.name}-backup, which makes the backups, is exited: docker start {backed_up.name}-backup" in looked
    assert subprocess.run(["sh", ON_HOST / "backups.sh"], stdout=subprocess.PIPE, check=False).returncode == 1
