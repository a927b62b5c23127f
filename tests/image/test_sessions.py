"""The sessions of schema-notifications-converge are its own: no setting of a database, a role or the environment bends them, no
object of a user is called, and whatever they wait for has an end."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.containers import VERSION, Server, make_old
from tests.support.docker import docker

HAS_IT = f"postgres: has {VERSION}\ntemplate1: has {VERSION}\n"

# Sets every setting that a role or a database can have, for the database postgres and for the superuser, to the end of its range
# that is named, or to the first of its values in that order that is not the default. Left out is what opens PostgreSQL's insides.
SET_ALL = """
DO $$
DECLARE setting record; hostile text;
BEGIN
    FOR setting IN SELECT * FROM pg_catalog.pg_settings
                    WHERE context IN ('user', 'superuser') AND name NOT LIKE ALL ('{debug%%,trace%%,%%_preload_libraries}')
                      AND name NOT IN ('lc_messages', 'zero_damaged_pages', 'ignore_checksum_failure') LOOP
        hostile := CASE setting.vartype
            WHEN 'bool' THEN CASE setting.boot_val WHEN 'on' THEN 'off' ELSE 'on' END
            WHEN 'enum' THEN (SELECT v FROM pg_catalog.unnest(setting.enumvals) AS v WHERE v <> setting.boot_val
                               ORDER BY v %(order)s LIMIT 1)
            WHEN 'string' THEN CASE setting.name
                WHEN 'search_path' THEN 'public, pg_catalog' WHEN 'role' THEN 'nobody_much' WHEN 'DateStyle' THEN 'German'
                WHEN 'client_encoding' THEN 'LATIN1' WHEN 'TimeZone' THEN 'Asia/Kathmandu' END
            ELSE %(bound)s END;
        CONTINUE WHEN hostile IS NULL;
        IF setting.name <> 'search_path' THEN
            hostile := pg_catalog.quote_literal(hostile);
        END IF;
        BEGIN
            EXECUTE pg_catalog.format('ALTER DATABASE postgres SET %%I = %%s', setting.name, hostile);
            EXECUTE pg_catalog.format('ALTER ROLE postgres SET %%I = %%s', setting.name, hostile);
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE '%% cannot be %%: %%', setting.name, hostile, sqlerrm;
        END;
    END LOOP;
END $$
"""


def ready(server: Server) -> Server:
    server.converge()
    return server


@pytest.mark.parametrize("how", [{"order": "ASC", "bound": "setting.min_val"}, {"order": "DESC", "bound": "setting.max_val"}])
def test_no_setting_bends_it(start: Callable[..., Server], image: str, how: dict[str, str]) -> None:
    server = ready(start(image))
    server.psql("CREATE ROLE nobody_much", "CREATE TABLE made ()", SET_ALL % how)
    sane = ("exec", "--env", "PGOPTIONS=-c role=none -c statement_timeout=0", server.name, "psql", "-XAtqU", "postgres")
    count = "SELECT sum(cardinality(setconfig)) FROM pg_db_role_setting"
    assert int(docker(*sane, "-d", "template1", "-c", count)) > 300
    assert server.converge("changed") == HAS_IT
    assert "PASSWORD" not in server.logs()


def test_no_object_of_a_user_is_called(start: Callable[..., Server], image16: str) -> None:
    """Operators and functions that fit better than PostgreSQL's own, in the schema where every role once could make them."""
    server = ready(start(image16))
    server.psql(
        "CREATE ROLE evil LOGIN",
        "GRANT CREATE ON SCHEMA public TO evil",
        "ALTER DATABASE postgres SET search_path = public, pg_catalog",
        "ALTER ROLE postgres SET search_path = public, pg_catalog",
    )
    takeover = "ALTER ROLE evil SUPERUSER"
    statements = []
    for name, types in [
        *(
            (operator, pair)
            for operator in ("||", "=", "<>", "!~", "~~", "<", ">")
            for pair in ("name,name", "text,text", "name,text", "text,name")
        ),
        *((function, one) for function in ("format", "coalesce", "to_regclass", "quote_literal") for one in ("text", "name")),
    ]:
        arguments = types.split(",")
        function = f'public."steal {name} {types}"' if not name[0].isalpha() else f"public.{name}"
        result = "text" if name in ("||", "format", "quote_literal") else "boolean"
        statements.append(
            f"""CREATE FUNCTION {function}({types}) RETURNS {result} LANGUAGE plpgsql AS $f$ BEGIN
                EXECUTE '{takeover}'; RETURN NULL; EXCEPTION WHEN OTHERS THEN RETURN NULL; END $f$"""
        )
        if not name[0].isalpha():
            statements.append(
                f"CREATE OPERATOR public.{name} (FUNCTION = {function}, LEFTARG = {arguments[0]}, RIGHTARG = {arguments[1]})"
            )
    server.psql(*statements, user="evil")
    server.psql("DROP EXTENSION schema_notifications")
    assert f"postgres: installed {VERSION}\n" in server.converge("changed")
    assert f"postgres: has {VERSION}\n" in server.converge("changed")
    assert server.psql("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) 'evil'") == "f"


@pytest.mark.parametrize("setting", ["role = nobody_much", "default_transaction_read_only = on", "statement_timeout = '1ms'"])
def test_an_owner_does_not_stop_it(start: Callable[..., Server], image16: str, setting: str) -> None:
    server = ready(start(image16))
    server.psql("CREATE ROLE nobody_much", "CREATE DATABASE x TEMPLATE template0", f"ALTER DATABASE x SET {setting}")
    assert f"x: installed {VERSION}\n" in server.converge()


