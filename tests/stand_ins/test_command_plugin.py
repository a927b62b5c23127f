"""The stand-in for pulumi-command does what the official plugin does."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.stand_ins.plugins import SIGNATURE, Plugin, in_parallel, secret
from tests.support.sshd import Sshd

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
ARCHIVE = "0def7320c3a5731c473e5ecbe6d01bc7"
ASSET = "c44067f5952c0a294b673a41bacd8c17"


def failure(error: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    return str(error.value.details())


# local.Command


def test_a_command_gets_its_input_environment_folder_and_interpreter(command: Plugin, tmp_path: Path) -> None:
    made = command.create(
        "Local",
        {"create": "import os; print(input(), os.environ['A'], os.getcwd())\nprint()", "interpreter": ["python3", "-c"]}
        | {"stdin": "typed\n", "environment": {"A": "b"}, "dir": str(tmp_path)},
    )
    assert made.state["stdout"] == f"typed b {tmp_path}\n"  # one newline is taken off the end, not two
    assert made.state["stderr"] == ""
    assert made.id.startswith("it")


def test_triggers_replace_and_anything_else_updates(command: Plugin) -> None:
    made = command.create("Local", {"create": "echo 1", "triggers": [1, {"a": 2}], "environment": {"A": "b"}})
    same = command.diff(made, {"create": "echo 1", "triggers": [1, {"a": 2}], "environment": {"A": "b"}})
    assert (same.changes, list(same.replaces), list(same.diffs)) == (same.DIFF_NONE, [], [])
    triggered = command.diff(made, {"create": "echo 1", "triggers": [1, {"a": 3}], "environment": {"A": "b"}})
    assert (list(triggered.replaces), triggered.deleteBeforeReplace) == (["triggers"], False)
    changed = command.diff(made, {"create": "echo 2", "triggers": [1, {"a": 2}]})
    assert (list(changed.replaces), sorted(changed.diffs)) == ([], ["create", "environment"])


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
    assert "connection.proxy" in command.refusal("Remote", {"connection": {"host": "h", "proxy": {"host": "p"}}})
    assert "connection.password" in command.refusal("Remote", {"connection": secret({"host": "h", "password": "p"})})
    assert "environment" in command.refusal("Remote", {"connection": {"host": "h"}, "environment": {"A": "b"}})
    assert command.refusal("Remote", {"create": "true"}) == "connection: the input connection is required"
    assert "loud" in command.refusal("Local", {"create": "true", "logging": "loud"})


def test_a_preview_runs_nothing_and_knows_no_output(command: Plugin, tmp_path: Path) -> None:
    outputs = command.preview("Local", {"create": f"touch {tmp_path}/ran", "stdin": secret("hidden"), "dir": UNKNOWN})
    assert outputs["stdout"] == outputs["stderr"] == outputs["dir"] == UNKNOWN
    assert outputs["stdin"] == secret("hidden")
    assert not (tmp_path / "ran").exists()


def test_secrets_stay_secret(command: Plugin, sshd: Sshd) -> None:
    made = command.create("Local", {"create": "cat", "stdin": secret("hidden"), "environment": {"A": secret("b")}})
    assert made.state["stdin"] == secret("hidden")
    assert made.state["environment"] == {"A": secret("b")}
    partly = sshd.connection(privateKey=secret(sshd.private_key_file.read_text()))
    checked = command.check("Remote", {"connection": partly, "create": "true"})
    assert checked["connection"][SIGNATURE], "completed by defaults, and no less secret for it"
    assert checked["connection"]["value"]["perDialTimeout"] == 15


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


# remote.Command


def test_a_remote_command_gets_its_input_and_previous_output(command: Plugin, sshd: Sshd) -> None:
    made = command.create(
        "Remote", {"connection": sshd.connection(), "create": "cat; echo $SSH_CONNECTION >&2", "stdin": "typed\n"}
    )
    assert made.state["stdout"] == "typed"
    assert made.state["stderr"].split()[3] == str(sshd.port)
    made = command.update(made, {"connection": sshd.connection(), "create": "false", "update": "echo updated"})
    assert made.state["stdout"] == "updated"
    with pytest.raises(grpc.RpcError) as error:
        command.create("Remote", {"connection": sshd.connection(), "create": "echo why; exit 255"})
    assert failure(error) == 'exit status 255: running "echo why; exit 255":\nwhy\n'


def test_twenty_commands_at_once_share_a_connection(start_plugin: Any, sshd: Sshd) -> None:
    plugin, before = start_plugin("command"), sshd.logins()
    results = in_parallel(20, lambda n: plugin.create("Remote", {"connection": sshd.connection(), "create": f"echo {n}"}))
    assert [made.state["stdout"] for made in results] == [str(n) for n in range(20)]
    assert sshd.logins() - before == 1


def test_only_the_pinned_host_key_is_accepted(command: Plugin, sshd: Sshd, tmp_path: Path) -> None:
    stranger = sshd.private_key_file.with_name("stranger.pub").read_text()
    before, mark = sshd.logins(), tmp_path / "ran"
    with pytest.raises(grpc.RpcError) as error:
        connection = sshd.connection(hostKey=stranger, dialErrorLimit=1)
        command.create("Remote", {"connection": connection, "create": f"touch {mark}", "stdin": "hidden"})
    assert "Host key verification failed" in failure(error)
    assert (sshd.logins(), mark.exists()) == (before, False)
    trusting = sshd.connection()
    del trusting["hostKey"]
    assert command.create("Remote", {"connection": trusting, "create": "echo in"}).state["stdout"] == "in"


def test_a_host_that_cannot_be_reached_is_named_after_as_many_tries_as_allowed(command: Plugin, sshd: Sshd) -> None:
    command.engine.lines.clear()
    with pytest.raises(grpc.RpcError) as error:
        command.create("Remote", {"connection": sshd.connection(port=1, dialErrorLimit=3), "create": "true"})
    assert "@127.0.0.1:1: after 3 failed attempts" in failure(error)
    assert "refused" in failure(error)
    assert [line for _, line in command.engine.lines] == ["Dial 1/3 failed: retrying", "Dial 2/3 failed: retrying"]


def test_no_private_key_stays_on_disk(start_plugin: Any, sshd: Sshd) -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path is too long for the socket in it
        folder = Path(name)
        plugin = start_plugin("command", TMPDIR=name)
        plugin.create("Remote", {"connection": sshd.connection(), "create": "true"})
        assert [path.name for path in folder.rglob("*") if path.is_file() and "PRIVATE KEY" in path.read_text()] == []
        assert list(folder.rglob("s")), "the connection is open"
        plugin.stop()
        assert list(folder.iterdir()) == []


# remote.CopyToRemote


def source(path: Path | str, digest: str = "1", kind: str = ARCHIVE) -> dict[str, Any]:
    return {SIGNATURE: kind, "path": str(path), "hash": digest}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "below").mkdir(parents=True)
    (folder / "script").write_text("new")
    (folder / "script").chmod(0o755)
    (folder / "below" / "bytes").write_bytes(bytes(range(256)))
    return folder


def test_a_folder_is_copied_into_the_target_or_as_the_target(command: Plugin, sshd: Sshd, tree: Path, tmp_path: Path) -> None:
    inside, target = tmp_path / "a" / "inside", tmp_path / "b"
    command.create("Copy", {"connection": sshd.connection(), "source": source(tree), "remotePath": str(inside)})
    assert (inside / "tree/below/bytes").read_bytes() == bytes(range(256))
    target.mkdir()
    (target / "stale").write_text("old")
    (target / "script").write_text("old")
    made = command.create("Copy", {"connection": sshd.connection(), "source": source(f"{tree}/"), "remotePath": str(target)})
    assert (target / "script").read_text() == "new"
    assert (target / "stale").read_text() == "old", "nothing is deleted"
    assert not os.access(target / "script", os.X_OK) or (target / "script").stat().st_mode & 0o111 == 0, "modes are not kept"
    command.delete(made)
    assert (target / "script").exists()


def test_files_and_text_are_copied_to_a_file(command: Plugin, sshd: Sshd, tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "it's"
    text = {SIGNATURE: ASSET, "text": "text", "hash": "1"}
    command.create("Copy", {"connection": sshd.connection(), "source": text, "remotePath": str(target)})
    assert target.read_text() == "text"
    file = source(tree / "script", kind=ASSET)
    command.create("Copy", {"connection": sshd.connection(), "source": file, "remotePath": str(target.parent)})
    assert (target.parent / "script").read_text() == "new"
    with pytest.raises(grpc.RpcError) as error:
        command.create("Copy", {"connection": sshd.connection(), "source": text, "remotePath": str(target.parent)})
    assert str(target.parent) in failure(error)
    with pytest.raises(grpc.RpcError) as error:
        command.create("Copy", {"connection": sshd.connection(), "source": source(f"{tree}/"), "remotePath": str(target)})
    assert str(target) in failure(error)


def test_a_copy_is_made_again_for_new_content_or_a_new_path_only(command: Plugin, sshd: Sshd, tree: Path, tmp_path: Path) -> None:
    inputs = {"connection": sshd.connection(), "source": source(f"{tree}/"), "remotePath": str(tmp_path / "to"), "triggers": [1]}
    made = command.create("Copy", inputs)
    elsewhere = inputs | {"source": source("/somewhere/else")}
    same = command.diff(made, elsewhere)
    assert same.changes == same.DIFF_NONE, "an archive is its content, wherever it lies"
    assert list(command.diff(made, inputs | {"triggers": [2]}).replaces) == ["triggers"]
    made = command.update(made, inputs | {"connection": sshd.connection(port=1)})
    made = command.update(made, inputs)  # another host alone copies nothing
    (tree / "script").write_text("newer")
    command.update(made, inputs | {"source": source(f"{tree}/", "2")})
    assert (tmp_path / "to" / "script").read_text() == "newer"


def test_archives_in_memory_are_refused_as_by_the_official_plugin(command: Plugin) -> None:
    archive = {SIGNATURE: ARCHIVE, "assets": {"a": {SIGNATURE: ASSET, "text": "b"}}}
    said = command.refusal("Copy", {"connection": {"host": "h"}, "source": archive, "remotePath": "/x"})
    assert said == "source: archive must be a path to a file or directory"
