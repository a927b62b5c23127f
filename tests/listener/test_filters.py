"""What the filters let pass, of real commands, as they are heard and as they are logged."""

from __future__ import annotations

import asyncio
import json

import psycopg
import pytest

from schema_changes import SchemaChange, check, history
from schema_changes.event import ChangedObject
from schema_changes.filters import Filter, schema_of
from tests.listener.commands import run
from tests.listener.events import cursor_now, listening, take
from tests.support.postgres import execute

BEFORE = [
    "CREATE SCHEMA ten",
    'CREATE SCHEMA "Other On"',
    "CREATE TABLE ten.t (id int PRIMARY KEY, n int)",
    'CREATE TABLE "Other On"."t on ten" (id int PRIMARY KEY, n int)',
    "CREATE FUNCTION ten.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
]
EACH = [
    "CREATE POLICY p ON {}",
    "ALTER POLICY p ON {} USING (true)",
    "COMMENT ON POLICY p ON {} IS 'x'",
    "DROP POLICY p ON {}",
    "CREATE TRIGGER g BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION ten.f()",
    "COMMENT ON TRIGGER g ON {} IS 'x'",
    "ALTER TRIGGER g ON {} RENAME TO h",
    "DROP TRIGGER h ON {}",
    "CREATE RULE r AS ON DELETE TO {} DO ALSO NOTHING",
    "COMMENT ON RULE r ON {} IS 'x'",
    "DROP RULE r ON {}",
    "COMMENT ON TABLE {} IS 'x'",
    "COMMENT ON COLUMN {}.n IS 'x'",
    "ALTER TABLE {} ADD CONSTRAINT c CHECK (n > 0)",
    "COMMENT ON CONSTRAINT c ON {} IS 'x'",
    "ALTER TABLE {} ALTER COLUMN n SET DEFAULT 3",
    "ALTER TABLE {} DROP COLUMN n",
    "GRANT SELECT ON {} TO PUBLIC",
]
SCHEMA = ["COMMENT ON SCHEMA {} IS 'x'", "GRANT USAGE ON SCHEMA {} TO PUBLIC", "ALTER SCHEMA {} OWNER TO CURRENT_USER"]


def commands(url: str, statements: list[str]) -> list[str]:
    """Run them; what the log has of each."""
    cursor = cursor_now(url)
    execute(url, *statements)
    return [change.tag for change in history(url, since=cursor, limit=1000) if isinstance(change, SchemaChange)]


async def test_what_belongs_to_an_object_of_the_schema_is_heard(database: str) -> None:
    execute(database, *BEFORE)
    ten = [statement.format("ten.t") for statement in EACH] + [statement.format("ten") for statement in SCHEMA]
    other = [statement.format('"Other On"."t on ten"') for statement in EACH] + [
        statement.format('"Other On"') for statement in SCHEMA
    ]
    async with listening(database, schemas=["ten"]) as queue:
        expected = commands(database, ten)
        assert len(expected) == len(ten)
        assert [event.tag for event in await take(queue, len(expected)) if isinstance(event, SchemaChange)] == expected
        commands(database, other)
        execute(database, "CREATE TABLE ten.last ()")
        heard: list[str] = []
        while not heard or heard[-1] != "CREATE TABLE":
            (event,) = await take(queue, 1)
            assert isinstance(event, SchemaChange)
            heard.append(event.tag)
    # what has no identity cannot be judged
    assert heard == ["GRANT", "GRANT", "CREATE TABLE"]
    cursor = cursor_now(database)
    execute(database, "DROP SCHEMA ten CASCADE", 'DROP SCHEMA "Other On" CASCADE')
    assert [change.tag for change in history(database, since=cursor, schemas=["ten"]) if isinstance(change, SchemaChange)] == [
        "DROP SCHEMA"
    ]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["!REFRESH *"], ["CREATE MATERIALIZED VIEW", "DROP MATERIALIZED VIEW"]),
        (["!refresh *", "!drop *"], ["CREATE MATERIALIZED VIEW"]),
        (["DROP *"], ["DROP MATERIALIZED VIEW"]),
        (["* MATERIALIZED VIEW", "!DROP *"], ["CREATE MATERIALIZED VIEW", "REFRESH MATERIALIZED VIEW"]),
    ],
)
async def test_exclusion(database: str, tags: list[str], expected: list[str]) -> None:
    async with listening(database, tags=tags) as queue:
        execute(database, "CREATE MATERIALIZED VIEW m AS SELECT 1", "REFRESH MATERIALIZED VIEW m", "DROP MATERIALIZED VIEW m")
        assert [event.tag for event in await take(queue, len(expected)) if isinstance(event, SchemaChange)] == expected
    words = [word for tag in tags for word in ("--tag", tag)]
    done = run("history", "--json", *words, database)
    assert [json.loads(line)["tag"] for line in done.stdout.splitlines()] == expected


