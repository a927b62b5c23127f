"""What the feed leaves to others: the session's lastval(), publications, other event triggers, memory, and who may do what."""

import time

import psycopg
import pytest

from tests.sql.database import Database, described

pytestmark = pytest.mark.every_version


def test_lastval_is_the_users_own(database: Database) -> None:
    database.execute("CREATE TABLE t (id serial, x int); GRANT ALL ON t, t_id_seq TO alice; GRANT CREATE ON SCHEMA public TO alice")
    with database.connect("alice") as session:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            session.execute("CREATE TABLE before (); SELECT lastval()")
        session.execute("INSERT INTO t (x) VALUES (1)")
        session.execute("CREATE TABLE u (x int); ALTER TABLE u DROP COLUMN x; DROP TABLE u; DROP EXTENSION IF EXISTS nope")
        assert session.execute("SELECT lastval()").fetchone() == (1,)


def test_ids_grow_within_a_transaction_and_fit_a_json_number(database: Database) -> None:
    with database.connect() as session, session.transaction():
        session.execute("DO $$BEGIN FOR i IN 1..50 LOOP EXECUTE format('CREATE TABLE t%s (x int)', i);"
                        " EXECUTE format('ALTER TABLE t%s DROP COLUMN x', i); END LOOP; END$$")  # fmt: skip
        session.execute("ALTER TABLE t1 OWNER TO postgres; ALTER TABLE t1 OWNER TO postgres")
    rows = database.execute("SELECT id, changed_at FROM schema_notifications.log ORDER BY id")
    assert len({row[0] for row in rows}) == len(rows) == 102
    assert [changed for _, changed in rows] == sorted(changed for _, changed in rows)
    assert 0 < rows[0][0] < rows[-1][0] < 2**53


def test_a_view_relation_kind_that_is_restricted(database: Database) -> None:
    if database.value("SELECT current_setting('restrict_nonsystem_relation_kind', true)") is None:
        pytest.skip("this PostgreSQL has no restrict_nonsystem_relation_kind")
    database.execute("GRANT CREATE ON SCHEMA public TO alice")
    warnings: list[str] = []
    with database.connect("alice") as session, database.listening() as notices:
        session.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
        session.execute("SET restrict_nonsystem_relation_kind = 'view, foreign-table'")
        session.execute("CREATE TEMP TABLE quiet (x int); ALTER TABLE quiet DROP COLUMN x; DROP TABLE quiet")
        session.execute("CREATE TABLE t (x int); ALTER TABLE t DROP COLUMN x; DROP TABLE t")
    assert warnings == []
    assert [described(notice) for notice in notices] == [
        {"created table public.t"},
        {"dropped table column public.t.x", "altered table public.t"},
        {"dropped table public.t"},
    ]


def test_default_privileges_give_nothing(database: Database) -> None:
    """Whatever the installing superuser grants by default: after CREATE EXTENSION the documented grants exist, and none else."""
    grants = (
        "SELECT object, grantee, privilege_type FROM (SELECT relname::text AS object, relacl AS acl FROM pg_class"
        " WHERE relnamespace = 'schema_notifications'::regnamespace AND relkind = 'r' UNION ALL"
        " SELECT p.oid::regprocedure::text, proacl FROM pg_proc AS p WHERE pronamespace = 'schema_notifications'::regnamespace UNION ALL"
        " SELECT nspname, nspacl FROM pg_namespace WHERE nspname = 'schema_notifications') AS objects, aclexplode(acl)"
        " WHERE grantee <> (SELECT oid FROM pg_roles WHERE rolname = 'postgres') ORDER BY 1, 2, 3"
    )
    fresh = database.execute(grants)
    assert len(fresh) == 7 + 0
    database.execute("DROP EXTENSION schema_notifications")
    kinds = ("TABLES", "SEQUENCES", "FUNCTIONS", "TYPES", "SCHEMAS")
    try:
        database.execute("; ".join(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO alice, PUBLIC WITH GRANT OPTION".replace(
            ", PUBLIC WITH GRANT OPTION", "") for kind in kinds))  # fmt: skip
        database.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
        database.execute("CREATE EXTENSION schema_notifications")
        assert database.execute(grants) == fresh
    finally:
        database.execute("; ".join(f"ALTER DEFAULT PRIVILEGES REVOKE ALL ON {kind} FROM alice" for kind in kinds))
        database.execute("ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC")


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_another_trigger_that_does_ddl(database: Database, name: str) -> None:
    """The outer command's row is whole, and so is the inner one's."""
    database.execute("CREATE TABLE a (x int, y int); CREATE TABLE b (x int, y int); CREATE TABLE c (x int)")
    database.execute(
        "CREATE FUNCTION meddle() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN"
        " IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE object_identity LIKE 'public.a%') THEN"
        "  ALTER TABLE public.b ADD COLUMN z int; ALTER TABLE public.b DROP COLUMN x; DROP TABLE public.c; END IF; END$$;"
        f"CREATE EVENT TRIGGER {name} ON sql_drop EXECUTE FUNCTION meddle()"
    )
    inner = [{"altered table public.b"}, {"dropped table column public.b.x", "altered table public.b"}, {"dropped table public.c"}]
    notices = database.notices_of("ALTER TABLE a DROP COLUMN x, ADD COLUMN w int")
    expected = [*inner, {"dropped table column public.a.x", "altered table public.a"}]
    assert [described(notice) for notice in notices] == expected
    logged = [{f"{o['action']} {o['kind']} {o['identity']}" for o in objects} for _, objects in database.log()[-4:]]
    assert sorted(map(sorted, logged)) == sorted(map(sorted, expected))
    assert database.value("SELECT count(*) FROM schema_notifications.log WHERE unfinished") == 0


