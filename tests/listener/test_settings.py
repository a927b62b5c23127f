"""No setting of a role, a database or the environment bends a session of ours, and no encoding of a database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing

import psycopg
import pytest
from psycopg import sql

from schema_changes import SchemaChange, check, diff, history, listen, status
from schema_changes.feed import transaction
from schema_changes.hub import Hub
from schema_changes.serve.database import Database
from tests.support.postgres import Cluster

# What a superuser alone can set, and what no client can do without: the server then serves nobody.
UNUSABLE = {
    "ignore_checksum_failure",
    "zero_damaged_pages",
    "allow_system_table_mods",
    "ignore_system_indexes",
    "session_preload_libraries",
    "dynamic_library_path",
    "extension_control_path",
    "transaction_deferrable",
    "transaction_isolation",
}
# The feed's own, which its users may set; that the check says so is tested elsewhere.
KEPT = {"event_triggers", "session_replication_role"}


def hostile(setting: tuple[str, str, str, str, str, list[str]]) -> list[str]:
    """Values that a setting may have and nobody would want."""
    name, kind, value, low, high, words = setting
    if kind == "bool":
        return ["off" if value == "on" else "on"]
    if kind == "enum":
        return [word for word in words if word != value]
    if name == "transaction_timeout":
        # Known from 17 on, so that it cannot be in every connection request: a millisecond ends a session before it can say so.
        return ["1000"]
    if kind in ("integer", "real"):
        return [one for one in dict.fromkeys([low, high, "1", "0"]) if float(low) <= float(one) <= float(high)]
    return {
        "search_path": ["evil, pg_catalog", "", "nowhere"],
        "role": ["bent"],
        "client_encoding": ["latin1", "sjis", "sql_ascii"],
        "datestyle": ["German, DMY", "SQL, MDY", "Postgres"],
        "timezone": ["Asia/Kathmandu", "<+23>-23:59:59"],
        "default_table_access_method": ["nowhere"],
        "default_tablespace": ["nowhere"],
        "temp_tablespaces": ["nowhere"],
        "local_preload_libraries": ["nowhere"],
        "restrict_nonsystem_relation_kind": ["view", "view, foreign-table"],
        "plpgsql.extra_errors": ["all"],
        "plpgsql.extra_warnings": ["all"],
        "application_name": ["\t"],
        "createrole_self_grant": ["set, inherit"],
        "lc_messages": [],
    }.get(name.lower(), ["nonsense"])


@pytest.fixture(scope="module")
def victim(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database and a superuser of the same name for whom anything may be set, on a server of its own."""
    with Cluster(request.param) as cluster:
        cluster.execute("CREATE ROLE bent; CREATE ROLE victim SUPERUSER LOGIN; GRANT bent TO victim")
        cluster.execute("CREATE DATABASE victim OWNER victim")
        yield cluster.url("victim", user="victim")


async def all_of_it(url: str) -> None:
    """Through check, listen, history, status, the reader of differences, and what relay and serve ask."""
    assert check(url).ok
    ready = asyncio.Event()
    async with aclosing(listen(url, on_ready=lambda _: ready.set())) as events:
        first = asyncio.ensure_future(anext(events))
        await asyncio.wait_for(asyncio.wait([first, asyncio.ensure_future(ready.wait())], return_when="FIRST_COMPLETED"), 10)
        if first.done():
            first.result()
        # by somebody whose session is their own business
        for statement in ('CREATE TABLE public."é" (id int)', 'DROP TABLE public."é"'):
            with transaction(url) as session:
                session.rows(statement)
        heard = [await asyncio.wait_for(first, 10), await asyncio.wait_for(anext(events), 10)]
    logged = history(url, limit=2)
    for event, row in zip(heard, logged, strict=True):
        assert isinstance(event, SchemaChange)
        assert isinstance(row, SchemaChange)
        assert 'public."é"' in [item.identity for item in event.objects]
        assert (event.txid, event.id, event.objects, event.truncated) == (row.txid, row.id, row.objects, False)
        assert abs((event.timestamp - row.timestamp).total_seconds()) < 0.001
    state = status(url)
    assert state["healthy"], state["problem"]
    await others(url, "é")


async def others(url: str, name: str) -> None:
    """Differences, and the hub of relay and serve, in which one consumer is live and another comes from further back."""
    before = diff.snapshot(url)
    with transaction(url) as session:
        ((cursor,),) = session.rows("SELECT cursor FROM schema_notifications.changes_since()")
    shown, told = f'public."{name}"', list[dict[str, str]]()
    async with Hub(url, diff=True) as hub:
        live = hub.follow()
        first = asyncio.ensure_future(anext(live))
        await asyncio.sleep(0)
        with transaction(url) as session:
            session.rows(f"CREATE TABLE {shown} ()")
        for events in (await asyncio.wait_for(first, 20), await asyncio.wait_for(anext(hub.follow(cursor)), 20)):
            (event,) = events
            assert isinstance(event, SchemaChange)
            assert event.objects[0].identity == shown
            told.append(json.loads(event.raw))
        assert name in told[0]["differences_text"]
    assert [name in one.name for one in diff.compare(before, diff.snapshot(url))] == [True]
    page, _, _ = await Database(url).history({"object": name})
    assert page[0].objects[0].identity == shown
    assert (await Database(url).status())["healthy"]
    with transaction(url) as session:
        session.rows(f"DROP TABLE {shown}")


