"""What users of Pulumi expect of any component: options, aliases, references, and previews that say what would be replaced."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Stack, docker

PROGRAM = Path(__file__).parent / "options"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path, PROGRAM, "options")
    base_image = os.environ.get("NOTIFYING_POSTGRES_BASE_IMAGE", "postgres:16-alpine")
    made.config = {"name": made.name, "image": f"{made.name}:16", "baseImage": base_image, "databases": {"app": {}}}
    made.init()
    yield made
    made.remove()


def planned(stack: Stack) -> dict[str, str]:
    """What a preview would do to which resource, by name, but for what stays the same."""
    steps = json.loads(stack.preview("--json"))["steps"]
    return {step["urn"].rpartition("::")[2]: step["op"] for step in steps if step["op"] != "same"}


def test_an_instance_renamed_with_an_alias_recreates_nothing(stack: Stack) -> None:
    stack.up()
    before = stack.container()

    stack.config |= {"name": f"{stack.name}-new", "options": {"aliases": [stack.name]}}
    assert not [name for name, op in planned(stack).items() if op not in ("update",)]
    stack.up()

    assert (stack.container()["Id"], stack.container()["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    assert len(docker("ps", "-aq", "--filter", f"name=^{stack.name}").split()) == 1
    stack.up_changes_nothing()


def test_protect_keeps_it_and_what_it_depends_on_comes_first_and_transforms_reach_the_containers(stack: Stack) -> None:
    stack.config["options"] = {"protect": True, "after": True, "label": True}
    stack.up()
    assert stack.container()["Config"]["Labels"]["team"] == "data"
    resources = {one["urn"].rpartition("::")[2]: one for one in json.loads(stack.state())["deployment"]["resources"]}
    assert resources[f"{stack.name}-app"]["urn"] not in resources["before"].get("dependencies", [])
    assert resources["before"]["urn"] in resources[stack.name]["dependencies"]
    order = list(resources)
    assert order.index("before") < order.index(f"{stack.name}-app")
    assert "protected" in stack._change("destroy", "--yes", "--skip-preview", fails=True)
    assert stack.container()["State"]["Running"]
    stack.up_changes_nothing()

    stack.config["options"] = {"after": True, "label": True}
    stack.up()
    stack.destroy()


def test_another_stack_reads_the_urls_as_secrets(stack: Stack, tmp_path: Path) -> None:
    stack.up()
    reader = Stack(tmp_path / "reader", PROGRAM, "options")
    try:
        reader.env["PULUMI_BACKEND_URL"] = stack.env["PULUMI_BACKEND_URL"]
        reader.config = {"reads": f"organization/options/{stack.name}"}
        reader.init()
        reader.up()
        assert reader.outputs()["url"] == stack.outputs()["urls"]["app"]
        assert "[secret]" in reader.run("stack", "output", "url")
    finally:
        reader.remove()


def test_an_existing_volume_is_adopted_with_its_data(stack: Stack) -> None:
    stack.up()
    stack.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    stack.destroy()

    # Another container runs on it. PostgreSQL would not notice, and two servers would destroy the data.
    other = docker("run", "-d", "-v", f"{stack.name}-app-data:/data", "--entrypoint", "sleep", stack.config["baseImage"], "600")
    adopter = f"{stack.name}-adopter"
    stack.config |= {"name": adopter, "databases": {"other": {"volume_name": f"{stack.name}-app-data", "database_name": "app"}}}
    assert "two servers on one volume destroy its data" in stack.up(fails=True)
    docker("rm", "-fv", other)

    stack.up()
    container = f"{adopter}-other"
    found = docker("exec", "-u", "postgres", container, "psql", "-d", "app", "-Atc", "SELECT answer FROM kept")
    assert found == "42"
    assert planned(stack) == {}
