"""Each DDL command gives one notice, as the specification says: for every command tag, in transactions, and quietly where
nothing lasting has changed."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.sql.database import Database, described
from tests.support import needs
from tests.support.postgres import Cluster

# For every tag in the firing matrix of event triggers (PostgreSQL's documentation, "Event Trigger Firing Matrix"):
# what prepares the command, the command, and what its notice must tell. Two more need code in C: see `module`.
TABLE = "CREATE TABLE t (id int PRIMARY KEY, name text)"
FUNCTION = "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'"
PROCEDURE = "CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'"
AGGREGATE = "CREATE AGGREGATE a(int) (sfunc = int4pl, stype = int)"
CONVERSION = "CREATE CONVERSION conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8"
OPERATOR = "CREATE OPERATOR public.### (leftarg = int, rightarg = int, function = int4pl)"
CLASS = "CREATE OPERATOR CLASS oc FOR TYPE int USING btree FAMILY of AS OPERATOR 1 <, FUNCTION 1 btint4cmp(int, int)"
FAMILY = "CREATE OPERATOR FAMILY of USING btree"
LANGUAGE = "CREATE LANGUAGE lang HANDLER plpgsql_call_handler"
SERVER = "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w"
MAPPING = f"{SERVER}; CREATE USER MAPPING FOR alice SERVER s"
FOREIGN = f"{SERVER}; CREATE FOREIGN TABLE ft (id int) SERVER s"
MATVIEW = "CREATE MATERIALIZED VIEW mv AS SELECT 1 AS id"
POLICY = f"{TABLE}; CREATE POLICY pol ON t"
STATISTICS = f"{TABLE}; CREATE STATISTICS st ON id, name FROM t"
SUBSCRIPTION = "CREATE SUBSCRIPTION sub CONNECTION 'dbname=nowhere' PUBLICATION pub WITH (connect = false, slot_name = NONE)"
CONFIGURATION = "CREATE TEXT SEARCH CONFIGURATION tsc (parser = 'default')"
DICTIONARY = "CREATE TEXT SEARCH DICTIONARY tsd (template = simple)"
PARSER = "CREATE TEXT SEARCH PARSER tsp (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, lextypes = prsd_lextype)"
TEMPLATE = "CREATE TEXT SEARCH TEMPLATE tst (lexize = dsimple_lexize)"
TRANSFORM = (
    "CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal))"
)
TRIGGER = f"{TABLE}; CREATE TRIGGER tr BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
RULE = f"{TABLE}; CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING"
CAST = "CREATE TYPE y AS ENUM ('a'); CREATE CAST (y AS int) WITH INOUT"

MATRIX = [
    ("ALTER AGGREGATE", AGGREGATE, "ALTER AGGREGATE a(int) RENAME TO b", "altered aggregate public.b(integer)"),
    ("ALTER COLLATION", "CREATE COLLATION c FROM \"C\"", "ALTER COLLATION c RENAME TO d", "altered collation public.d"),
    ("ALTER CONVERSION", CONVERSION, "ALTER CONVERSION conv RENAME TO d", "altered conversion public.d"),
    ("ALTER DEFAULT PRIVILEGES", "", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO alice", "altered tables None"),
    ("ALTER DOMAIN", "CREATE DOMAIN d AS int", "ALTER DOMAIN d SET NOT NULL", "altered type public.d"),
    ("ALTER EXTENSION", "CREATE EXTENSION vector SCHEMA public; CREATE SCHEMA e", "ALTER EXTENSION vector SET SCHEMA e", "altered extension vector"),
    ("ALTER FOREIGN DATA WRAPPER", SERVER, "ALTER FOREIGN DATA WRAPPER w OPTIONS (a 'b')", "altered foreign-data wrapper w"),
    ("ALTER FOREIGN TABLE", FOREIGN, "ALTER FOREIGN TABLE ft ADD COLUMN x int", "altered foreign table public.ft"),
    ("ALTER FUNCTION", FUNCTION, "ALTER FUNCTION f IMMUTABLE", "altered function public.f(integer)"),
    ("ALTER INDEX", f"{TABLE}; CREATE INDEX i ON t (name)", "ALTER INDEX i RENAME TO j", "altered index public.j"),
    ("ALTER LANGUAGE", LANGUAGE, "ALTER LANGUAGE lang RENAME TO l", "altered language l"),
    ("ALTER LARGE OBJECT", "SELECT lo_create(4711)", "ALTER LARGE OBJECT 4711 OWNER TO alice", "altered large object 4711"),
    ("ALTER MATERIALIZED VIEW", MATVIEW, "ALTER MATERIALIZED VIEW mv RENAME TO mw", "altered materialized view public.mw"),
    ("ALTER OPERATOR", OPERATOR, "ALTER OPERATOR ### (int, int) OWNER TO alice", "altered operator public.###(integer,integer)"),
    ("ALTER OPERATOR CLASS", f"{FAMILY}; {CLASS}", "ALTER OPERATOR CLASS oc USING btree RENAME TO od", "altered operator class public.od USING btree"),
    ("ALTER OPERATOR FAMILY", FAMILY, "ALTER OPERATOR FAMILY of USING btree ADD OPERATOR 1 < (int, int)", "altered operator family public.of USING btree"),
    ("ALTER POLICY", POLICY, "ALTER POLICY pol ON t USING (true)", "altered policy pol on public.t"),
    ("ALTER PROCEDURE", PROCEDURE, "ALTER PROCEDURE p SECURITY DEFINER", "altered procedure public.p()"),
    ("ALTER PUBLICATION", f"{TABLE}; CREATE PUBLICATION pub", "ALTER PUBLICATION pub ADD TABLE t", "altered publication relation public.t in publication pub"),
    ("ALTER ROUTINE", FUNCTION, "ALTER ROUTINE f STABLE", "altered function public.f(integer)"),
    ("ALTER RULE", RULE, "ALTER RULE r ON t RENAME TO s", "altered rule s on public.t"),
    ("ALTER SCHEMA", "CREATE SCHEMA s", "ALTER SCHEMA s RENAME TO r", "altered schema r"),
    ("ALTER SEQUENCE", "CREATE SEQUENCE q", "ALTER SEQUENCE q INCREMENT 2", "altered sequence public.q"),
    ("ALTER SERVER", SERVER, "ALTER SERVER s VERSION '2'", "altered server s"),
    ("ALTER STATISTICS", STATISTICS, "ALTER STATISTICS st SET STATISTICS 10", "altered statistics object public.st"),
    ("ALTER SUBSCRIPTION", SUBSCRIPTION, "ALTER SUBSCRIPTION sub SET (synchronous_commit = off)", "altered subscription sub"),
    ("ALTER TABLE", TABLE, "ALTER TABLE t ADD COLUMN x int", "altered table public.t"),
    ("ALTER TEXT SEARCH CONFIGURATION", CONFIGURATION, "ALTER TEXT SEARCH CONFIGURATION tsc ADD MAPPING FOR word WITH simple", "altered text search configuration public.tsc"),
    ("ALTER TEXT SEARCH DICTIONARY", DICTIONARY, "ALTER TEXT SEARCH DICTIONARY tsd (accept = false)", "altered text search dictionary public.tsd"),
    ("ALTER TEXT SEARCH PARSER", PARSER, "ALTER TEXT SEARCH PARSER tsp RENAME TO tsq", "altered text search parser public.tsq"),
    ("ALTER TEXT SEARCH TEMPLATE", TEMPLATE, "ALTER TEXT SEARCH TEMPLATE tst RENAME TO tsu", "altered text search template public.tsu"),
    ("ALTER TRIGGER", TRIGGER, "ALTER TRIGGER tr ON t RENAME TO ts", "altered trigger ts on public.t"),
    ("ALTER TYPE", "CREATE TYPE y AS ENUM ('a')", "ALTER TYPE y ADD VALUE 'b'", "altered type public.y"),
    ("ALTER USER MAPPING", MAPPING, "ALTER USER MAPPING FOR alice SERVER s OPTIONS (a 'b')", "altered user mapping alice on server s"),
    ("ALTER VIEW", "CREATE VIEW v AS SELECT 1 AS id", "ALTER VIEW v RENAME TO w", "altered view public.w"),
    ("COMMENT", TABLE, "COMMENT ON COLUMN t.id IS 'it''s'", "altered table column public.t.id"),
    ("CREATE ACCESS METHOD", "", "CREATE ACCESS METHOD am TYPE INDEX HANDLER bthandler", "created access method am"),
    ("CREATE AGGREGATE", "", AGGREGATE, "created aggregate public.a(integer)"),
    ("CREATE CAST", "CREATE TYPE y AS ENUM ('a')", "CREATE CAST (y AS int) WITH INOUT", "created cast (public.y AS integer)"),
    ("CREATE COLLATION", "", "CREATE COLLATION c FROM \"C\"", "created collation public.c"),
    ("CREATE CONVERSION", "", CONVERSION, "created conversion public.conv"),
    ("CREATE DOMAIN", "", "CREATE DOMAIN d AS int CHECK (VALUE > 0)", "created type public.d"),
    ("CREATE EXTENSION", "", "CREATE EXTENSION vector", "created extension vector"),
    ("CREATE FOREIGN DATA WRAPPER", "", "CREATE FOREIGN DATA WRAPPER w", "created foreign-data wrapper w"),
    ("CREATE FOREIGN TABLE", SERVER, "CREATE FOREIGN TABLE ft (id int) SERVER s", "created foreign table public.ft"),
    ("CREATE FUNCTION", "", FUNCTION, "created function public.f(integer)"),
    ("CREATE INDEX", TABLE, "CREATE INDEX i ON t (name)", "created index public.i"),
    ("CREATE LANGUAGE", "", LANGUAGE, "created language lang"),
    ("CREATE MATERIALIZED VIEW", "", MATVIEW, "created materialized view public.mv"),
    ("CREATE OPERATOR", "", OPERATOR, "created operator public.###(integer,integer)"),
    ("CREATE OPERATOR CLASS", FAMILY, CLASS, "created operator class public.oc USING btree"),
    ("CREATE OPERATOR FAMILY", "", FAMILY, "created operator family public.of USING btree"),
    ("CREATE POLICY", TABLE, "CREATE POLICY pol ON t", "created policy pol on public.t"),
    ("CREATE PROCEDURE", "", PROCEDURE, "created procedure public.p()"),
    ("CREATE PUBLICATION", TABLE, "CREATE PUBLICATION pub FOR TABLE t", "created publication pub"),
    ("CREATE RULE", TABLE, "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING", "created rule r on public.t"),
    ("CREATE SCHEMA", "", "CREATE SCHEMA s CREATE TABLE t (id int) CREATE VIEW v AS SELECT 1 AS id", "created table s.t"),
    ("CREATE SEQUENCE", "", "CREATE SEQUENCE q", "created sequence public.q"),
    ("CREATE SERVER", "CREATE FOREIGN DATA WRAPPER w", "CREATE SERVER s FOREIGN DATA WRAPPER w", "created server s"),
    ("CREATE STATISTICS", TABLE, "CREATE STATISTICS st ON id, name FROM t", "created statistics object public.st"),
    ("CREATE SUBSCRIPTION", "", SUBSCRIPTION, "created subscription sub"),
    ("CREATE TABLE", "", "CREATE TABLE t (id serial PRIMARY KEY)", "created table public.t"),
    ("CREATE TABLE AS", "", "CREATE TABLE t AS SELECT 1 AS id", "created table public.t"),
    ("CREATE TEXT SEARCH CONFIGURATION", "", CONFIGURATION, "created text search configuration public.tsc"),
    ("CREATE TEXT SEARCH DICTIONARY", "", DICTIONARY, "created text search dictionary public.tsd"),
    ("CREATE TEXT SEARCH PARSER", "", PARSER, "created text search parser public.tsp"),
    ("CREATE TEXT SEARCH TEMPLATE", "", TEMPLATE, "created text search template public.tst"),
    ("CREATE TRANSFORM", "", TRANSFORM, "created transform for integer language sql"),
    ("CREATE TRIGGER", TABLE, TRIGGER.partition("; ")[2], "created trigger tr on public.t"),
    ("CREATE TYPE", "", "CREATE TYPE y AS (a int)", "created type public.y"),
    ("CREATE USER MAPPING", SERVER, "CREATE USER MAPPING FOR alice SERVER s", "created user mapping alice on server s"),
    ("CREATE VIEW", "", "CREATE VIEW v AS SELECT 1 AS id", "created view public.v"),
    ("DROP ACCESS METHOD", "CREATE ACCESS METHOD am TYPE INDEX HANDLER bthandler", "DROP ACCESS METHOD am", "dropped access method am"),
    ("DROP AGGREGATE", AGGREGATE, "DROP AGGREGATE a(int)", "dropped aggregate public.a(integer)"),
    ("DROP CAST", CAST, "DROP CAST (y AS int)", "dropped cast (public.y AS integer)"),
    ("DROP COLLATION", "CREATE COLLATION c FROM \"C\"", "DROP COLLATION c", "dropped collation public.c"),
    ("DROP CONVERSION", CONVERSION, "DROP CONVERSION conv", "dropped conversion public.conv"),
    ("DROP DOMAIN", "CREATE DOMAIN d AS int", "DROP DOMAIN d", "dropped type public.d"),
    ("DROP EXTENSION", "CREATE EXTENSION vector", "DROP EXTENSION vector", "dropped extension vector"),
    ("DROP FOREIGN DATA WRAPPER", "CREATE FOREIGN DATA WRAPPER w", "DROP FOREIGN DATA WRAPPER w", "dropped foreign-data wrapper w"),
    ("DROP FOREIGN TABLE", FOREIGN, "DROP FOREIGN TABLE ft", "dropped foreign table public.ft"),
    ("DROP FUNCTION", FUNCTION, "DROP FUNCTION f", "dropped function public.f(integer)"),
    ("DROP INDEX", f"{TABLE}; CREATE INDEX i ON t (name)", "DROP INDEX i", "dropped index public.i"),
    ("DROP LANGUAGE", LANGUAGE, "DROP LANGUAGE lang", "dropped language lang"),
    ("DROP MATERIALIZED VIEW", MATVIEW, "DROP MATERIALIZED VIEW mv", "dropped materialized view public.mv"),
    ("DROP OPERATOR", OPERATOR, "DROP OPERATOR ### (int, int)", "dropped operator public.###(integer,integer)"),
    ("DROP OPERATOR CLASS", f"{FAMILY}; {CLASS}", "DROP OPERATOR CLASS oc USING btree", "dropped operator class public.oc USING btree"),
    ("DROP OPERATOR FAMILY", FAMILY, "DROP OPERATOR FAMILY of USING btree", "dropped operator family public.of USING btree"),
    ("DROP OWNED", "CREATE TABLE bobs (id int); ALTER TABLE bobs OWNER TO bob", "DROP OWNED BY bob", "dropped table public.bobs"),
    ("DROP POLICY", POLICY, "DROP POLICY pol ON t", "dropped policy pol on public.t"),
    ("DROP PROCEDURE", PROCEDURE, "DROP PROCEDURE p", "dropped procedure public.p()"),
    ("DROP PUBLICATION", "CREATE PUBLICATION pub", "DROP PUBLICATION pub", "dropped publication pub"),
    ("DROP ROUTINE", FUNCTION, "DROP ROUTINE f", "dropped function public.f(integer)"),
    ("DROP RULE", RULE, "DROP RULE r ON t", "dropped rule r on public.t"),
    ("DROP SCHEMA", "CREATE SCHEMA s CREATE TABLE t (id int) CREATE VIEW v AS SELECT * FROM t", "DROP SCHEMA s CASCADE", "dropped table s.t"),
    ("DROP SEQUENCE", "CREATE SEQUENCE q", "DROP SEQUENCE q", "dropped sequence public.q"),
    ("DROP SERVER", SERVER, "DROP SERVER s", "dropped server s"),
    ("DROP STATISTICS", STATISTICS, "DROP STATISTICS st", "dropped statistics object public.st"),
    ("DROP SUBSCRIPTION", SUBSCRIPTION, "DROP SUBSCRIPTION sub", "dropped subscription sub"),
    ("DROP TABLE", TABLE, "DROP TABLE t", "dropped table public.t"),
    ("DROP TEXT SEARCH CONFIGURATION", CONFIGURATION, "DROP TEXT SEARCH CONFIGURATION tsc", "dropped text search configuration public.tsc"),
    ("DROP TEXT SEARCH DICTIONARY", DICTIONARY, "DROP TEXT SEARCH DICTIONARY tsd", "dropped text search dictionary public.tsd"),
    ("DROP TEXT SEARCH PARSER", PARSER, "DROP TEXT SEARCH PARSER tsp", "dropped text search parser public.tsp"),
    ("DROP TEXT SEARCH TEMPLATE", TEMPLATE, "DROP TEXT SEARCH TEMPLATE tst", "dropped text search template public.tst"),
    ("DROP TRANSFORM", TRANSFORM, "DROP TRANSFORM FOR int LANGUAGE sql", "dropped transform for integer language sql"),
    ("DROP TRIGGER", TRIGGER, "DROP TRIGGER tr ON t", "dropped trigger tr on public.t"),
    ("DROP TYPE", "CREATE TYPE y AS (a int)", "DROP TYPE y", "dropped type public.y"),
    ("DROP USER MAPPING", MAPPING, "DROP USER MAPPING FOR alice SERVER s", "dropped user mapping alice on server s"),
    ("DROP VIEW", "CREATE VIEW v AS SELECT 1 AS id", "DROP VIEW v", "dropped view public.v"),
    ("GRANT", TABLE, "GRANT SELECT ON t TO alice", "altered table None"),
    ("REFRESH MATERIALIZED VIEW", MATVIEW, "REFRESH MATERIALIZED VIEW mv", "altered materialized view public.mv"),
    ("REINDEX", TABLE, "REINDEX TABLE t", "altered index public.t_pkey"),
    ("REVOKE", f"{TABLE}; GRANT SELECT ON t TO alice", "REVOKE SELECT ON t FROM alice", "altered table None"),
    ("SELECT INTO", "", "SELECT 1 AS id INTO t", "created table public.t"),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "prepare", "command", "expected"), MATRIX, ids=[case[0] for case in MATRIX])
def test_each_command_gives_one_notice(database: Database, tag: str, prepare: str, command: str, expected: str) -> None:
    fires = tag != "REINDEX" or database.value("SELECT current_setting('server_version_num')::int") >= 170000
    if prepare:
        for statement in prepare.split("; "):
            database.execute(statement)
    notices = database.notices_of(command)
    assert [notice["tag"] for notice in notices] == ([tag] if fires else [])
    for notice in notices:
        assert expected in described(notice)


@pytest.fixture(scope="session")
def module(cluster: Cluster) -> Iterator[Path]:
    """What SECURITY LABEL and IMPORT FOREIGN SCHEMA need, written in C: a label provider and a foreign-data wrapper."""
    folder = Path(tempfile.mkdtemp())  # not in pytest's, which the server's user may not enter
    folder.chmod(0o755)
    library = folder / "labels_and_imports.so"
    headers = cluster.bin.parent / "include" / "postgresql" / "server"
    source = Path(__file__).with_name("labels_and_imports.c")
    subprocess.run([needs.program("cc"), "-shared", "-fPIC", f"-I{headers}", "-o", library, source], check=True)
    yield library
    shutil.rmtree(folder)


def test_security_label(database: Database, module: Path) -> None:
    database.execute(TABLE)
    (notice,) = database.notices_of(f"LOAD '{module}'", "SECURITY LABEL FOR sample ON TABLE t IS 'secret'")
    assert notice["tag"] == "SECURITY LABEL"
    assert described(notice) == {"altered table public.t"}


def test_import_foreign_schema(database: Database, module: Path) -> None:
    database.execute(f"CREATE FUNCTION handler() RETURNS fdw_handler LANGUAGE c AS '{module}'")
    database.execute("CREATE FOREIGN DATA WRAPPER w HANDLER handler; CREATE SERVER s FOREIGN DATA WRAPPER w")
    (notice,) = database.notices_of("IMPORT FOREIGN SCHEMA far FROM SERVER s INTO public")
    assert notice["tag"] == "IMPORT FOREIGN SCHEMA"
    assert described(notice) == {"created foreign table public.imported"}


def tags_of(cluster: Cluster, fire: bool) -> set[str]:
    """The command tags for which this PostgreSQL, as its own table of them says, fires event triggers, or does not."""
    table = (cluster.bin.parent / "include/postgresql/server/tcop/cmdtaglist.h").read_text()
    return {tag for tag, ok in re.findall(r'PG_CMDTAG\(\w+, "(.+?)", (true|false)', table) if (ok == "true") == fire}


def test_no_command_tag_is_forgotten(cluster: Cluster) -> None:
    # What no command of PostgreSQL 16 to 18 is called, and LOGIN (17): an event of its own.
    no_command = {"ALTER ACCESS METHOD", "ALTER CAST", "ALTER CONSTRAINT", "ALTER TRANSFORM", "CREATE CONSTRAINT", "CREATE ROUTINE",
                  "DROP CONSTRAINT", "LOGIN"}  # fmt: skip
    elsewhere = {"SECURITY LABEL", "IMPORT FOREIGN SCHEMA"}
    assert tags_of(cluster, fire=True) - no_command - elsewhere == {tag for tag, *_ in MATRIX} & tags_of(cluster, fire=True)
    assert {tag for tag, *_ in MATRIX} - tags_of(cluster, fire=True) <= {"REINDEX"}
    schema = {
        tag
        for tag in tags_of(cluster, fire=False)
        if re.match("CREATE|ALTER|DROP|GRANT|REVOKE|REASSIGN|TRUNCATE|CLUSTER|VACUUM", tag)
    }
    assert {tag for commands in NEVER_FIRES for tag in commands} >= schema


def test_a_notice_is_what_the_specification_says_and_more(database: Database) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    (notice,) = database.notices_of("CREATE TABLE t (id int)")
    assert notice["type"] == "ddl_command_end"
    assert notice["tag"] == "CREATE TABLE"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+00", notice["timestamp"])
    assert before <= datetime.fromisoformat(notice["timestamp"]) <= datetime.now(UTC)
    ((log_id, txid, user),) = database.execute("SELECT id, txid::text, user_name FROM schema_notifications.log")
    assert notice["id"] == log_id
    assert notice["txid"] == txid
    assert notice["user"] == user == "postgres"
    assert notice["database"] == database.name
    assert notice["objects"] == [{"action": "created", "kind": "table", "schema": "public", "identity": "public.t"}]
    assert set(notice) == {"type", "tag", "timestamp", "id", "database", "user", "txid", "objects"}


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/St_Johns"])
def test_the_timestamp_is_utc_whatever_the_session_says(database: Database, zone: str) -> None:
    with database.connect() as session, database.listening() as notices:
        session.execute(f"SET TimeZone = '{zone}'; SET DateStyle = 'SQL, DMY'; SET lc_time = 'C'; CREATE TABLE t ()")
    sent = datetime.fromisoformat(notices[0]["timestamp"])
    assert abs(datetime.now(UTC) - sent) < timedelta(seconds=10)


def test_who_ran_it(database: Database) -> None:
    database.execute("GRANT CREATE ON SCHEMA public TO alice, bob")
    notices = database.notices_of("CREATE TABLE a ()", "SET ROLE bob", "CREATE TABLE b ()", user="alice")
    assert [notice["user"] for notice in notices] == ["alice", "bob"]


def test_what_an_alter_drops_is_in_its_one_notice(database: Database) -> None:
    database.execute("CREATE TABLE t (id int CONSTRAINT positive CHECK (id > 0), name text)")
    notices = database.notices_of(
        "ALTER TABLE t DROP COLUMN name, ADD COLUMN surname text", "ALTER TABLE t DROP CONSTRAINT positive"
    )
    assert [described(notice) for notice in notices] == [
        {"dropped table column public.t.name", "altered table public.t"},
        {"dropped table constraint positive on public.t", "altered table public.t"},
    ]
    assert [objects for _, objects in database.log()[1:]] == [notice["objects"] for notice in notices]


def test_what_a_cascade_takes_along_is_there(database: Database) -> None:
    database.execute("CREATE SCHEMA s CREATE TABLE a (id int) CREATE TABLE b (id int); CREATE VIEW public.v AS TABLE s.a")
    (notice,) = database.notices_of("DROP SCHEMA s CASCADE")
    assert described(notice) == {"dropped schema s", "dropped table s.a", "dropped table s.b", "dropped view public.v"}


def test_partitions_that_go_with_their_table_are_there(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE u ()")
    database.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE t11 PARTITION OF t1 FOR VALUES FROM (0) TO (5)")
    (notice,) = database.notices_of("DROP TABLE t, u")
    assert described(notice) == {f"dropped table public.{name}" for name in ("t", "t1", "t11", "u")}


def test_what_belongs_to_one_create_is_in_one_notice(database: Database) -> None:
    (notice,) = database.notices_of("CREATE TABLE t (id serial PRIMARY KEY, parent int REFERENCES t)")
    assert {"created table public.t", "created sequence public.t_id_seq", "created index public.t_pkey"} <= described(notice)


def test_several_in_one_transaction_arrive_in_order(database: Database) -> None:
    with database.connect() as session, database.listening() as notices, session.transaction():
        for number in range(50):
            session.execute(f"CREATE TABLE t{number} ()")
        session.execute("DROP TABLE t0; CREATE TABLE t0 ()")
    assert [n["tag"] for n in notices] == ["CREATE TABLE"] * 50 + ["DROP TABLE", "CREATE TABLE"]
    assert [n["objects"][0]["identity"] for n in notices] == [f"public.t{i}" for i in range(50)] + ["public.t0"] * 2
    assert [n["id"] for n in notices] == sorted(n["id"] for n in notices)
    assert len({n["txid"] for n in notices}) == 1


def test_the_same_command_twice_in_one_transaction_is_two_notices(database: Database) -> None:
    with database.connect() as session, database.listening() as notices, session.transaction():
        session.execute("GRANT SELECT ON pg_class TO alice; GRANT SELECT ON pg_class TO alice")
    assert [notice["tag"] for notice in notices] == ["GRANT", "GRANT"]


def test_what_is_rolled_back_never_arrives(database: Database) -> None:
    with database.connect() as session, database.listening() as notices:
        session.execute("BEGIN; CREATE TABLE gone (); ROLLBACK")
        session.execute("BEGIN; CREATE TABLE a (); SAVEPOINT s; CREATE TABLE gone (); ALTER TABLE a ADD x int")
        session.execute("ROLLBACK TO s; CREATE TABLE b (); RELEASE s; COMMIT")
        with pytest.raises(psycopg.errors.DivisionByZero):
            session.execute("CREATE TABLE gone AS SELECT 1 / 0")
    assert [n["objects"][0]["identity"] for n in notices] == ["public.a", "public.b"]
    assert len(database.log()) == 2


def test_ddl_within_ddl_gives_a_notice_of_its_own(database: Database) -> None:
    database.execute("CREATE FUNCTION make() RETURNS int LANGUAGE plpgsql AS 'BEGIN CREATE TABLE inner_t (); RETURN 1; END'")
    notices = database.notices_of("CREATE TABLE outer_t AS SELECT make()")
    assert [n["objects"][0]["identity"] for n in notices] == ["public.inner_t", "public.outer_t"]


def test_postgresql_hides_what_a_refresh_creates(database: Database) -> None:
    """Not what it drops: the README says so."""
    database.execute(
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN CREATE TABLE public.a (); DROP TABLE public.b; RETURN 1; END'"
    )
    database.execute("CREATE TABLE b (); CREATE MATERIALIZED VIEW mv AS SELECT f() AS id WITH NO DATA")
    notices = database.notices_of("REFRESH MATERIALIZED VIEW mv")
    assert [described(notice) for notice in notices] == [{"dropped table public.b"}, {"altered materialized view public.mv"}]


QUIET = {
    "temporary table": ("", "CREATE TEMP TABLE t (id serial PRIMARY KEY, x int)", "ALTER TABLE t DROP COLUMN x", "DROP TABLE t"),
    "temporary view": ("", "CREATE TEMP VIEW v AS SELECT 1 AS id", "DROP VIEW v"),
    "temporary sequence": ("", "CREATE TEMP SEQUENCE q", "ALTER SEQUENCE q INCREMENT 2", "DROP SEQUENCE q"),
    "temporary function": ("", "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION pg_temp.f"),
    "temporary type": ("", "CREATE TYPE pg_temp.y AS ENUM ('a')", "DROP TYPE pg_temp.y"),
    "index on a temporary table": ("", "CREATE TEMP TABLE t (id int)", "CREATE INDEX i ON t (id)", "DROP INDEX i"),
    "comment on a temporary table": ("", "CREATE TEMP TABLE t (id int)", "COMMENT ON TABLE t IS 'x'", "COMMENT ON COLUMN t.id IS 'x'"),
    "trigger, rule and policy on a temporary table": (
        "",
        "CREATE TEMP TABLE t (id int)",
        "CREATE TRIGGER tr BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TRIGGER tr ON t RENAME TO ts",
        "DROP TRIGGER ts ON t",
        "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING",
        "DROP RULE r ON t",
        "CREATE POLICY pol ON t",
        "ALTER POLICY pol ON t USING (true)",
        "DROP POLICY pol ON t",
    ),
    "temporary table that ends with its transaction": ("", "CREATE TEMP TABLE t (id int) ON COMMIT DROP"),
    "temporary copy": ("", "CREATE TEMP TABLE t AS SELECT 1 AS id", "SELECT 1 AS id INTO TEMP u"),
    "table that exists": ("CREATE TABLE t ()", "CREATE TABLE IF NOT EXISTS t ()", "CREATE TABLE IF NOT EXISTS t AS SELECT 1"),
    "schema that exists": ("CREATE SCHEMA s", "CREATE SCHEMA IF NOT EXISTS s"),
    "index that exists": ("CREATE TABLE t (id int); CREATE INDEX i ON t (id)", "CREATE INDEX IF NOT EXISTS i ON t (id)"),
    "sequence that exists": ("CREATE SEQUENCE q", "CREATE SEQUENCE IF NOT EXISTS q"),
    "extension that exists": ("", "CREATE EXTENSION IF NOT EXISTS schema_notifications"),
    "nothing to drop": ("", "DROP TABLE IF EXISTS nothing", "DROP SCHEMA IF EXISTS nothing CASCADE", "ALTER TABLE IF EXISTS nothing ADD x int"),
}  # fmt: skip


@pytest.mark.parametrize("what", QUIET)
def test_quiet(database: Database, what: str) -> None:
    prepare, *commands = QUIET[what]
    if prepare:
        database.execute(prepare)
    before = database.log()
    assert database.notices_of(*commands) == []
    assert database.log() == before


def test_a_concurrent_refresh_tells_of_the_view_alone(database: Database) -> None:
    database.execute("CREATE MATERIALIZED VIEW mv AS SELECT 1 AS id; CREATE UNIQUE INDEX ON mv (id)")
    (notice,) = database.notices_of("REFRESH MATERIALIZED VIEW CONCURRENTLY mv")
    assert described(notice) == {"altered materialized view public.mv"}


def test_a_name_that_looks_temporary_is_not(database: Database) -> None:
    database.execute("CREATE TABLE t (id int)")
    trigger = '"x on pg_temp.t"'
    notices = database.notices_of(
        f"CREATE TRIGGER {trigger} BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        f"DROP TRIGGER {trigger} ON t",
        'CREATE TABLE "pg_temp.t" ()',
    )
    assert [notice["tag"] for notice in notices] == ["CREATE TRIGGER", "DROP TRIGGER", "CREATE TABLE"]


@pytest.fixture(scope="session")
def pieces(cluster: Cluster) -> str:
    """The name of an extension whose script creates and drops, and whose update does so too."""
    folder = next((cluster.bin.parent / "share").rglob("plpgsql.control")).parent
    steps = "CREATE TABLE pieces_a (id int); CREATE TABLE pieces_b (id int); CREATE VIEW pieces_v AS TABLE pieces_b;"
    (folder / "pieces.control").write_text("default_version = '2'\nrelocatable = true\n")
    (folder / "pieces--1.sql").write_text(f"{steps} DROP TABLE pieces_a; ALTER TABLE pieces_b ADD x int, DROP COLUMN id CASCADE;")
    (folder / "pieces--1--2.sql").write_text("CREATE TABLE pieces_c (); DROP TABLE pieces_b; GRANT SELECT ON pieces_c TO PUBLIC;")
    return "pieces"


@pytest.mark.parametrize("user", ["postgres", "alice"])
def test_one_extension_is_one_notice(database: Database, pieces: str, user: str) -> None:
    if user != "postgres":
        folder = next((database.cluster.bin.parent / "share").rglob("pieces.control"))
        folder.write_text("default_version = '2'\nrelocatable = true\ntrusted = true\n")
        database.execute(f"GRANT CREATE ON DATABASE {database.name} TO alice; GRANT CREATE ON SCHEMA public TO alice")
    notices = database.notices_of(
        f"CREATE EXTENSION {pieces} VERSION '1'", f"ALTER EXTENSION {pieces} UPDATE", f"DROP EXTENSION {pieces}", user=user
    )
    assert [(notice["tag"], notice["objects"]) for notice in notices] == [
        (f"{verb} EXTENSION", [{"action": action, "kind": "extension", "schema": None, "identity": pieces}])
        for verb, action in (("CREATE", "created"), ("ALTER", "altered"), ("DROP", "dropped"))
    ]


def test_dropping_no_extension_leaves_nothing_behind(database: Database) -> None:
    with database.connect() as session, database.listening() as notices, session.transaction():
        session.execute(
            "CREATE TABLE t (x int); DROP EXTENSION IF EXISTS nothing; ALTER TABLE t DROP COLUMN x; CREATE VIEW v AS TABLE t"
        )
    assert [described(notice) for notice in notices] == [
        {"created table public.t"},
        {"dropped table column public.t.x", "altered table public.t"},
        {"created view public.v"},
    ]


def test_what_another_trigger_drops_while_a_script_runs_counts_as_the_scripts(database: Database, pieces: str) -> None:
    """docs/feed.md says so: PostgreSQL does not tell sql_drop whose command it was."""
    database.execute(
        "CREATE TABLE bystander ();"
        "CREATE FUNCTION drops() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN DROP TABLE IF EXISTS bystander; END';"
        "CREATE EVENT TRIGGER drops ON ddl_command_end WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION drops()"
    )
    (notice,) = database.notices_of(f"CREATE EXTENSION {pieces} VERSION '1'")
    assert described(notice) == {f"created extension {pieces}"}
    assert database.value("SELECT to_regclass('bystander')") is None


def test_what_goes_with_an_extension_is_told(database: Database) -> None:
    database.execute("CREATE EXTENSION vector; CREATE TABLE t (id int, v vector(3))")
    (notice,) = database.notices_of("DROP EXTENSION vector CASCADE")
    assert described(notice) == {"dropped extension vector", "dropped table column public.t.v"}


def test_drops_after_an_extension_in_one_transaction_are_told(database: Database) -> None:
    database.execute("CREATE TABLE t (id int, x int)")
    with database.connect() as session, database.listening() as notices, session.transaction():
        session.execute("CREATE EXTENSION vector; ALTER TABLE t DROP COLUMN x; DROP TABLE t")
    assert [notice["tag"] for notice in notices] == ["CREATE EXTENSION", "ALTER TABLE", "DROP TABLE"]
    assert described(notices[1]) == {"dropped table column public.t.x", "altered table public.t"}


# The tags for which PostgreSQL fires no event trigger, with a command for each; the README tells what to do instead.
NEVER_FIRES = [
    {"CREATE DATABASE": "CREATE DATABASE {name}_x", "ALTER DATABASE": "ALTER DATABASE {name}_x SET work_mem = '4MB'",
     "COMMENT": "COMMENT ON DATABASE {name}_x IS 'x'", "GRANT": "GRANT CONNECT ON DATABASE {name}_x TO alice",
     "DROP DATABASE": "DROP DATABASE {name}_x"},
    {"CREATE ROLE": "CREATE USER {name}_r", "ALTER ROLE": "ALTER ROLE {name}_r CREATEDB", "GRANT ROLE": "GRANT bob TO {name}_r",
     "REVOKE ROLE": "REVOKE bob FROM {name}_r", "COMMENT": "COMMENT ON ROLE {name}_r IS 'x'", "DROP ROLE": "DROP ROLE {name}_r"},
    {"SET": "SET allow_in_place_tablespaces = on", "CREATE TABLESPACE": "CREATE TABLESPACE {name}_s LOCATION ''",
     "ALTER TABLESPACE": "ALTER TABLESPACE {name}_s SET (seq_page_cost = 1)", "GRANT": "GRANT CREATE ON TABLESPACE {name}_s TO alice",
     "DROP TABLESPACE": "DROP TABLESPACE {name}_s"},
    {"CREATE EVENT TRIGGER": "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION nothing()",
     "ALTER EVENT TRIGGER": "ALTER EVENT TRIGGER e DISABLE", "COMMENT": "COMMENT ON EVENT TRIGGER e IS 'x'",
     "DROP EVENT TRIGGER": "DROP EVENT TRIGGER e"},
    {"TRUNCATE TABLE": "TRUNCATE t", "CLUSTER": "CLUSTER t USING t_pkey", "VACUUM": "VACUUM FULL t"},
    {"REASSIGN OWNED": "REASSIGN OWNED BY bob TO alice"},
    {"ALTER SYSTEM": "ALTER SYSTEM RESET work_mem", "GRANT": "GRANT SET ON PARAMETER work_mem TO alice",
     "REVOKE": "REVOKE SET ON PARAMETER work_mem FROM alice"},
]  # fmt: skip


@pytest.mark.parametrize("commands", NEVER_FIRES, ids=[[*commands][-1] for commands in NEVER_FIRES])
def test_what_cannot_fire_does_no_harm(database: Database, commands: dict[str, str]) -> None:
    database.execute(f"{TABLE}; CREATE FUNCTION nothing() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'")
    before = database.log()
    assert database.notices_of(*(command.format(name=database.name) for command in commands.values())) == []
    assert database.log() == before


def payload_of(database: Database, command: str) -> tuple[str, dict[str, Any]]:
    with database.connect() as listener:
        listener.execute("LISTEN schema_changed")
        database.execute(command)
        (notice,) = listener.notifies(timeout=10, stop_after=1)
    return notice.payload, json.loads(notice.payload)


@pytest.mark.parametrize("name", ["é" * 31, "表" * 21, "🐘" * 15, 'a"b\\c', "line\nbreak\ttab", '{"tag":"DROP"}', "'; DROP TABLE t; --",
                                  "x" * 63, ',"objects":', "%s %I $1", "\x7f\x01"])  # fmt: skip
def test_any_name_stays_what_it_is(database: Database, name: str) -> None:
    identifier = '"' + name.replace('"', '""') + '"'
    database.execute(f"CREATE SCHEMA {identifier}")
    _, notice = payload_of(database, f"CREATE TABLE {identifier}.{identifier} ({identifier} int)")
    (changed,) = notice["objects"]
    assert changed["schema"] == name
    assert changed["identity"] == database.value("SELECT format('%%I.%%I', %s::text, %s::text)", name, name)


@pytest.mark.parametrize("character", ["x", "é", "表", "🐘"])
def test_a_payload_never_passes_7999_bytes(database: Database, character: str) -> None:
    """Domains are dropped together, the last with a name as long as just fits, and then one character longer."""
    width = len(character.encode())

    def drop(others: int, length: int) -> tuple[int, bool]:
        padding = [f'"A{character * (length // 2)}"', f'"B{character * (length - length // 2)}"']
        names = [f"d{number:03}" for number in range(others)] + padding
        with database.connect() as session, session.transaction():
            session.execute("; ".join(f"CREATE DOMAIN {name} AS int" for name in names))
        payload, notice = payload_of(database, "DROP DOMAIN " + ", ".join(names))
        tag, objects = database.log()[-1]
        assert tag == "DROP DOMAIN"
        assert len(objects) == len(names)
        if notice.get("truncated"):
            assert "objects" not in notice
        else:
            assert notice["objects"] == objects
        return len(payload.encode()), notice.get("truncated", False)

    # Transactions' ids that have the same number of digits throughout; those of log rows have.
    database.execute("DO $$ BEGIN WHILE pg_current_xact_id()::text::int < 10000 LOOP COMMIT; END LOOP; END $$")
    small, large = drop(20, 1)[0], drop(30, 1)[0]
    others = 20 + 10 * (7999 - small) // (large - small)
    size, truncated = drop(others, 1)
    assert not truncated
    longest = 1 + (7999 - size) // width
    size, truncated = drop(others, longest)
    assert not truncated
    assert 7999 - width < size <= 7999
    assert drop(others, longest + 1)[1]


def test_of_many_objects_the_log_has_the_first_and_says_how_many(database: Database) -> None:
    database.execute("SET schema_notifications.log = off; SET schema_notifications.notify = off; CREATE SCHEMA s; CREATE SCHEMA t;"
                     " DO $$ BEGIN FOR n IN 1..5000 LOOP EXECUTE format('CREATE DOMAIN s.d%1$s AS int', n);"
                     " IF n < 5000 THEN EXECUTE format('CREATE DOMAIN t.d%1$s AS int', n); END IF; END LOOP; END $$")  # fmt: skip
    notices = database.notices_of("DROP SCHEMA s CASCADE", "DROP SCHEMA t CASCADE", "CREATE TABLE u ()")
    (_, many), (_, as_many_as_fit), _ = database.log()
    assert [notice.get("truncated", False) for notice in notices] == [True, True, False]
    assert many[5000:] == [{"truncated": True, "total": 5001}]
    assert {item["action"] for item in many[:5000]} == {"dropped"}
    assert len({item["identity"] for item in many[:5000]}) == 5000
    assert len(as_many_as_fit) == 5000
    assert {"action": "dropped", "kind": "schema", "schema": None, "identity": "t"} in as_many_as_fit
    assert all("truncated" not in item for item in as_many_as_fit)


@pytest.mark.every_version
@pytest.mark.parametrize(("encoding", "character"), [("LATIN1", b"\xe9"), ("SQL_ASCII", b"\xff"), ("EUC_JP", b"\xc9\xbd")])
def test_other_encodings(database: Database, encoding: str, character: bytes) -> None:
    name = f"{database.name}_{encoding.lower()}"
    database.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    other = Database(database.cluster, name)
    other.execute("CREATE EXTENSION schema_notifications")
    with other.connect(client_encoding=encoding) as session, other.connect(client_encoding=encoding) as listener:
        listener.pgconn.exec_(b"LISTEN schema_changed")
        session.pgconn.exec_(b'CREATE TABLE "' + character * 20 + b'" ()')
        session.pgconn.exec_(b"SELECT pg_notify('schema_changed', 'end')")
        listener.pgconn.exec_(b"SELECT 1")
        notice, end = (listener.pgconn.notifies() for _ in range(2))
    assert notice is not None
    assert b'"identity":"public.\\"' + character * 20 + b'\\""' in notice.extra
    assert end is not None
    assert end.extra == b"end"
    assert other.value("SELECT healthy FROM schema_notifications.status()") is True
    database.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_what_is_told_though_little_changes_and_what_is_not_though_it_does(database: Database) -> None:
    """docs/feed.md says so of each."""
    database.execute("CREATE TABLE t (x int); INSERT INTO t VALUES (1), (1)")
    tags = [
        notice["tag"]
        for notice in database.notices_of("ALTER TABLE t ADD COLUMN IF NOT EXISTS x int", "ALTER TABLE t OWNER TO postgres")
    ]
    assert tags == ["ALTER TABLE", "ALTER TABLE"]
    assert database.notices_of("EXPLAIN ANALYZE CREATE TABLE u AS SELECT 1 AS x") == []
    with database.connect() as session, database.listening() as notices, pytest.raises(psycopg.errors.UniqueViolation):
        session.execute("CREATE UNIQUE INDEX CONCURRENTLY i ON t (x)")
    assert notices == []
    assert database.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 1
    (notice,) = database.notices_of("SET quote_all_identifiers = on; ALTER TABLE t ADD y int")
    assert notice["objects"][0]["identity"] == '"public"."t"'
