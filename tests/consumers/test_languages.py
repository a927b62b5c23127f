"""The examples in other languages, on the real engine: what they make is what a Python program makes."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from notifying_postgres import NotifyingPostgresArgs
from notifying_postgres.names import camel_case

from tests.e2e.test_other_stack import PINS, install
from tests.support import REPOSITORY
from tests.support.docker import BASE_IMAGE, docker
from tests.support.stack import Stack

pytestmark = pytest.mark.needs("docker", "npm", "pulumi", "pulumi-language-nodejs", "pulumi-language-yaml")

Start = Callable[[Path, str], Stack]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a stack of a program, in a copy whose instance has the stack's name and which finds the plugin."""
    stacks: list[Stack] = []

    def started(program: Path, project: str) -> Stack:
        folder = tmp_path / project
        shutil.copytree(program, folder / "program", ignore=shutil.ignore_patterns("node_modules", "sdks"))
        stack = Stack(folder / "stack", folder / "program", project)
        stacks.append(stack)
        for file in (folder / "program").iterdir():
            text = re.sub(r"path: (\.\./)+", f"path: {REPOSITORY}/", file.read_text())
            file.write_text(re.sub(r"\bshop\b", stack.name, text))
        stack.init()
        return stack

    yield started
    for stack in stacks:
        stack.remove()


def graph(stack: Stack) -> dict[str, Any]:
    """The component and all in it: what each resource is, whose child, on what it depends, and what it is given."""
    text = stack.state().replace(stack.name, "NAME").replace(stack.project, "PROJECT")
    resources = json.loads(text)["deployment"]["resources"]
    kept = ("parent", "retainOnDelete", "protect", "additionalSecretOutputs", "ignoreChanges", "custom")
    return {
        resource["urn"]: {key: resource.get(key) for key in kept}
        | {"inputs": sorted(resource.get("inputs", {})), "outputs": sorted(resource.get("outputs", {}))}
        | {"dependencies": sorted(resource.get("dependencies", []))}
        for resource in resources
        if "notifying-postgres:index:NotifyingPostgres" in resource["urn"]
    }


def spelt(value: Any) -> Any:
    """A value of a Python program's outputs with the keys as other languages have them, and without what differs by run."""
    if isinstance(value, dict):
        return {camel_case(key): 0 if key == "ms" else spelt(item) for key, item in value.items() if item is not None}
    return [spelt(item) for item in value] if isinstance(value, list) else value


def add_package(stack: Stack, folder: Path) -> None:
    """What a user does first: the engine installs what the plugin needs beside it, and makes an SDK from its schema.

    The plugin is in a copy of the repository, as the engine would have cloned it, and tells its whole schema there.
    """
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout.decode()
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    (folder / "constraints").write_text("\n".join(PINS))
    stack.env |= {"PIP_CONSTRAINT": str(folder / "constraints"), "npm_config_cache": str(Path.home() / ".npm")}

    def package(verb: str) -> str:
        command = ["pulumi", "package", verb, str(folder / "components")]
        done = subprocess.run(command, cwd=stack.program, env=stack.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    package("add")
    resources = json.loads(package("get-schema"))["resources"]
    inputs = resources["notifying-postgres:index:NotifyingPostgres"]["inputProperties"]
    assert inputs.keys() == {camel_case(name) for name in NotifyingPostgresArgs.__annotations__}


@pytest.mark.parametrize("language", ["yaml", "typescript"])
def test_a_stack_in_another_language_makes_what_a_python_one_makes(start: Start, language: str, tmp_path: Path) -> None:
    native = start(Path(__file__).parent / "every_argument", "every-argument")
    databases = {"orders": {"memory": "512m"}, "events": {"user": "ingest", "password": "its password"}}
    args = {"image": f"{native.name}:16", "base_image": BASE_IMAGE, "databases": databases}
    native.config = {"form": "native", "way": "plain", "args": args}
    native.up()

    stack = start(REPOSITORY / "examples" / f"{language}-stack", f"{language}-stack")
    add_package(stack, tmp_path / "repository")
    if language == "typescript":
        subprocess.run(["npx", "tsc", "--noEmit"], cwd=stack.program, env=stack.env, check=True)
    stack.config = {"image": f"{stack.name}:16", "baseImage": BASE_IMAGE, "eventsPassword": "its password"}
    stack.up()

    assert len(graph(native)) == 15
    assert graph(stack) == graph(native)

    python, other = native.outputs(), stack.outputs()
    assert other["ordersUrl"].endswith(f"@{stack.name}-orders:5432/orders")
    assert other["ordersContainer"] == f"{stack.name}-orders"
    assert spelt(other["databases"]) == json.loads(json.dumps(spelt(python["databases"])).replace(native.name, stack.name))
    generated = other["ordersUrl"].split(":")[2].split("@")[0]
    for secret in ("its password", "its%20password", generated):
        assert secret not in stack.state()
    assert "[secret]" in stack.run("stack", "output", "ordersUrl")
    stack.up_changes_nothing()

    for one in (stack, native):
        one.destroy()
        assert docker("ps", "-aq", "--filter", f"name=^{one.name}") == ""


def test_an_installed_plugin_has_all_that_a_deploy_needs(start: Start, tmp_path: Path) -> None:
    """The build context and the check come from where the plugin was installed, and run in its environment."""
    (tmp_path / "wheel").mkdir()
    programs = install(tmp_path / "wheel")
    stack = start(REPOSITORY / "examples" / "yaml-stack", "yaml-stack")
    project = stack.program / "Pulumi.yaml"
    plugin = {"plugins": {"providers": [{"name": "notifying-postgres", "path": str(programs)}]}}
    project.write_text(f"{project.read_text()}{json.dumps(plugin)[1:-1]}\n")
    # The checkout's own environment is out of sight; the stand-ins for the plugins are not.
    path = [folder for folder in stack.env["PATH"].split(":") if Path(folder) != Path(sys.prefix) / "bin"]
    stack.env["PATH"] = ":".join(path)
    stack.config = {"image": f"{stack.name}:16", "baseImage": BASE_IMAGE, "eventsPassword": "its password"}
    stack.up()

    assert stack.outputs()["databases"]["orders"]["check"]["ok"] is True
    (launcher,) = (stack.home / ".notifying-postgres").glob("python-*")
    assert f"exec {programs}/python" in launcher.read_text()
    stack.up_changes_nothing()
    stack.destroy()
