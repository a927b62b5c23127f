"""The stand-in for pulumi-command does what the official plugin does."""

import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.stand_ins.plugins import Plugin, in_parallel, secret

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def failure(error: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    return str(error.value.details())


# local.Command


def test_a_command_gets_its_input(command: Plugin) -> None:
    made = command.create("Local", {"create": "cat; echo", "stdin": "typed\n"})
    assert made.state["stdout"] == "typed\n"  # one newline is taken off the end, not two
    assert made.state["stderr"] == ""
    assert made.id.startswith("it")


def test_triggers_replace_and_anything_else_updates(command: Plugin) -> None:
    made = command.create("Local", {"create": "echo 1", "triggers": [1, {"a": 2}], "stdin": "b"})
    same = command.diff(made, {"create": "echo 1", "triggers": [1, {"a": 2}], "stdin": "b"})
    assert (same.changes, list(same.replaces), list(same.diffs)) == (same.DIFF_NONE, [], [])
    triggered = command.diff(made, {"create": "echo 1", "triggers": [1, {"a": 3}], "stdin": "b"})
    assert (list(triggered.replaces), triggered.deleteBeforeReplace) == (["triggers"], False)
    changed = command.diff(made, {"create": "echo 2", "triggers": [1, {"a": 2}]})
    assert (list(changed.replaces), sorted(changed.diffs)) == ([], ["create", "stdin"])


def test_update_runs_update_or_else_create_and_delete_runs_delete(command: Plugin, tmp_path: Path) -> None:
    log = tmp_path / "log"
    show = f"echo $PULUMI_COMMAND_STDOUT:$PULUMI_COMMAND_STDERR >>{log}"
    made = command.create("Local", {"create": "echo created; echo loud >&2", "delete": show})
    made = command.update(made, {"create": f"{show}; echo again", "delete": show})
    assert made.state["stdout"] == "again"
    made = command.update(made, {"create": "exit 1", "update": f"{show}; echo updated", "delete": show})
    assert made.state["stdout"] == "updated"
    made = command.update(made, {"create": show, "delete": show, "addPreviousOutputInEnv": False})
    made.state["stdout"] = "kept"
    command.delete(made)
    assert log.read_text().splitlines() == ["created:loud", "again:", ":", ":"]
    assert not command.create("Local", {"delete": "exit 1"}).state["stdout"]


def test_a_failing_command_says_how_it_ended_and_all_it_printed(command: Plugin) -> None:
    with pytest.raises(grpc.RpcError) as error:
        command.create("Local", {"create": "echo one; echo two >&2; exit 3"})
    assert failure(error).startswith('exit status 3: running "echo one; echo two >&2; exit 3":')
    assert {"one", "two"} < set(failure(error).split())
    with pytest.raises(grpc.RpcError) as error:
        command.create("Local", {"create": "kill -9 $$"})
    assert "SIGKILL" in failure(error)


@pytest.mark.parametrize(("logging", "shown"), [(None, {"o", "e"}), ("stdout", {"o"}), ("stderr", {"e"}), ("none", set())])
def test_logging_shows_output_as_it_comes(command: Plugin, logging: str | None, shown: set[str]) -> None:
    command.engine.lines.clear()
    command.create("Local", {"create": "echo o; echo e >&2; sleep 0.4", **({"logging": logging} if logging else {})})
    ended = time.monotonic()
    assert {line for _, line in command.engine.lines} == shown
    assert all(ended - when > 0.2 for when, _ in command.engine.lines), "shown only at the end"


def test_what_is_not_implemented_is_refused_by_name(command: Plugin) -> None:
    assert command.refusal("Local", {"create": "true", "assetPaths": ["*"]}).startswith("assetPaths: ")
    assert "loud" in command.refusal("Local", {"create": "true", "logging": "loud"})


def test_a_preview_runs_nothing_and_knows_no_output(command: Plugin, tmp_path: Path) -> None:
    outputs = command.preview("Local", {"create": f"touch {tmp_path}/ran", "stdin": secret("hidden"), "delete": UNKNOWN})
    assert outputs["stdout"] == outputs["stderr"] == outputs["delete"] == UNKNOWN
    assert outputs["stdin"] == secret("hidden")
    assert not (tmp_path / "ran").exists()


def test_secrets_stay_secret(command: Plugin) -> None:
    made = command.create("Local", {"create": "cat", "stdin": secret("hidden")})
    assert made.state["stdin"] == secret("hidden")


def test_the_function_runs_at_once_and_gives_what_was_printed(command: Plugin) -> None:
    assert command.invoke("command:local:run", {"command": "echo out; echo err >&2", "logging": "none"})["stdout"] == "out"
    with pytest.raises(grpc.RpcError) as error:
        command.invoke("command:local:run", {"command": "echo why; exit 3"})
    assert failure(error).startswith('exit status 3: running "echo why; exit 3":')
    with pytest.raises(grpc.RpcError) as error:
        command.invoke("command:local:run", {"command": "true", "dir": "/"})
    assert failure(error).startswith("dir: the stand-in plugin does not implement")


def test_cancelling_ends_a_command_with_its_children(start_plugin: Any) -> None:
    plugin = start_plugin("command")
    begun = time.monotonic()

    def work(number: int) -> str:
        if number:
            time.sleep(0.5)
            plugin.stub.Cancel(grpc_empty())
            return ""
        with pytest.raises(grpc.RpcError) as error:
            plugin.create("Local", {"create": "sleep 30; true"})
        return failure(error)

    assert "SIGKILL" in in_parallel(2, work)[0]
    assert time.monotonic() - begun < 10


def grpc_empty() -> Any:
    from google.protobuf import empty_pb2

    return empty_pb2.Empty()


def test_the_plugin_ends_at_once_when_the_engine_says_so(start_plugin: Any) -> None:
    plugin = start_plugin("command")
    plugin.create("Local", {"create": "true"})
    begun = time.monotonic()
    plugin.stop()
    assert time.monotonic() - begun < 10
