"""Data outlives whatever is on the host: no second server on a volume, no volume replaced, none made anew without a word."""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.test_deploy import edit_image
from tests.support.docker import BASE_IMAGE, docker
from tests.support.needs import program
from tests.support.sshd import Sshd, start_sshd, stop_sshd
from tests.support.stack import Stack


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Stack]:
    """Another stack, on the same host."""
    made = Stack(tmp_path / "another")
    made.init()
    yield made
    made.remove()


@pytest.fixture
def stranger(stack: Stack) -> Iterator[str]:
    """A container that no stack made, which runs on the volume that the stack's database would have."""
    name = f"{stack.name}-stranger"
    docker("run", "-d", "--name", name, "-v", f"{stack.name}-app-data:/data", "--entrypoint", "sleep", BASE_IMAGE, "600")
    yield name


def resources(stack: Stack) -> dict[str, dict[str, object]]:
    return {one["urn"].rpartition("::")[2]: one for one in json.loads(stack.state())["deployment"].get("resources", [])}


def test_a_container_name_that_another_stack_has_is_refused_before_anything_is_made(stack: Stack, another: Stack) -> None:
    same = f"{stack.name}-same"
    stack.config["databases"] = another.config["databases"] = {"app": {"containerName": same}}
    stack.up()
    (started,) = {docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", same)}

    for verb in (another.preview, another.up):
        said = verb(fails=True)
        assert f"The name {same} on this machine has the stack organization/notifying-postgres/{stack.name}" in said
        assert "Traceback" not in said and "unhandled error" not in said, "the reason stands alone"
    assert not [name for name in resources(another) if "data" in name]

    another.config["databases"] = {"app": {}}
    another.up()
    assert another.container()["Mounts"][0]["Name"] == f"{another.name}-app-data"
    another.config["databases"] = {"app": {"volumeName": f"{same}-data"}}
    assert f"The volume {same}-data is in use by the container {same}" in another.up(fails=True)
    assert docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", same) == started


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "tcsh"])
def test_no_server_is_started_beside_a_stranger_whatever_the_login_shell(
    stack: Stack, stranger: str, shell: str, tmp_path: Path
) -> None:
    path = program(shell)
    # As the login shell has it: given the command line, after its start file has said hello.
    script = tmp_path / "login"
    script.write_text(f'#!/bin/sh\necho "Welcome to $(hostname)!"\nexec {path} -c "$SSH_ORIGINAL_COMMAND"\n')
    script.chmod(0o755)
    server = start_sshd(tmp_path / "sshd", ForceCommand=str(script), SetEnv=f"PATH={os.environ['PATH']}")
    try:
        stack.config |= server.config
        said = stack.preview(fails=True)
        assert f"The volume {stack.name}-app-data is in use by the container {stranger}" in said
        docker("stop", "-t", "0", stranger)  # is not set to restart
        stack.preview()
        docker("update", "--restart", "unless-stopped", stranger)
        assert f"is in use by the container {stranger}" in stack.preview(fails=True)
    finally:
        stop_sshd(server)


def test_a_whole_deploy_through_another_login_shell_that_prints(stack: Stack, tmp_path: Path) -> None:
    path = program("fish")
    script = tmp_path / "login"
    # The Docker client's own stream takes no greeting, whoever deploys.
    hello = 'case $SSH_ORIGINAL_COMMAND in *dial-stdio*) ;; *) echo "Welcome!";; esac'
    script.write_text(f'#!/bin/sh\n{hello}\nexec {path} -c "$SSH_ORIGINAL_COMMAND"\n')
    script.chmod(0o755)
    server = start_sshd(tmp_path / "sshd", ForceCommand=str(script), SetEnv=f"PATH={os.environ['PATH']}")
    try:
        stack.config |= server.config
        stack.up()
        assert stack.outputs()["imageId"] == stack.container()["Image"]
        stack.up_changes_nothing()
        stack.destroy()
    finally:
        stop_sshd(server)


