"""Each recipe in examples/recipes, as docs/diff.md says to run it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tests.support.postgres import execute


@contextlib.contextmanager
def recipe(name: str, *words: str | Path, folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """One that listens.  It must not end before the test does."""
    database = words[0]
    program = [sys.executable, "-c", _LOUD, str(REPOSITORY / "examples/recipes" / name), *map(str, words)]
    process = subprocess.Popen(
        program, cwd=folder, env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while "Listening to" not in (line := process.stderr.readline()):
            assert line, f"{name} {database} ended"
        yield process
        assert process.poll() is None, process.stderr.read()
    finally:
        process.kill()
        process.communicate()


# the log of a listener says when it listens
_LOUD = """
import logging, runpy, sys
logging.basicConfig(level=logging.INFO)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers as told."""

    def __init__(self) -> None:
        self.requests: queue.Queue[tuple[str, str, dict[str, str], bytes]] = queue.Queue()
        self.status = 200
        requests, server = self.requests, self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                requests.put((self.command, self.path, dict(self.headers), body))
                self.send_response(server.status)
                self.end_headers()

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_schema_in_git(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "schema"
    subprocess.run(["git", "init", "--quiet", folder], check=True)

    def log(*words: str) -> str:
        done = subprocess.run(["git", "-C", folder, "log", *words], capture_output=True, text=True, check=False)
        return done.stdout

    name = "git_" + database[-8:]
    execute(database, f'CREATE ROLE "{name} <evil>" SUPERUSER')
    environment = {"GIT_COMMITTER_NAME": "schema", "GIT_COMMITTER_EMAIL": "schema@localhost"}
    with recipe("schema_in_git.py", database, folder, folder=tmp_path, **environment):
        execute(database, "CREATE TABLE orders (id integer)")
        until(lambda: log("--format=%an: %B") != "")
        assert log("--format=%an: %B") == "postgres: CREATE TABLE\n\n+ table public.orders\n    + id integer\n\n"
        until(lambda: "orders" in (folder / ".git/picture").read_text())  # or the batch is told again
    # while nobody listens, and by somebody else
    execute(database, f'SET ROLE "{name} <evil>"', "ALTER TABLE orders ADD qty integer NOT NULL DEFAULT 0")
    with recipe("schema_in_git.py", database, folder, folder=tmp_path, **environment):
        until(lambda: log("--oneline").count("\n") == 2)
    assert log("-1", "--format=%an").strip() == f"{name}  evil"
    added = [line for line in log("-1", "--format=", "--patch").splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert added == ["+    qty integer not null default 0"]


def test_types_when_used(database: str, tmp_path: Path) -> None:
    execute(database, "CREATE TABLE orders (id integer)", "CREATE TABLE other (id integer)", "CREATE TYPE mood AS ENUM ('a')")
    made = tmp_path / "made"

    def times() -> int:
        return made.read_text().count("x") if made.exists() else 0

    with recipe("types_when_used.py", database, f"printf x >> {made}", "public.orders", "public.mood", folder=tmp_path):
        for command in ("ALTER TABLE other ADD a integer", "CREATE INDEX ON orders (id)", "GRANT SELECT ON orders TO PUBLIC",
                        "COMMENT ON TABLE orders IS 'c'"):  # fmt: skip
            execute(database, command)
            time.sleep(0.4)
        for number, command in enumerate(
            ("ALTER TABLE orders ADD qty integer", "ALTER TYPE mood ADD VALUE 'b'", "ALTER TABLE orders RENAME TO purchases"), 1
        ):
            execute(database, command)
            until(lambda number=number: times() == number)  # type: ignore[misc]


def test_webhook_message(database: str, tmp_path: Path, receiver: Receiver) -> None:
    with recipe("webhook_message.py", database, folder=tmp_path, WEBHOOK_URL=receiver.url + "/hook"):
        execute(database, 'CREATE TABLE "<!channel> ```" (a integer)')
        method, path, _, body = receiver.requests.get(timeout=20)
    assert (method, path) == ("POST", "/hook")
    assert json.loads(body) == {
        "text": "postgres changed the schema:\n```\n+ table public.\"&lt;!channel&gt; '''\"\n    + a integer\n```"
    }


def test_coolify_deploy(database: str, tmp_path: Path, receiver: Receiver) -> None:
    words = database, receiver.url, "an-application"
    with recipe("coolify_deploy.py", *words, folder=tmp_path, COOLIFY_TOKEN="1|secret"):
        execute(database, "CREATE TABLE t (a integer)", "CREATE INDEX i ON t (a)")
        method, path, headers, _ = receiver.requests.get(timeout=20)
        assert (method, path) == ("GET", "/api/v1/deploy?uuid=an-application")
        assert headers["Authorization"] == "Bearer 1|secret"
        execute(database, "DROP INDEX i", "CREATE INDEX i ON t (a)")  # as it was
        with pytest.raises(queue.Empty):
            receiver.requests.get(timeout=4)
