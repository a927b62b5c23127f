"""Installation, update, dump and restore."""

import re
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.sql.database import Database
from tests.support.postgres import Cluster

# All that an installation consists of, in a form that two databases can be compared by.
CATALOG = """
SELECT 'function', p.oid::regprocedure::text, md5(prosrc), pg_get_function_sqlbody(p.oid), proconfig::text, prosecdef::text, proacl::text,
       provolatile::text
  FROM pg_proc AS p WHERE pronamespace = 'schema_notifications'::regnamespace
UNION ALL
SELECT 'column', attrelid::regclass::text, attname::text, attnum::text, format_type(atttypid, atttypmod), attnotnull::text,
       pg_get_expr(adbin, adrelid), relkind::text
  FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE relnamespace = 'schema_notifications'::regnamespace AND attnum > 0
UNION ALL
SELECT 'relation', oid::regclass::text, relkind::text, relpersistence::text, relacl::text, pg_get_viewdef(oid), NULL, NULL
  FROM pg_class WHERE relnamespace = 'schema_notifications'::regnamespace
UNION ALL
SELECT 'trigger', evtname::text, evtevent::text, evtfoid::regproc::text, evtenabled::text, evttags::text, NULL, NULL FROM pg_event_trigger
UNION ALL
SELECT 'member', type, identity, NULL, NULL, NULL, NULL, NULL
  FROM pg_depend, pg_identify_object(classid, objid, objsubid)
 WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'schema_notifications')
UNION ALL
SELECT 'state', count(*)::text, min(fingerprint), NULL, NULL, NULL, NULL, NULL FROM schema_notifications.state
UNION ALL
SELECT 'schema', nspacl::text, NULL, NULL, NULL, NULL, NULL, NULL FROM pg_namespace WHERE nspname = 'schema_notifications'
UNION ALL
SELECT 'initial rights', privtype::text, initprivs::text, NULL, NULL, NULL, NULL, NULL
  FROM pg_init_privs WHERE classoid = 'pg_proc'::regclass AND objoid IN (SELECT oid FROM pg_proc WHERE pronamespace = 'schema_notifications'::regnamespace)
 ORDER BY 1, 2, 3, 4
"""


@pytest.fixture(scope="session")
def older(cluster: Cluster) -> str:
    """Files of an older version than this one, which lacks a function, and the update from there."""
    folder = next((cluster.bin.parent / "share").rglob("schema_notifications.control")).parent
    script = (folder / "schema_notifications--1.0.sql").read_text()
    created = re.search(r"^CREATE FUNCTION schema_notifications\.prune_now\(\).*?^\$\$;\n", script, re.MULTILINE | re.DOTALL)
    assert created
    (folder / "schema_notifications--0.9.sql").write_text(
        script.replace(created[0], "").replace(", schema_notifications.prune_now() TO", " TO")
    )
    (folder / "schema_notifications--0.9--1.0.sql").write_text(
        f"{created[0]}REVOKE ALL ON FUNCTION schema_notifications.prune_now() FROM PUBLIC;\n"
        "GRANT EXECUTE ON FUNCTION schema_notifications.prune_now() TO pg_database_owner;\n"
        "ALTER TABLE schema_notifications.log ALTER tag SET NOT NULL;\n"  # what a user's command may not
        "UPDATE schema_notifications.state SET fingerprint = schema_notifications.fingerprint();\n"
    )
    return "0.9"


def test_an_update_gives_what_an_installation_gives(database: Database, older: str) -> None:
    fresh = database.execute(CATALOG)
    database.execute("DROP EXTENSION schema_notifications")
    database.execute(f"CREATE EXTENSION schema_notifications VERSION '{older}'")
    assert database.execute("SELECT to_regprocedure('schema_notifications.prune_now()')") == [(None,)]
    database.execute("ALTER EXTENSION schema_notifications UPDATE")
    assert database.execute(CATALOG) == fresh
    assert database.status()["healthy"]


