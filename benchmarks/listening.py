"""What listening costs: from a change made to a change in the consumer's hands, beside bare loops over notices.

python benchmarks/listening.py        (4 minutes; prints Markdown)
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
from measure import Comparison, Report, beside, percentile, say

from schema_changes import listen
from tests.support.postgres import Cluster

Client = Callable[[str], AsyncGenerator[Any, None]]
CHANGES = 5000
IDLE = 30  # seconds


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


BARE = "psycopg `notifies()`"
CLIENTS: dict[str, Client] = {
    BARE: bare_psycopg,
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
    return statistics.median(times), percentile(times, 99), statistics.median(last)


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


async def _read_log(url: str, cursor: str) -> float:
    """Milliseconds to connect, LISTEN, and fetch what the log has since the cursor."""
    started = time.perf_counter()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("LISTEN schema_changed")
        rows = await connection.execute("SELECT * FROM schema_notifications.changes_since(%s)", [cursor])
        await rows.fetchall()
        return (time.perf_counter() - started) * 1000


async def _catch_up(url: str, cursor: str, missed: int) -> float:
    """Milliseconds from starting to listen with a cursor to the last missed change."""
    started = time.perf_counter()
    async with aclosing(listen(url, cursor=cursor)) as events:
        for _ in range(missed):
            await anext(events)
        return (time.perf_counter() - started) * 1000


def _peak(read: Callable[..., Awaitable[float]], *arguments: Any) -> float:
    """MB that a process of its own needs at most to read what it missed, Python and all imports included."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_read_and_weigh, read, *arguments).result()


def _read_and_weigh(read: Callable[..., Awaitable[float]], *arguments: Any) -> float:
    async def reading() -> None:
        await read(*arguments)

    asyncio.run(reading())
    # not ru_maxrss, which begins with what the process had that started this one
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) / 1024


async def _idle(url: str, client: Client) -> float:
    """Microseconds of CPU that this process takes a second, while one listener hears nothing."""
    async with aclosing(client(url)) as events:
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(1)
        before = time.process_time()
        await asyncio.sleep(IDLE)
        used = time.process_time() - before
        first.cancel()
        await asyncio.wait([first])
    return used / IDLE * 1e6


async def _side_by_side(measure: Callable[[Client], Awaitable[tuple[float, ...]]], rounds: int) -> list[dict[str, Comparison]]:
    """Measures the clients in turn; one comparison with the bare loop for each figure that `measure` returns."""
    figures = [[await measure(client) for client in CLIENTS.values()] for _ in range(rounds)]
    return [
        beside({name: [row[place][which] for row in figures] for place, name in enumerate(CLIENTS)}, BARE)
        for which in range(len(figures[0][0]))
    ]


async def _measure(cluster: Cluster, report: Report) -> None:
    url = cluster.create_database("bench")
    cluster.execute("ALTER DATABASE bench SET schema_notifications.retention_rows = 1000000")

    async def throughput(client: Client) -> tuple[float, ...]:
        return (await _throughput(url, client),)

    async def latency(listeners: int, commands: int, client: Client) -> tuple[float, ...]:
        return await _latency(url, client, listeners, commands)

    say("listening: one listener (30 s)")
    median, tail, _ = await _side_by_side(partial(latency, 1, 300), 4)
    (rate,) = await _side_by_side(throughput, 4)
    report.section(
        "A change in the consumer's hands",
        "From sending a DDL command to its arrival in the consumer, beside a bare loop over psycopg's notices; and how many "
        "changes one consumer takes while eight sessions make them.",
        ["client", "p50 ms", "times", "p99 ms", "times", "changes/s", "times"],
        [
            [
                name,
                *(f"{median[name].value:.2f}", str(median[name]), f"{tail[name].value:.2f}", str(tail[name])),
                *(f"{rate[name].value:,.0f}", str(rate[name])),
            ]
            for name in CLIENTS
        ],
    )

    say("listening: 10 to 500 listeners (40 s)")
    sizes = {10: (100, 4), 100: (30, 3), 500: (10, 2)}
    last = {size: (await _side_by_side(partial(latency, size, count), rounds))[2] for size, (count, rounds) in sizes.items()}
    report.section(
        "Many consumers",
        "The same, until the last consumer has it. All consumers run in one Python process.",
        ["client", *(column for size in sizes for column in (f"{size}: ms", "times"))],
        [
            [name, *(cell for size in sizes for cell in (f"{last[size][name].value:.1f}", str(last[size][name])))]
            for name in CLIENTS
        ],
    )

    say("listening: idle (2 minutes)")
    report.section(
        "Nothing happens",
        f"CPU of the listening process while nothing changes for {IDLE} s. Only `listen()` asks for a sign of life, every "
        "5 s (`heartbeat`), which also brings what was logged and not announced.",
        ["client", "µs of CPU a second"],
        [[name, f"{await _idle(url, client):.0f}"] for name, client in CLIENTS.items()],
    )

    say("listening: catching up (20 s)")
    rows = []
    for missed in (0, 1000, 100_000):
        with psycopg.connect(url, autocommit=True) as connection:
            ((cursor,),) = connection.execute("SELECT cursor FROM schema_notifications.changes_since()")
            for _ in range(missed // 100):
                connection.execute(
                    "DO $$ BEGIN FOR i IN 1..100 LOOP EXECUTE format('COMMENT ON SCHEMA public IS %L', i); END LOOP; END $$"
                )
            connection.execute("COMMENT ON SCHEMA public IS 'the end'")
        figures: dict[str, list[float]] = {"bare": [], "ours": []}
        for _ in range(3):
            figures["bare"].append(await _read_log(url, cursor))
            figures["ours"].append(await _catch_up(url, cursor, missed + 1))
        both = beside(figures, "bare")
        peaks = [_peak(_read_log, url, cursor), _peak(_catch_up, url, cursor, missed + 1)]
        rows.append(
            [
                *(f"{missed:,}", f"{both['bare'].value:,.0f}", f"{both['ours'].value:,.0f}", str(both["ours"])),
                *(f"{peak:.0f}" for peak in peaks),
            ]
        )
    report.section(
        "Back after a while",
        "From the start of `listen(cursor=…)`, connecting included, to the last missed change in the consumer's hands; with each "
        "number there is one more, which marks the end. Beside connecting with psycopg, LISTEN, and fetching `changes_since(…)`. "
        "The memory is the most that a process of its own had, Python included.",
        ["missed changes", "bare, ms", "`listen()`, ms", "times", "bare, MB", "`listen()`, MB"],
        rows,
    )


def run() -> Report:
    """On a server of its own, with fsync off: nothing here is about disks."""
    report = Report()
    with Cluster(settings={"max_connections": "600", "shared_buffers": "256MB"}) as cluster:
        asyncio.run(_measure(cluster, report))
    return report


if __name__ == "__main__":
    print(run())