def test_the_environment_does_not_bend_it(start: Callable[..., Server], image16: str) -> None:
    server = ready(start(image16))
    hostile = {
        "PGOPTIONS": "-c search_path=public",
        "PGHOST": "nowhere",
        "PGHOSTADDR": "192.0.2.1",
        "PGDATABASE": "none",
        "PGUSER": "x",
        "PGSERVICE": "none",
        "PGCLIENTENCODING": "LATIN1",
        "PGSSLMODE": "verify-full",
        "PGPASSFILE": "/etc/passwd",
    }
    words = [word for name, value in hostile.items() for word in ("--env", f"{name}={value}")]
    assert docker("exec", *words, server.name, "schema-notifications-converge") + "\n" == HAS_IT


def test_a_warning_is_no_failure(start: Callable[..., Server], image16: str) -> None:
    """Such as the one about a collation's version, after the C library of the image has changed."""
    server = ready(start(image16))
    server.psql("UPDATE pg_database SET datcollversion = '1.0'")
    said = docker("exec", server.name, "sh", "-c", "schema-notifications-converge 2>&1")
    assert f"postgres: has {VERSION}\n" in said
    assert "WARNING" in said and "collation version" in said


def test_a_cluster_whose_socket_asks_for_the_password(start: Callable[..., Server], image16: str) -> None:
    server = start(image16, "--env", "POSTGRES_INITDB_ARGS=--auth-local=scram-sha-256", password="first")
    hba = ("exec", server.name, "sh", "-c", "stat -c '%U %a' $PGDATA/pg_hba.conf; cat $PGDATA/pg_hba.conf $PGDATA/pg_ident.conf")
    server.converge("first")
    before = docker(*hba)
    server.converge("second")  # from the container's own
    server.converge("third")  # which is known to nobody here
    assert docker(*hba) == before
    for password, fits in (("third", True), ("second", False), ("first", False)):
        login = docker(
            "exec", "--env", f"PGPASSWORD={password}", server.name, "psql", "-XAtU", "postgres", "-c", "SELECT 42", check=False
        )
        assert ("42" in login) == fits
    assert "third" not in server.logs()


def test_the_health_of_a_server_whose_user_is_in_a_file(start: Callable[..., Server], image16: str, tmp_path: Path) -> None:
    (tmp_path / "user").write_text("boss\n")
    server = start(image16, "--volume", f"{tmp_path}/user:/user:ro", "--env", "POSTGRES_USER_FILE=/user", "--health-interval", "1s")
    deadline = time.monotonic() + 30
    while docker("inspect", "--format", "{{.State.Health.Status}}", server.name).strip() != "healthy":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not [line for line in server.logs().splitlines() if "FATAL" in line and "the database system is starting up" not in line]


def test_a_lock_is_waited_for_a_little_at_a_time(start: Callable[..., Server], image16: str) -> None:
    """An open transaction that has read the log: meanwhile the database's DDL does not queue behind the deploy, which says whom it
    waits for, does the other databases, and ends with what to do."""
    server = ready(start(image16))
    server.psql("CREATE DATABASE other")
    make_old(server, "postgres")
    make_old(server, "other")
    reader = hold(server)
    started = time.monotonic()
    deploy = subprocess.Popen(
        ["docker", "exec", "--env", "CONVERGE_TIMEOUT=7", server.name, "schema-notifications-converge"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    longest = 0.0
    while deploy.poll() is None:
        begin = time.monotonic()
        server.psql("CREATE TABLE meanwhile ()", "DROP TABLE meanwhile")
        longest = max(longest, time.monotonic() - begin)
    assert deploy.stdout
    said = deploy.stdout.read()
    assert deploy.returncode == 1
    assert time.monotonic() - started < 25
    assert longest < 4, "the lock is asked for at most 2 s at a time"
    assert "waiting for a lock on the feed in database" in said
    assert 'in database "postgres" another transaction has held a lock on the feed for 7 s, process ' in said
    assert f"other: had 0.9, now {VERSION}" in said
    reader.kill()
    reader.wait()
    server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()")
    assert f"postgres: had 0.9, now {VERSION}" in server.converge()


def test_what_it_runs_ends_when_the_deploy_is_gone(start: Callable[..., Server], image16: str) -> None:
    server = ready(start(image16))
    make_old(server, "postgres")
    reader = hold(server)
    deploy = subprocess.Popen(["docker", "exec", "--env", "CONVERGE_TIMEOUT=3", server.name, "schema-notifications-converge"])
    time.sleep(1)
    deploy.kill()
    deploy.wait()
    deadline = time.monotonic() + 20
    while "schema-notifications-converge" in docker("top", server.name, "-eo", "pid,args"):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert server.psql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'psql' AND pid <> pg_backend_pid()") == "1"
    reader.kill()
    reader.wait()


def hold(server: Server) -> subprocess.Popen[bytes]:
    """A session that has read the log, in a transaction that stays open."""
    words = ["psql", "-XqU", "postgres", "-c", "BEGIN; TABLE schema_notifications.log; SELECT pg_sleep(300)"]
    reader = subprocess.Popen(["docker", "exec", server.name, *words], stdout=subprocess.DEVNULL)
    while server.psql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()") == "0":
        time.sleep(0.05)
    return reader
