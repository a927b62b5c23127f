"""The stand-ins under the real engine: the real CLI runs a small program through its life."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker import BASE_IMAGE, docker

pytestmark = pytest.mark.needs("docker", "pulumi")

PROGRAM = """
import pulumi, pulumi_command as command, pulumi_docker as docker
config = pulumi.Config()
name = config.require("name")
hidden = pulumi.Output.secret("hidden words")
volume = docker.Volume("data", name=name)
container = docker.Container(
    "it", name=name, image=config.require("image"), command=["sleep", "1000"], envs=[config.get("env") or "A=1"],
    volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path="/data")],
    uploads=[docker.ContainerUploadArgs(file="/secret", content=hidden, permissions="0400")],
    network_mode="bridge", wait=bool(config.get("wait")), wait_timeout=1, restart="no",
    healthcheck=docker.ContainerHealthcheckArgs(tests=["CMD", "false"], interval="200ms"),
)
command.local.Command(
    "after", create=container.id.apply(lambda i: f"echo in {i}; cat >/dev/null"), stdin=hidden, environment={"B": hidden},
    triggers=[container.id],
)
pulumi.export("id", container.id)
pulumi.export("address", container.network_datas[0].ip_address)
"""


class Stack:
    """A project with one stack in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.env = os.environ | {
            "PULUMI_BACKEND_URL": folder.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.env["PATH"] = f"{Path(__file__).parents[2]}/toolchain/plugins/bin:{self.env['PATH']}"
        (folder / "Pulumi.yaml").write_text("name: life\nruntime: python\n")
        (folder / "__main__.py").write_text(PROGRAM)
        self.pulumi("stack", "init", "s")
        self.settings = {"name": name, "image": BASE_IMAGE}

    def pulumi(self, *words: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["pulumi", "--non-interactive", *words], cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert bool(done.returncode) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def up(self, *words: str, fails: bool = False) -> str:
        return self.pulumi("up", "--yes", "--skip-preview", *self.config(), *words, fails=fails)

    def config(self) -> list[str]:
        return [word for key, value in self.settings.items() for word in ("--config", f"{key}={value}")]

    def state(self) -> str:
        return (self.folder / ".pulumi/stacks/life/s.json").read_text()

    def resource(self, kind: str) -> dict[str, Any]:
        resources = json.loads(self.state())["checkpoint"]["latest"]["resources"]
        [found] = [resource for resource in resources if resource["type"] == kind]
        return dict(found)


def test_a_programs_life_under_the_engine(tmp_path: Path, unique_name: str) -> None:
    stack = Stack(tmp_path, unique_name)
    output = stack.up()
    first = stack.pulumi("stack", "output", "id").strip()
    assert (
        docker("inspect", "--format", "{{.Id}} {{.NetworkSettings.IPAddress}}", unique_name)
        == f"{first} {stack.pulumi('stack', 'output', 'address').strip()}"
    )

    # Secrets are nowhere in plain text, and everything is as it was declared.
    assert "hidden words" not in stack.state() + output
    assert docker("exec", unique_name, "cat", "/secret") == "hidden words"
    stack.up("--expect-no-changes")
    stack.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")

    # What was stopped is started; what was removed is made again.
    docker("stop", "-t", "0", unique_name)
    stack.pulumi("refresh", "--yes", "--skip-preview")
    stack.up()
    assert docker("inspect", "--format", "{{.Id}} {{.State.Running}}", unique_name) == f"{first} true"
    docker("rm", "-f", "-v", unique_name)
    stack.pulumi("refresh", "--yes", "--skip-preview")
    stack.up()
    second = stack.pulumi("stack", "output", "id").strip()
    assert second != first
    assert stack.resource("command:local:Command")["outputs"]["stdout"] == f"in {second}", "its trigger, the container, has changed"

    # A replacement has the same name, so the old one goes first; the volume stays.
    created = docker("volume", "inspect", "--format", "{{.CreatedAt}}", unique_name)
    stack.settings["env"] = "A=2"
    stack.up()
    assert "A=2" in docker("inspect", "--format", "{{.Config.Env}}", unique_name)
    assert docker("volume", "inspect", "--format", "{{.CreatedAt}}", unique_name) == created

    # One that does not become healthy is there, in the state too, and what depends on it waits.
    stack.settings |= {"env": "A=3", "wait": "1"}
    assert "not healthy within 1 s" in stack.up(fails=True)
    assert stack.resource("docker:index/container:Container")["initErrors"]
    assert docker("inspect", "--format", "{{.Id}}", unique_name) == stack.resource("docker:index/container:Container")["id"]

    stack.pulumi("destroy", "--yes", "--skip-preview")
    assert unique_name not in docker("container", "ls", "-a") + docker("volume", "ls")


def test_an_input_that_is_not_implemented_fails_the_preview(tmp_path: Path, unique_name: str) -> None:
    stack = Stack(tmp_path, unique_name)
    (tmp_path / "__main__.py").write_text(PROGRAM.replace('restart="no"', "privileged=True"))
    assert "does not implement the input privileged" in stack.pulumi("preview", *stack.config(), fails=True)
