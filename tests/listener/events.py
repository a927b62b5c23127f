"""What a listener yields, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import psycopg

from schema_changes import Reset, SchemaChange, listen

Event = SchemaChange | Reset


def cursor_now(url: str) -> str:
    with psycopg.connect(url) as connection:
        ((cursor,),) = connection.execute("SELECT cursor FROM schema_notifications.changes_since()")
        return str(cursor)


@asynccontextmanager
async def listening(url: str, **options: Any) -> AsyncIterator[asyncio.Queue[Event]]:
    """A consumer that takes every event at once; ready when the listener is."""
    queue: asyncio.Queue[Event] = asyncio.Queue()
    ready = asyncio.Event()

    async def consume() -> None:
        async with aclosing(listen(url, on_ready=lambda _: ready.set(), **options)) as events:
            async for event in events:
                queue.put_nowait(event)

    task = asyncio.create_task(consume())
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED, timeout=10)
        waiting.cancel()
        if task.done():
            task.result()
        yield queue
    finally:
        task.cancel()
        await asyncio.wait([task])


async def take(queue: asyncio.Queue[Event], number: int, seconds: float = 10) -> list[Event]:
    async with asyncio.timeout(seconds):
        return [await queue.get() for _ in range(number)]


async def nothing_more(queue: asyncio.Queue[Event], seconds: float = 0.3) -> None:
    await asyncio.sleep(seconds)
    assert queue.empty(), queue.get_nowait()


def identities(events: list[Event]) -> list[str]:
    return [item.identity for event in events if isinstance(event, SchemaChange) for item in event.objects]
