"""schema-notifications-converge: what a deploy runs in every container, new or old."""

import time
from collections.abc import Callable

import pytest

from tests.image.containers import CONFINED, VERSION, Server, make_old, make_unreleased
from tests.support.docker import BASE_IMAGE, docker

pytestmark = pytest.mark.needs("docker")

LOGIN = ("psql", "-XqAt", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-c", "SELECT 1")


def login(server: Server, password: str) -> str:
    """Over TCP from outside the container's own loopback, where the official image asks for the password."""
    address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", server.name)
    words = (address if word == "127.0.0.1" else word for word in LOGIN)
    return docker("exec", "--env", f"PGPASSWORD={password}", server.name, *words, check=False, errors=True)


@pytest.mark.parametrize(
    "password", ["plain", "s'i\"n\\g;l$e%", "pass word", "é表🐘", "$(touch /tmp/x)`id`", "x" * 500, "-c", "\\q"]
)
def test_the_password_is_set(start: Callable[..., Server], image16: str, password: str) -> None:
    server = start(image16, password="first")
    server.converge(password)
    assert login(server, password).strip() == "1"
    assert "password authentication failed" in login(server, "first")
    server.converge("second")
    assert login(server, "second").strip() == "1"


def test_a_password_that_nobody_knows_is_set_in_a_confined_container(start: Callable[..., Server], image16: str) -> None:
    """Where the socket asks for one too: for that it changes files of the server, and has it read them."""
    server = start(image16, *CONFINED, "--env", "POSTGRES_INITDB_ARGS=--auth-local=scram-sha-256")
    for password in ("second", "third"):
        server.converge(password)
        assert login(server, password).strip() == "1"


def test_no_password_leaves_it_alone(start: Callable[..., Server], image16: str) -> None:
    server = start(image16, password="first")
    server.converge("")
    assert login(server, "first").strip() == "1"


def test_the_password_is_seen_nowhere(start: Callable[..., Server], image16: str) -> None:
    """Not in the server's log, were it ever so talkative, nor in PostgreSQL's activity; what is stored is a SCRAM verifier."""
    server = start(image16)
    server.converge()
    for setting in ("log_statement = 'all'", "log_min_duration_statement = 0", "log_min_error_statement = 'debug5'"):
        server.psql(f"ALTER SYSTEM SET {setting}")
    server.psql("SELECT pg_reload_conf()")
    said = server.converge("hunter2hunter2")
    assert login(server, "hunter2hunter2").strip() == "1"
    assert "hunter2" not in said + server.logs() + docker("inspect", server.name)
    assert "SCRAM-SHA-256$" not in server.logs()
    assert server.psql("SELECT left(rolpassword, 14) FROM pg_authid WHERE rolname = 'postgres'") == "SCRAM-SHA-256$"


def test_databases_without_it_get_it(start: Callable[..., Server], image: str) -> None:
    server = start(image)
    server.converge()
    names = ["plain", 'qu"ote', "a'b\\c=d", "line\nbreak", "émoji🐘", "host=evil dbname=x", "-c"]
    for name in names:
        server.psql('CREATE DATABASE "{}" TEMPLATE template0'.format(name.replace('"', '""')))
    said = server.converge()
    assert all(f"{name}: installed {VERSION}\n" in said for name in names)
    assert server.converge().count(f": has {VERSION}\n") == len(names) + 2
    assert server.psql("SELECT healthy FROM schema_notifications.status()", database="plain") == "t"
    assert server.psql("SELECT count(*) FROM pg_stat_activity WHERE datname = 'template1'") == "0"


def test_databases_of_another_encoding_get_it(start: Callable[..., Server], image16: str) -> None:
    server = start(image16)
    server.converge()
    server.psql("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    server.psql("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    assert server.converge().count(f"installed {VERSION}") == 2


def test_an_older_version_is_updated(start: Callable[..., Server], image: str) -> None:
    server = start(image)
    server.converge()
    make_old(server, "postgres")
    server.psql("CREATE TABLE t ()")
    assert f"postgres: had 0.9, now {VERSION}\n" in server.converge()
    assert server.psql("SELECT healthy FROM schema_notifications.status()") == "t"
    assert server.psql("SELECT count(*) FROM schema_notifications.log WHERE tag = 'CREATE TABLE'") == "1"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_version_from_before_the_first_release_is_installed_anew(
    start: Callable[..., Server], image16: str, version: str
) -> None:
    """There is no way to update one; a reader of its log learns that it has to read the schema again."""
    server = start(image16)
    server.converge()
    make_unreleased(server, version)
    cursor = server.psql("SELECT cursor FROM schema_notifications.changes_since()")
    assert f"postgres: had {version}, now {VERSION} from the start, so that its readers get a reset\n" in server.converge()
    assert server.psql("SELECT healthy FROM schema_notifications.status()") == "t"
    assert server.psql(f"SELECT kind FROM schema_notifications.changes_since('{cursor}')") == "reset"
    assert f"postgres: has {VERSION}\n" in server.converge()


def test_an_older_version_without_an_update_is_installed_anew(start: Callable[..., Server], image16: str) -> None:
    server = start(image16)
    server.converge()
    server.psql("UPDATE pg_extension SET extversion = '0.8' WHERE extname = 'schema_notifications'")
    assert f"postgres: had 0.8, now {VERSION} from the start" in server.converge()
    assert server.psql("SELECT version_installed, healthy FROM schema_notifications.status()") == f"{VERSION}|t"


def test_a_version_that_this_image_does_not_know_is_left_alone(start: Callable[..., Server], image16: str) -> None:
    server = start(image16)
    server.converge()
    server.psql("UPDATE pg_extension SET extversion = '9.9' WHERE extname = 'schema_notifications'")
    assert f"postgres: has 9.9, newer than this image's {VERSION}\n" in server.converge()


def test_a_database_that_cannot_be_had_is_named(start: Callable[..., Server], image16: str) -> None:
    server = start(image16)
    server.converge()
    server.psql("CREATE DATABASE squatted TEMPLATE template0", "CREATE DATABASE well TEMPLATE template0")
    server.psql("CREATE SCHEMA schema_notifications", database="squatted")
    said = server.converge(check=False)
    assert "not every database is up to date" in said
    assert 'in database "squatted": schema "schema_notifications" already exists' in said
    assert f"well: installed {VERSION}\n" in said
    assert "squatted: installed" not in said


def test_data_from_an_image_without_it(volume: str, start: Callable[..., Server], image16: str) -> None:
    """A container made from the base image, replaced by one of ours: databases and data untouched, the feed there."""
    mount = ("--volume", f"{volume}:/var/lib/postgresql/data", "--env", "POSTGRES_DB=app")
    old = start(BASE_IMAGE, *mount)
    deadline = time.monotonic() + 60
    while "init process complete" not in old.logs() or "1" not in docker("exec", old.name, *LOGIN, check=False):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    old.psql("CREATE TABLE t AS SELECT 42 AS answer", database="app")
    docker("stop", old.name)
    new = start(image16, *mount, password="ignored by a cluster that exists")
    assert new.converge("changed") == f"app: installed {VERSION}\npostgres: installed {VERSION}\ntemplate1: installed {VERSION}\n"
    assert new.psql("SELECT answer FROM t", database="app") == "42"
    assert '"tag":"DROP TABLE"' in new.psql("LISTEN schema_changed", "DROP TABLE t", database="app")
    assert login(new, "changed").strip() == "1"


def test_it_waits_and_says_so(start: Callable[..., Server], image16: str) -> None:
    """A server that takes no connections over TCP is as one that is still being initialised."""
    server = start(image16, "--env", "CONVERGE_TIMEOUT=6", "--env", "PGPORT=5432", "--env", "POSTGRES_INITDB_ARGS=--set port=5433")
    said = server.converge(check=False)
    assert "waiting for PostgreSQL to start, 5 of at most 6 s" in said
    assert "took no connection on port 5432 within 6 s" in said


def test_nothing_to_do_is_quick(start: Callable[..., Server], image16: str) -> None:
    server = start(image16)
    server.converge("x")
    begin = time.monotonic()
    for _ in range(5):
        server.converge("x")
    assert (time.monotonic() - begin) / 5 < 3  # seconds; a busy machine may take one
