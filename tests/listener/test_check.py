"""The check after a deploy, as the deploy runs it: a process with exit code, JSON on stdout, a sentence on stderr."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.listener.pgbouncer import PgBouncer
from tests.support.postgres import Cluster, execute


def check(*words: str, stdin: str = "", **environment: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, result, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "schema_changes", "check", *words],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    *_, last = done.stdout.splitlines()
    return done.returncode, json.loads(last), done.stderr


def tables(url: str) -> int:
    with psycopg.connect(url) as connection:
        ((number,),) = connection.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'schema_changes_check%'")
        return int(number)


def test_hears_three_notices_and_leaves_nothing(database: str) -> None:
    code, result, stderr = check(database)
    assert code == 0
    assert result["ok"] is True
    assert result["database"] == database.rpartition("/")[2]
    assert [notice["tag"] for notice in result["notices"]] == ["CREATE TABLE", "ALTER TABLE", "DROP TABLE"]
    assert all(0 < notice["ms"] < 10_000 for notice in result["notices"])
    assert result["server_version"].startswith("16.")
    assert result["extension_version"]
    assert "heard CREATE TABLE" in stderr
    assert tables(database) == 0


def test_json_means_no_words(database: str) -> None:
    code, result, stderr = check("--json", database)
    assert (code, result["ok"], stderr) == (0, True, "")


def test_takes_the_connection_from_the_usual_variables(cluster: Cluster, database: str) -> None:
    code, result, _ = check(PGHOST="127.0.0.1", PGPORT=str(cluster.port), PGUSER="postgres", PGDATABASE=database.rpartition("/")[2])
    assert (code, result["ok"]) == (0, True)


def test_leaves_nothing_when_killed_half_way(database: str) -> None:
    execute(
        database,
        "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); END'",
        "CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION slow()",
    )
    process = subprocess.Popen([sys.executable, "-m", "schema_changes", "check", "--timeout=60", database])
    with psycopg.connect(database, autocommit=True) as connection:
        asleep = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        deadline = time.monotonic() + 20
        while not (pids := connection.execute(asleep).fetchall()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait()
        # the server notices when it next writes to the dead client; here it is told
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", pids[0])
    assert tables(database) == 0


def test_a_time_limit_on_the_statements(database: str) -> None:
    execute(
        database,
        "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); END'",
        "CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION slow()",
    )
    code, result, stderr = check("--timeout=1", database)
    assert (code, result["ok"]) == (7, False)
    assert "statement timeout" in stderr


def with_rule(cluster: Cluster, database: str, method: str) -> str:
    """The URL for a new superuser, password 'right', for whom pg_hba.conf has this method."""
    role = f"checker_{database.rpartition('_')[2]}"
    cluster.execute(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'right'")
    rules = cluster.data / "pg_hba.conf"
    rules.write_text(f"host all {role} 127.0.0.1/32 {method}\n{rules.read_text()}")
    cluster.execute("SELECT pg_reload_conf()")
    theirs = database.replace("postgres@", f"{role}@")
    deadline = time.monotonic() + 10
    while check(theirs, PGPASSWORD="wrong")[0] == 0:
        assert time.monotonic() < deadline, "the rules were not loaded"
    return theirs


def test_a_rule_that_rejects(cluster: Cluster, database: str) -> None:
    code, _, stderr = check(with_rule(cluster, database, "reject"))
    assert code == 4
    assert "pg_hba.conf rejects connection" in stderr


def test_wrong_password_and_the_right_one_from_stdin_and_from_a_file(cluster: Cluster, database: str, tmp_path: Path) -> None:
    theirs = with_rule(cluster, database, "scram-sha-256")
    code, result, stderr = check(theirs, PGPASSWORD="wrong")
    assert (code, result["exit_code"]) == (4, 4)
    assert "the password is wrong" in stderr
    assert "wrong'" not in stderr.replace("is wrong", "")
    code, _, stderr = check(theirs)
    assert code == 4
    assert "it wants a password" in stderr
    assert check("--password-stdin", theirs, stdin="right\n")[0] == 0
    passwords = tmp_path / "passwords"
    passwords.write_text("*:*:*:*:right\n")
    passwords.chmod(0o600)
    assert check(theirs, PGPASSFILE=str(passwords))[0] == 0


def test_no_route(cluster: Cluster) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        code, result, stderr = check(cluster.url(port=closed.getsockname()[1]))
    assert (code, result["ok"], result["exit_code"]) == (3, False, 3)
    assert "Connection refused; see that it runs" in stderr


def test_a_server_that_does_not_answer(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, _, stderr = check("--timeout=2", cluster.url(port=silent.getsockname()[1]))
    assert code == 3
    assert "timeout" in stderr


def test_no_such_database(cluster: Cluster) -> None:
    code, _, stderr = check(cluster.url("nowhere"))
    assert code == 4
    assert 'database "nowhere" does not exist' in stderr


def test_no_extension(cluster: Cluster) -> None:
    code, _, stderr = check(cluster.url("postgres"))
    assert code == 5
    assert "CREATE EXTENSION schema_notifications" in stderr


def test_disabled_trigger(database: str) -> None:
    execute(database, "ALTER EVENT TRIGGER schema_notifications_ddl_command_end DISABLE")
    code, _, stderr = check(database)
    assert code == 6
    assert "disabled" in stderr
    assert "ENABLE ALWAYS" in stderr


def test_disabled_trigger_seen_by_a_role_that_may_not_ask_for_the_status(cluster: Cluster, database: str) -> None:
    role = f"maker_{database.rpartition('_')[2]}"
    cluster.execute(f"CREATE ROLE {role} LOGIN")
    theirs = database.replace("postgres@", f"{role}@")
    code, _, stderr = check(theirs)
    assert code == 8
    assert "may create a table in no schema" in stderr
    execute(database, f"CREATE SCHEMA AUTHORIZATION {role}")
    assert check(theirs)[0] == 0
    execute(database, "ALTER EVENT TRIGGER schema_notifications_ddl_command_end DISABLE")
    code, _, stderr = check(theirs)
    assert code == 6
    assert "schema_notifications_ddl_command_end is disabled" in stderr
    execute(
        database,
        "ALTER EVENT TRIGGER schema_notifications_ddl_command_end ENABLE ALWAYS",
        "CREATE OR REPLACE FUNCTION schema_notifications.notify_schema_change() RETURNS event_trigger "
        "LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END'",
    )
    code, _, stderr = check(theirs)
    assert code == 7
    assert "not come (came: DROP TABLE)" in stderr


def test_altered_function(database: str) -> None:
    execute(
        database,
        "CREATE OR REPLACE FUNCTION schema_notifications.notify_schema_change() RETURNS event_trigger "
        "LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END'",
    )
    code, _, stderr = check(database)
    assert code == 6
    assert "altered" in stderr


def test_notices_switched_off(database: str) -> None:
    execute(database, f"ALTER DATABASE {database.rpartition('/')[2]} SET schema_notifications.notify = off")
    code, _, stderr = check(database)
    assert code == 6
    assert "schema_notifications.notify is off" in stderr


def test_several_databases_and_one_that_fails(cluster: Cluster, database: str) -> None:
    other = cluster.create_database(f"{database.rpartition('/')[2]}_other")
    names = [database.rpartition("/")[2], other.rpartition("/")[2]]
    code, result, _ = check(cluster.url(), *(f"--database={name}" for name in names))
    assert code == 0
    assert [one["database"] for one in result["databases"]] == names
    execute(other, "DROP EXTENSION schema_notifications")
    code, result, stderr = check(cluster.url(), *(f"--database={name}" for name in names))
    assert code == 5
    assert [one["ok"] for one in result["databases"]] == [True, False]
    assert repr(names[1]) in stderr


def test_all_databases() -> None:
    with Cluster() as own:
        for name in ("one", "two"):
            own.create_database(name)
        code, result, _ = check("--all-databases", own.url())
        # postgres has no extension here; templates are left alone
        assert [(one["database"], one["ok"]) for one in result["databases"]] == [("one", True), ("postgres", False), ("two", True)]
        assert code == 5


def test_imports_no_more_than_it_needs() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import schema_changes.check, schema_changes.__main__, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "schema_changes.check" in loaded
    assert not {"schema_changes.listener", "schema_changes.route", "pulumi"} & set(loaded)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--ssh", "ssh://nobody@127.0.0.1"], "--ssh needs --container"),
        (["--ssh", "http://127.0.0.1", "--container", "c"], "is no SSH host"),
        (["--ssh", "ssh://a:secret@127.0.0.1", "--container", "c"], "is no SSH host"),
    ],
)
def test_options_that_make_no_sense(words: list[str], sentence: str) -> None:
    code, _, stderr = check(*words)
    assert code == 1
    assert sentence in stderr
    assert "secret" not in stderr


def test_an_ssh_host_that_refuses(cluster: Cluster) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        code, _, stderr = check("--ssh", f"ssh://root@127.0.0.1:{closed.getsockname()[1]}", "--container", "db", cluster.url())
    assert code == 3
    assert "Connection refused" in stderr
    assert "container 'db' on ssh://root@127.0.0.1" in stderr


def test_works_through_a_pool_of_sessions(cluster: Cluster, database: str) -> None:
    with PgBouncer(cluster, "session") as pool:
        assert check(database.replace(str(cluster.port), str(pool.port)))[0] == 0


def test_a_pool_of_transactions_is_told_and_hears_nothing_afterwards(cluster: Cluster, database: str) -> None:
    with PgBouncer(cluster, "transaction") as pool:
        pooled = database.replace(str(cluster.port), str(pool.port))
        code, result, stderr = check(pooled)
        assert (code, result["exit_code"]) == (9, 9)
        assert "a proxy in between pools transactions" in stderr
        assert_nothing_stays(pooled)
        # what needs no session of its own goes through, and leaves nothing either
        for words in (["history", pooled], ["status", pooled]):
            done = subprocess.run([sys.executable, "-m", "schema_changes", *words], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        assert_nothing_stays(pooled)


def assert_nothing_stays(pooled: str) -> None:
    """No later client of the pool hears notices, or has another search_path."""
    with psycopg.connect(pooled, autocommit=True) as connection:
        assert connection.execute("SELECT * FROM pg_listening_channels()").fetchall() == []
        assert connection.execute("SHOW search_path").fetchall() == [('"$user", public',)]
        assert connection.execute("SHOW standard_conforming_strings").fetchall() == [("on",)]
        assert connection.execute("SHOW row_security").fetchall() == [("on",)]


def test_a_pool_of_sessions_hears_nothing_afterwards(cluster: Cluster, database: str) -> None:
    with PgBouncer(cluster, "session") as pool:
        pooled = database.replace(str(cluster.port), str(pool.port))
        assert check(pooled)[0] == 0
        with psycopg.connect(pooled, autocommit=True) as connection:
            assert connection.execute("SELECT * FROM pg_listening_channels()").fetchall() == []


def test_a_schema_of_others_lends_no_operator(cluster: Cluster, database: str) -> None:
    """An operator in public that fits better than PostgreSQL's own ran with the rights of whoever checks."""
    role = f"mallory_{database.rpartition('_')[2]}"
    cluster.execute(f"CREATE ROLE {role} LOGIN")
    execute(database, f"GRANT CREATE ON SCHEMA public TO {role}")
    execute(
        database.replace("postgres@", f"{role}@"),
        f"CREATE FUNCTION public.climb(name, name) RETURNS boolean LANGUAGE plpgsql AS "
        f"$$ BEGIN ALTER ROLE {role} SUPERUSER; RETURN true; END $$",
        *(
            f"CREATE OPERATOR public.{sign} (LEFTARG = name, RIGHTARG = name, FUNCTION = public.climb)"
            for sign in ("=", "<>", "!~", "~~")
        ),
    )
    execute(database, f"ALTER DATABASE {database.rpartition('/')[2]} SET search_path = public, pg_catalog")
    assert check(database)[0] == 0
    assert cluster.execute(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{role}'") == [(False,)]
