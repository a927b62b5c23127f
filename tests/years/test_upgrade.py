"""The next major version: refused unless asked for; with everything, or not at all; whatever cuts it."""

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import psycopg
import pytest

from tests.support.docker import docker
from tests.years.conftest import DATA, Database

EVERY_KIND = Path(__file__).parent / "every_kind.sql"
MORE_KINDS = Path(__file__).parent / "more_kinds.sql"

# What has to be the same in the new cluster: asked of the catalogs, not of pg_dump, which is what made the copy.
CLUSTER = """
SELECT rolname, rolpassword, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit,
       rolvaliduntil, shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1;
SELECT roleid::regrole, member::regrole, admin_option FROM pg_auth_members WHERE member >= 16384 ORDER BY 1, 2;
SELECT datname, setrole::regrole, unnest(setconfig) FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase ORDER BY 1, 2, 3;
SELECT datname, datdba::regrole, pg_encoding_to_char(encoding), datcollate, datctype, datistemplate, datconnlimit, datacl,
       shobj_description(oid, 'pg_database') FROM pg_database ORDER BY 1;
SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf' ORDER BY 1
"""
DATABASE = """
SELECT c.oid::regclass, c.relkind, c.relpersistence, c.relowner::regrole, c.relacl, c.reloptions, c.relrowsecurity, c.relforcerowsecurity,
       c.relreplident, c.relispopulated, obj_description(c.oid), (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT tgisinternal AND tgparentid = 0)
  FROM pg_class c WHERE c.relnamespace::regnamespace::text !~ '^pg_|schema$|_notifications$' ORDER BY c.oid::regclass::text COLLATE "C";
SELECT attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attcollation::regcollation, attacl,
       col_description(attrelid, attnum), pg_get_expr(adbin, adrelid)
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON (adrelid, adnum) = (attrelid, attnum)
 WHERE attrelid >= 16384 AND attnum > 0 AND NOT attisdropped
   AND (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = attrelid) !~ '^pg_|_notifications$' ORDER BY attrelid::regclass::text COLLATE "C", attname;
SELECT conrelid::regclass, conname, contype, convalidated, condeferrable, pg_get_constraintdef(oid) FROM pg_constraint
 WHERE contype <> 'n' AND connamespace::regnamespace::text !~ '^pg_|schema$|_notifications$' ORDER BY 1::text, 2;
SELECT indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid >= 16384
   AND (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = indrelid) !~ '^pg_|_notifications$' ORDER BY 1::text;
SELECT oid::regprocedure, prosrc, prosecdef, proconfig, proacl, pg_get_function_sqlbody(oid) FROM pg_proc
 WHERE pronamespace = 'shop'::regnamespace AND proname <> 'body' ORDER BY 1::text;
SELECT evtname, evtevent, evtenabled, evttags FROM pg_event_trigger WHERE evtname !~ '^schema_notifications' ORDER BY 1;
SELECT pubname, tablename FROM pg_publication_tables ORDER BY 1, 2;
SELECT polname, polrelid::regclass, polroles::regrole[], pg_get_expr(polqual, polrelid) FROM pg_policy ORDER BY 1;
SELECT defaclrole::regrole, defaclnamespace::regnamespace, defaclobjtype, defaclacl FROM pg_default_acl ORDER BY 1, 2, 3;
SELECT extname FROM pg_extension ORDER BY 1;
SELECT srvname, srvoptions, umoptions FROM pg_user_mappings JOIN pg_foreign_server USING (srvname) ORDER BY 1;
SELECT schemaname, sequencename, last_value, start_value, increment_by, max_value, cycle FROM pg_sequences
 WHERE schemaname <> 'schema_notifications' ORDER BY 1, 2;
SELECT m.oid, lomowner::regrole, lomacl, md5(lo_get(m.oid)), length(lo_get(m.oid)), obj_description(m.oid, 'pg_largeobject')
  FROM pg_largeobject_metadata m ORDER BY 1;
SELECT enumtypid::regtype, enumlabel FROM pg_enum ORDER BY 1::text, enumsortorder;
SELECT n, t FROM public."table 100" ORDER BY 2;
SELECT count(*), sum(at - date '2024-01-01') FROM shop.measures_2024;
SET timezone = 'UTC';
SELECT t.* FROM shop.types AS t ORDER BY id
"""


