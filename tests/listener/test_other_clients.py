"""Clients that know nothing of this library: the plain channel serves them, and the Node.js example catches up."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest

from tests.support import REPOSITORY
from tests.support.needs import program
from tests.support.postgres import Cluster, execute

EXAMPLE = REPOSITORY / "examples/node-listener"


def node_modules(package: Path, npmrc: Path) -> Path:
    """A folder with the packages that a package.json names, installed once."""
    digest = hashlib.sha256(package.read_bytes()).hexdigest()[:12]
    folder = REPOSITORY / ".cache" / f"node-{digest}"
    if not (folder / "node_modules/.package-lock.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(package, folder / "package.json")
        shutil.copy(npmrc, folder / ".npmrc")
        subprocess.run(
            [program("npm"), "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True, timeout=120
        )
    return folder


class Lines:
    """The lines that a process prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        for stream in (process.stdout, process.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: Iterator[str]) -> None:
        for line in stream:
            self._lines.put(line.rstrip("\n"))

    def next(self, seconds: float = 10) -> str:
        """The next line; queue.Empty when none comes in time."""
        return self._lines.get(timeout=seconds)

    def change(self) -> dict[str, object]:
        """The next line that is JSON."""
        while True:
            line = self.next()
            if line.startswith("{"):
                return dict(json.loads(line))


@contextmanager
def running(command: list[str | Path], **environment: str) -> Iterator[Lines]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, **environment},
    )
    try:
        yield Lines(process)
    finally:
        process.kill()
        process.wait()


def identity(change: dict[str, object]) -> object:
    objects = change["objects"]
    assert isinstance(objects, list)
    return objects[0]["identity"]


def test_the_node_example_misses_nothing_over_reconnects_and_restarts(database: str, tmp_path: Path) -> None:
    folder = node_modules(EXAMPLE / "package.json", EXAMPLE / ".npmrc")
    shutil.copy(EXAMPLE / "listener.js", folder)
    command: list[str | Path] = [program("node"), folder / "listener.js"]
    cursor = tmp_path / "cursor"
    environment = {"DATABASE_URL": database, "CURSOR_FILE": str(cursor)}
    with running(command, **environment) as node:
        assert node.next() == "Listening."
        execute(database, "CREATE TABLE live ()")
        assert identity(node.change()) == "public.live"
        execute(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'postgres.js'",
            "CREATE TABLE while_disconnected ()",
        )
        assert identity(node.change()) == "public.while_disconnected"
        execute(database, "CREATE TABLE live_again ()")
        assert identity(node.change()) == "public.live_again"
        # killed before the cursor is stored, it would tell the change again
        with psycopg.connect(database, autocommit=True) as connection:
            deadline = time.monotonic() + 10
            while (
                len(connection.execute("SELECT FROM schema_notifications.changes_since(%s)", [cursor.read_text()]).fetchall()) > 1
            ):
                assert time.monotonic() < deadline
                time.sleep(0.02)
    execute(database, "CREATE TABLE while_dead ()")
    with running(command, **environment) as node:
        assert identity(node.change()) == "public.while_dead"
        with pytest.raises(queue.Empty):
            while True:
                assert not node.next(0.5).startswith("{")
    cursor.write_text("nonsense")
    with running(command, **environment) as node:
        assert "reset" in node.change()


def test_the_specification_s_snippet(database: str) -> None:
    folder = node_modules(EXAMPLE / "package.json", EXAMPLE / ".npmrc")
    script = folder / "snippet.js"
    script.write_text("""
import postgres from 'postgres'
const sql = postgres(process.env.DATABASE_URL)
await sql.listen('schema_changed', (payload) => {
  const data = JSON.parse(payload)
  console.log(JSON.stringify({ type: data.type, tag: data.tag, timestamp: data.timestamp }))
})
console.log('listening')
""")
    with running([program("node"), script], DATABASE_URL=database) as node:
        assert node.next() == "listening"
        execute(database, "CREATE TABLE t ()")
        change = node.change()
    assert (change["type"], change["tag"]) == ("ddl_command_end", "CREATE TABLE")
    assert str(change["timestamp"]).endswith("+00")


def snippet(document: str, start: str) -> str:
    """The block of code in a document that starts so."""
    (code,) = re.findall(rf"^```\w+\n({re.escape(start)}.*?)^```", (REPOSITORY / document).read_text(), re.MULTILINE | re.DOTALL)
    return str(code)


def test_the_readme_s_snippet_for_node(database: str) -> None:
    folder = node_modules(EXAMPLE / "package.json", EXAMPLE / ".npmrc")
    script = folder / "readme.js"
    script.write_text(snippet("README.md", "import postgres") + "console.log('listening')\n")
    with running([program("node"), script], DATABASE_URL=database) as node:
        assert node.next() == "listening"
        execute(database, "CREATE TABLE t ()")
        assert node.next().startswith("Schema changed: CREATE TABLE 20")


@pytest.mark.parametrize(("document", "start"), [("README.md", "import os"), ("docs/listening.md", "from schema_changes import")])
def test_the_snippets_for_python(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str, start: str) -> None:
    monkeypatch.chdir(tmp_path)
    code = snippet(document, start).replace("postgresql://app@db/app", database)
    script = tmp_path / "script.py"
    script.write_text(
        f"import asyncio, logging\nlogging.basicConfig(level=logging.INFO)\nasync def main():\n{indent(code, '    ')}\n"
        "asyncio.run(main())\n"
    )
    with running([sys.executable, "-u", script], DATABASE_URL=database) as python:
        while "Listening to" not in python.next():
            pass
        execute(database, "CREATE TABLE t ()")
        shown = python.next()
    assert shown.startswith("CREATE TABLE ")
    assert "'public.t'" in shown
    assert list(tmp_path.glob("*.cursor"))


