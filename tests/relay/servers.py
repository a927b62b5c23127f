"""The sinks as real servers, which can be killed: an HTTPS receiver, nats-server, redis-server.  And the relay itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.needs import program

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Server:
    """A program that listens on a port of its own; `kill` and `start` as happens to servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._process is not None:
            self.kill()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        wait_until(lambda: answers(self.port), f"{self.command()[0]} on port {self.port}")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None


class Receiver(Server):
    """Verifies signatures, and notes what it got in a file before it answers; `answers` changes what it says."""

    def __init__(self, folder: Path, secret: str = SECRET) -> None:
        super().__init__(folder)
        self.secret = secret
        self.certificate = folder / "certificate.pem"
        subprocess.run(
            [
                *(program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", folder / "key.pem", "-out", self.certificate),
            ],
            check=True,
            capture_output=True,
        )
        self.url = f"https://localhost:{self.port}/hook"

    def command(self) -> list[str | Path]:
        return [sys.executable, Path(__file__).parent / "receiver.py", self.folder, str(self.port), self.secret]

    def answer(self, status: int, *headers: str) -> None:
        """From now on; 204 at the start."""
        (self.folder / "answer.new").write_text("\n".join([str(status), *headers]))
        (self.folder / "answer.new").rename(self.folder / "answer")

    def requests(self) -> list[dict[str, Any]]:
        """All, with `id`, `verified`, `status` and `event`."""
        file = self.folder / "requests"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def taken(self) -> list[dict[str, Any]]:
        """The events of the requests that were answered with 2xx, in their order."""
        return [request["event"] for request in self.requests() if 200 <= request["status"] < 300]


class NatsServer(Server):
    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.options = options
        self.url = f"nats://127.0.0.1:{self.port}"

    def command(self) -> list[str | Path]:
        return [program("nats-server"), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", self.folder, *self.options]


class RedisServer(Server):
    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.options = options
        self.url = f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[str | Path]:
        # with its log of commands, so that kill() loses nothing that it confirmed
        return [
            *(program("redis-server"), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", self.folder),
            *("--appendonly", "yes", "--save", "", *self.options),
        ]


class Relay:
    """`schema-changes relay` as a process.

    waits: for another relay, which has its cursor.
    """

    def __init__(self, *words: str | Path, env: dict[str, str] | None = None, command: str = "relay", waits: bool = False) -> None:
        self.metrics = free_port()
        self.words = [*words, "--metrics", f"127.0.0.1:{self.metrics}"]
        self.env = {**os.environ, "SCHEMA_CHANGES_SECRET": SECRET, **(env or {})}
        self.command = command
        self.waits = waits
        self.process: subprocess.Popen[str] | None = None
        self.said = ""

    def __enter__(self) -> Self:
        self.start()
        wait_until(self.is_ready, "the relay")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.process is not None:
            self.kill()
        print(self.said)  # shown when a test fails

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "schema_changes", self.command, *self.words], env=self.env, stderr=subprocess.PIPE, text=True
        )

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.process.communicate()
        with contextlib.suppress(OSError):
            if self.waits:
                return "is another relay's" in str(self.status()["problem"])
            return self.has_begun()
        return False

    def has_begun(self) -> bool:
        state = self.status()
        return state["problem"] is None and all(sink["cursor"] for sink in state["sinks"])

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        self.said += self.process.communicate(timeout=20)[1]
        code, self.process = self.process.returncode, None
        return code

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/status")[1]))


class Serve(Relay):
    """`schema-changes serve` as a process, on `port`."""

    def __init__(self, *words: str | Path, env: dict[str, str] | None = None) -> None:
        super().__init__(*words, env=env, command="serve")
        self.port = free_port()
        self.words = ["--bind", f"127.0.0.1:{self.port}", *self.words]

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.process.communicate()
        return answers(self.metrics) and self.get("/status")[0] == 200


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.02)


def names(events: list[dict[str, Any]]) -> Iterator[str]:
    """What was created, of each event."""
    for event in events:
        yield event["data"]["objects"][0]["identity"]
