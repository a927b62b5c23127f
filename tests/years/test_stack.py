"""The life of a stack over the years, with the Pulumi CLI: the next major version, and back."""

import contextlib
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import psycopg
import pytest

from tests.support import REPOSITORY
from tests.support.docker import docker
from tests.support.sshd import Sshd, start_sshd, stop_sshd
from tests.support.stack import Stack
from tests.years.conftest import base_image

pytestmark = pytest.mark.needs("docker", "pulumi", "sshd")


def test_a_major_version_is_refused_then_asked_for_then_taken_back(stack: Stack, sshd: Sshd) -> None:
    stack.config |= sshd.config | {"baseImage": base_image(16)}
    stack.up()
    stack.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    ((cursor,),) = stack.sql("SELECT cursor FROM schema_notifications.changes_since()")
    before = stack.container()

    stack.config["baseImage"] = base_image(17)
    said = stack.up(fails=True)
    assert "were written by PostgreSQL 16; this image has PostgreSQL 17" in said
    assert stack.container()["Id"] == before["Id"]
    assert stack.container()["State"]["StartedAt"] == before["State"]["StartedAt"]
    assert stack.sql("SELECT answer FROM kept") == [(42,)]

    stack.config["databases"]["app"] = {"upgrade": True}
    stack.up()
    assert stack.sql("SELECT answer, current_setting('server_version_num')::int / 10000 FROM kept") == [(42, 17)]
    assert stack.sql(f"SELECT kind FROM schema_notifications.changes_since('{cursor}')") == [("reset",)]
    app = stack.outputs()["databases"]["app"]
    assert app["volume_name"] == f"{stack.name}-app-data-17"
    assert app["check"].startswith("PostgreSQL 17")
    assert docker("volume", "ls", "-q", "--filter", f"name={stack.name}-app-data").split() == [
        f"{stack.name}-app-data",
        f"{stack.name}-app-data-17",
    ]
    stack.up_changes_nothing()

    stack.config["baseImage"] = base_image(16)
    said = stack.up()
    assert f"What was written since the upgrade is on the volume {stack.name}-app-data-17" in said
    assert stack.sql("SELECT answer, current_setting('server_version_num')::int / 10000 FROM kept") == [(42, 16)]


def test_a_cli_that_is_killed_during_the_copy(stack: Stack, sshd: Sshd) -> None:
    stack.config |= sshd.config | {"baseImage": base_image(16), "databases": {"app": {"upgrade": True, "retainData": False}}}
    stack.up()
    stack.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    stack.config["baseImage"] = base_image(17)
    stack.preview()  # which writes the configuration
    words = [
        "pulumi",
        "up",
        "--yes",
        "--skip-preview",
        "--stack",
        stack.name,
        "--non-interactive",
        "--config-file",
        str(stack.config_file),
    ]
    with subprocess.Popen(words, cwd=stack.program, env=stack.env, stdout=subprocess.DEVNULL, start_new_session=True) as cli:
        while not docker("ps", "-q", "--filter", f"name={stack.name}-app-upgrade-from"):
            assert cli.poll() is None
            time.sleep(0.05)
        cli.send_signal(signal.SIGKILL)
    stack.run("cancel", "--yes")

    stack.up()
    assert stack.sql("SELECT answer, current_setting('server_version_num')::int / 10000 FROM kept") == [(42, 17)]
    stack.up_changes_nothing()
    stack.destroy()
    assert docker("volume", "ls", "-q", "--filter", f"name={stack.name}") == ""


