"""What an ordinary user may try against code that runs as the superuser on each of his commands."""

import psycopg
import pytest

from tests.sql.database import Database

# In alice's schema: every function, operator, type and cast-like helper of pg_catalog under the same name and with the same
# arguments, each of which tells that it was called. What cannot be made (pseudo-type arguments and such) is left out.
SHADOWS = """
CREATE SEQUENCE evil.calls;  -- survives what the feed rolls back
GRANT ALL ON evil.calls TO PUBLIC;
CREATE FUNCTION evil.trap() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN pg_catalog.nextval('evil.calls') IS NULL; END$$;
DO $make$
DECLARE
    shadow record;
BEGIN
    FOR shadow IN
        SELECT format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS $$BEGIN PERFORM evil.trap(); END$$', proname,
                      pg_get_function_identity_arguments(oid), pg_get_function_result(oid)) AS command
          FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
           AND proname IN (SELECT proname FROM pg_proc JOIN named ON proname = name)
    LOOP
        BEGIN
            EXECUTE shadow.command;
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    FOR shadow IN
        SELECT format('CREATE OPERATOR evil.%s (leftarg = %s, rightarg = %s, function = evil.%I)', oprname,
                      format_type(oprleft, NULL), format_type(oprright, NULL), 'operator_' || oid) AS command,
               format('CREATE FUNCTION evil.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS $$BEGIN PERFORM evil.trap(); END$$',
                      'operator_' || oid, format_type(oprleft, NULL), format_type(oprright, NULL), format_type(oprresult, NULL)) AS function
          FROM pg_operator
         WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprleft <> 0
           AND {text, bigint, integer, double precision, jsonb, boolean, name, oid, xid8, timestamp with time zone, "char"}
    LOOP
        BEGIN
            EXECUTE shadow.function;
            EXECUTE shadow.command;
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
END
$make$;
CREATE DOMAIN evil.text AS pg_catalog.int4 CHECK (evil.trap());
CREATE DOMAIN evil.jsonb AS pg_catalog.int4;
CREATE DOMAIN evil.name AS pg_catalog.int4;
CREATE DOMAIN evil.xid8 AS pg_catalog.int4;
CREATE DOMAIN evil.timestamptz AS pg_catalog.int4;
CREATE TABLE evil.log (id pg_catalog.int8); CREATE TABLE evil.pg_class (oid oid); CREATE TABLE evil.state (horizon pg_catalog.int8);
CREATE TABLE evil.pg_database (datname pg_catalog.text); CREATE TABLE evil.pg_event_trigger (evtname pg_catalog.text);
"""


def shadow_everything(database: Database) -> int:
    """Makes the shadows as alice; returns how many functions and operators there are."""
    database.execute(
        "CREATE SCHEMA evil AUTHORIZATION alice; GRANT CREATE ON SCHEMA public TO alice;"
        "CREATE TABLE named AS SELECT DISTINCT proname AS name FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace"
        " AND EXISTS (SELECT FROM pg_proc AS ours WHERE ours.pronamespace = 'schema_notifications'::regnamespace"
        "  AND (ours.prosrc || coalesce(pg_get_function_sqlbody(ours.oid), '')) LIKE '%' || pg_proc.proname || '%');"
        "GRANT SELECT ON named TO PUBLIC"
    )
    types = "text, bigint, integer, double precision, jsonb, boolean, name, oid, xid8, timestamp with time zone"
    condition = " AND ".join(f"{side} = ANY ('{{{types}}}'::regtype[])" for side in ("oprleft", "oprright"))
    marker = '{text, bigint, integer, double precision, jsonb, boolean, name, oid, xid8, timestamp with time zone, "char"}'
    with database.connect("alice") as session:
        session.execute(SHADOWS.replace(marker, condition))
    made = database.value(
        "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'evil'::regnamespace)"
        " + (SELECT count(*) FROM pg_operator WHERE oprnamespace = 'evil'::regnamespace)"
    )
    return int(made)


def assert_no_shadow_was_called(database: Database) -> None:
    assert database.value("SELECT is_called FROM evil.calls") is False