@pytest.mark.parametrize(
    ("victim", "of", "round_"),
    [
        *((16, of, round_) for of in ("ROLE", "DATABASE") for round_ in range(4)),
        *((14, "ROLE", 0), (15, "DATABASE", 1), (17, "ROLE", 2), (18, "DATABASE", 3)),
    ],
    indirect=["victim"],
)
async def test_every_setting_at_a_hostile_value(victim: str, of: str, round_: int) -> None:
    owner = victim.replace("victim@", "postgres@")
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("DROP EXTENSION IF EXISTS schema_notifications")
        connection.execute("CREATE EXTENSION schema_notifications")
        connection.execute("LOAD 'plpgsql'")
        settings = connection.execute(
            "SELECT name, vartype, setting, min_val, max_val, enumvals FROM pg_settings "
            "WHERE context IN ('user', 'superuser', 'backend', 'superuser-backend') AND category NOT LIKE 'Preset%'"
        ).fetchall()
        tried = 0
        for setting in settings:
            name = setting[0]
            if name in UNUSABLE | KEPT or name.startswith("log_") or name.startswith("schema_notifications"):
                continue
            values = hostile(setting)
            if not values:
                continue
            chosen = values[round_ % len(values)]
            given = (
                sql.SQL(", ").join(sql.Literal(one.strip()) for one in chosen.split(","))
                if name == "search_path"
                else sql.Literal(chosen)
            )
            try:
                connection.execute(sql.SQL(f"ALTER {of} victim SET {{}} = {{}}").format(sql.SQL(name), given))
            except psycopg.Error as error:
                print(name, chosen, error)
            else:
                tried += 1
        assert tried > 140
    try:
        await all_of_it(victim)
    finally:
        with psycopg.connect(owner.replace("/victim", "/postgres"), autocommit=True) as connection:
            connection.execute("ALTER ROLE victim RESET ALL")
            connection.execute("ALTER DATABASE victim RESET ALL")


async def heard_and_logged(url: str, statement: bytes) -> tuple[SchemaChange, SchemaChange]:
    """What a listener and the history tell of a statement."""
    ready = asyncio.Event()
    async with aclosing(listen(url, heartbeat=0.5, on_ready=lambda _: ready.set())) as events:
        first = asyncio.ensure_future(anext(events))
        await asyncio.wait_for(ready.wait(), 10)
        with psycopg.connect(url, autocommit=True, client_encoding="sql_ascii") as connection:
            connection.execute(statement)
        event = await asyncio.wait_for(first, 10)
        # and it goes on
        with transaction(url) as session:
            session.rows("CREATE TABLE public.more ()")
        following = await asyncio.wait_for(anext(events), 10)
    assert isinstance(event, SchemaChange)
    assert isinstance(following, SchemaChange)
    assert following.objects[0].identity == "public.more"
    row = history(url, limit=2)[0]
    assert isinstance(row, SchemaChange)
    return event, row


@pytest.mark.parametrize(
    ("encoding", "name", "identity"),
    [
        ("LATIN1", "größe".encode("latin1"), "größe"),
        ("EUC_JP", "日本".encode("euc_jp"), "日本"),
        ("WIN1252", "€".encode("cp1252"), "€"),
        ("MULE_INTERNAL", b"plain", "plain"),
        ("SQL_ASCII", "é".encode(), "é"),
        ("SQL_ASCII", b"no \xff\xfe utf-8", "no \ufffd\ufffd utf-8"),
        # a character of EUC_JP that UTF8 does not have
        ("EUC_JP", b"a\xa9\xa1b", None),
    ],
)
async def test_names_in_every_encoding(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, encoding: str, name: bytes, identity: str | None
) -> None:
    database = f"in_{encoding.lower()}_{abs(hash(name))}"
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0".encode())
    url = cluster.url(database)
    with transaction(url) as session:
        session.rows("CREATE EXTENSION schema_notifications")
        ((cursor,),) = session.rows("SELECT cursor FROM schema_notifications.changes_since()")
    monkeypatch.setenv("PGCLIENTENCODING", "sjis")
    event, row = await heard_and_logged(url, b'CREATE TABLE public."' + name + b'" ()')
    for change in (event, row):
        if identity is None:
            assert change.objects[0].identity.startswith("public.")
        else:
            assert change.objects[0].identity.replace('"', "") == f"public.{identity}"
    assert check(url).ok
    assert status(url)["healthy"]
    if identity is not None and "\ufffd" not in identity:
        await others(url, f"{identity} 2")
    else:
        async with Hub(url) as hub:
            found = await asyncio.wait_for(anext(hub.follow(cursor)), 10)
            page, _, _ = await Database(url).history({})
        for one in (*found, *page):
            assert isinstance(one, SchemaChange)
        assert [item.identity for item in page[-1].objects] == [item.identity for item in row.objects]
        assert len(diff.snapshot(url).objects) >= 2
