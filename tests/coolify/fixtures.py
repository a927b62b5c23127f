"""A Coolify that is not one, on the real engine: our image in a real registry on loopback, and `docker` to look behind it."""

import shlex
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from notifying_postgres.coolify.client import Coolify
from notifying_postgres.coolify.database import Databases
from notifying_postgres.coolify.registry import registry_calls

from tests.support import REPOSITORY
from tests.support.coolify import FakeCoolify
from tests.support.docker import BASE_IMAGE, docker
from tests.support.needs import need


def registry_scripts(
    image: str, image_id: str, port: int | None, registry_image: str, *, keeper: str, base_image: str = BASE_IMAGE
) -> tuple[str, str]:
    """The commands that push to the registry, and that remove it."""
    folder = REPOSITORY / "components" / "notifying_postgres" / "on_host"
    calls = registry_calls(image, image_id, port, registry_image, keeper=keeper, base_image=base_image)
    push, remove = (shlex.join(["sh", str(folder / script), *words]) for script, words in calls.items())
    return push, remove


def shell(script: str) -> str:
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True)
class Registry:
    """A registry on loopback, and the name under which the host can pull our image from it."""

    image: str
    image_id: str
    port: int
    registry_image: str
    reference: str

    @property
    def container(self) -> str:
        return f"notifying-postgres-registry-{self.port}"

    @property
    def keeper(self) -> str:
        """The container that says which of its images are this stack's."""
        return f"coolify-test-keeper-{self.port}"

    @property
    def name(self) -> str:
        """The reference without the digest."""
        return self.reference.partition("@")[0]

    def scripts(self, image_id: str, keeper: str | None = None, base_image: str = BASE_IMAGE) -> tuple[str, str]:
        return registry_scripts(
            self.image, image_id, self.port, self.registry_image, keeper=keeper or self.keeper, base_image=base_image
        )

    def push(self, image_id: str) -> str:
        """Pushes another build of the same image."""
        return shell(self.scripts(image_id)[0])


@pytest.fixture(scope="session")
def built_image() -> Iterator[tuple[str, str]]:
    """Our image, built by its own script: its name and id."""
    need("docker")
    name = f"coolify-test-{uuid.uuid4().hex[:8]}:16"
    script = REPOSITORY / "image" / "build-postgres-image.sh"
    command = ["bash", str(script), "--yes", "--image", name, "--base-image", BASE_IMAGE]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    yield name, built.stdout.strip().splitlines()[-1]
    docker("image", "rm", name, check=False)


@pytest.fixture(scope="session")
def registry_image() -> str:
    """The registry's own image."""
    need("docker")
    script = REPOSITORY / "toolchain" / "registry-image" / "build"
    return subprocess.run([script], capture_output=True, text=True, check=True, timeout=120).stdout.strip()


@pytest.fixture(scope="session")
def registry(built_image: tuple[str, str], registry_image: str) -> Iterator[Registry]:
    """The registry, filled. Its port, like most, is one from which Coolify would derive a wrong mount."""
    image, image_id = built_image
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    push, remove = registry_scripts(image, image_id, port, registry_image, keeper=f"coolify-test-keeper-{port}")
    made = Registry(image, image_id, port, registry_image, reference=shell(push))
    yield made
    shell(remove)
    assert docker("ps", "-aq", "--filter", f"name={made.container}", "--filter", f"name={made.keeper}") == ""


@pytest.fixture(scope="session")
def network() -> Iterator[str]:
    """A network as Coolify's destinations are, on which containers find each other by name."""
    need("docker")
    name = f"coolify-test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", name)
    yield name
    docker("network", "rm", name, check=False)


@pytest.fixture
def without_engine() -> bool:
    """For what is between the resource and the API alone: needs no Docker engine."""
    return True


@pytest.fixture
def fake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeCoolify]:
    without_engine = "without_engine" in request.fixturenames
    with FakeCoolify(tmp_path, "absent" if without_engine else request.getfixturevalue("network")) as server:
        server.without_engine = without_engine
        yield server
    assert server.undocumented == [], "every request is one that Coolify documents"


class TenTimesAsFast:
    """A clock that counts what was slept, and sleeps a tenth of it: a busy machine has as many looks at a thing as an idle one."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        time.sleep(seconds / 10)


@dataclass
class Deploy:
    """Databases of the fake Coolify, and what was logged on the way."""

    databases: Databases
    log: list[str] = field(default_factory=list)


@pytest.fixture
def deploy(fake: FakeCoolify) -> Iterator[Deploy]:
    log: list[str] = []
    clock = TenTimesAsFast()
    with Coolify(fake.url, fake.token) as coolify:
        yield Deploy(Databases(coolify, log.append, sleep=clock.sleep, clock=lambda: clock.now), log)