@pytest.mark.parametrize(
    "path", ["evil, pg_catalog, public", "pg_temp, evil, pg_catalog, public", '"$user", evil, public, pg_catalog']
)
def test_a_hijacked_search_path_reaches_nothing(database: Database, path: str) -> None:
    assert shadow_everything(database) > 300
    _, _, cursor = database.changes_since(None)
    warnings: list[str] = []
    with database.connect("alice") as session, database.listening() as notices:
        session.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
        session.execute(f"SET search_path = {path}")
        session.execute("CREATE TABLE public.t (id pg_catalog.int4, x pg_catalog.int4)")
        session.execute("ALTER TABLE public.t DROP COLUMN x, ADD COLUMN y pg_catalog.int4")
        session.execute("SET schema_notifications.notify = on; ALTER TABLE public.t DROP COLUMN y")  # what is unusual
        session.execute("RESET schema_notifications.notify; DROP TABLE public.t")
    assert warnings == []
    assert_no_shadow_was_called(database)
    assert [notice["tag"] for notice in notices] == ["CREATE TABLE", "ALTER TABLE", "ALTER TABLE", "DROP TABLE"]
    assert database.changes_since(cursor)[0] == ["CREATE TABLE", "ALTER TABLE", "ALTER TABLE", "DROP TABLE"]
    database.execute("GRANT USAGE ON SCHEMA schema_notifications TO alice")
    database.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA schema_notifications TO alice")
    with database.connect("alice") as session:
        session.execute(f"SET search_path = {path}")
        *changes, end = session.execute(
            "SELECT kind, tag FROM schema_notifications.changes_since($1)".replace("$1", f"'{cursor}'")
        ).fetchall()
        assert len(changes) == 6
        assert end[0] == "cursor"
        session.execute("SELECT healthy FROM schema_notifications.status()")
    assert_no_shadow_was_called(database)


def test_the_shadows_work(database: Database) -> None:
    """So that the tests around here mean something."""
    shadow_everything(database)
    with database.connect("alice") as session:
        session.execute("SET search_path = evil, pg_catalog")
        for query in ("SELECT hashint8(5::int8)", "SELECT 5 > 3", "SELECT 'a'::pg_catalog.text = 'b'", "SELECT '1'::text"):
            before = database.value("SELECT last_value FROM evil.calls")
            with pytest.raises(psycopg.Error):
                session.execute(query)
            assert database.value("SELECT is_called FROM evil.calls")
            assert database.value("SELECT last_value FROM evil.calls") > before or before == 1


def test_pruning_reaches_nothing_either(database: Database) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET schema_notifications.retention_rows = 10")
    shadow_everything(database)
    with database.connect("alice") as session:
        session.execute("SET search_path = evil, pg_catalog")
        session.execute("CREATE SEQUENCE evil.q")
        for _ in range(20):  # without pruning in any of them: one in 10^17
            session.execute("DO $$BEGIN FOR i IN 1..500 LOOP COMMENT ON SEQUENCE evil.q IS 'x'; COMMIT; END LOOP; END$$")
            if database.value("SELECT count(*) FROM schema_notifications.log") < 500:
                break
        else:
            raise AssertionError("nothing was pruned")
    assert_no_shadow_was_called(database)


DENIED = [
    "SELECT * FROM schema_notifications.log",
    "INSERT INTO schema_notifications.log (tag, objects) VALUES ('x', '[]')",
    "UPDATE schema_notifications.log SET tag = 'x'",
    "DELETE FROM schema_notifications.log",
    "TRUNCATE schema_notifications.log",
    "BEGIN; LOCK TABLE schema_notifications.log",
    "SELECT * FROM schema_notifications.state",
    "UPDATE schema_notifications.state SET horizon = '0'",
    "SELECT schema_notifications.prune(1)",
    "SELECT schema_notifications.leave('CREATE EXTENSION', '', '0')",
    "SELECT schema_notifications.record('ddl_command_end', 'CREATE TABLE', '')",
    "SELECT schema_notifications.changes_since()",
    "SELECT schema_notifications.status()",
    "CREATE TABLE schema_notifications.mine ()",
    "CREATE TRIGGER t BEFORE INSERT ON schema_notifications.log FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "ALTER TABLE schema_notifications.log DISABLE TRIGGER ALL",
    "DROP TABLE schema_notifications.log CASCADE",
    "DROP FUNCTION schema_notifications.notify_schema_change() CASCADE",
    "DROP SCHEMA schema_notifications CASCADE",
    "DROP EXTENSION schema_notifications CASCADE",
    "DROP EVENT TRIGGER schema_notifications_ddl_command_end",
    "ALTER EVENT TRIGGER schema_notifications_ddl_command_end DISABLE",
    "ALTER EXTENSION schema_notifications DROP TABLE schema_notifications.log",
    "ALTER FUNCTION schema_notifications.notify_schema_change() RENAME TO gone",
    "CREATE OR REPLACE FUNCTION schema_notifications.notify_schema_change() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
    "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION schema_notifications.notify_schema_change()",
    "SET session_replication_role = replica",
]