def facts(database: Database) -> list[str]:
    """All of that, a line each, and the two databases of other encodings.

    In which order rights are listed means nothing; "all rights" of a table have one more since 17 (m).
    """
    lines = database.psql(*CLUSTER.split(";\n")).splitlines() + database.psql(*DATABASE.split(";\n")).splitlines()
    lines.append(database.psql("SELECT encode(convert_to(t, 'SQL_ASCII'), 'hex') FROM bytes", database="ascii"))
    lines.append(database.psql("SELECT encode(convert_to(t, 'UTF8'), 'hex') FROM größe", database='od\'d \\ "name"'))
    lines.append(database.psql("SELECT count(*) FROM in_each_new_database", database="template1"))
    lines = [line.replace("arwdDxtm/", "arwdDxt/") for line in lines]
    return [re.sub(r"\{([^{}]*)\}", lambda list_: ",".join(sorted(list_[1].split(","))), line) for line in lines]


@pytest.mark.parametrize(("old", "new"), [(14, 16), (16, 17), (16, 18)])
def test_everything_arrives_in_the_new_version(database: Database, old: int, new: int) -> None:
    database.start(old)
    database.run_file(EVERY_KIND)
    database.run_file(MORE_KINDS)
    before = facts(database)
    cursor = database.psql("SELECT cursor FROM schema_notifications.changes_since()")

    done = database.deploy(new, mode="upgrade")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{database.volume}-{new}\n"
    assert f"The volume {database.volume} stays as it was (PostgreSQL {old})" in done.stderr
    assert database.containers() == [database.name]
    assert database.volumes() == [database.volume, f"{database.volume}-{new}"]

    database.start(new, f"{database.volume}-{new}")
    assert database.psql("SHOW server_version_num").startswith(str(new))
    after = facts(database)
    assert "\n".join(sorted(set(before) - set(after))) == "\n".join(sorted(set(after) - set(before)))
    with database.connect() as connection:  # over the network, with the password that the volume was made with
        assert connection.execute("SELECT current_setting('statement_timeout')").fetchone() == ("3s",)
    # A reader is told to read the schema again; what changes from then on is announced.
    assert database.psql(f"SELECT kind FROM schema_notifications.changes_since('{cursor}')") == "reset"
    fresh = database.psql(f"SELECT cursor FROM schema_notifications.changes_since('{cursor}')")
    database.psql("CREATE TABLE later ()")
    assert database.psql(f"SELECT tag FROM schema_notifications.changes_since('{fresh}') WHERE kind = 'change'") == "CREATE TABLE"
    assert database.psql("SELECT healthy FROM schema_notifications.status()") == "t"
    # From now on a deploy finds that nothing is to be done.
    assert database.deploy(new).stdout == f"{database.volume}-{new}\n"


def test_another_major_version_is_refused_before_anything_is_stopped(database: Database) -> None:
    database.start(16)
    state = database.state()
    done = database.deploy(18)
    assert (done.returncode, done.stdout) == (1, "")
    assert "were written by PostgreSQL 16; this image has PostgreSQL 18" in done.stderr
    assert "upgrade: true" in done.stderr
    older = database.deploy(14, mode="upgrade")
    assert older.returncode == 1
    assert "PostgreSQL 14, which cannot read them" in older.stderr
    assert database.state() == state
    assert database.volumes() == [database.volume]


def test_without_a_container_it_is_refused_as_well(database: Database) -> None:
    database.start(16)
    docker("rm", "--force", database.name)
    for mode in ("keep", "upgrade"):
        assert database.deploy(18, mode=mode).returncode == 1
    assert "Deploy once with an image of\nPostgreSQL 16" in database.deploy(18, mode="upgrade").stderr
    assert database.deploy(16).stdout == f"{database.volume}\n"


def test_the_first_deploy_and_a_minor_version_need_nothing(database: Database) -> None:
    docker("volume", "create", database.volume)
    assert database.deploy(17).stdout == f"{database.volume}\n"
    database.start(17)
    assert database.deploy(17, mode="upgrade").stdout == f"{database.volume}\n"