def test_an_update_keeps_the_log_and_the_cursors(database: Database, older: str) -> None:
    database.execute("DROP EXTENSION schema_notifications")
    database.execute(f"CREATE EXTENSION schema_notifications VERSION '{older}'")
    database.execute("CREATE TABLE first ()")
    _, _, cursor = database.changes_since(None)
    with database.connect() as session, database.listening() as notices:
        session.execute("CREATE TABLE before ()")
        session.execute("ALTER EXTENSION schema_notifications UPDATE")
        session.execute("CREATE TABLE after (x int)")
        session.execute("ALTER TABLE after DROP COLUMN x")
    tags = ["CREATE TABLE", "ALTER EXTENSION", "CREATE TABLE", "ALTER TABLE"]
    assert [notice["tag"] for notice in notices] == tags
    assert database.changes_since(cursor)[:2] == (tags, "cursor")
    assert len(database.log()) == 5


def test_an_update_loses_no_ddl_of_other_sessions(database: Database, older: str) -> None:
    database.execute("DROP EXTENSION schema_notifications")
    database.execute(f"CREATE EXTENSION schema_notifications VERSION '{older}'")
    _, _, cursor = database.changes_since(None)
    with database.connect() as other:
        other.execute("CREATE TABLE a ()")
        other.execute("BEGIN; CREATE TABLE b ()")
        with database.connect() as session, pytest.raises(psycopg.errors.LockNotAvailable):
            session.execute("SET lock_timeout = '200ms'; ALTER EXTENSION schema_notifications UPDATE")
        other.execute("COMMIT")
        database.execute("ALTER EXTENSION schema_notifications UPDATE")
        other.execute("CREATE TABLE c ()")
    assert database.changes_since(cursor)[0] == ["CREATE TABLE", "CREATE TABLE", "ALTER EXTENSION", "CREATE TABLE"]


def test_installing_twice_is_fine(database: Database) -> None:
    database.execute("CREATE EXTENSION IF NOT EXISTS schema_notifications")
    database.execute("DROP EXTENSION schema_notifications; CREATE EXTENSION schema_notifications")
    assert database.status()["healthy"]


def test_a_database_from_template0_has_it_once_installed(database: Database) -> None:
    name = f"{database.name}_t0"
    database.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    other = Database(database.cluster, name)
    assert other.execute("SELECT FROM pg_event_trigger") == []
    other.execute("CREATE EXTENSION schema_notifications")
    assert len(other.notices_of("CREATE TABLE t ()")) == 1
    database.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("target", ["has it", "has not"])
