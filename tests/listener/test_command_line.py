"""The commands listen, history and status, run as processes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from schema_changes import errors
from tests.listener.commands import COMMAND, line, listening, names, run
from tests.listener.pgbouncer import PgBouncer
from tests.support import REPOSITORY
from tests.support.postgres import Cluster, execute


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_prints_json_when_piped_and_ends_quietly_with_the_cursor_saved(database: str, tmp_path: Path, ending: int) -> None:
    cursor = tmp_path / "cursor"
    with listening(database, "--cursor-file", cursor) as process:
        execute(database, "CREATE TABLE a ()")
        change = line(process)
        assert (change["tag"], names(change)) == ("CREATE TABLE", ["public.a"])
        time.sleep(0.3)
        process.send_signal(ending)
        stdout, stderr = process.communicate(timeout=10)
        assert (process.returncode, stdout, stderr) == (0, "", "")
    execute(database, "CREATE TABLE b ()")
    with listening(database, "--cursor-file", cursor) as process:
        assert names(line(process)) == ["public.b"]
    with listening(database, "--since", change["cursor"]) as process:
        assert names(line(process)) == ["public.b"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_more_signals_while_it_ends_change_nothing(database: str, tmp_path: Path, ending: int) -> None:
    with listening(database, "--cursor-file", tmp_path / "cursor") as process:
        for _ in range(3):
            process.send_signal(ending)
            time.sleep(0.003)
        assert (process.wait(10), *process.communicate()) == (0, "", "")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ending_it_while_the_server_does_not_answer(ending: int) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        subprocess.Popen(
            [*COMMAND, "listen", f"postgresql://127.0.0.1:{silent.getsockname()[1]}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        silent.accept()
        process.send_signal(ending)
        assert (process.wait(10), *process.communicate()) == (0, "", "")


def test_ctrl_c_while_it_waits_for_the_password_ends_it_quietly(database: str) -> None:
    command = [*COMMAND, "check", "--password-stdin", database]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert (process.wait(10), *process.communicate()) == (0, "", "")


def test_a_closed_pipe_ends_it_quietly_with_the_cursor_before_what_was_not_read(database: str, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    with listening(database, "--cursor-file", cursor) as process:
        execute(database, "CREATE TABLE a ()")
        assert names(line(process)) == ["public.a"]
        assert process.stdout is not None
        process.stdout.close()
        execute(database, "CREATE TABLE b ()")
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    with listening(database, "--cursor-file", cursor) as process:
        assert names(line(process)) == ["public.b"]


@pytest.mark.parametrize("way", ["variables", "service file"])
def test_connects_by_the_usual_variables_and_by_a_service_file(
    cluster: Cluster, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    name = database.rpartition("/")[2]
    services = tmp_path / "services"
    place = {"host": "127.0.0.1", "port": str(cluster.port), "user": "postgres", "dbname": name}
    if way == "variables":
        for variable, value in zip(("PGHOST", "PGPORT", "PGUSER", "PGDATABASE"), place.values(), strict=True):
            monkeypatch.setenv(variable, value)
    else:
        services.write_text("[shop]\n" + "".join(f"{keyword}={value}\n" for keyword, value in place.items()))
        monkeypatch.setenv("PGSERVICEFILE", str(services))
        monkeypatch.setenv("PGSERVICE", "shop")
    with listening() as process:
        execute(database, "CREATE TABLE a ()")
        assert names(line(process)) == ["public.a"]
    assert names(json.loads(run("history").stdout)) == ["public.a"]
    assert json.loads(run("check").stdout)["database"] == name
    assert run("status").returncode == 0
    if way == "service file":
        services.write_text("[shop]\nhost=127.0.0.1\nport=1\n")
        assert "Cannot reach the database of service 'shop': " in run("listen").stderr


def test_a_terminal_gets_words_in_colour_and_no_control_sequences_of_others(database: str) -> None:
    ours, theirs = pty.openpty()
    with listening(database, stdout=theirs) as process:
        execute(database, 'CREATE TABLE "evil\x1b[2J" ()', "DROP TABLE " + '"evil\x1b[2J"')
        seen = ""
        while "DROP TABLE" not in seen or not seen.endswith("\n"):
            seen += os.read(ours, 4096).decode()
        process.terminate()
        assert process.wait(10) == 0
    with listening(database, "--json", stdout=theirs):
        execute(database, "CREATE TABLE plain ()")
        assert names(json.loads(os.read(ours, 4096))) == ["public.plain"]
    assert "\x1b[32m+ table" in seen
    assert "\x1b[31m- table" in seen
    assert "by postgres" in seen
    assert "\x1b[2J" not in seen


def test_runs_a_command_for_each_burst(database: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with listening(database, "--exec", f"cat >> {ran}; echo end >> {ran}", "--quiet-ms", "300", "--tag", "CREATE *"):
        execute(database, "CREATE TABLE a ()", "DROP TABLE a", "CREATE TABLE b ()")
        deadline = time.monotonic() + 10
        while not ran.exists() or not ran.read_text().endswith("end\n"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    first, second, end = ran.read_text().splitlines()
    assert [names(json.loads(first)), names(json.loads(second)), end] == [["public.a"], ["public.b"], "end"]


def test_a_command_that_fails_ends_it_with_the_cursor_before_the_burst(database: str, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    with listening(database, "--cursor-file", cursor, "--exec", "exit 3", "--quiet-ms", "50") as process:
        execute(database, "CREATE TABLE a ()")
        _, stderr = process.communicate(timeout=10)
        assert process.returncode == 1
        assert "failed with 3" in stderr
    with listening(database, "--cursor-file", cursor) as process:
        assert names(line(process)) == ["public.a"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ending_it_while_the_command_runs_leaves_the_cursor_before_the_burst(database: str, tmp_path: Path, ending: int) -> None:
    cursor, started = tmp_path / "cursor", tmp_path / "started"
    with listening(database, "--cursor-file", cursor, "--exec", f"touch {started}; exec sleep 60", "--quiet-ms", "50") as process:
        execute(database, "CREATE TABLE a ()")
        deadline = time.monotonic() + 10
        while not started.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(ending)
        assert (process.wait(10), *process.communicate()) == (0, "", "")
    with listening(database, "--cursor-file", cursor) as process:
        assert names(line(process)) == ["public.a"]


def test_history(database: str) -> None:
    execute(database, *(f"CREATE TABLE t{number} ()" for number in range(5)))
    everything = [json.loads(text) for text in run("history", database).stdout.splitlines()]
    assert [names(change) for change in everything] == [[f"public.t{number}"] for number in range(5)]
    assert len(run("history", "--limit", "2", database).stdout.splitlines()) == 2
    execute(database, "CREATE SCHEMA other", "CREATE TABLE other.t ()")
    (last,) = run("history", "--limit", "1", "--schema", "pub*", database).stdout.splitlines()
    assert names(json.loads(last)) == ["public.t4"]
    with psycopg.connect(database) as connection:
        ((cursor,),) = connection.execute("SELECT cursor FROM schema_notifications.changes_since()")
    execute(database, "CREATE TABLE later ()", "DROP TABLE later")
    (later,) = run("history", "--since", cursor, "--limit", "1", "--tag", "CREATE *", database).stdout.splitlines()
    assert names(json.loads(later)) == ["public.later"]
    assert json.loads(run("history", "--since", "nonsense", database).stdout)["type"] == "reset"


def test_status(database: str) -> None:
    done = run("status", "--json", database)
    assert done.returncode == 0
    assert json.loads(done.stdout)["healthy"] is True
    execute(database, "ALTER EVENT TRIGGER schema_notifications_sql_drop DISABLE")
    done = run("status", database)
    assert done.returncode == 6
    assert "ENABLE ALWAYS" in done.stdout


@pytest.mark.parametrize("command", ["listen", "history", "status"])
def test_errors_are_one_sentence_and_an_exit_code(cluster: Cluster, database: str, command: str) -> None:
    role = f"guest_{database.rpartition('_')[2]}"
    cluster.execute(f"CREATE ROLE {role} LOGIN")
    for url, code in (
        (cluster.url("postgres"), 5),
        (cluster.url("nowhere"), 4),
        (cluster.url(port=1), 3),
        (database.replace("postgres@", f"{role}@"), 8),
    ):
        done = run(command, url)
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("schema-changes: ")
        assert "Traceback" not in done.stderr


def test_a_pool_of_transactions_is_told_at_the_start(cluster: Cluster, database: str) -> None:
    with PgBouncer(cluster, "transaction") as pool:
        done = run("listen", database.replace(str(cluster.port), str(pool.port)))
    assert (done.returncode, done.stdout) == (9, "")
    assert "a proxy in between pools transactions" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["listen", "--cursor-file", "/nowhere/cursor"], "The folder of the cursor file '/nowhere/cursor' is not there"),
        (["listen", "--container", "db", "port=1,2"], "'1,2'"),
        (["listen", "postgresql://app:secret%zz@db/app"], "The connection string cannot be read"),
        (["history", "host=db password=not quoted secret"], "The connection string cannot be read"),
        (["check", "postgresql://app:secret@[/app"], "The connection string cannot be read"),
        (["listen", "postgresql://app:pass@secret@db/app"], "write %40 for @"),
        (["status", "postgresql://app:pass/secret@db/app"], "write %40 for @"),
        (["status", "postgresql://app:secret"], "The connection string cannot be read"),
        (["history", "postgresql://app:secret/@db/app"], "write %40 for @"),
        (["history", "host=db port=secret"], "The connection string cannot be read"),
    ],
)
def test_what_is_given_wrongly_is_told_in_one_sentence_without_secrets(database: str, words: list[str], sentence: str) -> None:
    done = run(*words, *([database] if "--cursor-file" in words else []))
    assert done.returncode == 1
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr + done.stdout


def test_a_misplaced_url_is_quoted_without_its_password() -> None:
    done = run("listen", "db", "postgresql://app:se@cret@db/app")
    assert done.returncode == 2
    assert "postgresql://…@db/app" in done.stderr
    assert "cret" not in done.stderr


def test_names_reach_no_terminal_as_commands(database: str) -> None:
    name = "a\x9b31mb\u202egnp.exe"
    execute(database, f'CREATE TABLE "{name}" ()')
    done = subprocess.run([*COMMAND, "history", "--json", database], capture_output=True, check=True)
    assert done.stdout.isascii()
    assert names(json.loads(done.stdout)) == [f'public."{name}"']
    done = subprocess.run(
        [*COMMAND, "status", database.replace("postgres@", "x%C2%9B%E2%80%AEy@")], capture_output=True, check=False
    )
    assert done.returncode == 4
    assert b"\xc2\x9b" not in done.stderr
    assert b"\xe2\x80\xae" not in done.stderr


def test_tells_a_descriptor_and_systemd_when_it_listens(database: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        process = subprocess.Popen(
            [*COMMAND, "listen", "--ready-fd", str(write), database],
            pass_fds=[write],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        os.close(write)
        try:
            with open(read) as file:
                cursor = file.read()  # it is closed then
            assert systemd.recv(100) == b"READY=1"
            execute(database, "CREATE TABLE a ()")
            assert names(line(process)) == ["public.a"]
        finally:
            process.kill()
            process.communicate()
    assert cursor.endswith("\n")
    assert names(json.loads(run("history", "--json", "--since", cursor.strip(), database).stdout)) == ["public.a"]


def test_a_connection_lost_while_the_log_is_asked_is_told(cluster: Cluster, database: str) -> None:
    name = database.rpartition("/")[2]
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{name}'"
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE schema_notifications.log IN ACCESS EXCLUSIVE MODE")
        process = subprocess.Popen([*COMMAND, "history", database], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while not cluster.execute(end) and time.monotonic() < deadline:
            time.sleep(0.05)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 3
    assert stderr.startswith(f"schema-changes: Lost database '{name}'")
    assert len(stderr.splitlines()) == 1


def test_the_wheel_has_the_command_and_needs_no_pulumi(database: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, REPOSITORY], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    programs = tmp_path / "venv/bin"
    subprocess.run([programs / "pip", "install", "-q", wheel], check=True)
    installed = subprocess.run([programs / "pip", "list", "--format=json"], capture_output=True, check=True).stdout
    assert "pulumi" not in {package["name"] for package in json.loads(installed)}
    done = subprocess.run([programs / "schema-changes", "check", database], cwd=tmp_path, capture_output=True, check=True)
    assert json.loads(done.stdout)["ok"] is True
    assert list((tmp_path / "venv/lib").glob("python*/site-packages/schema_changes/py.typed"))


def test_help_and_wrong_usage() -> None:
    document = (REPOSITORY / "docs/listening.md").read_text().replace("`", "")
    documented = re.findall(r"^\| (\d) \| (.+) \|$", document, re.MULTILINE)
    raised = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    assert {int(code) for code, _ in documented} == raised | {0, 2}
    for words in ([], ["listen"], ["history"], ["status"], ["check"]):
        told = run(*words, "--help").stdout
        assert re.findall(r"^  (\d)  (.+)$", told, re.MULTILINE) == documented
        assert "--stack" in told
        assert "--container" in told
    assert run("unknown").returncode == 2
    assert run("history", "--limit", "0").returncode == 2
    assert run("listen", "--no-catch-up", "--since", "x").returncode == 1