def digests(database: Database) -> list[str]:
    """Of every file of its first volume that holds what users wrote: tables, indexes, which transactions committed."""
    script = "cd /volume && find base global pg_xact pg_multixact -type f ! -name pg_internal.init ! -name pg_control | sort | xargs md5sum"
    return docker(
        "run", "--rm", "--volume", f"{database.volume}:/volume:ro", "--entrypoint", "sh", database.image(16), "-c", script
    ).splitlines()


def test_the_old_volume_keeps_every_byte_and_serves_as_before(database: Database) -> None:
    database.start(16)
    database.psql("CREATE TABLE kept AS SELECT g, md5(g::text) FROM generate_series(1, 1000) AS g", "CHECKPOINT")
    for option in ("--analyze-only", "--freeze"):
        docker("exec", database.name, "vacuumdb", "--all", option, "--quiet", "--username", "postgres")
    docker("stop", "--time", "60", database.name)
    before = digests(database)
    docker("start", database.name)
    while "accepting" not in docker("exec", database.name, "pg_isready", "--host", "127.0.0.1", check=False):
        time.sleep(0.1)  # not by converge, which writes
    assert database.deploy(17, mode="upgrade").returncode == 0
    assert digests(database) == before
    database.start(17, f"{database.volume}-17")
    database.psql("INSERT INTO kept VALUES (0, 'since the upgrade')")

    # Back: not by accident, and told what is not there.
    refused = database.deploy(16)
    assert refused.returncode == 1
    assert f"The volume {database.volume} still has the data as they were before the upgrade" in refused.stderr
    back = database.deploy(16, mode="upgrade")
    assert back.stdout == f"{database.volume}\n"
    assert f"What was written since the upgrade is on the volume {database.volume}-17" in back.stderr
    database.start(16)
    assert database.psql("SELECT count(*) FROM kept") == "1000"

    # And forth again: both volumes have been written to, so nobody but the user can tell which one counts.
    torn = database.deploy(17, mode="upgrade")
    assert torn.returncode == 1
    assert f"docker volume rm {database.volume}-17" in torn.stderr
    assert database.state().startswith("true")
    docker("volume", "rm", f"{database.volume}-17")
    assert database.deploy(17, mode="upgrade").returncode == 0


def test_two_upgrades_in_a_row(database: Database) -> None:
    database.start(14)
    database.psql("CREATE TABLE kept AS SELECT 42 AS answer")
    for major in (16, 18):
        assert database.deploy(major, mode="upgrade").stdout == f"{database.volume}-{major}\n"
        database.start(major, f"{database.volume}-{major}")
    assert database.psql("SELECT answer FROM kept") == "42"
    docker("rm", "--force", database.name)
    assert database.deploy(18).stdout == f"{database.volume}-18\n", "the newest has the data, also without a container"


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        # The copy is made, and differs: the value was computed by a function that is another by now.
        (
            [
                "CREATE FUNCTION f(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i + 1'",
                "CREATE TABLE t (i int, g int GENERATED ALWAYS AS (f(i)) STORED)",
                "INSERT INTO t VALUES (1)",
                "CREATE OR REPLACE FUNCTION f(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i + 2'",
            ],
            "the copy differs from the original in the contents of database app",
        ),
        # The copy cannot be made.
        (
            [
                "CREATE TABLE t (i int)",
                "INSERT INTO t VALUES (1)",
                "CREATE FUNCTION f(i int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true'",
                "ALTER TABLE t ADD CHECK (f(i))",
                "CREATE OR REPLACE FUNCTION f(i int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT false'",
            ],
            "database app cannot be loaded",
        ),
    ],
)
def test_what_does_not_arrive_as_it_was_goes_back_and_the_old_one_serves(
    database: Database, statements: list[str], says: str
) -> None:
    database.start(16)
    database.psql(*statements)
    done = database.deploy(17, mode="upgrade")
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert "PostgreSQL 16 runs again" in done.stderr
    assert database.containers() == [database.name]
    assert database.volumes() == [database.volume]
    docker("exec", "-i", database.name, "schema-notifications-converge")
    database.psql("CREATE TABLE it_serves ()")


