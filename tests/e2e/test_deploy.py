"""A stack's life, on this machine's engine and over a real SSH connection."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import REPOSITORY
from tests.support.docker import docker
from tests.support.sshd import Sshd, start_sshd, stop_sshd
from tests.support.stack import Stack


@pytest.fixture(params=["local", "ssh"])
def hosted(request: pytest.FixtureRequest, stack: Stack) -> Stack:
    """A stack on this machine, and the same one over SSH: for what takes another way there."""
    if request.param == "ssh":
        stack.config |= request.getfixturevalue("sshd").config
    return stack


def lines(said: str) -> int:
    """How many lines there are, but for warnings about the stand-ins and the dots of progress that a terminal does not show."""
    return sum(bool(line.strip()) and not re.search(r"^@ |using pulumi-resource-", line) for line in said.splitlines())


def test_first_deploy_proves_itself_and_a_second_one_changes_nothing(hosted: Stack) -> None:
    said = hosted.up()

    app = hosted.outputs()["databases"]["app"]
    assert app["container_name"] == f"{hosted.name}-app"
    assert hosted.outputs()["imageId"] == hosted.container()["Image"]
    assert app["check"].endswith("heard CREATE TABLE, ALTER TABLE, DROP TABLE")
    assert lines(said) <= 50, "it fits one screen"
    assert "DEPRECATED" not in said and "Step 1" not in said, "what docker build says is shown when it fails"
    assert hosted.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    with hosted.connect() as listening:
        listening.execute("LISTEN schema_changed")
        hosted.sql("CREATE TABLE orders (id int)")
        notice = json.loads(next(listening.notifies(timeout=5)).payload)
    assert (notice["type"], notice["tag"]) == ("ddl_command_end", "CREATE TABLE")

    password = hosted.outputs()["urls"]["app"].split(":")[2].split("@")[0]
    for place in (said, json.dumps(hosted.container()), hosted.state()):
        assert password not in place
    assert hosted.container()["HostConfig"]["PortBindings"] in ({}, None)
    assert hosted.container()["HostConfig"]["CapDrop"] == ["ALL"]
    assert hosted.container()["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]

    hosted.up_changes_nothing()
    assert lines(hosted.stdout + hosted.stderr) <= 20
    assert " ms" not in hosted.stdout
    hosted.refresh()
    hosted.up_changes_nothing()


def test_a_plain_stack_output_shows_what_a_person_needs_and_no_secret(stack: Stack) -> None:
    stack.up()
    shown = stack.run("stack", "output")
    assert f"{stack.name}-app" in shown
    assert "CREATE TABLE" in shown
    assert "postgresql://" not in shown


def test_a_password_changes_in_place(hosted: Stack) -> None:
    hosted.config["databases"]["app"] = {"password": "first one"}
    hosted.up()
    before = hosted.container()["Id"]

    hosted.config["databases"]["app"] = {"password": 'it\'s another: $HOME \\ "é"'}
    hosted.up()

    assert hosted.container()["Id"] == before
    assert hosted.sql("SELECT 1") == [(1,)]
    hosted.up_changes_nothing()


def test_databases_come_and_go_and_leave_the_others_alone(stack: Stack) -> None:
    stack.up()
    app = stack.container()

    stack.config["databases"]["second"] = {"user": "owner", "databaseName": "Ünïcode db", "memory": "256m", "shmSize": "80m"}
    stack.up()
    assert stack.sql("SELECT current_user, current_database()", "second") == [("owner", "Ünïcode db")]
    assert stack.container("second")["HostConfig"]["Memory"] == 256 * 2**20
    assert stack.container("second")["HostConfig"]["ShmSize"] == 80 * 2**20
    assert (stack.container()["Id"], stack.container()["State"]["StartedAt"]) == (app["Id"], app["State"]["StartedAt"])

    del stack.config["databases"]["second"]
    stack.up()
    assert (stack.container()["Id"], stack.container()["State"]["StartedAt"]) == (app["Id"], app["State"]["StartedAt"])
    assert docker("volume", "ls", "-q", "--filter", f"name={stack.name}-second-data")
    stack.up_changes_nothing()


def test_data_outlives_destroy_and_a_later_stack_finds_it_with_the_password_then_configured(hosted: Stack) -> None:
    hosted.config["databases"]["app"] = {"password": "one"}
    hosted.up()
    hosted.sql("CREATE TABLE kept AS SELECT 42 AS answer")

    hosted.destroy()
    assert not docker("ps", "-aq", "--filter", f"name=^{hosted.name}")

    hosted.config["databases"]["app"] = {"password": "two"}
    hosted.up()
    assert hosted.sql("SELECT answer FROM kept") == [(42,)]
    # Not "was interrupted": destroy had stopped it cleanly.
    assert "database system was shut down" in docker("logs", f"{hosted.name}-app")


def test_data_goes_when_the_stack_says_so(stack: Stack) -> None:
    stack.config["databases"]["app"] = {"retainData": False}
    stack.up()
    stack.destroy()
    assert not docker("volume", "ls", "-q", "--filter", f"name={stack.name}")
    assert not docker("images", "-q", f"{stack.name}:16")


def edit_image(stack: Stack) -> Path:
    """Adds a line to the Dockerfile of a copy of the package, which the stack imports from now on. Returns the copy's folder."""
    copy = stack.home / "checkout"
    if not copy.exists():
        shutil.copytree(REPOSITORY / "components", copy / "components", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(REPOSITORY / "image", copy / "image")
    with (copy / "image" / "Dockerfile").open("a") as dockerfile:
        dockerfile.write(f"LABEL edited={stack.name}\n")
    stack.env["PYTHONPATH"] = str(copy / "components")
    return copy


def test_a_changed_image_is_built_once_and_replaces_the_containers_with_their_data(hosted: Stack) -> None:
    hosted.config["databases"]["second"] = {}
    hosted.up()
    hosted.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    before = hosted.container()

    edit_image(hosted)
    said = hosted.up()

    assert said.count("Successfully built") <= 1
    for key in ("app", "second"):
        assert hosted.container(key)["Id"] != before["Id"]
        assert hosted.container(key)["Config"]["Labels"]["edited"] == hosted.name
    assert hosted.sql("SELECT answer FROM kept") == [(42,)]
    hosted.up_changes_nothing()


def test_a_failing_check_fails_the_deploy_and_the_next_one_mends_it(stack: Stack) -> None:
    stack.up()
    trigger = "ALTER EVENT TRIGGER schema_notifications_ddl_command_end"
    stack.sql(f"{trigger} DISABLE")
    stack.config["databases"]["app"] = {"password": "a change, so that the check runs"}
    said = stack.up(fails=True)
    assert "disabled" in said

    # The password is the new one already, and the outputs are still the old ones: inside the container none is asked for.
    docker("exec", "-u", "postgres", f"{stack.name}-app", "psql", "-d", "app", "-c", f"{trigger} ENABLE ALWAYS")
    stack.up()
    stack.up_changes_nothing()


def test_a_container_that_someone_removed_comes_back_with_its_data(stack: Stack) -> None:
    stack.up()
    stack.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    docker("rm", "-f", f"{stack.name}-app")
    stack.refresh()
    stack.up()
    assert stack.sql("SELECT answer FROM kept") == [(42,)]


def test_a_port_is_published_on_loopback(stack: Stack) -> None:
    port = 20000 + int(stack.name[-4:], 16) % 10000
    stack.config["databases"]["app"] = {"port": str(port)}
    stack.up()
    assert stack.container()["HostConfig"]["PortBindings"]["5432/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(port)}]
    with psycopg.connect(stack.outputs()["urls"]["app"], hostaddr="127.0.0.1", port=port) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    stack.up_changes_nothing()


def test_a_port_that_is_taken_fails_the_deploy_and_the_next_one_goes_on(stack: Stack) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stack.config["databases"]["app"] = {"port": taken.getsockname()[1]}
        assert "address already in use" in stack.up(fails=True)
    stack.up()
    assert stack.sql("SELECT 1") == [(1,)]
    stack.up_changes_nothing()


def test_neither_image_nor_container_falls_to_coolifys_cleanup(stack: Stack) -> None:
    docker("network", "create", stack.name)
    try:
        stack.config["network"] = stack.name
        edit_image(stack)  # or the image would have the tags of other tests too
        stack.up()
        assert stack.container()["Config"]["Labels"]["coolify.managed"] == "false"
        assert list(stack.container()["NetworkSettings"]["Networks"]) == [stack.name]
        tags = json.loads(docker("image", "inspect", f"{stack.name}:16"))[0]
        assert tags["Config"]["Labels"]["coolify.managed"] == "true"
        assert tags["RepoTags"] == [f"{stack.name}:16"]
        docker("stop", f"{stack.name}-app")
        # What Coolify prunes at night: stopped containers that carry its label. (test_registry.py runs the prune itself, where no
        # other test's containers have it.)
        assert docker("ps", "-aq", "--filter", "label=coolify.managed=true", "--filter", f"name={stack.name}") == ""
        assert docker("image", "rm", f"{stack.name}:16", check=False) == ""
        docker("start", f"{stack.name}-app")
        stack.up_changes_nothing()
    finally:
        docker("rm", "-f", f"{stack.name}-app", check=False)
        docker("network", "rm", stack.name)


def test_another_host_key_is_refused_before_anything_is_sent(stack: Stack, sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    stack.config |= sshd.config | {"hostKey": other}
    before = sshd.log.read_text().count("Accepted publickey")
    said = stack.up(fails=True)
    assert "Host key verification failed" in said and "has another key than hostKey" in said
    (tmp_path / "its.pub").write_text(sshd.host_key)
    fingerprint = subprocess.run(["ssh-keygen", "-lf", tmp_path / "its.pub"], capture_output=True, text=True, check=True).stdout
    assert f": ED25519 {fingerprint.split()[1]}. Nothing was sent." in said
    assert "/dev/null" not in said, "OpenSSH's advice is for another file"
    assert sshd.log.read_text().count("Accepted publickey") == before

    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "kind"], check=True)
    stack.config["hostKey"] = " ".join((tmp_path / "kind.pub").read_text().split()[:2])
    assert "has no key of the type that hostKey" in stack.up(fails=True)

    stack.config |= sshd.config
    stack.up()


def test_an_unreachable_host_previews_and_fails_soon_with_its_name(stack: Stack, sshd: Sshd) -> None:
    stack.config |= sshd.config | {"host": "ssh://root@127.0.0.1:1"}
    stack.preview()
    started = time.monotonic()
    said = stack.up(fails=True)
    assert time.monotonic() - started < 30
    assert "ssh://root@127.0.0.1:1" in said
    assert "Connection refused" in said

    stack.config |= sshd.config
    stack.up()


@pytest.fixture
def member() -> Iterator[str]:
    """A user of this machine without rights."""
    name = f"np-{uuid.uuid4().hex[:8]}"
    if os.getuid() != 0:
        pytest.skip("only root makes users")
    subprocess.run(["useradd", "--create-home", "--password", "*", name], check=True)
    yield name
    subprocess.run(["userdel", "--force", "--remove", name], check=True, capture_output=True)


def test_any_user_who_can_run_docker_will_do(stack: Stack, member: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # which the user may enter
        Path(folder).chmod(0o755)
        servers = [start_sshd(Path(folder) / name, member, SetEnv=f"PATH={os.environ['PATH']}") for name in ("before", "after")]
        try:
            stack.config |= servers[0].config
            said = stack.up(fails=True)
            assert f"Docker cannot be used on {servers[0].address}: " in said and "permission denied" in said
            assert f"'sudo usermod -aG docker {member}'" in said

            subprocess.run(["usermod", "-aG", "docker", member], check=True)
            stack.config |= servers[1].config  # a login of its own; the other is kept for a minute
            stack.up()
            assert stack.sql("SELECT 1") == [(1,)]
            stack.up_changes_nothing()
            stack.destroy()
        finally:
            for server in servers:
                stop_sshd(server)


def test_a_network_that_is_not_there_is_named(stack: Stack) -> None:
    stack.config["network"] = "no-such-network"
    assert "There is no Docker network 'no-such-network'" in stack.up(fails=True)


def test_moving_to_another_engine_is_refused_with_the_steps(stack: Stack, sshd: Sshd, tmp_path: Path) -> None:
    stack.config |= sshd.config
    stack.up()
    before = stack.container()["Id"]

    # Another engine as far as anyone can tell from outside: a `docker` that tells another identity.
    impostor = tmp_path / "bin" / "docker"
    impostor.parent.mkdir()
    impostor.write_text('#!/bin/sh\ntest "$1" != info || { echo OTHER; exit; }\nexec docker.real "$@"\n')
    impostor.chmod(0o755)
    (tmp_path / "bin" / "docker.real").symlink_to(str(shutil.which("docker")))
    other = start_sshd(tmp_path / "other", SetEnv=f"PATH={tmp_path / 'bin'}:{os.environ['PATH']}")
    try:
        stack.config |= other.config
        said = stack.up(fails=True)
        assert "has another Docker engine" in said
        assert "To move, deploy another stack for the new host that begins with a backup" in said
        assert stack.container()["Id"] == before
    finally:
        stop_sshd(other)
    stack.config |= sshd.config
    stack.up()
    assert stack.container()["Id"] == before


def test_a_wrong_value_is_refused_at_preview_with_its_key(stack: Stack) -> None:
    stack.config["databases"]["app"] = {"port": 70000}
    said = stack.preview(fails=True)
    assert "databases.app.port is 70000: give a port from 1 to 65535, or address:port" in said
    assert "Traceback" not in said


def test_twenty_databases_over_one_host_stay_below_sshds_limits(stack: Stack, sshd: Sshd) -> None:
    stack.config |= sshd.config
    stack.config["databases"] = {f"d{n}": {"memory": "128m"} for n in range(20)}
    stack.up("--parallel", "32")
    stack.up_changes_nothing()
    assert "MaxStartups" not in sshd.log.read_text()
    assert len(docker("ps", "-q", "--filter", f"name=^{stack.name}").split()) == 20
