"""The stand-ins under the real engine: the real CLI runs a small program through its life."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY
from tests.support.docker import BASE_IMAGE, docker
from tests.support.stack import Stack

pytestmark = pytest.mark.needs("docker", "pulumi")

PROGRAM = """
import pulumi, pulumi_command as command, pulumi_docker as docker
config = pulumi.Config()
name = config.require("name")
hidden = pulumi.Output.secret("hidden words")
port = config.get("port")
volume = docker.Volume("data", name=name)
container = docker.Container(
    "it", name=name, image=config.require("image"), command=["sleep", "1000"], envs=[config.get("env") or "A=1"],
    volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path="/data")],
    uploads=[docker.ContainerUploadArgs(file="/secret", content=hidden, permissions="0400")],
    network_mode="bridge", restart="no",
    ports=[docker.ContainerPortArgs(internal=1, external=int(port), ip="127.0.0.1")] if port else None,
)
command.local.Command(
    "after", create=container.id.apply(lambda i: f"echo in {i}; cat >/dev/null"), stdin=hidden,
    triggers=[container.id],
)
pulumi.export("id", container.id)
pulumi.export("address", container.network_datas[0].ip_address)
"""


@pytest.fixture
def stack(tmp_path: Path, unique_name: str) -> Iterator[Stack]:
    """A stack of the program above, with the stand-ins also where the official plugins are to be had."""
    program = tmp_path / "program"
    program.mkdir()
    (program / "Pulumi.yaml").write_text("name: life\nruntime: python\n")
    (program / "__main__.py").write_text(PROGRAM)
    made = Stack(tmp_path / "stack", program, "life")
    made.env["PATH"] = f"{REPOSITORY}/toolchain/plugins/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    made.config = {"name": unique_name, "image": BASE_IMAGE}
    made.init()
    yield made
    made.remove()


def resource(stack: Stack, kind: str) -> dict[str, Any]:
    [found] = [one for one in json.loads(stack.state())["deployment"]["resources"] if one["type"] == kind]
    return dict(found)


def test_a_programs_life_under_the_engine(stack: Stack, unique_name: str) -> None:
    output = stack.up()
    first = stack.outputs()["id"]
    assert (
        docker("inspect", "--format", "{{.Id}} {{.NetworkSettings.IPAddress}}", unique_name)
        == f"{first} {stack.outputs()['address']}"
    )

    # Secrets are nowhere in plain text, and everything is as it was declared.
    assert "hidden words" not in stack.state() + output
    assert docker("exec", unique_name, "cat", "/secret") == "hidden words"
    stack.up("--expect-no-changes")
    stack.refresh("--expect-no-changes")

    # What was stopped is started; what was removed is made again.
    docker("stop", "-t", "0", unique_name)
    stack.refresh()
    stack.up()
    assert docker("inspect", "--format", "{{.Id}} {{.State.Running}}", unique_name) == f"{first} true"
    docker("rm", "-f", "-v", unique_name)
    stack.refresh()
    stack.up()
    second = stack.outputs()["id"]
    assert second != first
    after = resource(stack, "command:local:Command")["outputs"]["stdout"]
    assert after == f"in {second}", "its trigger, the container, has changed"

    # A replacement has the same name, so the old one goes first; the volume stays.
    created = docker("volume", "inspect", "--format", "{{.CreatedAt}}", unique_name)
    stack.config["env"] = "A=2"
    stack.up()
    assert "A=2" in docker("inspect", "--format", "{{.Config.Env}}", unique_name)
    assert docker("volume", "inspect", "--format", "{{.CreatedAt}}", unique_name) == created

    # One that cannot be started is there, in the state too, and what depends on it waits.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        stack.config |= {"env": "A=3", "port": taken.getsockname()[1]}
        assert "address already in use" in stack.up(fails=True)
    assert resource(stack, "docker:index/container:Container")["initErrors"]
    assert docker("inspect", "--format", "{{.Id}}", unique_name) == resource(stack, "docker:index/container:Container")["id"]

    stack.destroy()
    assert unique_name not in docker("container", "ls", "-a") + docker("volume", "ls")


def test_an_input_that_is_not_implemented_fails_the_preview(stack: Stack) -> None:
    (stack.program / "__main__.py").write_text(PROGRAM.replace('restart="no"', "privileged=True"))
    assert "does not implement the input privileged" in stack.preview(fails=True)