def test_a_policy_trigger_or_rule_is_in_the_schema_of_its_table(database: Database) -> None:
    database.execute("CREATE SCHEMA s CREATE TABLE t (x int)")
    made = {
        "POLICY": "CREATE POLICY o ON s.t",
        "TRIGGER": "CREATE TRIGGER o BEFORE UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "RULE": "CREATE RULE o AS ON DELETE TO s.t DO INSTEAD NOTHING",
    }
    for kind, create in made.items():
        notices = database.notices_of(
            create, f"ALTER {kind} o ON s.t RENAME TO p", f"COMMENT ON {kind} p ON s.t IS 'x'", f"DROP {kind} p ON s.t"
        )
        assert [(o["action"], o["kind"], o["schema"]) for notice in notices for o in notice["objects"]] == [
            (action, kind.lower(), "s") for action in ("created", "altered", "altered", "dropped")
        ]


def test_a_default_is_in_the_schema_of_its_table(database: Database) -> None:
    """And one of a temporary table is not told: PostgreSQL 14 says neither."""
    notices = database.notices_of(
        "CREATE TABLE t (a int DEFAULT 1); CREATE TEMP TABLE temporary (a int DEFAULT 1); ALTER TABLE temporary ALTER a DROP DEFAULT",
        "ALTER TABLE t ALTER a DROP DEFAULT",
    )
    assert [notice["tag"] for notice in notices] == ["CREATE TABLE", "ALTER TABLE"]
    (dropped,) = (item for item in notices[1]["objects"] if item["action"] == "dropped")
    assert dropped == {"action": "dropped", "kind": "default value", "schema": "public", "identity": "for public.t.a"}


def test_drop_owned_that_only_revokes(database: Database) -> None:
    database.execute("CREATE TABLE t (x int); GRANT SELECT ON t TO bob")
    (notice,) = database.notices_of("DROP OWNED BY bob")
    assert notice["tag"] == "DROP OWNED"
    database.execute("GRANT SELECT ON t TO bob; CREATE TABLE bobs (); ALTER TABLE bobs OWNER TO bob")
    (notice,) = database.notices_of("DROP OWNED BY bob")
    assert "dropped table public.bobs" in described(notice)
    assert database.value("SELECT count(*) FROM schema_notifications.log WHERE unfinished") == 0
    assert database.notices_of("DROP OWNED BY bob") == []


def test_grants_on_temporary_tables_are_not_told(database: Database) -> None:
    database.execute("GRANT CREATE ON SCHEMA public TO alice; CREATE TABLE permanent (x int)")
    with database.connect() as session, database.listening() as notices:
        session.execute("CREATE TEMP TABLE t (x int); CREATE TEMP SEQUENCE q")
        session.execute("GRANT SELECT ON t TO alice")
        session.execute("GRANT UPDATE (x) ON t TO alice")
        session.execute("GRANT USAGE ON SEQUENCE q TO alice")
        session.execute("REVOKE SELECT ON t FROM alice")
    assert notices == []
    for grant in ("GRANT SELECT ON permanent TO alice", "GRANT SELECT ON t, permanent TO alice", "GRANT SELECT ON permanent, t TO alice",
                  "GRANT UPDATE (x) ON permanent TO alice", "GRANT CREATE ON SCHEMA public TO alice"):  # fmt: skip
        with database.connect() as session, database.listening() as notices:
            session.execute("BEGIN; CREATE TEMP TABLE t (x int)")
            session.execute(grant)
            session.execute("COMMIT")
        assert [notice["tag"] for notice in notices] == ["GRANT"], grant


