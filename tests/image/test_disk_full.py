"""A volume without room: PostgreSQL says so, and goes on once there is room."""

import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.image.containers import Server
from tests.support.docker import BASE_IMAGE, docker

pytestmark = pytest.mark.needs("docker")

FULL = "No space left on device"


@pytest.fixture
def small() -> Iterator[str]:
    """A volume of 120 MB, and a container of the same name that keeps it mounted and can fill it."""
    name = f"notifying-postgres-test-{uuid.uuid4().hex[:8]}"
    docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=120m", name)
    docker("run", "-d", "--name", name, "--volume", f"{name}:/volume", "--entrypoint", "sleep", BASE_IMAGE, "600")
    yield name
    docker("rm", "-f", name)
    docker("volume", "rm", name)


def fill(small: str, leave: int = 0) -> None:
    docker("exec", small, "sh", "-c", "head -c 200m /dev/zero >/volume/ballast", check=False)
    docker("exec", small, "sh", "-c", f"head -c $((120 - {leave}))m /dev/zero >/volume/ballast", check=False)


def wait_for(server: Server, line: str) -> None:
    deadline = time.monotonic() + 60
    while line not in server.logs():
        assert time.monotonic() < deadline, server.logs()
        time.sleep(0.2)


def test_a_full_disk_says_so_and_goes_on_when_there_is_room(small: str, start: Callable[..., Server], image16: str) -> None:
    fill(small, leave=20)
    mount = ("--env", "PGDATA=/var/lib/postgresql/data/pgdata", "--volume", f"{small}:/var/lib/postgresql/data")
    server = start(image16, *mount, "--restart", "unless-stopped")
    wait_for(server, FULL)
    docker("exec", small, "rm", "/volume/ballast")
    docker("start", server.name)  # as a deploy does
    server.converge()
    server.psql("CREATE TABLE kept AS SELECT 42 AS answer", "CHECKPOINT")

    fill(small)
    flood = "CREATE TABLE flood AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)"
    assert FULL in docker("exec", server.name, "psql", "-XU", "postgres", "-c", flood, check=False, errors=True) + server.logs()
    docker("exec", small, "rm", "/volume/ballast")
    docker("start", server.name)
    server.converge()
    assert server.psql("SELECT answer FROM kept") == "42"
    assert "CREATE TABLE" in server.psql("LISTEN schema_changed", "CREATE TABLE more ()")
