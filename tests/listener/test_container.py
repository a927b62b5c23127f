"""A container that publishes no port: reached at its own address, on this engine and through SSH."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from urllib.parse import quote

import pytest

from schema_changes import SchemaChange, listen
from schema_changes.errors import Unreachable
from schema_changes.route import Route
from tests.listener.commands import COMMAND, line, listening, names, run
from tests.support import REPOSITORY
from tests.support.docker import docker
from tests.support.needs import need, program
from tests.support.sshd import Sshd, start_sshd, stop_sshd

PASSWORD = 'a password\'s "own" quotes'


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image, built as by hand."""
    need("docker")
    name = f"listener-test-{uuid.uuid4().hex[:8]}:16"
    base = os.environ.get("NOTIFYING_POSTGRES_BASE_IMAGE")
    words = ["--yes", "--image", name, *(["--base-image", base] if base else [])]
    subprocess.run(["bash", REPOSITORY / "image/build-postgres-image.sh", *words], check=True, capture_output=True)
    yield name
    docker("image", "rm", "--force", name)


class Container:
    """A database in a container; `start` again makes another container with the same data."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.name = f"listener-test-{uuid.uuid4().hex[:8]}"

    def start(self) -> None:
        volume = f"{self.name}:/var/lib/postgresql/data"
        docker("run", "--detach", "--name", self.name, "--volume", volume, "--env", f"POSTGRES_PASSWORD={PASSWORD}", self.image)
        deadline = time.monotonic() + 60
        while docker("inspect", "--format", "{{.State.Health.Status}}", self.name) != "healthy":
            assert time.monotonic() < deadline, docker("logs", self.name)
            time.sleep(0.1)

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.name)

    def psql(self, statement: str) -> None:
        docker("exec", self.name, "psql", "-U", "postgres", "-qc", statement)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    one = Container(image)
    one.start()
    yield one
    one.remove()
    docker("volume", "rm", one.name)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    program("sshd")
    server = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    stop_sshd(server)


def ssh_options(sshd: Sshd, host_key: str | None = None) -> list[str]:
    known = f"KnownHostsCommand=/bin/echo %H {host_key or sshd.host_key}"
    words = ["-i", str(sshd.private_key_file), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"]
    return [*words, "-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null", "-o", known]


def check(*words: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "check", "--password-stdin", *words, "postgresql://postgres@db/postgres"],
        input=password + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the processes of a test put their sockets; the path of a socket may not be long."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(folder)


def assert_no_traces(sockets: Path) -> None:
    assert list(sockets.iterdir()) == []
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(sockets) not in processes


def test_on_this_engine(container: Container) -> None:
    done = check("--container", container.name)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True


def test_through_ssh_and_nothing_stays(container: Container, sshd: Sshd, sockets: Path) -> None:
    words = [f"--ssh-option={word}" for word in ssh_options(sshd)]
    done = check("--container", container.name, "--ssh", sshd.address, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
    assert_no_traces(sockets)


@pytest.mark.parametrize("way", ["engine", "ssh"])
def test_every_command_goes_there(container: Container, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    words = ["--container", container.name, "postgresql://postgres@db/postgres"]
    if way == "ssh":
        words += ["--ssh", sshd.address, *(f"--ssh-option={word}" for word in ssh_options(sshd))]
    with listening(*words) as process:
        container.psql(f"CREATE TABLE through_{way} ()")
        assert names(line(process)) == [f"public.through_{way}"]
        process.terminate()
        assert (process.wait(10), *process.communicate()) == (0, "", "")
    assert names(json.loads(run("history", "--limit", "1", *words).stdout)) == [f"public.through_{way}"]
    assert run("status", *words).returncode == 0


@pytest.mark.parametrize("way", ["engine", "ssh"])
def test_what_goes_wrong_is_told(container: Container, sshd: Sshd, way: str) -> None:
    words = [] if way == "engine" else ["--ssh", sshd.address, *(f"--ssh-option={word}" for word in ssh_options(sshd))]
    done = check("--container", container.name, *words, password="wrong")
    assert done.returncode == 4
    assert "the password is wrong" in done.stderr
    assert container.name in done.stderr
    done = check("--container", "no-such-container", *words)
    assert done.returncode == 3
    assert "no such container" in done.stderr.lower()
    stopped = docker("create", container.image)
    done = check("--container", stopped, *words)
    docker("rm", "--volumes", stopped)
    assert done.returncode == 3
    assert "the container is created; start it first" in done.stderr


def test_a_server_that_is_down_behind_ssh_is_told(container: Container, sshd: Sshd) -> None:
    words = [f"--ssh-option={word}" for word in ssh_options(sshd)]
    done = subprocess.run(
        [*COMMAND, "check", "--container", container.name, "--ssh", sshd.address, *words],
        env={**os.environ, "PGPORT": "5433", "PGUSER": "postgres"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert f"PostgreSQL in container {container.name!r} on {sshd.address}: nothing answers at" in done.stderr


@pytest.mark.parametrize("way", ["engine", "ssh"])
def test_a_container_without_an_address_is_told_and_the_host_s_own_server_is_left_alone(image: str, sshd: Sshd, way: str) -> None:
    words = [] if way == "engine" else ["--ssh", sshd.address, *(f"--ssh-option={word}" for word in ssh_options(sshd))]
    alone = docker("run", "--detach", "--network", "none", "--entrypoint", "sleep", image, "60")
    try:
        done = check("--container", alone, *words)
    finally:
        docker("rm", "--force", "--volumes", alone)
    assert done.returncode == 3
    assert "it has no address of its own (network none); connect it to a network" in done.stderr


def test_another_host_key_is_refused(container: Container, sshd: Sshd) -> None:
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVxhN0aWcGcRKD4xrK1mPGs5lYvW0pJ7dEmTfYkkXyL"
    words = [f"--ssh-option={word}" for word in ssh_options(sshd, other)]
    done = check("--container", container.name, "--ssh", sshd.address, *words)
    assert done.returncode == 3
    assert "Host key verification failed" in done.stderr


async def test_listens_through_ssh_to_a_container_that_is_made_anew(container: Container, sshd: Sshd, sockets: Path) -> None:
    with Route(container.name, sshd.address, ssh_options(sshd)) as route:
        events = listen(f"user=postgres dbname=postgres password='{PASSWORD.replace(chr(39), chr(92) + chr(39))}'", route=route)
        async with aclosing(events), asyncio.timeout(60):
            first = asyncio.ensure_future(anext(events))
            while True:  # from now on: the listener says nothing until something changes
                container.psql("CREATE TABLE IF NOT EXISTS before ()")
                done, _ = await asyncio.wait([first], timeout=1)
                if done:
                    break
                container.psql("DROP TABLE before")
            container.remove()
            # takes the address of the first, which the second cannot have then
            taken = docker("run", "--detach", "--entrypoint", "sleep", container.image, "60")
            container.start()
            docker("rm", "--force", "--volumes", taken)
            container.psql("CREATE TABLE after ()")
            seen: list[str] = []
            while "public.after" not in seen:
                event = await anext(events)
                assert isinstance(event, SchemaChange)
                seen += [item.identity for item in event.objects]
    assert seen.count("public.after") == 1
    assert_no_traces(sockets)


def test_a_pulumi_stack_tells_where_its_databases_are(
    container: Container, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real CLI, and outputs as the program exports them."""
    pulumi = program("pulumi")
    for name, value in {
        "PULUMI_BACKEND_URL": f"file://{tmp_path}",
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PGPASSWORD": "not used",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    Path("Pulumi.yaml").write_text("name: notifying-postgres\nruntime: python\n")
    url = f"postgresql://postgres:{quote(PASSWORD, safe='')}@{container.name}:5432/postgres"
    outputs = {
        "databases": {
            "here": {"container_name": container.name, "host": None},
            "there": {"container_name": container.name, "host": sshd.address},
        },
        "urls": {"here": url, "there": url},
    }
    root = {
        "urn": "urn:pulumi:dev::notifying-postgres::pulumi:pulumi:Stack::notifying-postgres-dev",
        "custom": False,
        "type": "pulumi:pulumi:Stack",
    }
    Path("state.json").write_text(json.dumps({"version": 3, "deployment": {"resources": [root | {"outputs": outputs}]}}))
    for words in (["stack", "init", "dev"], ["stack", "import", "--file", "state.json"]):
        subprocess.run([pulumi, *words], check=True, capture_output=True)
    for words in (["here"], ["there", *(f"--ssh-option={word}" for word in ssh_options(sshd))]):
        done = run("check", "--stack", "dev", "--database", *words)
        assert done.returncode == 0, done.stderr
    for words in ([], ["--database", "elsewhere"]):
        done = run("check", "--stack", "dev", *words)
        assert done.returncode == 1
        assert "these databases: here, there; choose one with --database" in done.stderr
    done = run("check", "--stack", "nowhere")
    assert done.returncode == 1
    assert "outputs of stack 'nowhere'" in done.stderr
    # what `make listen` runs
    with listening(command=[sys.executable, REPOSITORY / "toolchain/dev.py", "listen"]) as process:
        container.psql("CREATE TABLE seen_by_a_newcomer ()")
        assert names(line(process)) == ["public.seen_by_a_newcomer"]


def test_an_engine_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    program("docker")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(Unreachable, match=r"on this machine: .*nowhere"), Route("db"):
        pass