def publisher_and_subscriber(database: Database, copy: bool) -> tuple[Database, str]:
    """A second database that subscribes to all tables of this one."""
    name = f"{database.name}_sub"
    database.execute(f"CREATE DATABASE {name} TEMPLATE template1")
    subscriber = Database(database.cluster, name)
    subscriber.execute("CREATE TABLE data (id int PRIMARY KEY)")
    slot = f"slot_{database.name}"
    database.execute(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    subscriber.execute(
        f"CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port={database.cluster.port} user=postgres dbname={database.name}'"
        f" PUBLICATION pub WITH (create_slot = false, slot_name = '{slot}', copy_data = {str(copy).lower()})"
    )
    return subscriber, slot


@pytest.mark.parametrize("copy", [False, True], ids=["changes", "initial copy"])
def test_a_publication_for_all_tables(database: Database, copy: bool) -> None:
    """The publisher prunes, and the subscriber's feed stays its own."""
    database.execute("CREATE TABLE data (id int PRIMARY KEY); CREATE PUBLICATION pub FOR ALL TABLES; INSERT INTO data VALUES (1)")
    advice = str(database.status()["advice"])
    assert "publication pub" in advice
    assert database.status()["healthy"]
    name = f"{database.name}_sub"
    subscriber, slot = None, ""
    try:
        subscriber, slot = publisher_and_subscriber(database, copy)
        cursor = subscriber.changes_since(None)[2]
        database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_rows = 1")
        with database.connect() as session:
            for number in range(20):
                session.execute(f"CREATE TABLE t{number} (x int); ALTER TABLE t{number} DROP COLUMN x")
        assert database.value("SELECT schema_notifications.prune_now()") > 0
        database.execute("INSERT INTO data VALUES (2)")
        with subscriber.connect() as session:
            session.execute("SET session_replication_role = replica; CREATE TABLE own (x int); ALTER TABLE own DROP COLUMN x")
        deadline = time.monotonic() + 60
        while subscriber.execute("SELECT id FROM data ORDER BY id") != ([(1,), (2,)] if copy else [(2,)]):
            assert time.monotonic() < deadline, subscriber.cluster.log.read_text()[-3000:]
            time.sleep(0.1)
        assert subscriber.value("SELECT count(*) FROM schema_notifications.state") == 1
        assert subscriber.changes_since(cursor)[0] == ["CREATE TABLE", "ALTER TABLE"]
        tables = subscriber.value("SELECT count(*) FROM schema_notifications.log WHERE objects::text LIKE '%public.t1%'")
        assert tables == 0
        status = subscriber.status()
        assert status["healthy"], status
    finally:
        if subscriber is not None:
            subscriber.execute(
                "ALTER SUBSCRIPTION sub DISABLE; ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub"
            )
            for _ in range(100):
                try:
                    database.execute(f"SELECT pg_drop_replication_slot('{slot}')")
                    break
                except psycopg.errors.ObjectInUse:
                    time.sleep(0.1)
        database.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def test_create_extension_says_which_publication_will_carry_it(database: Database) -> None:
    database.execute("DROP EXTENSION schema_notifications; CREATE PUBLICATION everything FOR ALL TABLES")
    said: list[str] = []
    with database.connect() as session:
        session.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        session.execute("CREATE EXTENSION schema_notifications")
    (notice,) = said
    assert "The publication everything carries" in notice
    assert "CREATE EXTENSION schema_notifications is run there first" in notice


def test_hands_in_the_log_show_in_the_status(database: Database) -> None:
    """pg_write_all_data cannot be refused."""
    database.execute("CREATE TABLE t ()")
    for hand in (
        "INSERT INTO schema_notifications.log (id, txid, tag, objects) VALUES (9007199254740991, pg_current_xact_id(), 'DROP TABLE', '[]')",
        "INSERT INTO schema_notifications.log (txid, tag, objects) VALUES ('99999999', 'DROP TABLE', '[]')",
        "UPDATE schema_notifications.state SET horizon = '99999999'",
        "UPDATE schema_notifications.state SET horizon = pg_current_xact_id()",
    ):
        with database.connect() as session:
            session.execute(f"BEGIN; {hand}")
            problem = session.execute("SELECT problem FROM schema_notifications.status()").fetchone()
            assert problem is not None
            assert "written to by hand" in str(problem[0]), hand
            session.execute("ROLLBACK")
    assert database.status()["healthy"]


def test_each_relation_says_what_it_is(database: Database) -> None:
    relations = database.execute(
        "SELECT relname, obj_description(oid, 'pg_class') FROM pg_class"
        " WHERE relnamespace = 'schema_notifications'::regnamespace AND relkind <> 'i' ORDER BY 1"
    )
    assert [name for name, _ in relations] == ["log", "state"]
    assert all("extension schema_notifications" in str(comment) for _, comment in relations)
