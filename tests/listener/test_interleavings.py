"""Random interleavings of transactions, lost sessions and restarted listeners, against a real server: exactly once."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema_changes import Reset, SchemaChange, listen

SESSIONS = 4
steps = st.lists(
    st.tuples(st.sampled_from(["change", "change", "change", "commit", "commit", "rollback"]), st.integers(0, SESSIONS - 1))
    | st.tuples(st.sampled_from(["take", "restart", "terminate", "silence", "forge", "unlogged wide"]), st.just(0)),
    min_size=5,
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, verify=st.booleans())
def test_exactly_once(database: str, steps: list[tuple[str, int]], verify: bool) -> None:
    logging.getLogger("schema_changes").setLevel(logging.ERROR)
    asyncio.run(_play(database, steps, verify))


async def _play(database: str, steps: list[tuple[str, int]], verify: bool) -> None:
    sessions = [await psycopg.AsyncConnection.connect(database) for _ in range(SESSIONS)]
    admin = await psycopg.AsyncConnection.connect(database, autocommit=True)
    pending: list[list[str]] = [[] for _ in sessions]
    committed: list[str] = []
    delivered: list[str] = []
    ((cursor,),) = await (await admin.execute("SELECT cursor FROM schema_notifications.changes_since()")).fetchall()

    def listener() -> AsyncGenerator[SchemaChange | Reset, None]:
        return listen(database, cursor=cursor, verify=verify, heartbeat=0.5, backoff=(0.01, 0.05))

    events = listener()

    async def take(until: str | None = None) -> None:
        """Take what is there (or all up to a change), and keep the cursor of the last."""
        nonlocal cursor, events
        while until is None or until not in delivered:
            try:
                async with asyncio.timeout(0.02 if until is None else 10):
                    event = await anext(events)
            except TimeoutError:
                assert until is None, f"{until} did not come"
                # the timeout ended the iterator; nothing that it had was handed over
                events = listener()
                return
            assert not isinstance(event, Reset)
            assert event.tag != "FORGED"
            delivered.extend(item.identity for item in event.objects if item.kind == "schema")
            cursor = event.cursor

    for step, number in steps:
        session = sessions[number]
        match step:
            case "change":
                name = f"s_{uuid.uuid4().hex}"
                await session.execute(f"CREATE SCHEMA {name}")
                pending[number].append(name)
            case "silence":
                name = f"s_{uuid.uuid4().hex}"
                await admin.execute("SET schema_notifications.notify = off")
                await admin.execute(f"CREATE SCHEMA {name}")
                await admin.execute("RESET schema_notifications.notify")
                committed.append(name)
            case "unlogged wide":
                # a notice too long for its objects
                name = f"s_{uuid.uuid4().hex}"
                tables = " ".join(f"CREATE TABLE {'t' * 60}{table} ()" for table in range(60))
                await admin.execute(f"CREATE SCHEMA {name} {tables}")
                committed.append(name)
            case "commit":
                await session.commit()
                committed += pending[number]
                pending[number] = []
            case "rollback":
                await session.rollback()
                pending[number] = []
            case "take":
                await take()
            case "restart":
                await events.aclose()
                events = listener()
            case "terminate":
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'schema_changes' "
                    "AND datname = current_database()"
                )
            case "forge" if verify:
                # an id that a coming change may have
                ((last,),) = await (await admin.execute("SELECT last_value FROM schema_notifications.log_id_seq")).fetchall()
                await admin.execute(
                    "SELECT pg_notify('schema_changed', json_build_object('type', 'ddl_command_end', 'tag', 'FORGED', "
                    "'timestamp', '2025-11-07 12:34:56.789+00', 'id', %s::bigint, 'txid', '99999999')::text)",
                    [last + 2],
                )
    for session, names in zip(sessions, pending, strict=True):
        await session.commit()
        committed += names
    end = f"s_{uuid.uuid4().hex}"
    await admin.execute(f"CREATE SCHEMA {end}")
    await take(end)
    async with aclosing(events):
        # what the notices did not tell comes with the heartbeat
        async with asyncio.timeout(10):
            while set(committed) - set(delivered):
                event = await anext(events)
                assert not isinstance(event, Reset)
                delivered.extend(item.identity for item in event.objects if item.kind == "schema")
    for session in [*sessions, admin]:
        await session.close()
    assert Counter(delivered) == Counter([*committed, end])
