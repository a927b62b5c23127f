"""Random interleavings of transactions, lost sessions and restarted listeners, against a real server: exactly once."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from contextlib import aclosing, suppress

import psycopg
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schema_changes import Reset, listen
from schema_changes.errors import Unreachable

SESSIONS = 4
steps = st.lists(
    st.tuples(st.sampled_from(["change", "change", "commit", "commit", "rollback"]), st.integers(0, SESSIONS - 1))
    | st.tuples(st.sampled_from(["wait", "restart", "restart", "terminate", "silent", "wide", "forge"]), st.just(0)),
    min_size=10,
    max_size=60,
)


class Consumer:
    """Takes events in a task of its own and keeps the cursor of the last, as an application would."""

    def __init__(self, database: str, cursor: str, verify: bool) -> None:
        self.database, self.cursor, self.verify = database, cursor, verify
        self.delivered: list[str] = []
        self.start()

    def start(self) -> None:
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        while True:
            with suppress(Unreachable):  # terminated before it listened: said at the start, and for the application to decide
                await self.consume()

    async def consume(self) -> None:
        async with aclosing(
            listen(self.database, cursor=self.cursor, verify=self.verify, heartbeat=1, backoff=(0.01, 0.05))
        ) as events:
            async for event in events:
                assert not isinstance(event, Reset)
                assert event.tag != "FORGED"
                assert event.cursor is not None
                self.delivered.extend(item.identity for item in event.objects if item.kind == "schema")
                self.cursor = event.cursor

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


# a failure is not made smaller: each try takes as long as the steps do
@settings(max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(steps=steps, verify=st.sampled_from([False, False, True]))
def test_exactly_once(database: str, steps: list[tuple[str, int]], verify: bool) -> None:
    log = logging.getLogger("schema_changes")
    log.setLevel(logging.ERROR)
    try:
        asyncio.run(_play(database, steps, verify))
    finally:
        log.setLevel(logging.NOTSET)  # other tests read what is logged


async def _play(database: str, steps: list[tuple[str, int]], verify: bool) -> None:
    sessions = [await psycopg.AsyncConnection.connect(database) for _ in range(SESSIONS)]
    admin = await psycopg.AsyncConnection.connect(database, autocommit=True)
    pending: list[list[str]] = [[] for _ in sessions]
    committed: list[str] = []
    ((cursor,),) = await (await admin.execute("SELECT cursor FROM schema_notifications.changes_since()")).fetchall()
    consumer = Consumer(database, cursor, verify)

    async def create(connection: psycopg.AsyncConnection, more: str = "") -> str:
        name = f"s_{uuid.uuid4().hex}"
        await connection.execute(f"CREATE SCHEMA {name} {more}")
        return name

    for step, number in steps:
        session = sessions[number]
        match step:
            case "change":
                pending[number].append(await create(session))
            case "commit":
                await session.commit()
                committed += pending[number]
                pending[number] = []
            case "rollback":
                await session.rollback()
                pending[number] = []
            case "silent":
                await admin.execute("SET schema_notifications.notify = off")
                committed.append(await create(admin))
                await admin.execute("RESET schema_notifications.notify")
            case "wide":
                # a notice too long for its objects
                committed.append(await create(admin, " ".join(f"CREATE TABLE {'t' * 60}{table} ()" for table in range(60))))
            case "wait":
                await asyncio.sleep(0.02)
            case "restart":
                await consumer.stop()
                consumer.start()
            case "terminate":
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'schema_changes' AND datname = current_database()"
                )
            case "forge" if verify:
                # an id such as a coming change may have
                await admin.execute(
                    "SELECT pg_notify('schema_changed', json_build_object('type', 'ddl_command_end', 'tag', 'FORGED', "
                    "'id', (pg_current_wal_insert_lsn() - '0/0')::bigint, "
                    "'timestamp', '2025-11-07 12:34:56.789+00', 'txid', '99999999')::text)"
                )
    for session, names in zip(sessions, pending, strict=True):
        await session.commit()
        committed += names
    try:
        async with asyncio.timeout(10):
            while set(committed) - set(consumer.delivered) and not consumer.task.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        # as long as what comes twice may take
        await asyncio.sleep(0.03)
    finally:
        await consumer.stop()
        for session in [*sessions, admin]:
            await session.close()
    assert Counter(consumer.delivered) == Counter(committed)
