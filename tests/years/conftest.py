"""Databases that live for years: containers as the component makes them, of images of several major versions."""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.docker import BASE_IMAGE, docker

REPOSITORY = Path(__file__).parents[2]
ON_HOST = REPOSITORY / "components" / "notifying_postgres" / "on_host"
DATA = "/var/lib/postgresql/data"
PREFIX = f"years-{uuid.uuid4().hex[:6]}"


def base_image(major: int) -> str:
    """The official image, or its stand-in where that is what this machine has."""
    if BASE_IMAGE.startswith("notifying-postgres/"):
        build = subprocess.run(
            [REPOSITORY / "toolchain/base-image/build", str(major)], stdout=subprocess.PIPE, text=True, check=True
        )
        return build.stdout.strip()
    return f"postgres:{major}-alpine"


@pytest.fixture(scope="session")
def image() -> Iterator[Callable[[int], str]]:
    """The id of the image of a major version, built by its script when it is first asked for."""
    ids: dict[int, str] = {}

    def build(major: int) -> str:
        if major not in ids:
            words = ["--image", f"{PREFIX}:{major}", "--base-image", base_image(major)]
            script = ["bash", str(REPOSITORY / "image" / "build-postgres-image.sh"), "--yes", *words]
            ids[major] = subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        return ids[major]

    yield build
    for major in ids:
        docker("image", "rm", f"{PREFIX}:{major}", check=False)


class Database:
    """One database in a container, on a volume of its own.

    :ivar volume: the volume that the configuration names; the data may have gone on to another one.
    """

    def __init__(self, image: Callable[[int], str], prefix: str = PREFIX) -> None:
        self.name = f"{prefix}-{uuid.uuid4().hex[:6]}"
        self.volume = f"{self.name}-data"
        self.image = image

    def start(self, major: int, volume: str | None = None, *options: str) -> None:
        """Makes the container anew, as a deploy does, and waits until it takes connections."""
        if docker("ps", "--all", "--quiet", "--filter", f"name=^{self.name}$"):
            docker("stop", "--time", "60", self.name)
            docker("rm", self.name)
        environment = {"PGDATA": DATA, "POSTGRES_DB": "app", "POSTGRES_PASSWORD": "first"}
        words = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
        mount = f"{volume or self.volume}:{DATA}"
        docker(
            "run",
            "--detach",
            "--name",
            self.name,
            "--restart",
            "unless-stopped",
            "--volume",
            mount,
            *words,
            *options,
            self.image(major),
        )
        docker("exec", "-i", self.name, "schema-notifications-converge")

    def deploy(self, major: int, *words: str, mode: str = "keep") -> subprocess.CompletedProcess[str]:
        """What a deploy asks the host, before it touches the container: which volume that gets."""
        return subprocess.run(self.command(major, *words, mode=mode), capture_output=True, text=True, check=False, timeout=200)

    def command(self, major: int, *words: str, mode: str = "keep") -> list[str]:
        return ["sh", str(ON_HOST / "volume.sh"), self.name, self.volume, self.image(major), mode, *words]

    def psql(self, *statements: str, database: str = "app") -> str:
        commands = [word for statement in statements for word in ("-c", statement)]
        words = ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", "-h", "/var/run/postgresql", "-U", "postgres", "-d", database]
        return docker(
            "exec",
            "--env",
            "PGCLIENTENCODING=UTF8",
            "--env",
            "PGOPTIONS=-c default_transaction_read_only=off",
            self.name,
            *words,
            *commands,
        )

    def run_file(self, file: Path) -> None:
        words = [
            "psql",
            "-Xq",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "/var/run/postgresql",
            "-U",
            "postgres",
            "-d",
            "app",
            "-o",
            "/dev/null",
        ]
        docker("exec", "-i", self.name, *words, stdin=file.read_text())

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name)
        return psycopg.connect(f"postgresql://postgres:first@{address}/app", autocommit=True, connect_timeout=5)

    def state(self) -> str:
        """Whether the container runs, and since when."""
        return docker("inspect", "--format", "{{.State.Running}} {{.State.StartedAt}}", self.name)

    def volumes(self) -> list[str]:
        return sorted(docker("volume", "ls", "--quiet", "--filter", f"name={self.name}").split())

    def containers(self) -> list[str]:
        return sorted(docker("ps", "--all", "--format", "{{.Names}}", "--filter", f"name={self.name}").split())

    def remove(self) -> None:
        if containers := self.containers():
            docker("rm", "--force", "--volumes", *containers)
        if volumes := self.volumes():
            docker("volume", "rm", "--force", *volumes)


@pytest.fixture
def database(image: Callable[[int], str]) -> Iterator[Database]:
    made = Database(image)
    yield made
    made.remove()