@pytest.mark.parametrize("owner", [False, True], ids=["user", "database owner"])
@pytest.mark.parametrize("command", DENIED)
def test_denied(database: Database, command: str, owner: bool) -> None:
    may = owner and ("SELECT * FROM schema_notifications.log" in command or "changes_since" in command or "status" in command)
    if owner:
        database.execute(f"ALTER DATABASE {database.name} OWNER TO alice")
    with database.connect("alice") as session:
        if may:
            session.execute(command)
        else:
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.DependentObjectsStillExist)):
                session.execute(command)
    assert database.notices_of("CREATE TABLE t ()")


def test_drop_owned_takes_nothing_along(database: Database) -> None:
    database.execute("GRANT CREATE ON SCHEMA public TO alice")
    with database.connect("alice") as session:
        session.execute("CREATE TABLE t (); DROP OWNED BY alice CASCADE")
    assert database.notices_of("CREATE TABLE t ()")


def test_a_member_cannot_be_dropped_by_accident(database: Database) -> None:
    for command in ("DROP FUNCTION schema_notifications.notify_schema_change() CASCADE", "DROP TABLE schema_notifications.log CASCADE",
                    "DROP EVENT TRIGGER schema_notifications_sql_drop", "DROP SCHEMA schema_notifications CASCADE"):  # fmt: skip
        with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="extension schema_notifications requires it"):
            database.execute(command)


def test_a_reader_role(database: Database) -> None:
    database.execute(
        "GRANT USAGE ON SCHEMA schema_notifications TO alice; GRANT EXECUTE ON FUNCTION schema_notifications.changes_since TO alice"
    )
    with database.connect("alice") as session:
        ((kind, cursor),) = session.execute("SELECT kind, cursor FROM schema_notifications.changes_since()").fetchall()
        assert kind == "cursor"
        database.execute("CREATE TABLE t ()")
        assert len(session.execute("SELECT * FROM schema_notifications.changes_since(%s)", (cursor,)).fetchall()) == 2
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT * FROM schema_notifications.log")


def test_a_forged_setting_hides_nothing(database: Database) -> None:
    """The setting says where an unfinished row is; one that a user made up, or kept from before, is not there."""
    database.execute("GRANT CREATE ON SCHEMA public TO alice; CREATE TABLE public.a (x int, y int); ALTER TABLE a OWNER TO alice")
    forged = [
        "on",
        "(0,1)",
        "(0,1)/0",
        "(0,2)/0 (0,3)/0",
        "(999999999,9999)/0",
        "(0,0)/0",
        "(4294967295,65535)/-1",
        "{",
        " ",
        "(0,1)/" + "9" * 40,
    ]
    forged += [" ".join(f"({block},{offset})/0" for block in range(3) for offset in range(1, 60))]
    warnings: list[str] = []
    with database.connect("alice") as session, database.listening() as notices:
        session.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
        for value in forged:
            for command in ("ALTER TABLE a ADD z int", "ALTER TABLE a DROP COLUMN z", "CREATE TABLE b ()", "DROP TABLE b"):
                with session.transaction():
                    session.execute("SELECT set_config('schema_notifications.unfinished', %s, false)", (value,))
                    session.execute(command)
            with session.transaction():  # rows of one's own transaction
                session.execute("ALTER TABLE a ADD z int; ALTER TABLE a DROP COLUMN z; DROP EXTENSION IF EXISTS nothing")
                session.execute("SELECT set_config('schema_notifications.unfinished', %s, false)", (value,))
                session.execute("CREATE TABLE b (); DROP TABLE b")
    assert set(warnings) == {'extension "nothing" does not exist, skipping'}
    told = [sorted((o["action"], o["identity"]) for o in notice["objects"]) for notice in notices]
    one_by_one = [
        [("altered", "public.a")],
        [("altered", "public.a"), ("dropped", "public.a.z")],
        [("created", "public.b")],
        [("dropped", "public.b")],
    ]
    assert told == one_by_one * 2 * len(forged)
    assert [sorted((o["action"], o["identity"]) for o in objects) for _, objects in database.log()[-len(told) :]] == told
    assert database.value("SELECT count(*) FROM schema_notifications.log WHERE unfinished") == 0