@pytest.mark.parametrize("made_with", [["--label", "com.docker.compose.project=shop"], ["--opt", "type=none", "--opt", "o=bind"]])
def test_an_adopted_volume_is_never_replaced(stack: Stack, made_with: list[str], tmp_path: Path) -> None:
    volume = f"{stack.name}-adopted"
    if "o=bind" in made_with:
        (tmp_path / "bound").mkdir()
        made_with = [*made_with, "--opt", f"device={tmp_path}/bound"]
    docker("volume", "create", *made_with, volume)
    stack.config["databases"]["app"] = {"volumeName": volume, "retainData": False}
    stack.up()
    stack.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    before = stack.container()["Id"]
    stack.up_changes_nothing()
    stack.refresh()
    stack.up_changes_nothing()
    assert stack.container()["Id"] == before
    assert stack.sql("SELECT answer FROM kept") == [(42,)]


@pytest.mark.parametrize("at_first", [{}, {"volumeName": "NAME-first"}], ids=["derived", "given"])
def test_another_volume_name_replaces_no_volume(stack: Stack, at_first: dict[str, str]) -> None:
    """Whether or not the data are to outlive the database: it is still in the stack."""
    settings = {key: value.replace("NAME", stack.name) for key, value in at_first.items()}
    volume = settings.get("volumeName", f"{stack.name}-app-data")
    stack.config["databases"] = {"app": {**settings, "retainData": False}}
    stack.up()
    psql = ("exec", f"{stack.name}-app", "psql", "-XAtqU", "postgres", "-d", "app", "-c")
    docker(*psql, "CREATE TABLE kept AS SELECT 42 AS answer")
    started = docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", f"{stack.name}-app")

    stack.config["databases"] = {"app": {"volumeName": f"{stack.name}-other", "retainData": False}}
    for verb in (stack.preview, stack.up):
        said = verb(fails=True)
        assert (
            f"databases.app.volumeName is '{stack.name}-other': the data are on the volume {volume}, which is never replaced"
            in said
        )
        assert "Traceback" not in said
    assert docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", f"{stack.name}-app") == started
    assert docker(*psql, "SELECT answer FROM kept").strip() == "42"

    # As the refusal says: the name that it has goes on; without one, too.
    for back in ({"volumeName": volume}, {}):
        stack.config["databases"] = {"app": {**back, "retainData": False}}
        stack.up()
        assert docker(*psql, "SELECT answer FROM kept").strip() == "42"


def test_a_volume_that_was_lost_is_not_made_anew_without_a_word(stack: Stack) -> None:
    stack.up()
    volume = f"{stack.name}-app-data"
    docker("rm", "-f", f"{stack.name}-app")
    docker("volume", "rm", volume)

    said = stack.up(fails=True)
    assert f"The volume {volume}, which held the data of {stack.name}-app, is not on this machine any more" in said
    stack.refresh()
    for verb in (stack.preview, stack.up):
        assert f"To start empty: docker volume create {volume}" in verb(fails=True)
    assert volume not in docker("volume", "ls", "-q").split()

    docker("volume", "create", volume)
    stack.up()
    assert stack.sql("SELECT 1") == [(1,)]
    stack.up_changes_nothing()


def test_a_database_whose_data_went_with_it_starts_empty_when_it_comes_back(stack: Stack) -> None:
    stack.config["databases"] = {"app": {"retainData": False}}
    stack.up()
    stack.config["databases"] = {}
    stack.up()
    assert f"{stack.name}-app-data" not in docker("volume", "ls", "-q").split()
    stack.config["databases"] = {"app": {"retainData": False}}
    stack.up()
    assert stack.sql("SELECT 1") == [(1,)]