def test_a_stack_has_backups_and_tells_how_they_are(stack: Stack, tmp_path: Path) -> None:
    password = 'it\'s : \\ "x"'
    stack.config["databases"]["app"] = {
        "password": password,
        "backup": {"folder": str(tmp_path / "backups"), "schedule": "* * * * *", "verify": "* * * * *", "keep": 3},
    }
    stack.up()
    container = f"{stack.name}-app-backup"
    assert password not in docker("inspect", container)
    docker("exec", container, "schema-notifications-backup", "now")
    docker("exec", container, "sh", "-c", "rm -f /backups/.verified")
    while not re.search(r"verified \d", docker("exec", container, "schema-notifications-backup", "status", check=False)):
        time.sleep(0.5)  # by the schedule, at the next full minute

    # How they are is in the outputs; what is wrong is told by each preview and deploy, and not being able to restore fails it.
    stack.up_changes_nothing()
    state = stack.outputs()["backups"]["app"]
    assert re.fullmatch(r"\d{8}T\d{6}Z", state["newest"])
    assert re.fullmatch(r"\d{8}T\d{6}Z", state["verified"])
    assert "problem" not in state
    stack.sql("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
    docker("exec", container, "schema-notifications-backup", "now", check=False)
    warning = r"The backups of the database app need you: the last backup FAILED at .*the database postgres allows no connections"
    assert re.search(warning, stack.up("--expect-no-changes"))
    assert "the last backup FAILED" in stack.outputs()["backups"]["app"]["problem"]
    old = "cd /backups && mkdir .old && mv 2* .old && cp -rp $(ls -d .old/* | tail -n 1) 20260101T000000Z && sed -i '1s/.*/20260101T000000Z/' .verified"
    docker("exec", container, "sh", "-c", old)
    stack.config["databases"]["app"]["memory"] = "512m"
    assert "No backup of the database app" not in stack.preview()
    said = stack.up(fails=True)
    assert "No backup of the database app could be restored for three times as long as its schedule allows" in said
    assert "overdue: no backup that was made after 20260101T000000Z was restored on trial" in said
    assert stack.container()["HostConfig"]["Memory"] == 512 * 1024**2, "all else is done"

    del stack.config["databases"]["app"]["backup"]
    stack.up()
    assert docker("ps", "-aq", "--filter", f"name=^{container}$") == ""
    assert list((tmp_path / "backups" / f"{stack.name}-app").glob("*Z")) != []


def test_a_database_moves_to_another_host_as_documented(stack: Stack, sshd: Sshd, tmp_path: Path) -> None:
    """The commands of docs/operations.md, over two sshds that have one engine behind them; a client writes until it cannot."""
    old_folder, new_folder = tmp_path / "old", tmp_path / "new"
    stack.config |= sshd.config
    stack.config["databases"]["app"] = {"password": "kept: secret", "backup": {"folder": str(old_folder)}}
    stack.up()
    stack.sql("CREATE TABLE written (n bigint)")
    ((cursor,),) = stack.sql("SELECT cursor FROM schema_notifications.changes_since()")
    committed: list[int] = []

    def write() -> None:
        with stack.connect() as connection, contextlib.suppress(psycopg.Error):
            while True:
                connection.execute("INSERT INTO written VALUES (%s)", [len(committed)])
                committed.append(len(committed))

    threading.Thread(target=write, daemon=True).start()  # whose connection nobody answers in the end
    while len(committed) < 10:
        time.sleep(0.05)
    new = start_sshd(tmp_path / "other")
    text = (REPOSITORY / "docs/operations.md").read_text().partition("### You move to another host")[2]
    commands = [line.strip() for line in text.partition("### ")[0].splitlines() if line.strip().startswith("ssh ")]
    assert len(commands) == 5
    script = "\n".join(commands).replace("production-orders", f"{stack.name}-app")

    def to_a_host(part: str) -> str:
        server, folder = (sshd, old_folder) if part.startswith("ssh root@203.0.113.10") else (new, new_folder)
        options = f"-i {server.private_key_file} -p {server.port} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        return re.sub(r"ssh root@[\d.]+", f"ssh {options} -o LogLevel=ERROR root@127.0.0.1", part).replace(
            "/var/backups/postgres", str(folder)
        )

    script = "".join(to_a_host(part) for part in re.split("(?=ssh root@)", script) if part)
    moved = Stack(tmp_path / "moved")
    try:
        subprocess.run(["bash", "-euc", "set -o pipefail\n" + script], check=True, timeout=200)
        moved.init()
        moved.config |= new.config
        moved.config["databases"]["app"] = {"password": "kept: secret", "restoreFrom": str(new_folder / f"{stack.name}-app")}
        moved.up()
        there = {n for (n,) in moved.sql("SELECT n FROM written")}
        assert len(committed) > 10
        assert set(committed) - there == set(), "what was told to be committed has come along"
        assert moved.sql(f"SELECT kind FROM schema_notifications.changes_since('{cursor}')") == [("reset",)]
        moved.up_changes_nothing()
    finally:
        moved.remove()
        stop_sshd(new)
