"""What was changed by hand, or cut off in the middle, and is as it was after the next deploy."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.docker import docker
from tests.support.sshd import start_sshd, stop_sshd
from tests.support.stack import Stack


def test_what_was_changed_by_hand_comes_back_as_configured(stack: Stack) -> None:
    stack.config["verifyEachUp"] = True
    stack.up()
    psql = ("exec", "-u", "postgres", f"{stack.name}-app", "psql", "-XAtqd", "app", "-c")
    docker(*psql, "ALTER ROLE postgres PASSWORD 'another'")
    docker(*psql, "DROP EXTENSION schema_notifications")
    docker("stop", f"{stack.name}-app")
    stack.up()
    assert stack.sql("SELECT healthy FROM schema_notifications.status()") == [(True,)]

    trigger = "ALTER EVENT TRIGGER schema_notifications_ddl_command_end"
    docker(*psql, f"{trigger} DISABLE")
    said = stack.up(fails=True)
    assert "schema_notifications_ddl_command_end" in said and "disabled" in said
    docker(*psql, f"{trigger} ENABLE ALWAYS")

    docker("rm", "-f", f"{stack.name}-app")
    stack.up("--refresh")
    assert stack.sql("SELECT healthy FROM schema_notifications.status()") == [(True,)]

    del stack.config["verifyEachUp"]
    stack.up()
    stack.up_changes_nothing()


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A folder for PATH on the host, in which `docker` ends the SSH connection that it came by, once, when converge is to run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "docker"
    script.write_text(
        f"""#!/bin/sh
case $*,$(ls {folder}) in
*schema-notifications-converge,*once*) ;;
*schema-notifications-converge,*) touch {folder}/once; pid=$$
    while [ "$(cat /proc/$pid/comm)" != sshd ]; do pid=$(awk '{{ print $4 }}' /proc/$pid/stat); done
    kill -9 "$pid"; exit ;;
esac
exec {shutil.which("docker")} "$@"
"""
    )
    script.chmod(0o755)
    return folder


def test_the_connection_is_lost_at_converge(stack: Stack, cut: Path, tmp_path: Path) -> None:
    server = start_sshd(tmp_path / "sshd", SetEnv=f"PATH={cut}:{os.environ['PATH']}")
    try:
        stack.config |= server.config
        said = stack.up(fails=True)
        assert (cut / "once").exists()
        assert "The host could not be reached, or the connection was lost: deploy again, and it goes on from here." in said
        assert "Traceback" not in said
        stack.up()
        assert stack.sql("SELECT 1") == [(1,)]
        stack.up_changes_nothing()
    finally:
        stop_sshd(server)


def test_the_container_is_killed_in_its_first_start(stack: Stack) -> None:
    name = f"{stack.name}-app"
    kill = f"until docker logs {name} 2>&1 | grep -q post-bootstrap; do sleep 0.05; done; docker kill {name}"
    with subprocess.Popen(["sh", "-c", kill], stdout=subprocess.DEVNULL, start_new_session=True) as killer:
        try:
            said = stack.up(fails=True)
        finally:
            if killer.poll() is None:
                os.killpg(killer.pid, signal.SIGKILL)
    assert "The database did not come up. The last lines of its log:" in said
    stack.up()
    assert "is made anew" in docker("logs", name)
    assert stack.sql("SELECT healthy FROM schema_notifications.status()") == [(True,)]
    stack.up_changes_nothing()
