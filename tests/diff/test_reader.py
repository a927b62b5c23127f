"""The picture of a real database: what is in it, what it is read by, and who is in the way."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from schema_changes import SchemaChangesError, feed
from schema_changes.diff import Difference, Picture, Reader, compare
from tests.diff.conftest import Connect
from tests.support.postgres import Cluster


def read(connection: psycopg.Connection) -> Picture:
    reader = Reader(connection)
    assert reader.refresh() == []
    return reader.picture


def told(differences: list[Difference]) -> list[tuple[str, str, str]]:
    return [(difference.action, difference.kind, difference.identity) for difference in differences]


def test_a_column_that_was_added(user: psycopg.Connection, reader: Reader) -> None:
    user.execute("CREATE TABLE orders (id integer)")
    reader.refresh()
    user.execute("ALTER TABLE orders ADD qty integer NOT NULL DEFAULT 0")
    (difference,) = reader.refresh()
    assert told([difference]) == [("added", "column", "public.orders.qty")]
    assert difference.before == {}
    assert difference.after == {"type": "integer", "not_null": True, "default": "0"}
    assert str(difference) == "+ column public.orders.qty integer not null default 0"
    assert reader.refresh() == []


def test_what_was_altered_has_before_and_after(user: psycopg.Connection, reader: Reader) -> None:
    user.execute("CREATE TABLE orders (price numeric(10,2) NOT NULL)")
    reader.refresh()
    user.execute("ALTER TABLE orders ALTER price TYPE numeric(12,2), ALTER price DROP NOT NULL")
    (difference,) = reader.refresh()
    assert (difference.action, difference.changed) == ("altered", ("type", "not_null"))
    assert difference.before == {"type": "numeric(10,2)", "not_null": True}
    assert difference.after == {"type": "numeric(12,2)"}


def test_more_at_once_than_the_log_lists(user: psycopg.Connection, reader: Reader) -> None:
    """Beyond 5,000 objects: what has changed is read from the catalogs, whatever the log says."""
    create = "DO $$ BEGIN FOR n IN 1..5000 LOOP EXECUTE format('CREATE DOMAIN s.d%s AS int', n); END LOOP; END $$"
    user.execute(f"CREATE SCHEMA s; {create}")
    assert len(reader.refresh()) == 5001
    user.execute("DROP SCHEMA s CASCADE")
    gone = told(reader.refresh())
    assert {(action, kind) for action, kind, _ in gone} == {("removed", "domain"), ("removed", "schema")}
    assert len(gone) == 5001


def test_renames_are_known_by_oid(user: psycopg.Connection, reader: Reader) -> None:
    user.execute("CREATE TABLE one (a integer, b integer); CREATE TABLE two (a integer, b integer)")
    reader.refresh()
    # the names change places, and what the tables look like says nothing
    user.execute("ALTER TABLE one RENAME TO three; ALTER TABLE two RENAME TO one; ALTER TABLE three RENAME TO two")
    differences = reader.refresh()
    assert {(d.action, d.before["name"], d.after["name"]) for d in differences} == {
        ("renamed", "one", "two"),
        ("renamed", "two", "one"),
    }
    user.execute("ALTER TABLE one RENAME a TO c; ALTER TABLE one RENAME b TO a; ALTER TABLE one RENAME c TO b")
    assert {(d.before["name"], d.after["name"]) for d in reader.refresh()} == {("a", "b"), ("b", "a")}
    user.execute("CREATE SCHEMA app; ALTER TABLE one SET SCHEMA app")
    added, moved = reader.refresh()
    assert told([added, moved]) == [("added", "schema", "app"), ("renamed", "table", "app.one")]
    assert (moved.before, moved.after) == ({"schema": "public"}, {"schema": "app"})


def test_what_was_made_again_is_different_only_where_it_is(user: psycopg.Connection, reader: Reader) -> None:
    user.execute("CREATE TABLE t (a integer UNIQUE, b text); CREATE VIEW v AS SELECT a FROM t")
    reader.refresh()
    user.execute("DROP VIEW v; CREATE VIEW v AS SELECT a FROM t")
    assert reader.refresh() == []
    # PostgreSQL makes index and constraint again
    user.execute("DROP VIEW v; ALTER TABLE t ALTER a TYPE bigint; CREATE VIEW v AS SELECT a FROM t")
    assert {(d.identity, d.before["type"], d.after["type"]) for d in reader.refresh()} == {
        ("public.t.a", "integer", "bigint"),
        ("public.v.a", "integer", "bigint"),
    }
    user.execute("DROP TABLE t CASCADE; CREATE TABLE t (a bigint UNIQUE, c text)")
    assert told(reader.refresh()) == [
        ("removed", "column", "public.t.b"),
        ("added", "column", "public.t.c"),
        ("removed", "view", "public.v"),
        ("removed", "column", "public.v.a"),
    ]


def test_every_kind_that_a_person_asks_for(user: psycopg.Connection, reader: Reader) -> None:
    made = {
        "CREATE SCHEMA app": ("schema", "app"),
        "CREATE TYPE mood AS ENUM ('sad', 'ok')": ("enum", "public.mood"),
        "CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%')": ("domain", "public.email"),
        "CREATE TYPE span AS RANGE (subtype = date)": ("range", "public.span"),
        "CREATE TYPE pair AS (a integer, b text)": ("composite type", "public.pair"),
        "CREATE SEQUENCE s": ("sequence", "public.s"),
        "CREATE TABLE t (a integer, m mood)": ("table", "public.t"),
        "CREATE TABLE p (a integer) PARTITION BY LIST (a)": ("table", "public.p"),
        "CREATE TABLE p1 PARTITION OF p DEFAULT": ("table", "public.p1"),
        "ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0)": ("constraint", "public.t.k"),
        "CREATE INDEX i ON t (a)": ("index", "public.t.i"),
        "CREATE VIEW v AS SELECT 1 AS one": ("view", "public.v"),
        "CREATE MATERIALIZED VIEW m AS SELECT 1 AS one": ("materialized view", "public.m"),
        "CREATE FUNCTION f(x integer) RETURNS integer LANGUAGE sql AS 'SELECT x'": ("function", "public.f(x integer)"),
        "CREATE PROCEDURE pr() LANGUAGE sql AS ''": ("procedure", "public.pr()"),
        "CREATE AGGREGATE total(integer) (SFUNC = int4pl, STYPE = integer)": ("aggregate", "public.total(integer)"),
        "CREATE TRIGGER tr BEFORE UPDATE ON t EXECUTE FUNCTION suppress_redundant_updates_trigger()": ("trigger", "public.t.tr"),
        "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING": ("rule", "public.t.r"),
        "CREATE POLICY po ON t USING (a > 0)": ("policy", "public.t.po"),
        "CREATE STATISTICS st ON a, m FROM t": ("statistics", "public.t.st"),
        "CREATE PUBLICATION pub FOR TABLE t": ("publication", "pub"),
        "CREATE FOREIGN DATA WRAPPER w": ("foreign-data wrapper", "w"),
        "CREATE SERVER srv FOREIGN DATA WRAPPER w": ("server", "srv"),
        "CREATE FOREIGN TABLE ft (a integer) SERVER srv": ("foreign table", "public.ft"),
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC": ("default privileges", "for role postgres on tables"),
    }
    for command, (kind, identity) in made.items():
        user.execute(command)
        first, *parts = reader.refresh()
        assert told([first]) == [("added", kind, identity)], command
        assert {part.kind for part in parts} <= {"column", "constraint"}, command


def test_comments_grants_and_owners(cluster: Cluster, user: psycopg.Connection, reader: Reader) -> None:
    cluster.execute('DO $$BEGIN CREATE ROLE "Re ader"; EXCEPTION WHEN duplicate_object THEN END$$')
    user.execute("CREATE TABLE t (a integer); CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    reader.refresh()
    for command, before, after in (
        ("COMMENT ON TABLE t IS 'all'", {}, {"comment": "all"}),
        ("COMMENT ON TABLE t IS NULL", {"comment": "all"}, {}),
        ("COMMENT ON COLUMN t.a IS 'one'", {}, {"comment": "one"}),
        ('GRANT SELECT, UPDATE ON t TO "Re ader"', {}, {"grants": {'"Re ader"': ["SELECT", "UPDATE"]}}),
        (
            'GRANT SELECT ON t TO "Re ader" WITH GRANT OPTION',
            {"grants": {'"Re ader"': ["SELECT", "UPDATE"]}},
            {"grants": {'"Re ader"': ["SELECT*", "UPDATE"]}},
        ),
        ('REVOKE ALL ON t FROM "Re ader"', {"grants": {'"Re ader"': ["SELECT*", "UPDATE"]}}, {}),
        ("GRANT INSERT (a) ON t TO PUBLIC", {}, {"grants": {"PUBLIC": ["INSERT"]}}),
        ("REVOKE EXECUTE ON FUNCTION f FROM PUBLIC", {"grants": {"PUBLIC": ["EXECUTE"]}}, {}),
        ('ALTER TABLE t OWNER TO "Re ader"', {"owner": "postgres"}, {"owner": "Re ader"}),
    ):
        user.execute(command)
        (difference,) = reader.refresh()
        assert (difference.before, difference.after) == (before, after), command


def test_what_is_named_in_other_definitions(user: psycopg.Connection, reader: Reader) -> None:
    user.execute(
        "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (id integer PRIMARY KEY, m mood DEFAULT 'sad');"
        "CREATE TABLE u (t integer REFERENCES t, m mood[]); CREATE VIEW v AS SELECT id FROM t WHERE m = 'sad';"
        "CREATE FUNCTION f() RETURNS SETOF t LANGUAGE sql AS 'SELECT * FROM t'; CREATE VIEW w AS SELECT f.id FROM f()"
    )
    reader.refresh()
    user.execute("ALTER TABLE t RENAME id TO number")
    assert ("altered", "constraint", "public.u.u_t_fkey") in told(reader.refresh())
    user.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'low'")
    assert {d.identity for d in reader.refresh()} == {"public.mood", "public.t.m", "public.v"}
    user.execute("ALTER TYPE mood RENAME TO state")
    assert {d.identity for d in reader.refresh()} == {"public.state", "public.t.m", "public.u.m", "public.v"}
    user.execute("ALTER TABLE t DROP m CASCADE")  # which f() returned, and w does not ask for
    assert ("altered", "view", "public.w") in told(reader.refresh())
    user.execute("ALTER SCHEMA public RENAME TO app")
    reader.refresh()
    assert reader.picture == read(user)


def test_temporary_objects_and_members_of_extensions_are_left_out(user: psycopg.Connection, reader: Reader) -> None:
    user.execute("CREATE TEMPORARY TABLE t (a serial); CREATE TEMPORARY VIEW v AS SELECT 1")
    assert reader.refresh() == []
    assert not any(item.schema == "schema_notifications" for item in reader.picture)
    user.execute("CREATE TABLE a (b integer)")
    reader.refresh()
    user.execute("ALTER EXTENSION schema_notifications ADD TABLE a")
    assert told(reader.refresh()) == [("removed", "table", "public.a"), ("removed", "column", "public.a.b")]
    user.execute("ALTER EXTENSION schema_notifications DROP TABLE a")
    assert told(reader.refresh()) == [("added", "table", "public.a"), ("added", "column", "public.a.b")]


def test_a_transaction_that_commits_late_is_not_passed_over(connect: Connect, user: psycopg.Connection, reader: Reader) -> None:
    user.execute("CREATE TABLE t (a integer)")
    reader.refresh()
    late = connect()
    late.execute("BEGIN; CREATE TABLE first (a integer)")
    late.execute("SAVEPOINT s; CREATE TABLE second (a integer); COMMENT ON TABLE second IS 'of a subtransaction'; RELEASE s")
    user.execute("CREATE TABLE other (a integer)")  # the newest transaction
    assert [d.identity for d in reader.refresh() if d.kind == "table"] == ["public.other"]
    user.execute("CREATE TABLE another (a integer)")
    assert [d.identity for d in reader.refresh() if d.kind == "table"] == ["public.another"]
    late.execute("COMMIT")
    assert [d.identity for d in reader.refresh() if d.kind == "table"] == ["public.first", "public.second"]
    assert reader.picture == read(user)


def test_no_setting_of_a_role_bends_the_picture(cluster: Cluster, database: str, user: psycopg.Connection) -> None:
    user.execute(
        "CREATE SCHEMA evil; CREATE TABLE t (a timestamptz DEFAULT '2020-01-02 03:04:05+00', b interval DEFAULT '1 day 2 hours',"
        " c bytea DEFAULT 'x', d money DEFAULT 12.5, e double precision DEFAULT 0.1);"
        "CREATE FUNCTION evil.pg_get_viewdef(oid) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;"
        "CREATE FUNCTION evil.quote_ident(text) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;"
        "CREATE VIEW evil.pg_class AS SELECT 1 AS oid; CREATE VIEW v AS SELECT a FROM t WHERE a > '2020-01-01 00:00:00+00'"
    )
    straight = read(user)
    name = f"bent_{database[-12:]}"
    cluster.execute(f"CREATE ROLE {name} LOGIN")
    for setting in (
        "search_path = evil, public, pg_catalog",
        "quote_all_identifiers = on",
        "DateStyle = 'German'",
        "IntervalStyle = 'iso_8601'",
        "TimeZone = 'Asia/Tokyo'",
        "bytea_output = 'escape'",
        "extra_float_digits = -10",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "row_security = off",
    ):
        cluster.execute(f"ALTER ROLE {name} SET {setting}")
    user.execute(f"GRANT USAGE ON SCHEMA evil TO {name}")
    straight = read(user)
    url = database.replace("postgres@", f"{name}@")
    with psycopg.connect(url, autocommit=True) as bent:
        assert bent.execute("SHOW DateStyle").fetchone() != ("ISO, MDY",)
        assert read(bent) == straight
    # So short a limit can end the statement that sets it: the sessions that the library opens bring theirs with them.
    cluster.execute(f"ALTER ROLE {name} SET statement_timeout = '1ms'")
    with feed.listening_session(url) as session:
        assert read(session.connection) == straight
    assert straight.origin is not None


def test_a_lock_is_waited_for_and_the_one_who_holds_it_is_not_in_danger(
    connect: Connect, user: psycopg.Connection, reader: Reader
) -> None:
    user.execute("CREATE TABLE a (x integer); CREATE TABLE b (x integer); CREATE VIEW v AS SELECT a.x FROM a JOIN b USING (x)")
    reader.refresh()
    other = connect()
    other.execute("BEGIN; LOCK TABLE b IN ACCESS EXCLUSIVE MODE")
    user.execute("COMMENT ON VIEW v IS 'c'")
    found: list[Difference] = []
    thread = threading.Thread(target=lambda: found.extend(reader.refresh()))
    thread.start()
    time.sleep(1.3)
    # the reader has a and waits for b: a deadlock that PostgreSQL would end by failing this, were the reader patient
    other.execute("LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
    other.execute("COMMIT")
    thread.join(10)
    assert told(found) == [("altered", "view", "public.v")]


def test_a_lock_that_stays_is_told(connect: Connect, user: psycopg.Connection) -> None:
    user.execute("CREATE TABLE a (x integer); CREATE VIEW v AS SELECT x FROM a")
    user.execute("BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
    reader = Reader(connect(), patience=0.5)
    with pytest.raises(SchemaChangesError, match=r"could not be read for 0\.5 s .*lock timeout.*pg_locks"):
        reader.refresh()
    user.execute("ROLLBACK")
    assert reader.refresh() == []
    assert reader.picture == read(user)


def test_many_writers_at_once(connect: Connect, reader: Reader) -> None:
    """Definitions are printed while others change them; in the end the picture is right."""
    stop = time.monotonic() + 4
    sessions = [connect() for _ in range(4)]

    def write(number: int) -> None:
        session = sessions[number]
        while time.monotonic() < stop:
            for command in (
                f"CREATE TABLE IF NOT EXISTS w{number} (a integer, b text)",
                f"CREATE OR REPLACE VIEW v{number} AS SELECT a FROM w{number}",
                f"BEGIN; ALTER TABLE w{number} RENAME a TO z; SAVEPOINT s; ALTER TABLE w{number} RENAME b TO y; RELEASE s; COMMIT",
                f"ALTER TABLE w{number} ADD UNIQUE (z)",
                f"GRANT SELECT ON w{number} TO PUBLIC",
                f"DROP TABLE w{number} CASCADE",
            ):
                session.execute(command)
        session.execute(f"CREATE TABLE w{number} (a integer, b text)")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        reader.refresh()
    reader.refresh()
    assert [item.identity for item in reader.picture if item.kind == "table"] == [f"public.w{number}" for number in range(4)]
    assert reader.picture == read(connect())


def test_two_databases_are_compared_by_name(cluster: Cluster, user: psycopg.Connection, database: str) -> None:
    name = f"copy_{database[-12:]}"
    cluster.create_database(name)
    cluster.execute('CREATE TABLE spare (a integer); CREATE TABLE "T" (a integer, b text, CONSTRAINT c CHECK (a > 0))', name)
    user.execute('CREATE TABLE "T" (b text, a bigint, CONSTRAINT c CHECK (a > 0))')
    with psycopg.connect(cluster.url(name), autocommit=True) as other:
        differences = compare(read(user), read(other))
    assert told(differences) == [
        ("altered", "column", 'public."T".a'),
        ("added", "table", "public.spare"),
        ("added", "column", "public.spare.a"),
    ]
