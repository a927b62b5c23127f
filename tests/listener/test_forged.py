"""Any user can send a notice that looks like the server's; the log's truth is delivered all the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest

from schema_changes import FileCursorStore, SchemaChange
from tests.listener.events import Event, identities, listening, take
from tests.support.postgres import Cluster, execute


def forge(connection: psycopg.Connection[Any], **truth: Any) -> None:
    fields = {
        "type": "ddl_command_end",
        "tag": "DROP TABLE",
        "timestamp": "2025-11-07 12:34:56.789+00",
        "database": connection.info.dbname,
        "user": "postgres",
        "objects": [{"action": "dropped", "kind": "table", "schema": "public", "identity": "public.harmless"}],
    }
    connection.execute("SELECT pg_notify('schema_changed', %s)", [json.dumps(fields | truth)])


@pytest.fixture
def mallory(cluster: Cluster, database: str) -> str:
    """The URL of a user without any rights."""
    role = f"mallory_{database.rpartition('_')[2]}"
    cluster.execute(f"CREATE ROLE {role} LOGIN")
    return database.replace("postgres@", f"{role}@")


@pytest.mark.parametrize("restarted", [False, True], ids=["listening on", "killed before the log is read"])
@pytest.mark.parametrize("told", ["other objects", "other tag", "other user", "other time", "no objects", "truncated"])
async def test_a_change_that_was_forged_in_advance_is_told_as_it_was(
    database: str, mallory: str, tmp_path: Any, restarted: bool, told: str
) -> None:
    """Who knows transaction (pg_locks) and id in advance has "alice dropped payroll" announced as something else."""
    execute(database, "CREATE TABLE payroll ()")
    store = FileCursorStore(tmp_path / "cursor")
    heartbeat = 60 if restarted else 0.5
    events: list[Event] = []
    saved = None
    async with listening(database, store=store, heartbeat=heartbeat) as queue:
        with psycopg.connect(database) as alice:
            alice.execute("DROP TABLE payroll")
            # what mallory would have to guess, the test knows from the session itself
            ((number, txid, changed_at),) = alice.execute(
                "SELECT id, txid::text, changed_at FROM schema_notifications.log WHERE tag = 'DROP TABLE'"
            )
            truth = {
                "id": number,
                "txid": txid,
                "timestamp": changed_at.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "+00"),
                "objects": [{"action": "dropped", "kind": "table", "schema": "public", "identity": "public.payroll"}],
            }
            lies: dict[str, dict[str, Any]] = {
                "other objects": {"objects": [{"action": "dropped", "kind": "table", "schema": "public", "identity": "public.x"}]},
                "other tag": {"tag": "CREATE TABLE"},
                "other user": {"user": "mallory"},
                "other time": {"timestamp": "2025-11-07 12:34:56.789+00"},
                "no objects": {"objects": []},
                "truncated": {"truncated": True},
            }
            with psycopg.connect(mallory, autocommit=True) as connection:
                forge(connection, **truth | lies[told])
            if told != "truncated":
                events += await take(queue, 1)
            if not restarted:
                alice.commit()
            else:
                await asyncio.sleep(0.3)  # the cursor is saved
                saved = store.load()
                alice.commit()
        if not restarted:
            events += await take(queue, 1)
            await asyncio.sleep(0.8)
            assert queue.empty()
    if restarted:
        assert saved is not None
        store.save(saved)
        async with listening(database, store=store) as queue:
            events += await take(queue, 1)
            await asyncio.sleep(0.3)
            assert queue.empty()
    last = events[-1]
    assert isinstance(last, SchemaChange)
    assert (last.tag, last.user, identities([last])) == ("DROP TABLE", "postgres", ["public.payroll"])


async def test_a_notice_that_tells_the_truth_in_advance_is_not_told_twice(database: str) -> None:
    execute(database, "CREATE TABLE payroll ()")
    async with listening(database, heartbeat=0.5) as queue:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("LISTEN schema_changed")
            connection.execute("DROP TABLE payroll")
            (notice,) = connection.notifies(timeout=5, stop_after=1)
            for _ in range(3):
                connection.execute("SELECT pg_notify('schema_changed', %s)", [notice.payload])
        assert identities(await take(queue, 1)) == ["public.payroll"]
        await asyncio.sleep(1)
        assert queue.empty()


async def test_a_flood_of_forged_notices_hides_nothing_and_is_forgotten(
    database: str, mallory: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(database, heartbeat=0.5) as queue:
        with psycopg.connect(mallory, autocommit=True) as connection:
            for number in range(300):
                forge(connection, id=number, txid=str(2**40 + number))
        execute(database, *(f"CREATE TABLE t{number} ()" for number in range(20)))
        await asyncio.sleep(1.5)
        events = [queue.get_nowait() for _ in range(queue.qsize())]
        real = [name for name in identities(events) if name != "public.harmless"]
        assert real == [f"public.t{number}" for number in range(20)]
        execute(database, "CREATE TABLE last ()")
        (last,) = await take(queue, 1)
    assert last.cursor is not None
    assert len(last.cursor) < 300
    assert any("never made: they were forged" in record.getMessage() for record in caplog.records)


async def test_forged_notices_do_nothing_to_a_listener_that_verifies(database: str, mallory: str) -> None:
    async with listening(database, verify=True, heartbeat=0.5) as queue:
        with psycopg.connect(mallory, autocommit=True) as connection:
            for number in range(300):
                forge(connection, id=number, txid=str(number + 700))
            forge(connection)
        execute(database, *(f"CREATE TABLE t{number} ()" for number in range(20)))
        assert identities(await take(queue, 20)) == [f"public.t{number}" for number in range(20)]
        await asyncio.sleep(0.8)
        assert queue.empty()
