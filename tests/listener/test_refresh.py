"""The log is read again now and then for a shorter cursor: no change waits for that, or is told twice, or forgotten."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import psycopg
import pytest

from schema_changes import SchemaChange
from tests.listener.events import Event, identities, listening, nothing_more, take
from tests.support.postgres import execute

# The extension guards what is its own, so that is switched off meanwhile.
ALTER = """
DO $$ DECLARE name text; BEGIN
FOR name IN SELECT evtname FROM pg_event_trigger LOOP EXECUTE format('ALTER EVENT TRIGGER %I {0}', name); END LOOP;
END $$
"""
# the answer comes a second later: its snapshot is of that moment, or of the moment before
SLOW = """
ALTER FUNCTION schema_notifications.changes_since RENAME TO quick;
CREATE FUNCTION schema_notifications.changes_since(since text DEFAULT NULL, most integer DEFAULT NULL)
RETURNS TABLE (kind text, cursor text, id bigint, txid xid8, changed_at timestamptz, user_name name, tag text, objects jsonb)
LANGUAGE plpgsql AS $$ BEGIN {0} RETURN QUERY SELECT * FROM schema_notifications.quick(since, most); {1} END $$;
"""
QUICK = """
DROP FUNCTION schema_notifications.changes_since;
ALTER FUNCTION schema_notifications.quick RENAME TO changes_since;
"""
CURSORS: dict[int, str] = {}
WAIT = "PERFORM pg_sleep(1);"


def alter(database: str, commands: str) -> None:
    execute(database, ALTER.format("DISABLE"), commands, ALTER.format("ENABLE ALWAYS"))


async def delays(url: str, queue: asyncio.Queue[Event], numbers: range) -> list[float]:
    """Makes changes and takes them; seconds that each took."""
    took = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as writer:
        for number in numbers:
            begun = time.perf_counter()
            await writer.execute(f"CREATE TABLE t{number} ()".encode())
            change = await queue.get()
            took.append(time.perf_counter() - begun)
            assert identities([change]) == [f"public.t{number}"]
            assert isinstance(change, SchemaChange)
            CURSORS[number] = change.cursor or ""
            await asyncio.sleep(0.002)
    return took


def read(url: str) -> None:
    """Wait until the log is read."""
    with psycopg.connect(url, autocommit=True) as connection:
        ends = time.monotonic() + 5
        query = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while not connection.execute(query).rowcount:
            assert time.monotonic() < ends
            time.sleep(0.01)


@pytest.mark.parametrize("slow", [(WAIT, ""), ("", WAIT)], ids=["the latest answer", "an answer of the past"])
async def test_changes_come_at_once_and_once_however_the_log_is_read_meanwhile(database: str, slow: tuple[str, str]) -> None:
    alter(database, SLOW.format(*slow))
    async with listening(database, heartbeat=60) as queue:
        took = await delays(database, queue, range(250))
        assert max(took) < 0.9, "the log is not read while changes come"
        assert "~" in CURSORS[249]
        await asyncio.to_thread(read, database)  # in silence
        took = await delays(database, queue, range(250, 300))
        assert max(took) < 1.8, "not for each change that came meanwhile"
        assert len(CURSORS[299]) < 2000
        await delays(database, queue, range(300, 800))  # without silence it is read all the same
        assert max(map(len, CURSORS.values())) < 15_000
        await nothing_more(queue, 2.5)
    alter(database, QUICK)
    for number in [249, 250, 251, 299, 699, 700, 701]:  # each cursor of that time goes on where it stood
        async with listening(database, cursor=CURSORS[number]) as queue:
            rest = await take(queue, 799 - number)
            assert Counter(identities(rest)) == Counter(f"public.t{later}" for later in range(number + 1, 800))
            await nothing_more(queue, 0.1)


async def test_a_forgery_that_is_heard_while_the_log_is_read_again_is_mended(database: str) -> None:
    alter(database, SLOW.format(WAIT, ""))
    forged = (
        '{{"type": "ddl_command_end", "tag": "DROP TABLE", "timestamp": "2025-11-07 12:34:56.789+00", "id": {0}, "txid": "{1}",'
        ' "objects": [{{"action": "dropped", "kind": "table", "schema": "public", "identity": "public.harmless"}}]}}'
    )
    async with listening(database, heartbeat=2) as queue:
        await delays(database, queue, range(100))
        with psycopg.connect(database, autocommit=True) as mallory, psycopg.connect(database) as alice:
            alice.execute("CREATE TABLE payroll ()")
            ((number, txid),) = alice.execute("SELECT id, txid::text FROM schema_notifications.log ORDER BY txid DESC LIMIT 1")
            await asyncio.to_thread(read, database)
            mallory.execute("SELECT pg_notify('schema_changed', %s)", [forged.format(number, txid)])
            assert identities(await take(queue, 1)) == ["public.harmless"]
            alice.commit()
        assert identities(await take(queue, 1)) == ["public.payroll"]
        await nothing_more(queue, 4)
