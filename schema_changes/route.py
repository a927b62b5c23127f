"""The way to a PostgreSQL container that publishes no port: its address on the engine's network, through SSH if need be.

    with Route(container="app-db", host="ssh://deploy@203.0.113.7") as route:
        psycopg.connect(**route.parameters, dbname="app", user="app")

Over SSH, one connection asks the engine for the container's address and carries every database connection: a local
unix socket, private to this process, hands each connection that it accepts to an `ssh -W` of its own as stdin and
stdout.  Nothing stays on the host, and nothing here reads or copies the bytes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from types import TracebackType
from urllib.parse import urlsplit

import psycopg

from .errors import SchemaChangesError, Unreachable

_ADDRESS = (
    "{{.State.Status}} {{.HostConfig.NetworkMode}}{{range .NetworkSettings.Networks}} {{or .IPAddress .GlobalIPv6Address}}{{end}}"
)


class Route:
    """Context manager; `parameters` are the connection parameters that lead to the container.

    host: `ssh://user@address:port`, or None for this machine's Docker engine.
    ssh_options: passed to every `ssh` before the defaults here, so they win (ssh keeps the first value of an option).
    port: where PostgreSQL listens inside the container.
    timeout: seconds for the SSH connection and for the engine's answer, each.

    Raises `Unreachable` when the host refuses or does not answer, or the container is missing or not running.
    """

    def __init__(
        self,
        container: str,
        host: str | None = None,
        ssh_options: Sequence[str] = (),
        port: int = 5432,
        timeout: float = 10,
    ) -> None:
        self.container = container
        self.host = host
        self.port = port
        self.timeout = timeout
        self.name = f"container {container!r} on {host or 'this machine'}"
        """The container and its host in words, for messages."""
        self.parameters: dict[str, str] = {}
        self._ssh_options = list(ssh_options)
        self._folder = ""
        self._target = ""
        self._command: list[str] = []
        self._server: socket.socket | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        self._ssh_error = ""

    def __enter__(self) -> Route:
        try:
            if self.host is not None:
                self._destination = _ssh_destination(self.host)
                # short: a unix socket's path may have 104 bytes
                self._folder = tempfile.mkdtemp(prefix="schema-changes-")
                self._server = socket.socket(socket.AF_UNIX)
                self._server.bind(f"{self._folder}/.s.PGSQL.{self.port}")
                self._server.listen()
            self.refresh()
            if self._server is not None:
                threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def refresh(self) -> None:
        """Ask again for the container's address, which changes when it is made anew."""
        address = self._container_address()
        self._target = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        if self.host is not None:
            self._command = self._ssh("-W", self._target, *self._destination)
        # an empty hostaddr keeps PGHOSTADDR out of it
        self.parameters = {"host": self._folder or address, "hostaddr": "", "port": str(self.port)}
        # Whoever has the address now is not to be told the password, not even by a challenge that can be worked out.
        if psycopg.pq.version() >= 160000:
            self.parameters["require_auth"] = os.environ.get("PGREQUIREAUTH", "!password,!md5")

    def close(self) -> None:
        """End the SSH processes and remove the socket."""
        if self._server is not None:
            # shutdown, unlike close, wakes the thread that waits in accept
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
        for process in self._processes:
            process.terminate()
            process.wait()
        if self._folder:
            if os.path.exists(self._control_path):
                subprocess.run(
                    ["ssh", "-o", f"ControlPath={self._control_path}", "-O", "exit", *self._destination],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    check=False,
                )
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    def explain(self, error: SchemaChangesError) -> SchemaChangesError:
        """The error of a connection that went this way, in terms of container and host."""
        if isinstance(error, Unreachable) and self._readers:
            self._readers[-1].join(2)  # ssh ends with the connection, and says why
        if isinstance(error, Unreachable) and self._ssh_error:
            return Unreachable(f"Cannot reach PostgreSQL in {self.name}: {self._ssh_error}.")
        # the socket of ours, or the container's address, tells nobody anything
        address = rf" on {re.escape(self.parameters['host'])}(:\d+)? "
        return type(error)(re.sub(address, lambda _: f" in {self.name} ", str(error)))

    @property
    def _control_path(self) -> str:
        return f"{self._folder}/ssh"

    def _ssh(self, *arguments: str) -> list[str]:
        """An ssh command line; the first one stays as master of a shared connection that the others use."""
        return [
            "ssh",
            *self._ssh_options,
            *("-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, round(self.timeout))}"),
            *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=2"),
            *("-o", "ControlMaster=auto", "-o", f"ControlPath={self._control_path}", "-o", "ControlPersist=yes"),
            *arguments,
        ]

    def _container_address(self) -> str:
        inspect = ["docker", "inspect", "--type", "container", "--format", _ADDRESS, "--", self.container]
        command = inspect if self.host is None else self._ssh(*self._destination, shlex.join(inspect))
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                # ssh's own ConnectTimeout comes first and says more
                timeout=self.timeout + 5,
                check=False,
            )
        except FileNotFoundError as error:
            raise Unreachable(f"Cannot reach {self.name}: the program {error.filename} is not installed.") from error
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"Cannot reach {self.name}: no answer within {self.timeout + 5:g} s.") from error
        if done.returncode != 0:
            reason = " ".join(done.stderr.split()) or f"{command[0]} ended with {done.returncode}"
            raise Unreachable(f"Cannot reach {self.name}: {reason.rstrip('.')}.")
        # Before it, a login shell may have had something to say.
        status, network, *addresses = done.stdout.rstrip().rpartition("\n")[2].split()
        if status != "running":
            raise Unreachable(f"Cannot reach {self.name}: the container is {status}; start it first.")
        if network == "host":
            return "127.0.0.1"
        if not addresses:
            # the host's own address would be somebody else's server
            raise Unreachable(
                f"Cannot reach {self.name}: it has no address of its own (network {network}); connect it to a network."
            )
        return addresses[0]

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return  # closed
            with connection:
                process = subprocess.Popen(
                    self._command, stdin=connection.fileno(), stdout=connection.fileno(), stderr=subprocess.PIPE
                )
            self._processes.append(process)
            self._readers.append(threading.Thread(target=self._note_error, args=(process,), daemon=True))
            self._readers[-1].start()

    def _note_error(self, process: subprocess.Popen[bytes]) -> None:
        _, output = process.communicate()
        said = " ".join(output.decode(errors="replace").split())
        if "open failed" in said or "Session open refused" in said:
            said = f"nothing answers at {self._target}"  # which is what sshd tells ssh, in other words
        if process.returncode > 0:
            self._ssh_error = said.rstrip(".")


def _ssh_destination(host: str) -> list[str]:
    """The arguments for ssh that stand for `ssh://user@address:port`."""
    parts = urlsplit(host)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme != "ssh" or not parts.hostname or parts.path not in ("", "/") or parts.password or port == -1:
        shown = host.replace(f":{parts.password}@", ":…@") if parts.password else host
        raise SchemaChangesError(f"{shown!r} is no SSH host: write ssh://user@address[:port], without a password.")
    user = ["-l", parts.username] if parts.username else []
    return [*user, *(["-p", str(port)] if port else []), "--", parts.hostname]