def test_every_setting_that_there_is_tells_nothing(database: Database) -> None:
    """What stands between the events of a command is gone when the command has ended, and would not be believed again."""
    database.execute("CREATE TABLE public.a (x int, y int, important int); ALTER TABLE a OWNER TO alice")
    with database.connect("alice") as session, database.listening() as notices, session.transaction():
        session.execute("DROP EXTENSION IF EXISTS nope")
        settings = [str(value) for (value,) in session.execute("SELECT setting FROM pg_settings").fetchall()]
        assert session.execute("SELECT current_setting('schema_notifications.unfinished')").fetchone() == ("",)
        session.execute("ALTER TABLE a DROP COLUMN x")
        assert session.execute("SELECT current_setting('schema_notifications.unfinished')").fetchone() == ("",)
        for setting in settings:
            session.execute("SELECT set_config('schema_notifications.unfinished', %s, true)", (setting,))
        session.execute("ALTER TABLE a DROP COLUMN important")
    assert [sorted(o["identity"] for o in notice["objects"]) for notice in notices] == [
        ["public.a", "public.a.x"],
        ["public.a", "public.a.important"],
    ]


def test_settings_of_the_session_change_nothing(database: Database) -> None:
    database.execute("GRANT CREATE ON SCHEMA public TO alice")
    with database.connect("alice") as session, database.listening() as notices:
        for setting in ("standard_conforming_strings = off", "plpgsql.extra_errors = 'all'", "plpgsql.extra_warnings = 'all'",
                        "transform_null_equals = on", "quote_all_identifiers = off", "DateStyle = 'German'", "IntervalStyle = 'sql_standard'",
                        "row_security = off", "array_nulls = off", "bytea_output = 'escape'", "xmloption = document", "work_mem = '64kB'",
                        "plan_cache_mode = force_custom_plan", "enable_indexscan = off", "jit = on", "jit_above_cost = 0"):  # fmt: skip
            session.execute(f"SET {setting}")
        session.execute("CREATE TABLE t (x int, y int)")
        session.execute("ALTER TABLE t DROP COLUMN x")
        session.execute("DROP TABLE t")
    assert [notice["tag"] for notice in notices] == ["CREATE TABLE", "ALTER TABLE", "DROP TABLE"]


def test_no_query_text_is_kept(database: Database) -> None:
    secret = "hunter2secret"
    database.execute(f"CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (password '{secret}')")
    database.execute(f"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$SELECT '{secret}'$$")
    (notice,) = database.notices_of(f"CREATE USER MAPPING FOR alice SERVER s OPTIONS (password '{secret}')")
    assert secret not in str(notice)
    assert secret not in str(database.execute("SELECT * FROM schema_notifications.log"))


@pytest.mark.parametrize(
    "name", ["q\"uo'te", "new\nline", "🐘" * 15, "x" * 63, '{"a":1}', "'); DROP TABLE t; --", "$$", "%s%I", "\\"]
)
def test_names_are_never_code(database: Database, name: str) -> None:
    identifier = '"' + name.replace('"', '""') + '"'
    database.execute("GRANT CREATE ON SCHEMA public TO alice")
    notices = database.notices_of(
        f"CREATE TABLE {identifier} ({identifier} int, other int)", f"ALTER TABLE {identifier} DROP COLUMN {identifier}",
        f"DROP TABLE {identifier}", user="alice",
    )  # fmt: skip
    assert [notice["tag"] for notice in notices] == ["CREATE TABLE", "ALTER TABLE", "DROP TABLE"]
    assert [objects for _, objects in database.log()[-3:]] == [notice["objects"] for notice in notices]


def test_everything_is_owned_by_the_superuser_and_the_extension(database: Database) -> None:
    owners = database.execute(
        "SELECT DISTINCT rolsuper FROM pg_roles JOIN ("
        " SELECT proowner AS owner FROM pg_proc WHERE pronamespace = 'schema_notifications'::regnamespace"
        " UNION SELECT relowner FROM pg_class WHERE relnamespace = 'schema_notifications'::regnamespace"
        " UNION SELECT nspowner FROM pg_namespace WHERE nspname = 'schema_notifications'"
        " UNION SELECT evtowner FROM pg_event_trigger) AS o ON pg_roles.oid = owner"
    )
    assert owners == [(True,)]
    assert database.execute(
        "SELECT c.relname FROM pg_class AS c WHERE relnamespace = 'schema_notifications'::regnamespace AND relkind IN ('r', 'S', 'v')"
        " AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')"
    ) == []  # fmt: skip


def test_who_has_no_pinned_search_path(database: Database) -> None:
    """Only what qualifies every name, or was resolved at installation, does without."""
    unpinned = database.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'schema_notifications'::regnamespace AND proconfig IS NULL AND prosqlbody IS NULL"
    )
    assert sorted(unpinned) == [("notify_schema_change",), ("notify_schema_drop",)]
