"""The hub: followers that come from anywhere, while writers write, get each change once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import psycopg
import pytest

import schema_changes.hub
from schema_changes.event import Reset
from schema_changes.hub import Hub
from tests.relay.test_chaos import Writers


@pytest.mark.parametrize("sizes", [(10_000, 500, 256), (60, 40, 20)])
async def test_followers_from_anywhere_get_each_change_once(
    database: str, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int, int]
) -> None:
    kept, page, direct = sizes
    monkeypatch.setattr(schema_changes.hub, "_EVENTS", kept)
    monkeypatch.setattr(schema_changes.hub, "_ROWS", page)
    monkeypatch.setattr(schema_changes.hub, "_DIRECT", direct)
    followers = 6
    heard: list[list[str]] = [[] for _ in range(followers)]

    async with Hub(database) as hub:
        start = hub.cursor

        async def follow(index: int) -> None:
            """Leaves again and again, is slow at times, and comes back with its cursor."""
            chance = random.Random(index)
            cursor = start
            while True:
                left = chance.randrange(1, 60)
                async for events in hub.follow(cursor, chance.choice([1, 7, 100])):
                    for event in events:
                        assert not isinstance(event, Reset), event
                        heard[index].append(event.objects[0].identity)
                    cursor = str(events[-1].cursor)
                    left -= len(events)
                    if left <= 0:
                        break
                    if chance.random() < 0.1:
                        await asyncio.sleep(chance.random() * 0.2)
                await asyncio.sleep(chance.random() * 0.2)

        tasks = [asyncio.create_task(follow(index)) for index in range(followers)]
        with Writers(database, 4, pause=0.05) as writers:
            await asyncio.sleep(2)
            # one that stays open holds back what a snapshot can say
            with psycopg.connect(database) as connection:
                connection.execute("CREATE TABLE long ()")
                await asyncio.sleep(3)
            writers.made.add("public.long")
        existing = set(writers.made)
        try:
            for _ in range(600):
                await asyncio.sleep(0.05)
                if all(set(one) == existing for one in heard):
                    break
            await asyncio.sleep(0.3)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    for one in heard:
        assert [name for name, times in Counter(one).items() if times != 1] == []
        assert existing - set(one) == set(), len(existing)
    assert len(existing) > 100


async def test_the_end_of_the_hub_is_the_end_of_its_followers(database: str) -> None:
    async with Hub(database) as hub:
        following = asyncio.create_task(anext(hub.follow()))
        await asyncio.sleep(0.2)
    await asyncio.wait([following], timeout=5)
    assert isinstance(following.exception(), StopAsyncIteration)
