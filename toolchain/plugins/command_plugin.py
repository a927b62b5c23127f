"""Stands in for pulumi-command: local.Command, remote.Command and remote.CopyToRemote, over the system's `ssh`."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any, ClassVar, cast

from stand_in import (
    ARCHIVE,
    ASSET,
    SIGNATURE,
    UNKNOWN,
    Call,
    Difference,
    Lines,
    Plugin,
    Refusal,
    Resource,
    Values,
    changed,
    has_unknown,
    unique,
)

SESSIONS = 8  # over one connection: sshd's MaxSessions is 10
CONNECTION = ("user", "host", "port", "privateKey", "hostKey", "agentSocketPath", "dialErrorLimit", "perDialTimeout")
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
        cwd=inputs.get("dir"),
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


class Command(Resource):
    """What local.Command and remote.Command have in common."""

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
        return self.run(call, command, inputs, previous_output(inputs, state))

    def run(self, call: Call, command: str, inputs: Values, previous: Values) -> Values:
        raise NotImplementedError


class LocalCommand(Command):
    shape: ClassVar[dict[str, Any]] = dict.fromkeys(
        (
            "triggers",
            "create",
            "update",
            "delete",
            "stdin",
            "logging",
            "interpreter",
            "dir",
            "environment",
            "addPreviousOutputInEnv",
        )
    )

    def run(self, call: Call, command: str, inputs: Values, previous: Values) -> Values:
        interpreter = inputs.get("interpreter") or ["/bin/sh", "-c"]
        return run(call, [*interpreter, command], command, inputs, (inputs.get("environment") or {}) | previous)


def with_defaults(inputs: Values) -> Values:
    connection = inputs["connection"]
    if isinstance(connection, dict):
        if connection.get("host") is None:
            raise Refusal("connection.host", "the input connection.host is required")
        connection = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15} | connection
    return inputs | {"connection": connection}


class RemoteCommand(Command):
    # `environment` is not among them: whether sshd takes a variable cannot be seen from outside `ssh`.
    shape: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("triggers", "create", "update", "delete", "stdin", "logging", "addPreviousOutputInEnv")),
        "connection": dict.fromkeys(CONNECTION),
    }
    required = ("connection",)

    def check(self, name: str, old: Values, inputs: Values) -> Values:
        return with_defaults(super().check(name, old, inputs))

    def run(self, call: Call, command: str, inputs: Values, previous: Values) -> Values:
        with dial(call, inputs["connection"]) as connection:
            return run(call, [*connection.argv, "-o", "SendEnv=PULUMI_COMMAND_*", "host", command], command, inputs, previous)


class CopyToRemote(Resource):
    shape: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("triggers", "source", "remotePath")),
        "connection": dict.fromkeys(CONNECTION),
    }
    required = ("connection", "source", "remotePath")

    def check(self, name: str, old: Values, inputs: Values) -> Values:
        source = inputs["source"]
        if not has_unknown(source):
            kind = source.get(SIGNATURE) if isinstance(source, dict) else None
            if kind not in (ASSET, ARCHIVE):
                raise Refusal("source", "either asset or archive must be set")
            if kind == ARCHIVE and "path" not in source:
                raise Refusal("source", "archive must be a path to a file or directory")
            if kind == ASSET and "path" not in source and "text" not in source:
                raise Refusal("source", "asset must be a path-based file asset or a text asset")
        return with_defaults(inputs)

    def diff(self, old_inputs: Values, state: Values, inputs: Values) -> Difference:
        keys = changed(old_inputs, inputs)
        return Difference(update=keys - {"triggers"}, replace=keys & {"triggers"})

    def create(self, call: Call, name: str, inputs: Values) -> tuple[str, Values]:
        self.copy(call, inputs)
        return unique("", 8), inputs

    def update(self, call: Call, identity: str, state: Values, inputs: Values) -> Values:
        if changed(state, inputs) & {"source", "remotePath"}:
            self.copy(call, inputs)
        return inputs

    def delete(self, call: Call, identity: str, state: Values) -> None:
        pass  # the copy stays where it is, as with the official plugin

    def copy(self, call: Call, inputs: Values) -> None:
        """Text goes to a file, a file to a file or into a folder, a folder, or all that is in it (`path/`), into a folder."""
        source, target = inputs["source"], inputs["remotePath"]
        path = source.get("path")
        refused = f"echo {shlex.quote(f'remote path {target} is there and of another kind')} >&2; exit 1"
        with tempfile.TemporaryFile() as content:
            if path is not None and Path(path).is_dir():
                folder = shlex.quote(target if path.endswith("/") else f"{target}/{Path(path).name}")
                script = (
                    f'to={folder}; if [ -e "$to" ] && [ ! -d "$to" ]; then {refused}; fi; mkdir -p "$to" && tar -xof - -C "$to"'
                )
                with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
                    archive.add(path, ".", filter=without_owner_and_mode)
            else:
                into = refused if path is None else f'file="$file"/{shlex.quote(Path(path).name)}'
                script = (
                    f'file={shlex.quote(target)}; if [ -d "$file" ]; then {into}; fi; mkdir -p "$(dirname "$file")" && cat >"$file"'
                )
                content.write(source["text"].encode() if path is None else Path(path).read_bytes())
            content.seek(0)
            with dial(call, inputs["connection"]) as connection:
                done = subprocess.run(
                    [*connection.argv, "host", f"sh -c {shlex.quote(script)}"], stdin=content, capture_output=True, check=False
                )
        if done.returncode != 0:
            raise RuntimeError(
                f"copying to {inputs['connection']['host']}:{target}: {done.stderr.decode(errors='replace').strip()}"
            )


def without_owner_and_mode(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """As a fresh file is: SFTP, which the official plugin copies with, sends neither."""
    entry.mode = 0o755 if entry.isdir() else 0o644
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


class SshConnection:
    """One connection to a host that all commands to it share; usable in as many `with` at a time as sshd allows sessions."""

    def __init__(self, settings: Values) -> None:
        self.settings = settings
        self._dialed = threading.Lock()
        self._sessions = threading.BoundedSemaphore(SESSIONS)
        self._folder = tempfile.mkdtemp(prefix="pulumi-ssh-")  # only for this user, short enough for a socket's path
        self._socket = f"{self._folder}/s"
        atexit.register(self.close)

    @property
    def argv(self) -> list[str]:
        """`ssh` over the open connection; the host's name and the command follow."""
        return ["ssh", "-F", "none", "-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", f"ControlPath={self._socket}"]

    def __enter__(self) -> SshConnection:
        self._sessions.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self._sessions.release()

    def dial(self, call: Call) -> None:
        """Opens the connection unless it is open; tries again as often as the settings allow."""
        limit = self.settings["dialErrorLimit"]
        with self._dialed:
            attempts, pause = 0, 0.1
            while not self._is_open() and (error := self._try()):
                attempts += 1
                if -1 < limit <= attempts:
                    where = f"{self.settings['user']}@{self.settings['host']}:{self.settings['port']}"
                    raise RuntimeError(f"ssh {where}: after {attempts} failed attempts: {error}")
                call.show(f"Dial {attempts}/{'inf' if limit == -1 else limit} failed: retrying")
                time.sleep(pause)
                pause = min(pause * 1.5, 5)

    def _is_open(self) -> bool:
        return (
            Path(self._socket).exists()
            and subprocess.run([*self.argv, "-O", "check", "host"], capture_output=True, check=False).returncode == 0
        )

    def _try(self) -> str | None:
        """Why it did not work."""
        settings, key = self.settings, Path(self._folder, "key")
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": settings["perDialTimeout"],
            "ControlMaster": "yes",
            "ControlPath": self._socket,
            "ControlPersist": 60,  # seconds without a command, after which it closes even if this plugin was killed
            "GlobalKnownHostsFile": "/dev/null",
            "HostName": settings["host"],
            "Port": settings["port"],
            "ServerAliveInterval": 15,
            "UpdateHostKeys": "no",
            "User": settings["user"],
        }
        if settings.get("hostKey"):
            kind = settings["hostKey"].split()[0]
            known = Path(self._folder, "known_hosts")
            known.write_text(f"pinned {settings['hostKey']}\n")
            algorithms = "rsa-sha2-512,rsa-sha2-256,ssh-rsa" if kind == "ssh-rsa" else kind
            options |= {
                "HostKeyAlias": "pinned",
                "UserKnownHostsFile": known,
                "StrictHostKeyChecking": "yes",
                "HostKeyAlgorithms": algorithms,
            }
        else:
            options |= {"UserKnownHostsFile": "/dev/null", "StrictHostKeyChecking": "no", "LogLevel": "ERROR"}
        if settings.get("agentSocketPath"):
            options["IdentityAgent"] = settings["agentSocketPath"]
        if settings.get("privateKey"):
            options["IdentityFile"] = key
        else:
            options["IdentityFile"] = "none"
        with tempfile.TemporaryFile() as errors:  # no pipe: the connection stays open in the background and would hold it
            try:
                if settings.get("privateKey"):
                    with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                        file.write(settings["privateKey"].rstrip("\n") + "\n")
                argv = ["ssh", "-F", "none", "-fN", *(f"-o{name}={value}" for name, value in options.items()), "host"]
                done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, check=False)
            finally:
                key.unlink(missing_ok=True)
            errors.seek(0)
            return (
                None
                if done.returncode == 0
                else " ".join(errors.read().decode(errors="replace").split()) or f"ssh exited with {done.returncode}"
            )

    def close(self) -> None:
        if Path(self._socket).exists():
            subprocess.run([*self.argv, "-O", "exit", "host"], capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


_connections: dict[str, SshConnection] = {}
_connections_lock = threading.Lock()


def dial(call: Call, settings: Values) -> SshConnection:
    """The open connection to the host that the input `connection` describes."""
    identity = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    with _connections_lock:
        connection = _connections.get(identity) or _connections.setdefault(identity, SshConnection(settings))
    connection.dial(call)
    return connection


class CommandPlugin(Plugin):
    def cancel(self) -> None:
        for process in list(_running):
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    CommandPlugin(
        "command",
        "1.2.1",
        {
            "command:local:Command": LocalCommand(),
            "command:remote:Command": RemoteCommand(),
            "command:remote:CopyToRemote": CopyToRemote(),
        },
    ).serve()