def test_what_would_be_lost_is_refused_while_the_database_runs(database: Database) -> None:
    database.start(16)
    database.psql("ALTER SYSTEM SET max_prepared_transactions = 5", "CREATE ROLE reader")
    docker(
        "exec",
        database.name,
        "sh",
        "-c",
        'cd "$(pg_config --sharedir)/extension" && touch gone--1.sql && echo default_version=1 >gone.control',
    )
    docker("restart", database.name)
    docker("exec", "-i", database.name, "schema-notifications-converge")
    state = database.state()
    subscription = "CREATE SUBSCRIPTION news CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)"
    for statements, says, undo in [
        (
            ["BEGIN", "CREATE TABLE t ()", "PREPARE TRANSACTION 'half'"],
            "the prepared transaction 'half' is open",
            "ROLLBACK PREPARED 'half'",
        ),
        (
            ["SELECT pg_create_physical_replication_slot('s')"],
            "the replication slot s would be lost",
            "SELECT pg_drop_replication_slot('s')",
        ),
        (
            [subscription],
            "the subscription news would forget where it is",
            "ALTER SUBSCRIPTION news SET (slot_name = NONE); DROP SUBSCRIPTION news",
        ),
        (
            ["ALTER DATABASE postgres ALLOW_CONNECTIONS false"],
            "the database postgres allows no connections",
            "ALTER DATABASE postgres ALLOW_CONNECTIONS true",
        ),
        (
            ["SELECT pg_replication_origin_create('far')"],
            "the replication origin far would be lost",
            "SELECT pg_replication_origin_drop('far')",
        ),
        (["CREATE EXTENSION gone"], "the extension gone in the database app is not in the new image", "DROP EXTENSION gone"),
    ]:
        database.psql(*(["SET schema_notifications.notify = off"] if "half" in says else []), *statements)
        done = database.deploy(17, mode="upgrade")
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr
        assert "Nothing was changed: the database runs on." in done.stderr
        assert database.state() == state
        assert database.volumes() == [database.volume]
        database.psql(*undo.split("; "))


def test_writes_are_taken_before_the_copy_or_refused(database: Database) -> None:
    """Every row that a client was told is committed is in the new database, however late it came."""
    database.start(16)
    database.psql("CREATE TABLE written (n bigint)")
    committed: list[int] = []
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            try:
                with database.connect() as connection:
                    while not stop.is_set():
                        n += 1
                        connection.execute("INSERT INTO written VALUES (%s)", [n])
                        committed.append(n)
            except psycopg.Error:
                time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(committed) < 10:
            time.sleep(0.01)
        done = database.deploy(17, mode="upgrade")
    finally:
        stop.set()
        writer.join()
    assert done.returncode == 0, done.stderr
    database.start(17, f"{database.volume}-17")
    there = set(database.psql("SELECT n FROM written").split())
    assert {str(n) for n in committed} - there == set()


