"""A real Docker engine: the image as its script builds it, for both base images, and containers that end with their test."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.image.containers import BASE_IMAGE_18, CONTEXT, Server, build
from tests.support.docker import BASE_IMAGE, docker


@pytest.fixture(scope="session", params=[BASE_IMAGE, BASE_IMAGE_18])
def image(request: pytest.FixtureRequest) -> Iterator[str]:
    """The tag of the image, built by its script from each base image."""
    tag = f"notifying-postgres-test-{uuid.uuid4().hex[:8]}:{'18' if request.param == BASE_IMAGE_18 else '16'}"
    result = build("--image", tag, "--base-image", request.param)
    assert result.returncode == 0, result.stderr
    yield tag
    docker("rmi", "--force", tag)


@pytest.fixture(scope="session")
def image16() -> Iterator[str]:
    """The same for the first base image alone, where a second would prove no more."""
    tag = f"notifying-postgres-test-{uuid.uuid4().hex[:8]}:16"
    result = build("--image", tag, "--base-image", BASE_IMAGE)
    assert result.returncode == 0, result.stderr
    yield tag
    docker("rmi", "--force", tag)


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts containers; they and their volumes are removed after the test."""
    started: list[str] = []

    def start(image: str, *options: str, password: str = "first") -> Server:
        name = f"notifying-postgres-test-{uuid.uuid4().hex[:8]}"
        docker("run", "--detach", "--name", name, "--env", f"POSTGRES_PASSWORD={password}", *options, image)
        started.append(name)
        return Server(name)

    yield start
    for name in started:
        docker("rm", "--force", "--volumes", name)


@pytest.fixture
def volume() -> Iterator[str]:
    name = f"notifying-postgres-test-{uuid.uuid4().hex[:8]}"
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "--force", name)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A copy of the build context that a test may change; as scp may leave it, nobody else may read it."""
    copy = tmp_path / "image"
    shutil.copytree(CONTEXT, copy)
    for file in copy.iterdir():
        file.chmod(0o600)
    copy.chmod(0o700)
    return copy
