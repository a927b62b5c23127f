"""The life of a stack over the years, with the Pulumi CLI: the next major version, and back."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.docker import docker
from tests.support.sshd import Sshd
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


def test_a_stack_has_backups_and_another_host_begins_with_one(stack: Stack, tmp_path: Path) -> None:
    password = 'it\'s : \\ "x"'
    stack.config["databases"]["app"] = {
        "password": password,
        "backup": {"folder": str(tmp_path / "backups"), "schedule": "* * * * *", "verify": "* * * * *", "keep": 3},
    }
    stack.up()
    stack.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    stack.up_changes_nothing()
    container = f"{stack.name}-app-backup"
    assert password not in docker("inspect", container)
    docker("exec", container, "schema-notifications-backup", "now")
    while not re.search(r"verified: \d", docker("exec", container, "schema-notifications-backup", "status", check=False)):
        time.sleep(0.5)  # by the schedule, at the next full minute

    # Moving: as on another host, whose databases have other names, from the folder that was copied there.
    stack.config["databases"]["moved"] = {"databaseName": "app", "restoreFrom": str(tmp_path / "backups" / f"{stack.name}-app")}
    stack.up()
    assert stack.sql("SELECT answer FROM kept", "moved") == [(42,)]
    stack.up_changes_nothing()
    del stack.config["databases"]["app"]["backup"]
    stack.up()
    assert docker("ps", "-aq", "--filter", f"name=^{container}$") == ""
    assert list((tmp_path / "backups" / f"{stack.name}-app").glob("*Z")) != []