def test_node_postgres(database: str) -> None:
    folder = node_modules(Path(__file__).parent / "pg.package.json", EXAMPLE / ".npmrc")
    script = folder / "listener.js"
    script.write_text("""
import pg from 'pg'
const client = new pg.Client({ connectionString: process.env.DATABASE_URL })
client.on('notification', ({ channel, payload }) => console.log(payload))
await client.connect()
await client.query('LISTEN schema_changed')
console.log('listening')
""")
    with running([program("node"), script], DATABASE_URL=database) as node:
        assert node.next() == "listening"
        execute(database, "CREATE TABLE t ()")
        assert identity(node.change()) == "public.t"


async def test_asyncpg(database: str) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(database)
    await connection.add_listener("schema_changed", lambda *arguments: heard.put_nowait(arguments[3]))
    await connection.execute("CREATE TABLE t ()")
    async with asyncio.timeout(10):
        assert identity(json.loads(await heard.get())) == "public.t"
    await connection.close()


def test_psql(cluster: Cluster, database: str) -> None:
    # psql looks for notices after each command
    done = subprocess.run(
        [cluster.bin / "psql", "-X", "-d", database],
        input="LISTEN schema_changed;\nCREATE TABLE t ();\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'Asynchronous notification "schema_changed" with payload "{"type":"ddl_command_end","tag":"CREATE TABLE"' in done.stdout


def built(name: str, source: str, code: str) -> Path:
    """A folder of .cache for what is built from docs/listening.md and the folder of the client's name here, with the code there."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted((Path(__file__).parent / name).iterdir()))).hexdigest()
    folder = REPOSITORY / ".cache" / f"{name}-{digest[:12]}"
    shutil.copytree(Path(__file__).parent / name, folder, dirs_exist_ok=True)
    (folder / source).parent.mkdir(exist_ok=True)
    (folder / source).write_text(code)
    return folder


# pulumi-language-yaml: other languages were asked for, `toolchain/setup --languages`
@pytest.mark.parametrize(
    "client",
    [
        "postgres",
        "pg",
        "asyncpg",
        pytest.param("pgx", marks=pytest.mark.needs("go", "pulumi-language-yaml")),
        pytest.param("tokio-postgres", marks=pytest.mark.needs("cargo", "pulumi-language-yaml")),
        pytest.param("pgjdbc", marks=pytest.mark.needs("mvn", "javac", "pulumi-language-yaml")),
    ],
)
def test_the_documented_lines_miss_nothing_when_the_connection_is_lost(database: str, tmp_path: Path, client: str) -> None:
    if client == "asyncpg":
        script = tmp_path / "follow.py"
        script.write_text(snippet("docs/listening.md", "import asyncio, os, asyncpg"))
        command: list[str | Path] = [sys.executable, script]
    elif client == "pgx":
        shutil.copytree(Path(__file__).parent / "pgx", tmp_path, dirs_exist_ok=True)
        (tmp_path / "main.go").write_text(snippet("docs/listening.md", "package main"))
        subprocess.run([program("go"), "build", "-o", "follow", "."], cwd=tmp_path, check=True, timeout=240)
        command = [tmp_path / "follow"]
    elif client == "tokio-postgres":
        folder = built(client, "src/main.rs", snippet("docs/listening.md", "use std::"))
        subprocess.run([program("cargo"), "build", "--locked", "--quiet"], cwd=folder, check=True, timeout=280)
        command = [folder / "target/debug/follow"]
    elif client == "pgjdbc":
        folder = built(client, "Follow.java", snippet("docs/listening.md", "import java.sql"))
        if not (folder / "target/dependency").exists():
            subprocess.run([program("mvn"), "--quiet", "dependency:copy-dependencies"], cwd=folder, check=True, timeout=240)
        command = [program("java"), "-cp", f"{folder}/target/dependency/*", folder / "Follow.java"]
    else:
        package = EXAMPLE / "package.json" if client == "postgres" else Path(__file__).parent / "pg.package.json"
        folder = node_modules(package, EXAMPLE / ".npmrc")
        script = folder / "documented.js"
        script.write_text(snippet("docs/listening.md", f"import {client} from '{client}'"))
        command = [program("node"), script]
    listening = "datname = current_database() AND pid <> pg_backend_pid()"
    with (
        psycopg.connect(database, autocommit=True) as connection,
        running(
            command, DATABASE_URL=database, JDBC_DATABASE_URL=f"jdbc:{database.replace('postgres@', '')}?user=postgres"
        ) as process,
    ):

        def wait_until_it_asked() -> None:
            """Nothing says that the first cursor is there but a change that is told."""
            deadline = time.monotonic() + 30
            for number in itertools.count():
                connection.execute(f"COMMENT ON SCHEMA public IS '{number}'")
                try:
                    assert process.next(0.5) == "change COMMENT"
                    return
                except queue.Empty:
                    assert time.monotonic() < deadline

        wait_until_it_asked()
        for turn in range(2):
            connection.execute("CREATE TABLE t ()")
            while (told := process.next()) == "change COMMENT":
                pass
            assert told == "change CREATE TABLE"
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {listening}")
            connection.execute("DROP TABLE t")
            connection.execute(f"CREATE VIEW v{turn} AS SELECT 1")
            heard: list[str] = []
            while len(heard) < 2:
                heard += [line for line in [process.next(20)] if line.startswith("change")]  # beside complaints
            assert heard == ["change DROP TABLE", "change CREATE VIEW"]
        with pytest.raises(queue.Empty):
            process.next(0.5)
