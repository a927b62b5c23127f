"""A first start that was cut off, by a kill or a failure, is made anew by the next one; what was ever complete is never touched."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.containers import CONFINED, VERSION, Server
from tests.image.test_lock import data_mount
from tests.support.docker import BASE_IMAGE, docker

pytestmark = pytest.mark.needs("docker")

MADE_ANEW = "was cut off before it was complete: it is made anew"
CLUSTER = (*CONFINED, "--env", "POSTGRES_DB=app", "--env", "POSTGRES_USER=boss")


def wait_for(server: Server, line: str) -> None:
    """Waits until the container's log has the line."""
    log = subprocess.Popen(["docker", "logs", "--follow", server.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert log.stdout is not None
    try:
        assert any(line in said for said in log.stdout), f"{line} was never said"
    finally:
        log.kill()
        log.wait()


def is_complete(server: Server) -> None:
    assert server.converge() == f"app: has {VERSION}\npostgres: has {VERSION}\ntemplate1: has {VERSION}\n"
    server.psql("CREATE TABLE kept AS SELECT 42 AS answer", database="app", user="boss")
    left = docker("exec", "--user", "postgres", server.name, "sh", "-c", 'ls "$PGDATA" && tr "\\0" "\\n" </proc/1/environ')
    assert "first-start" not in left.lower().replace("_", "-"), "nothing is left of how it was made"


@pytest.mark.parametrize(
    ("moment", "again"),
    [
        ("creating configuration files", "started"),
        ("Success. You can now start", "made"),
        ("database system is ready to accept connections", "started"),
        ("init-schema-notifications.sql", "made"),
    ],
    ids=["in initdb", "after initdb", "before CREATE DATABASE", "in an init script"],
)
def test_a_container_killed_in_its_first_start(
    moment: str, again: str, volume: str, start: Callable[..., Server], image16: str
) -> None:
    """Whether it is started again, or another is made on its volume."""
    options = (*CLUSTER, *data_mount(image16, volume))
    server = start(image16, *options)
    wait_for(server, moment)
    docker("kill", server.name)
    if again == "started":
        docker("start", server.name)
    else:
        server = start(image16, *options)
    is_complete(server)
    assert MADE_ANEW in server.logs()


def test_killed_over_and_over(volume: str, start: Callable[..., Server], image: str) -> None:
    server = start(image, *CLUSTER, *data_mount(image, volume))
    for tenths in range(1, 12, 2):
        time.sleep(tenths / 10)
        docker("kill", server.name)
        docker("start", server.name)
    is_complete(server)
    docker("kill", server.name)
    docker("start", server.name)
    server.converge()
    assert server.psql("SELECT answer FROM kept", database="app", user="boss") == "42"


def test_an_init_script_that_fails_or_is_cut(volume: str, start: Callable[..., Server], image16: str, tmp_path: Path) -> None:
    """The folder of init scripts may be the user's own, and what it makes is made once or not at all."""
    tmp_path.chmod(0o755)
    script = tmp_path / "10-once.sql"
    script.write_text("CREATE TABLE once (); SELECT 1 / (SELECT count(*) FROM pg_tables WHERE tablename = 'missing');")
    server = start(image16, *CLUSTER, *data_mount(image16, volume), "--volume", f"{tmp_path}:/docker-entrypoint-initdb.d:ro")
    assert docker("wait", server.name) != "0"
    assert "division by zero" in server.logs()

    script.write_text("CREATE TABLE once ();")
    docker("start", server.name)
    assert server.converge() == f"app: installed {VERSION}\npostgres: installed {VERSION}\ntemplate1: installed {VERSION}\n"
    assert server.psql("SELECT count(*) FROM once", database="app", user="boss") == "0"
    docker("restart", server.name)
    server.converge()
    assert server.psql("SELECT count(*) FROM once", database="app", user="boss") == "0"


def test_the_log_of_writes_elsewhere_and_a_user_who_is_not_root(
    volume: str, start: Callable[..., Server], image16: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    wal = ("--env", "POSTGRES_INITDB_WALDIR=/wal/wal", "--volume", f"{tmp_path}:/wal")
    server = start(image16, *CLUSTER, *wal, "--user", "70", *data_mount(image16, volume))
    wait_for(server, "database system is ready to accept connections")
    docker("kill", server.name)
    docker("start", server.name)
    is_complete(server)
    assert MADE_ANEW in server.logs()


def test_a_folder_that_is_not_empty_is_nobody_s_to_take(volume: str, start: Callable[..., Server], image16: str) -> None:
    docker("run", "--rm", "--volume", f"{volume}:/data", "--entrypoint", "sh", image16, "-c", "echo mine >/data/somebody-s")
    server = start(image16, *CLUSTER, *data_mount(image16, volume))
    assert docker("wait", server.name) != "0"
    assert "exists but is not empty" in server.logs()
    assert docker("run", "--rm", "--volume", f"{volume}:/data", "--entrypoint", "ls", image16, "-A", "/data") == "somebody-s"


def test_what_was_half_made_and_then_served_by_another_image_is_not_touched(
    volume: str, start: Callable[..., Server], image16: str
) -> None:
    """Whose entrypoint takes it for complete. The mark is still there."""
    options = (*CLUSTER, *data_mount(image16, volume))
    server = start(image16, *options)
    wait_for(server, "database system is ready to accept connections")
    docker("kill", server.name)
    served = start(BASE_IMAGE, *options)
    wait_for(served, "database system is ready to accept connections")
    served.psql("CREATE TABLE kept AS SELECT 42 AS answer", user="boss")
    assert "first-start" in docker("exec", served.name, "ls", "/var/lib/postgresql/data")
    docker("kill", served.name)
    docker("start", server.name)
    server.converge()
    assert server.psql("SELECT answer FROM kept", user="boss") == "42"
    assert MADE_ANEW not in server.logs()
