"""What listening costs: from a change made to a change in the consumer's hands, beside bare loops over notices.

    python benchmarks/listening.py

Prints Markdown.  `run()` returns it, for benchmarks/run.py.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent))

from schema_changes import listen
from tests.postgres import Cluster

Client = Callable[[str], AsyncGenerator[Any, None]]
CHANGES = 5000


async def bare_psycopg(url: str) -> AsyncGenerator[Any, None]:
    """LISTEN and notifies(): nothing is parsed, verified or caught up with."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("LISTEN schema_changed")
        async for notice in connection.notifies():
            yield notice


async def bare_asyncpg(url: str) -> AsyncGenerator[Any, None]:
    """add_listener() and a queue."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(url)
    try:
        await connection.add_listener("schema_changed", lambda *arguments: heard.put_nowait(arguments[3]))
        while True:
            yield await heard.get()
    finally:
        await connection.close()


async def verified(url: str) -> AsyncGenerator[Any, None]:
    async with aclosing(listen(url, verify=True)) as events:
        async for event in events:
            yield event


CLIENTS: dict[str, Client] = {
    "psycopg `notifies()`": bare_psycopg,
    "asyncpg `add_listener()`": bare_asyncpg,
    "`listen()`": listen,
    "`listen(verify=True)`": verified,
}


async def _latency(url: str, client: Client, listeners: int, rounds: int) -> tuple[float, float, float]:
    """Milliseconds from sending a DDL command to its arrival: the median and 99th percentile, and the median of the last of all."""
    arrived = [0.0] * listeners
    counts = [0] * listeners
    everyone = asyncio.Event()
    target = 0

    async def consume(number: int) -> None:
        async with aclosing(client(url)) as events:
            async for _ in events:
                arrived[number] = time.perf_counter()
                counts[number] += 1
                if min(counts) >= target:
                    everyone.set()

    tasks = [asyncio.create_task(consume(number)) for number in range(listeners)]
    times: list[float] = []
    last: list[float] = []
    try:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as writer:
            while True:
                # wait until all listen, and have read the log once
                ((sessions,),) = await (
                    await writer.execute(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' "
                        "AND (query LIKE 'LISTEN%' OR query LIKE '%changes_since($1%')"
                    )
                ).fetchall()
                if sessions >= listeners:
                    break
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            for round_number in range(rounds):
                everyone.clear()
                target = round_number + 1
                sent = time.perf_counter()
                await writer.execute(f"COMMENT ON SCHEMA public IS '{round_number}'")
                async with asyncio.timeout(30):
                    await everyone.wait()
                if round_number >= rounds // 10:  # the first ones warm up
                    times += [(at - sent) * 1000 for at in arrived]
                    last.append((max(arrived) - sent) * 1000)
                await asyncio.sleep(0.002)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return statistics.median(times), statistics.quantiles(times, n=100)[98], statistics.median(last)


async def _throughput(url: str, client: Client) -> float:
    """Changes per second that one consumer takes while eight sessions make them as fast as they can."""
    events = client(url)
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.5)

    async def write(connection: psycopg.AsyncConnection) -> None:
        await connection.execute(
            f"DO $$ BEGIN FOR i IN 1..{CHANGES // 8} LOOP "
            "EXECUTE format('COMMENT ON SCHEMA public IS %L', i); COMMIT; END LOOP; END $$"
        )

    async with aclosing(events):
        writers = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(8)]
        started = time.perf_counter()
        work = [asyncio.create_task(write(writer)) for writer in writers]
        async with asyncio.timeout(120):
            await first
            for _ in range(CHANGES // 8 * 8 - 1):
                await anext(events)
        elapsed = time.perf_counter() - started
        await asyncio.gather(*work)
        for writer in writers:
            await writer.close()
    return CHANGES / elapsed


async def _catch_up(url: str, cursor: str, missed: int) -> float:
    """Milliseconds from starting to listen with a cursor to the last missed change; with none, to the next change."""
    started = time.perf_counter()
    async with aclosing(listen(url, cursor=cursor)) as events:
        if missed == 0:
            taking = asyncio.ensure_future(anext(events))
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as writer:
                started = time.perf_counter()
                await writer.execute("COMMENT ON SCHEMA public IS 'next'")
            await taking
        for _ in range(missed):
            await anext(events)
        return (time.perf_counter() - started) * 1000


async def _measure(cluster: Cluster) -> AsyncIterator[str]:
    url = cluster.create_database("bench")
    cluster.execute("ALTER DATABASE bench SET schema_notifications.retention_rows = 1000000")
    yield "### From the change to the consumer"
    yield ""
    yield "Milliseconds from sending a DDL command to its arrival in the consumer; all consumers run in one Python process."
    yield ""
    yield "| client | 1 listener: p50 | p99 | 10: p50 | 100: p50 | last of 100 | 500: p50 | last of 500 | changes/s, 8 writers |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for name, client in CLIENTS.items():
        one = await _latency(url, client, 1, 300)
        ten = await _latency(url, client, 10, 100)
        hundred = await _latency(url, client, 100, 30)
        crowd = await _latency(url, client, 500, 12)
        rate = await _throughput(url, client)
        yield (
            f"| {name} | {one[0]:.2f} | {one[1]:.2f} | {ten[0]:.2f} | {hundred[0]:.1f} | {hundred[2]:.1f} "
            f"| {crowd[0]:.0f} | {crowd[2]:.0f} | {rate:,.0f} |"
        )
    yield ""
    yield "### Back after a while"
    yield ""
    yield "From the start of `listen(cursor=…)`, connecting included, to the last missed change in the consumer's hands."
    yield ""
    yield "| missed changes | ms |"
    yield "|---:|---:|"
    for missed in (0, 1000, 100_000):
        with psycopg.connect(url, autocommit=True) as connection:
            ((cursor,),) = connection.execute("SELECT cursor FROM schema_notifications.changes_since()")
            for _ in range(missed // 100):
                connection.execute(
                    "DO $$ BEGIN FOR i IN 1..100 LOOP EXECUTE format('COMMENT ON SCHEMA public IS %L', i); END LOOP; END $$"
                )
        yield f"| {missed:,} | {statistics.median([await _catch_up(url, cursor, missed) for _ in range(3)]):,.0f} |"


def run() -> str:
    """Measure on a server of its own (fsync off: nothing here is about disks) and return Markdown."""

    async def collect(cluster: Cluster) -> list[str]:
        return [line async for line in _measure(cluster)]

    with Cluster(settings={"max_connections": "600", "shared_buffers": "256MB"}) as cluster:
        return "\n".join(asyncio.run(collect(cluster)))


if __name__ == "__main__":
    print(run())
