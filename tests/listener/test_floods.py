"""Thousands of notices that any user may send cost a line and a few queries, and hold up no change."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import psycopg
import pytest

from schema_changes import listener
from tests.listener.events import Event, identities, listening
from tests.listener.test_forged import mallory  # noqa: F401 (a fixture)
from tests.support.postgres import execute

FORGED = {
    "type": "ddl_command_end",
    "tag": "DROP TABLE",
    "timestamp": "2025-11-07 12:34:56.789+00",
    "user": "postgres",
    "objects": [{"action": "dropped", "kind": "table", "schema": "public", "identity": "public.harmless"}],
}


async def flood(url: str, payloads: list[str]) -> None:
    """One notice a millisecond, so that each comes alone."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for payload in payloads:
            await connection.execute("SELECT pg_notify('schema_changed', %s)", [payload])
            await asyncio.sleep(0.0005)


async def delays(url: str, queue: asyncio.Queue[Event], flooding: asyncio.Task[None]) -> list[float]:
    """Seconds from each true change, made meanwhile, to its arrival."""
    found: list[float] = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while not flooding.done():
            begun = time.perf_counter()
            name = f"t{len(found)}"
            await connection.execute(f"CREATE TABLE {name} ()".encode())
            async with asyncio.timeout(10):
                while identities([await queue.get()]) != [f"public.{name}"]:
                    pass
            found.append(time.perf_counter() - begun)
            await asyncio.sleep(0.05)
    flooding.result()
    return found


def when_ended(url: str, query: str) -> list[tuple[Any, ...]]:
    """The answer once no listener's session is left: what it did is counted then."""
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT FROM pg_stat_activity WHERE application_name = 'schema_changes'").rowcount:
            time.sleep(0.02)
        return connection.execute(query.encode()).fetchall()


@pytest.mark.parametrize("payload", ["[{number}", "{padding}{number}"], ids=["no JSON", "8 kB"])
async def test_malformed_notices_are_told_once_and_then_counted(
    database: str,
    mallory: str,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    payload: str,
) -> None:
    monkeypatch.setattr(listener, "_COUNTED_EVERY", 1.0)
    payloads = [payload.format(number=number, padding="x" * 7900) for number in range(500)]
    async with listening(database) as queue:
        flooding = asyncio.create_task(flood(mallory, payloads))
        took = await delays(database, queue, flooding)
        # a burst as well
        with psycopg.connect(mallory, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.executemany("SELECT pg_notify('schema_changed', %s)", [(text,) for text in payloads])
        execute(database, "CREATE TABLE last ()")
        async with asyncio.timeout(5):
            assert identities([await queue.get()]) == ["public.last"]
    assert sorted(took)[len(took) // 2] < 0.05, took
    said = [record.getMessage() for record in caplog.records if "malformed notice" in record.getMessage()]
    assert said[0].startswith("Skipped a malformed notice from process ")
    assert len(said) < 10, said
    assert sum(int(found[1]) for line in said if (found := re.match(r"(\d+) more of this kind", line))) == 999
    assert all(len(line) < 300 for line in said)


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("kind", ["each another", "the same again", "truncated", "without id"])
async def test_well_formed_forgeries_are_no_query_each(
    database: str,
    mallory: str,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    kind: str,
    verify: bool,
) -> None:
    name = database.rpartition("/")[2]
    execute(database, f"ALTER DATABASE {name} SET track_functions = 'all'")
    lies: dict[str, dict[str, Any]] = {
        "each another": {},
        "the same again": {"id": 5, "txid": str(2**40)},
        "truncated": {"truncated": True},
        "without id": {"id": None, "txid": None},
    }
    payloads = [
        json.dumps({**FORGED, "id": number, "txid": str(2**40 + number), "number": number, **lies[kind]}) for number in range(600)
    ]
    async with listening(database, verify=verify, heartbeat=60) as queue:
        begun = time.perf_counter()
        flooding = asyncio.create_task(flood(mallory, payloads))
        took = await delays(database, queue, flooding)
        seconds = time.perf_counter() - begun
        while not queue.empty():
            assert identities([queue.get_nowait()]) == ["public.harmless"]
    ((calls,),) = when_ended(database, "SELECT sum(calls) FROM pg_stat_user_functions WHERE funcname = 'changes_since'")
    assert calls < 40 * seconds + 5 * len(took) + 10, (calls, seconds, len(took))
    assert sorted(took)[len(took) // 2] < 0.1, took
    assert len([record for record in caplog.records if "forged" in record.getMessage()]) < 5