async def test_exclusion_by_schema_and_kind(database: str) -> None:
    execute(database, "CREATE SCHEMA audit", "CREATE SCHEMA app", "CREATE SCHEMA apple")
    async with listening(database, schemas=["app*", "!apple"], kinds=["!view"]) as queue:
        for schema in ("audit", "apple", "app"):
            execute(database, f"CREATE VIEW {schema}.v AS SELECT 1", f"CREATE TABLE {schema}.t ()")
        (event,) = await take(queue, 1)
        assert isinstance(event, SchemaChange)
        assert [item.identity for item in event.objects] == ["app.t"]
        await asyncio.sleep(0.2)
        assert queue.empty()


@pytest.mark.parametrize(
    ("kind", "identity", "schema"),
    [
        ("policy", '"a on b.c" on ten.t', "ten"),
        ("trigger", 'g on "Te""n"."x on y"', 'Te"n'),
        ("rule", '"_RETURN" on ten.v', "ten"),
        ("default value", "for ten.t.n", "ten"),
        ("schema", "ten", "ten"),
        ("schema", '"Te n"', "Te n"),
        ("publication relation", "ten.t in publication p", "ten"),
        ("publication namespace", "ten in publication p", "ten"),
        ("default acl", "for role postgres in schema ten on tables", "ten"),
        ("extension", "hstore", None),
        ("policy", "", None),
    ],
)
def test_the_schema_of_what_has_none_of_its_own(kind: str, identity: str, schema: str | None) -> None:
    assert schema_of(ChangedObject("created", kind, None, identity)) == schema


async def test_a_check_s_own_changes_are_left_out_unless_asked_for(database: str) -> None:
    async with listening(database) as queue, listening(database, checks=True) as all_of_them:
        assert check(database).ok
        execute(database, "CREATE TABLE t ()")
        (event,) = await take(queue, 1)
        assert isinstance(event, SchemaChange)
        assert event.objects[0].identity == "public.t"
        seen = await take(all_of_them, 4)
    assert [event.tag for event in seen if isinstance(event, SchemaChange)] == [
        "CREATE TABLE",
        "ALTER TABLE",
        "DROP TABLE",
        "CREATE TABLE",
    ]
    assert len(run("history", "--json", database).stdout.splitlines()) == 1
    assert len(run("history", "--json", "--checks", database).stdout.splitlines()) == 4


def test_nothing_but_a_check_looks_like_one(database: str) -> None:
    """Who names a table so hides only what is that table's own."""
    execute(
        database,
        "CREATE TABLE schema_changes_check_0123456789ab (id int)",
        "CREATE INDEX ON schema_changes_check_0123456789ab (id)",
        "CREATE TABLE schema_changes_check_0123456789abc ()",
        "CREATE TABLE schema_changes_check_0123456789ag ()",
        "CREATE TABLE t (LIKE schema_changes_check_0123456789ab)",
        "COMMENT ON TABLE schema_changes_check_0123456789ab IS 'x'",
    )
    with psycopg.connect(database) as connection:
        ((rows,),) = connection.execute("SELECT count(*) FROM schema_notifications.log")
    assert len(history(database)) == rows - 1
    wanted = Filter()
    assert all(wanted(change) for change in history(database) if isinstance(change, SchemaChange))