@pytest.mark.parametrize("owner", ["postgres", "alice"])
def test_dump_and_restore(database: Database, tmp_path: Path, target: str, owner: str) -> None:
    """As Coolify's backup does it: custom format, --no-owner --no-acl; clean, and the feed is alive afterwards. A database's
    owner who is no superuser can restore where the extension is."""
    database.execute("CREATE TABLE t (id serial PRIMARY KEY); INSERT INTO t VALUES (1); CREATE VIEW v AS TABLE t")
    database.execute("ALTER TABLE t OWNER TO alice; GRANT SELECT ON t TO PUBLIC")
    name = f"{database.name}_restored"
    database.execute(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE {'template1' if target == 'has it' else 'template0'}")
    restored = Database(database.cluster, name)
    connection = ["-h", "127.0.0.1", "-p", str(database.cluster.port)]
    dump = subprocess.run(
        [database.cluster.bin / "pg_dump", *connection, "-U", "postgres", "-Fc", "--no-owner", "--no-acl", database.name],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    restore: list[Any] = [
        database.cluster.bin / "pg_restore",
        *connection,
        "-U",
        owner,
        "--no-owner",
        "--no-acl",
        "--exit-on-error",
        "-d",
        name,
    ]
    if owner == "alice" and target == "has not":
        result = subprocess.run(restore, input=dump, check=False, capture_output=True, text=False)
        assert b"permission denied to create extension" in result.stderr
    else:
        result = subprocess.run(restore, input=dump, check=False, capture_output=True)
        assert (result.returncode, result.stderr) == (0, b"")
        assert restored.execute("SELECT id FROM v") == [(1,)]
        owned = "SELECT relowner::regrole::text, relacl FROM pg_class WHERE oid = 't'::regclass"
        assert restored.execute(owned) == [(owner, None)], "who owned it and who might read it is not in such a dump"
        assert [notice["tag"] for notice in restored.notices_of("DROP VIEW v")] == ["DROP VIEW"]
        assert restored.status()["healthy"]
        # A restore can also replace what is there.
        result = subprocess.run([*restore[:-2], "--clean", "--if-exists", "-d", name], input=dump, check=False, capture_output=True)
        if owner == "postgres":
            assert (result.returncode, result.stderr) == (0, b"")
            assert [notice["tag"] for notice in restored.notices_of("DROP VIEW v")] == ["DROP VIEW"]
    database.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("target", ["has it", "has not"])
def test_a_restore_by_an_owner_leaves_the_extension_as_it_is(database: Database, tmp_path: Path, target: str) -> None:
    """As into a server that lacks the extension, and with --clean into a database that has it: by the commands of docs/feed.md."""
    database.execute("CREATE TABLE t (id serial PRIMARY KEY); INSERT INTO t VALUES (1); CREATE VIEW v AS TABLE t")
    name = f"{database.name}_owned"
    database.execute(f"CREATE DATABASE {name} OWNER alice TEMPLATE {'template1' if target == 'has it' else 'template0'}")
    restored = Database(database.cluster, name)
    whole, listed, without = tmp_path / "dump", tmp_path / "list", tmp_path / "without"

    def run(program: str, *words: object, user: str = "postgres") -> subprocess.CompletedProcess[str]:
        server: list[Any] = ["-h", "127.0.0.1", "-p", str(database.cluster.port), "-U", user]
        line = [database.cluster.bin / program, *server, *map(str, words)]
        return subprocess.run(line, check=False, capture_output=True, text=True)

    def restore(*words: object) -> tuple[int, str]:
        done = run("pg_restore", "--no-owner", "--no-acl", "--clean", "--if-exists", "-1", "-d", name, *words, user="alice")
        return done.returncode, done.stderr

    assert run("pg_dump", "-Fc", "-f", whole, database.name).returncode == 0
    code, error = restore(whole)
    assert code == 1
    assert ("must be owner of extension" if target == "has it" else "permission denied to create extension") in error
    contents = subprocess.run(
        [database.cluster.bin / "pg_restore", "--list", whole], check=True, capture_output=True, text=True
    ).stdout
    listed.write_text("".join(line for line in contents.splitlines(keepends=True) if "schema_notifications" not in line))
    for _ in range(2):
        assert restore(f"--use-list={listed}", whole) == (0, "")
        assert restored.execute("SELECT id FROM v") == [(1,)]
    if run("pg_dump", "--help").stdout.find("--exclude-extension") > 0:
        assert run("pg_dump", "-Fc", "--exclude-extension=schema_notifications", "-f", without, database.name).returncode == 0
        assert restore(without) == (0, "")
    if target == "has it":
        assert [notice["tag"] for notice in restored.notices_of("DROP VIEW v")] == ["DROP VIEW"]
        assert restored.status()["healthy"]
    database.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_quiet_restore(database: Database) -> None:
    """PGOPTIONS switch it off for a whole program."""
    options = "-c schema_notifications.notify=off -c schema_notifications.log=off"
    with database.connect(options=options) as session, database.listening() as notices:
        session.execute("CREATE TABLE t ()")
    assert notices == []
    assert database.log() == []


def test_a_dump_holds_one_line(database: Database) -> None:
    dump = subprocess.run(
        [database.cluster.bin / "pg_dump", "-h", "127.0.0.1", "-p", str(database.cluster.port), "-U", "postgres", database.name],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    about = [line for line in dump.splitlines() if "schema_notifications" in line and not line.startswith("--")]
    assert about == ["CREATE EXTENSION IF NOT EXISTS schema_notifications WITH SCHEMA pg_catalog;"]
