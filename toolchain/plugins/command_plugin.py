"""Stands in for pulumi-command: local.Command and the function local.run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import IO, Any, ClassVar, cast

from stand_in import UNKNOWN, Call, Difference, Lines, Plugin, Refusal, Resource, Values, changed, refuse_unknown_inputs, unique

RUN = dict.fromkeys(("command", "logging", "addPreviousOutputInEnv"))
LOGGING = {
    None: (True, True),
    "stdoutAndStderr": (True, True),
    "stdout": (True, False),
    "stderr": (False, True),
    "none": (False, False),
}

_running: set[subprocess.Popen[bytes]] = set()


def run(call: Call, argv: list[str], shown: str, inputs: Values, extra_env: Values) -> Values:
    """Runs a command to its end and returns its stdout and stderr; raises with `shown` and all its output when it fails."""
    show_stdout, show_stderr = LOGGING[inputs.get("logging")]
    both: list[bytes] = []
    process = subprocess.Popen(  # with a process group of its own, so that `cancel` ends its children as well
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | extra_env,
        start_new_session=True,
    )
    _running.add(process)
    try:
        stdout = Lines(process.stdout, both, call.show if show_stdout else None)
        stderr = Lines(process.stderr, both, call.show if show_stderr else None)
        feed(process, (inputs.get("stdin") or "").encode())
        output = {"stdout": stdout.text(), "stderr": stderr.text()}
        process.wait()
    finally:
        _running.discard(process)
    if process.returncode != 0:
        how = f"exit status {process.returncode}" if process.returncode > 0 else signal.Signals(-process.returncode).name
        raise RuntimeError(f"{how}: running {json.dumps(shown)}:\n{b''.join(both).decode(errors='replace')}")
    return output


def feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Gives a process its standard input; one that ends without having read it all does no wrong."""
    with contextlib.suppress(BrokenPipeError), cast(IO[bytes], process.stdin) as stdin:
        stdin.write(data)


def previous_output(inputs: Values, state: Values) -> Values:
    """The environment that tells a command what it said the last time."""
    if inputs.get("addPreviousOutputInEnv") is False:
        return {}
    return {f"PULUMI_COMMAND_{key.upper()}": state[key] for key in ("stdout", "stderr") if state.get(key)}


class LocalCommand(Resource):
    shape: ClassVar[dict[str, Any]] = dict.fromkeys(
        ("triggers", "create", "update", "delete", "stdin", "logging", "addPreviousOutputInEnv")
    )
    outputs = ("stdout", "stderr")

    def check(self, name: str, old: Values, inputs: Values) -> Values:
        if inputs.get("logging") not in (*LOGGING, UNKNOWN):
            raise Refusal("logging", f"{inputs['logging']!r} is none of {', '.join(filter(None, LOGGING))}")
        return inputs

    def diff(self, old_inputs: Values, state: Values, inputs: Values) -> Difference:
        keys = changed(old_inputs, inputs)
        return Difference(update=keys - {"triggers"}, replace=keys & {"triggers"})

    def create(self, call: Call, name: str, inputs: Values) -> tuple[str, Values]:
        return unique(name, 8), inputs | self.perform(call, inputs.get("create"), inputs, {})

    def update(self, call: Call, identity: str, state: Values, inputs: Values) -> Values:
        return inputs | self.perform(call, inputs.get("update", inputs.get("create")), inputs, state)

    def delete(self, call: Call, identity: str, state: Values) -> None:
        self.perform(call, state.get("delete"), state, state)

    def perform(self, call: Call, command: str | None, inputs: Values, state: Values) -> Values:
        if command is None:
            return {key: state.get(key, "") for key in self.outputs}
        return run(call, ["/bin/sh", "-c", command], command, inputs, previous_output(inputs, state))


def print_nothing(line: str) -> None:
    """What a function says is in what it returns."""


class CommandPlugin(Plugin):
    def call(self, function: str, args: Values) -> Values:
        if function != "command:local:run":
            return super().call(function, args)
        refuse_unknown_inputs(args, RUN)
        return args | run(Call("", print_nothing, print_nothing), ["/bin/sh", "-c", args["command"]], args["command"], args, {})

    def cancel(self) -> None:
        for process in list(_running):
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    CommandPlugin("command", "1.2.1", {"command:local:Command": LocalCommand()}).serve()
