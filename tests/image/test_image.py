"""The image: built and verified by its script, complete at its first start, small."""

import json
import os
import pty
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.image.containers import VERSION, Server, build
from tests.support import REPOSITORY
from tests.support.docker import BASE_IMAGE, docker

pytestmark = pytest.mark.needs("docker")


@pytest.fixture
def tag() -> Iterator[str]:
    name = f"notifying-postgres-test-{uuid.uuid4().hex[:8]}:1"
    yield name
    docker("rmi", "--force", name, check=False)


def test_the_script_prints_the_id_alone(image: str, tag: str) -> None:
    base = BASE_IMAGE if image.endswith("16") else BASE_IMAGE.replace("16", "18")
    result = build("--image", tag, "--base-image", base)
    assert result.returncode == 0
    assert result.stdout.strip() == docker("image", "inspect", "--format", "{{.Id}}", tag)
    assert result.stdout.startswith("sha256:")
    assert "built and verified" in result.stderr


def test_the_same_again_is_the_same_image_at_once(image: str, tag: str) -> None:
    first = build("--image", tag, "--base-image", BASE_IMAGE)
    again = build("--yes", "--image", tag, "--base-image", BASE_IMAGE)
    assert again.stdout == first.stdout
    assert "unchanged" in again.stderr
    assert "Verifying" not in again.stderr


def test_it_asks_before_it_rebuilds(tag: str) -> None:
    former = build("--image", tag, "--base-image", BASE_IMAGE).stdout
    refused = build("--image", tag, "--base-image", BASE_IMAGE)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert f"{tag} exists already; give --yes to rebuild it" in refused.stderr
    for answer, done in (("n", False), ("", False), ("y", True)):
        main, terminal = pty.openpty()
        os.write(main, f"{answer}\n".encode())
        script = REPOSITORY / "image" / "build-postgres-image.sh"
        result = subprocess.run(
            ["bash", script, "--image", tag, "--base-image", BASE_IMAGE],
            check=False, stdin=terminal, text=True, capture_output=True,
        )  # fmt: skip
        os.close(main)
        os.close(terminal)
        assert "Rebuild it? [y/N]" in result.stderr
        assert (result.returncode == 0) == done
        assert result.stdout == (former if done else "")


@pytest.mark.parametrize(("options", "says"), [(["--banana"], "unknown option --banana"), (["--image"], "--image needs a value"),
                                               (["--yes", "--base-image", "no/such-image:1"], "failed")])  # fmt: skip
def test_what_it_refuses(options: list[str], says: str) -> None:
    result = build(*options)
    assert result.returncode == 1
    assert result.stdout == ""
    assert says in result.stderr


def test_no_engine(tag: str) -> None:
    result = subprocess.run(
        ["bash", REPOSITORY / "image" / "build-postgres-image.sh", "--image", tag],
        check=False, env={**os.environ, "DOCKER_HOST": "unix:///nowhere.sock"}, text=True, capture_output=True,
    )  # fmt: skip
    assert result.returncode == 1
    assert "the Docker engine does not answer" in result.stderr


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (f"schema_notifications--{VERSION}.sql", "SELECT 1 / 0;", "division by zero"),
        ("init-schema-notifications.sql", "", "announced no schema change|is not available|does not work"),
    ],
)
def test_an_image_that_fails_its_proof_gets_no_tag(context: Path, tag: str, file: str, text: str, says: str) -> None:
    good = build("--image", tag, "--base-image", BASE_IMAGE).stdout.strip()
    if file.startswith("schema_notifications--"):
        (context / file).write_text(text)
    else:
        (context / file).unlink()
        (context / "Dockerfile").write_text(
            (context / "Dockerfile").read_text().replace("cp init-schema-notifications.sql", "true")
        )
    result = build("--yes", "--image", tag, "--base-image", BASE_IMAGE, context=context)
    assert result.returncode == 1
    assert result.stdout == ""
    assert docker("image", "inspect", "--format", "{{.Id}}", tag).strip() == good


def test_the_same_image_under_another_name_may_go_meanwhile(
    context: Path, tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as another stack's that is destroyed, between this build and its proof."""
    (context / "init-schema-notifications.sql").open("a").write(f"-- {tag}\n")  # no other test builds this one
    other = f"{tag}0"
    assert build("--image", other, "--base-image", BASE_IMAGE, context=context).returncode == 0
    shim = tmp_path / "docker"
    shim.write_text(
        f'#!/bin/sh\n[ "$1" != run ] || {shutil.which("docker")} image rm {other} >&2\nexec {shutil.which("docker")} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    result = build("--image", tag, "--base-image", BASE_IMAGE, context=context)
    assert result.returncode == 0, result.stderr
    assert "Untagged" in result.stderr
    names = json.loads(docker("image", "inspect", "--format", "{{json .RepoTags}}", result.stdout.strip()))
    assert names == [tag], "and no name is left of the build itself"


def test_the_context_may_have_lost_its_modes(context: Path, tag: str) -> None:
    """A copy over SSH with a strict umask builds the same image."""
    result = build("--image", tag, "--base-image", BASE_IMAGE, context=context)
    assert result.returncode == 0, result.stderr


def test_it_is_small(image: str) -> None:
    base = BASE_IMAGE if image.endswith("16") else BASE_IMAGE.replace("16", "18")
    (ours,), (theirs,) = (json.loads(docker("image", "inspect", name)) for name in (image, base))
    assert ours["Size"] - theirs["Size"] <= 100_000
    assert len(ours["RootFS"]["Layers"]) - len(theirs["RootFS"]["Layers"]) == 1
    assert ours["Config"]["Labels"]["coolify.managed"] == "true"


def test_the_specification_s_verification(image: str) -> None:
    assert "init-schema-notifications.sql" in docker("run", "--rm", image, "ls", "-lh", "/docker-entrypoint-initdb.d/")


def test_the_first_start(image: str, start: Callable[..., Server]) -> None:
    """Every database of a new cluster has the feed: the initial one, postgres, template1, and so each that follows."""
    server = start(image, "--env", "POSTGRES_DB=app", "--env", "POSTGRES_USER=boss")
    assert server.converge() == f"app: has {VERSION}\npostgres: has {VERSION}\ntemplate1: has {VERSION}\n"
    server.psql("CREATE DATABASE later", user="boss")
    for database in ("app", "postgres", "template1", "later"):
        said = server.psql("LISTEN schema_changed", "CREATE TABLE t ()", "DROP TABLE t", database=database, user="boss")
        assert said.count('"type":"ddl_command_end"') == 2
        assert f'"database":"{database}","user":"boss"' in said
    assert server.psql("SELECT healthy FROM schema_notifications.status()", database="later", user="boss") == "t"
    assert "ERROR" not in server.logs()
    assert "does not exist" not in server.logs()


def test_the_health_of_the_container(image: str, start: Callable[..., Server]) -> None:
    server = start(image, "--health-interval", "1s")
    deadline = time.monotonic() + 30
    health = ""
    while health != "healthy" and time.monotonic() < deadline:
        time.sleep(0.2)
        health = docker("inspect", "--format", "{{.State.Health.Status}}", server.name).strip()
    assert health == "healthy"
    assert server.psql("SELECT 1") == "1"
    assert "does not exist" not in server.logs()
