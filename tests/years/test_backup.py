"""Backups: made, restored on trial, told, kept no longer than asked; and brought back when they are needed."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.docker import docker
from tests.years.conftest import DATA, ON_HOST, Database
from tests.years.test_upgrade import EVERY_KIND, facts


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
    before = facts(backed_up)
    cursor = backed_up.psql("SELECT cursor FROM schema_notifications.changes_since()")
    backed_up.start_backups(16)
    status = backed_up.backup("status")
    (made,) = backed_up.kept()
    assert f"backup: {made}, at 20" in status
    assert f"verified: {made}, at 20" in status
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
    assert len(backed_up.kept()) - 1 == 2


@pytest.mark.parametrize("statement", ["CREATE ROLE x; ALTER DATABASE postgres ALLOW_CONNECTIONS false"])
def test_what_goes_wrong_is_told_until_it_went_well(backed_up: BackedUp, statement: str) -> None:
    backed_up.start_backups(16)
    backed_up.psql(*statement.split("; "))
    assert "no backup was made: " in backed_up.backup("now", check=False)
    status = docker("exec", f"{backed_up.name}-backup", "schema-notifications-backup", "status", check=False)
    assert "backup: FAILED at 20" in status
    assert "the database postgres allows no connections" in status
    assert len(backed_up.kept()) == 1
    assert not [one for one in backed_up.folder.iterdir() if one.suffix == ".partial"]

    backed_up.psql("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
    backed_up.backup("now")
    assert "FAILED" not in backed_up.backup("status")
    # A backup that has rotted is found by the trial.
    newest = backed_up.folder / backed_up.kept()[-1]
    contents = newest / "proof" / "app.contents"
    contents.write_text(contents.read_text() + "rows\tpublic.lost\t1\t1\n")
    assert "the copy differs from the original in the contents of database app" in backed_up.backup("verify", check=False)
    assert "verified: FAILED" in docker("exec", f"{backed_up.name}-backup", "schema-notifications-backup", "status", check=False)


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
    assert f"{backed_up.name}-backup\n  backup: {backed_up.kept()[0]}, at" in told
    docker("stop", f"{backed_up.name}-backup")
    assert subprocess.run(["sh", ON_HOST / "backups.sh"], stdout=subprocess.PIPE, check=False).returncode == 1