@pytest.mark.parametrize(
    ("line", "rebooted"), [("copying database app", False), ("loading database app", True), ("comparing", False)]
)
def test_a_deploy_that_is_killed_is_gone_on_with_by_the_next(database: Database, line: str, rebooted: bool) -> None:
    database.start(16)
    database.psql("CREATE TABLE kept AS SELECT g FROM generate_series(1, 1000) AS g")
    with subprocess.Popen(database.command(17, mode="upgrade"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as cut:
        assert cut.stderr is not None
        assert any(line in said for said in cut.stderr)
        cut.kill()
    if rebooted:  # containers that nobody restarts are gone then, those of databases that ran are back
        docker("kill", *(name for name in database.containers() if name != database.name))
    # Nothing half-filled can be taken for a database.
    if f"{database.volume}-17" in database.volumes():
        listing = docker("run", "--rm", "--volume", f"{database.volume}-17:/v:ro", "--entrypoint", "ls", database.image(17), "/v")
        assert "PG_VERSION" not in listing

    done = database.deploy(17, mode="upgrade")
    assert done.returncode == 0, done.stderr
    database.start(17, f"{database.volume}-17")
    assert database.psql("SELECT count(*) FROM kept") == "1000"
    assert database.containers() == [database.name]
    assert database.volumes() == [database.volume, f"{database.volume}-17"]


def test_a_deploy_that_was_cut_after_the_copy_does_not_copy_again_unless_the_old_one_ran(database: Database) -> None:
    database.start(16)
    database.psql("CREATE TABLE kept (n int)")
    assert database.deploy(17, mode="upgrade").returncode == 0
    again = database.deploy(17, mode="upgrade")
    assert "copied by a deploy that was cut after that" in again.stderr
    docker("start", database.name)
    docker("exec", "-i", database.name, "schema-notifications-converge")
    database.psql("INSERT INTO kept VALUES (1)")
    again = database.deploy(17, mode="upgrade")
    assert "copying database app" in again.stderr
    database.start(17, f"{database.volume}-17")
    assert database.psql("SELECT n FROM kept") == "1"


def test_an_interrupted_deploy_goes_back(database: Database) -> None:
    database.start(16)
    with subprocess.Popen(
        database.command(17, mode="upgrade"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as cut:
        assert cut.stderr is not None
        assert any("copying" in said for said in cut.stderr)
        os.killpg(cut.pid, signal.SIGINT)
        said = cut.stderr.read()
    assert "PostgreSQL 16 runs again" in said
    assert database.state().startswith("true")
    assert database.volumes() == [database.volume]


def test_a_line_that_is_lost_does_not_keep_it_from_its_end(database: Database) -> None:
    """As when SSH breaks: nobody reads what the script says."""
    database.start(16)
    with subprocess.Popen(database.command(17, mode="upgrade"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as cut:
        assert cut.stderr is not None
        assert any("Stopping" in said for said in cut.stderr)
        cut.stderr.close()
        cut.wait(120)
    assert database.containers() == [database.name]
    assert "copied by a deploy that was cut after that" in database.deploy(17, mode="upgrade").stderr


def test_a_full_disk_goes_back(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new volume is on a disk of its own, of 110 MB; what the copy needs is more than the old data would tell."""
    database.start(16)
    database.psql("CREATE TABLE big AS SELECT repeat('x', 10000000) AS x FROM generate_series(1, 12)")
    assert int(database.psql("SELECT pg_total_relation_size('big')")) < 4_000_000
    real = subprocess.run(["which", "docker"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    shim = tmp_path / "docker"
    small = "--opt type=tmpfs --opt device=tmpfs --opt o=size=110m"
    shim.write_text(
        f'#!/bin/sh\ncase "$1 $2" in "volume create") case "$*" in *-17) shift 2; exec {real} volume create {small} "$@";; esac;; esac\n'
        f'exec {real} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = database.deploy(17, mode="upgrade")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "PostgreSQL 16 runs again" in done.stderr

    shim.write_text(shim.read_text().replace("110m", "20m"))
    state = database.state()
    done = database.deploy(17, mode="upgrade")
    assert "but the disk has 19 MiB left" in done.stderr or "but the disk has 20 MiB left" in done.stderr
    assert database.state() == state
    assert database.volumes() == [database.volume]


def test_tablespaces_are_refused_while_the_database_runs(database: Database) -> None:
    database.start(16)
    docker("exec", "--user", "postgres", database.name, "mkdir", "/tmp/elsewhere")
    database.psql("CREATE TABLESPACE elsewhere LOCATION '/tmp/elsewhere'")
    state = database.state()
    done = database.deploy(17, mode="upgrade")
    assert done.returncode == 1
    assert "tablespaces" in done.stderr
    assert database.state() == state


def test_settings_rights_and_files_of_the_data_folder_go_along(database: Database) -> None:
    database.start(16)
    docker(
        "exec",
        database.name,
        "sh",
        "-c",
        f"echo 'host all all 10.1.2.3/32 reject' >>{DATA}/pg_hba.conf; echo 'max_connections = 77' >>{DATA}/postgresql.conf; echo key >{DATA}/my.key; echo \"old_snapshot_threshold = 60\" >>{DATA}/postgresql.conf",
    )
    assert database.deploy(17, mode="upgrade").returncode == 0
    database.start(17, f"{database.volume}-17")
    assert database.psql("SHOW max_connections") == "77"
    assert "10.1.2.3/32" in docker("exec", database.name, "cat", f"{DATA}/pg_hba.conf")
    assert docker("exec", database.name, "cat", f"{DATA}/my.key") == "key"
