"""One server per data directory, whoever starts the containers."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.containers import Server, build
from tests.support.docker import BASE_IMAGE, docker

pytestmark = pytest.mark.needs("docker")

REFUSAL = "PostgreSQL is not started: the server of another container runs on the same data"


def ready(server: Server) -> Server:
    server.converge()
    return server


def refused(image: str, *options: str, words: tuple[str, ...] = ()) -> str:
    """Runs a second container to its end, which it must reach by itself, and returns what it said."""
    name = f"notifying-postgres-test-{uuid.uuid4().hex[:8]}"
    try:
        docker("run", "--detach", "--name", name, "--env", "POSTGRES_PASSWORD=x", *options, image, *words)
        assert docker("wait", name).strip() == "1"
        return docker("logs", name, check=False)
    finally:
        docker("rm", "--force", "--volumes", name)


def data_mount(image: str, volume: str) -> tuple[str, str]:
    return "--volume", f"{volume}:/var/lib/postgresql{'' if image.endswith('18') else '/data'}"


def test_a_second_server_is_refused_and_told_why(volume: str, start: Callable[..., Server], image: str) -> None:
    first = start(image, *data_mount(image, volume))
    said = refused(image, *data_mount(image, volume))  # during the first one's initdb
    ready(first).psql("CREATE TABLE kept AS SELECT 42 AS answer")
    said_later = refused(image, *data_mount(image, volume), words=("-c", "work_mem=5MB"))
    assert REFUSAL in said and REFUSAL in said_later
    assert f"docker ps --filter volume={volume}" in said, "the volume is named, and how its container is found"
    assert first.psql("SELECT answer FROM kept") == "42"
    assert "another server might be running" not in first.logs()


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_lock_ends_with_the_server(volume: str, start: Callable[..., Server], image16: str, end: str) -> None:
    first = ready(start(image16, *data_mount(image16, volume)))
    first.psql("CREATE TABLE kept AS SELECT 42 AS answer")
    docker(end, first.name)
    second = ready(start(image16, *data_mount(image16, volume)))
    assert second.psql("SELECT answer FROM kept") == "42"
    docker("start", first.name)
    assert docker("wait", first.name).strip() == "1", "now it is the first that may not run"
    assert REFUSAL in first.logs()


def test_it_restarts_with_its_container(volume: str, start: Callable[..., Server], image16: str) -> None:
    server = ready(start(image16, *data_mount(image16, volume)))
    docker("restart", server.name)
    assert ready(server).psql("SELECT 1") == "1"


def test_a_data_directory_that_does_not_exist_yet(volume: str, start: Callable[..., Server], image16: str) -> None:
    """A folder below the mount, as PGDATA is recommended to be where the mount has a lost+found."""
    options = ("--env", "PGDATA=/var/lib/postgresql/data/sub/pgdata", *data_mount(image16, volume))
    first = start(image16, *options)
    assert REFUSAL in refused(image16, *options)
    assert ready(first).psql("SELECT 1") == "1"


def test_other_programs_need_no_lock(volume: str, start: Callable[..., Server], image16: str) -> None:
    ready(start(image16, *data_mount(image16, volume)))
    run = ("run", "--rm", *data_mount(image16, volume), image16)
    assert "PostgreSQL" in docker(*run, "postgres", "--version")
    assert "PG_VERSION" in docker(*run, "ls", "/var/lib/postgresql/data")


def test_where_nothing_can_be_locked_it_says_so(start: Callable[..., Server], image16: str, tmp_path: Path) -> None:
    """A file system without locks, for which stands a flock that answers as the real one does there."""
    flock = tmp_path / "flock"
    flock.write_text("#!/bin/sh\necho 'flock: 9: No locks available' >&2\nexit 71\n")
    flock.chmod(0o755)
    real = docker("run", "--rm", image16, "sh", "-c", "command -v flock").strip()
    server = ready(start(image16, "--volume", f"{flock}:{real}:ro"))
    said = "cannot be locked (flock: 9: No locks available): nothing but you keeps a second server from these data"
    assert said in server.logs()


def test_a_user_who_is_not_root(volume: str, start: Callable[..., Server], image16: str) -> None:
    ready(start(image16, *data_mount(image16, volume)))
    assert REFUSAL in refused(image16, "--user", "70", *data_mount(image16, volume))


def test_nothing_is_built_on_a_base_image_without_flock(tmp_path: Path) -> None:
    tag = f"notifying-postgres-test-{uuid.uuid4().hex[:8]}"
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN rm $(command -v flock)\n")
    try:
        docker("build", "--quiet", "--tag", f"{tag}:base", str(tmp_path))
        result = build("--image", f"{tag}:1", "--base-image", f"{tag}:base")
        assert result.returncode == 1
        assert "the base image has no flock, which keeps two servers off the same data" in result.stderr
    finally:
        docker("rmi", "--force", f"{tag}:base", check=False)
