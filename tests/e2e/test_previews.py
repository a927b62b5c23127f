"""What `pulumi preview --diff` says of typical changes: it is short, names what would be replaced and why, and shows no secret."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.e2e.test_deploy import edit_image
from tests.support.sshd import Sshd, start_sshd, stop_sshd
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, sshd: Sshd) -> Iterator[Stack]:
    """A stack of one database, over SSH."""
    stack = Stack(tmp_path_factory.mktemp("previews"))
    stack.init()
    stack.config |= {**sshd.config, "databases": {"app": {"password": "the first one"}}}
    stack.up()
    yield stack
    stack.destroy()
    stack.remove()


@pytest.fixture
def stack(deployed: Stack) -> Iterator[Stack]:
    """The same stack, with its configuration as it was deployed."""
    config, env = json.dumps(deployed.config), dict(deployed.env)
    yield deployed
    deployed.config, deployed.env = json.loads(config), env


def planned(stack: Stack) -> dict[str, str]:
    """What would be done to which resource, by its name without the stack's; replacements with what calls for them."""
    found = {}
    for step in json.loads(stack.preview("--json"))["steps"]:
        if step["op"] != "same":
            why = f" for {', '.join(step['replaceReasons'])}" if step["op"] == "replace" else ""
            found[step["urn"].rpartition("::")[2].removeprefix(f"{stack.name}-")] = step["op"] + why
    return found


def said(stack: Stack) -> str:
    """The preview, without the warnings about the stand-ins for the plugins; it has no line that fills a screen."""
    lines = [line for line in stack.preview("--diff").splitlines() if not re.search(r"warning: using pulumi-\S+ from", line)]
    assert max(map(len, lines)) < 700
    return "\n".join(lines)


def test_an_edited_image_is_built_again_and_the_container_replaced(stack: Stack) -> None:
    edit_image(stack)
    assert planned(stack) == {
        "context": "update",
        "image": "update",
        "app-volume": "update",
        "app": "replace for image, volumes",
        "app-converge": "update",
        "app-check": "update",
    }
    text = said(stack)
    assert len(text.splitlines()) < 50
    assert "+-docker:index/container:Container: (replace)" in text
    assert re.search(r'~ image *: "sha256:[0-9a-f]{64}" => ', text)
    assert "docker:index/volume" not in text


def test_a_changed_password_replaces_nothing_and_is_not_shown(stack: Stack) -> None:
    stack.config["databases"] = {"app": {"password": "the second one"}}
    assert planned(stack) == {"app-converge": "update", "app-check": "update"}
    text = said(stack)
    assert len(text.splitlines()) < 20
    assert "~ stdin: [secret] => [secret]" in text
    assert "the first one" not in text
    assert "the second one" not in text


def test_an_added_port_replaces_the_container(stack: Stack) -> None:
    stack.config["databases"]["app"]["port"] = "54398"
    assert planned(stack) == {"app": "replace for ports", "app-converge": "update", "app-check": "update"}
    text = said(stack)
    assert len(text.splitlines()) < 40
    assert re.search(r"\+ +external *: 54398", text), text


def test_an_added_database_leaves_the_others_alone(stack: Stack) -> None:
    stack.config["databases"]["second"] = {"password": "its own"}
    assert planned(stack) == dict.fromkeys(("second-data", "second-volume", "second", "second-converge", "second-check"), "create")
    text = said(stack)
    assert len(text.splitlines()) < 95  # 14 of them are capabilities
    assert "its own" not in text


def test_a_removed_database_leaves_its_volume_to_the_host(stack: Stack) -> None:
    stack.config["databases"] = {}
    assert planned(stack) == dict.fromkeys(("app", "app-data", "app-volume", "app-converge", "app-check"), "delete")
    # Pulumi says "delete" of a resource that it only forgets; which those are is in the plan.
    steps = json.loads(stack.preview("--json"))["steps"]
    assert [step["urn"].rpartition("::")[2] for step in steps if step.get("oldState", {}).get("retainOnDelete")] == [
        f"{stack.name}-app-data"
    ]


def test_another_host_shows_what_would_stop_a_move(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = start_sshd(tmp_path_factory.mktemp("other"))
    try:
        stack.config |= other.config
        assert planned(stack) == {
            "docker": "update",
            "context": "update",
            "image": "update",
            "app-volume": "update",
            "app": "replace for image, volumes",
            "app-converge": "update",
            "app-check": "update",
        }
        text = said(stack)
    finally:
        stop_sshd(other)
    assert len(text.splitlines()) < 100
    assert re.search(rf'[+~] +host *: .*"{re.escape(other.address)}"', text), text
    assert other.private_key_file.read_text().splitlines()[1] not in text