def test_a_refused_deploy_leaves_the_state_as_it_was(stack: Stack, sshd: Sshd, tmp_path: Path) -> None:
    stack.config |= sshd.config
    stack.up()
    provider = resources(stack)[f"{stack.name}-docker"]["inputs"]

    # Another engine as far as anyone can tell from outside: a `docker` that tells another identity.
    impostor = tmp_path / "bin" / "docker"
    impostor.parent.mkdir()
    impostor.write_text('#!/bin/sh\ntest "$1" != info || { echo OTHER; exit; }\nexec docker.real "$@"\n')
    impostor.chmod(0o755)
    (tmp_path / "bin" / "docker.real").symlink_to(str(shutil.which("docker")))
    other = start_sshd(tmp_path / "other", SetEnv=f"PATH={tmp_path / 'bin'}:{os.environ['PATH']}")
    stack.config |= other.config
    said = stack.up(fails=True)
    assert "has another Docker engine than the one that holds these databases" in said
    assert resources(stack)[f"{stack.name}-docker"]["inputs"] == provider
    stop_sshd(other)

    stack.config |= {"hostKey": sshd.host_key}  # of another server
    assert "cannot be reached" in stack.up(fails=True)
    assert resources(stack)[f"{stack.name}-docker"]["inputs"] == provider
    stack.refresh()
    stack.destroy()
    assert not docker("ps", "-aq", "--filter", f"name=^{stack.name}")


def test_a_jump_host_leads_there_and_both_keys_are_pinned(stack: Stack, sshd: Sshd, tmp_path: Path) -> None:
    jump = start_sshd(tmp_path / "jump")
    try:
        with Path(jump.private_key_file.with_name("user.pub")).open("a") as authorized:
            authorized.write(sshd.private_key_file.with_name("user.pub").read_text())
        stack.config |= sshd.config | {"jumpHost": jump.address, "jumpHostKey": sshd.host_key}
        said = stack.up(fails=True)
        assert "Host key verification failed" in said, said
        assert jump.logins() == 0

        stack.config |= {"jumpHostKey": jump.host_key}
        stack.up()
        assert jump.logins() > 0
        stack.up_changes_nothing()
        stack.destroy()
    finally:
        stop_sshd(jump)


def test_an_agent_that_is_gone_is_no_obstacle_to_a_key_file(stack: Stack, sshd: Sshd, tmp_path: Path) -> None:
    stack.env["SSH_AUTH_SOCK"] = str(tmp_path / "gone")
    stack.config |= sshd.config
    stack.up()


def test_a_container_that_was_made_when_the_deploy_was_cut_off_makes_way(stack: Stack) -> None:
    stack.up()
    name = f"{stack.name}-second"
    mark = f"notifying-postgres.stack=organization/notifying-postgres/{stack.name}"
    docker("run", "-d", "--name", name, "--label", mark, "-v", f"{name}-data:/data", "--entrypoint", "sleep", BASE_IMAGE, "600")

    stack.config["databases"]["second"] = {}
    stack.up()
    assert stack.sql("SELECT 1", "second") == [(1,)]
    assert docker("ps", "-aq", "--filter", f"name=^{name}").split() == [stack.container("second")["Id"][:12]]
    stack.up_changes_nothing()


def test_an_image_that_was_removed_is_built_again(stack: Stack) -> None:
    edit_image(stack)  # or it would be other tests' too
    stack.up()
    docker("rm", "-f", f"{stack.name}-app")
    docker("image", "rm", "-f", stack.outputs()["imageId"])
    stack.refresh()
    stack.up()
    assert stack.sql("SELECT 1") == [(1,)]
    stack.up_changes_nothing()


def test_two_stacks_build_one_image_name_at_once(stack: Stack, another: Stack) -> None:
    """From different files: the name is the later one's, and each stack has its own image, until it goes."""
    edit_image(stack)
    edit_image(another)
    another.config["image"] = stack.config["image"]
    with ThreadPoolExecutor() as both:
        list(both.map(lambda one: one.up(), (stack, another)))
    images = [one.outputs()["imageId"] for one in (stack, another)]
    assert images[0] != images[1]
    for one, image in zip((stack, another), images, strict=True):
        assert one.container()["Image"] == image
        one.up_changes_nothing()

    stack.destroy()
    another.up_changes_nothing()
    assert docker("image", "inspect", "--format", "{{.Id}}", images[1]) == images[1]
    docker("restart", f"{another.name}-app")
    another.up_changes_nothing()
