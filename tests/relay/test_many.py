"""Thousands of browsers on one database session."""

from __future__ import annotations

import asyncio
import re
import resource
import time

import pytest

from tests.relay.servers import Serve
from tests.relay.test_serve import sessions
from tests.support.postgres import execute

CLIENTS = 5000


async def test_five_thousand_connections_are_one_session(database: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CLIENTS:
        pytest.skip(f"needs {2 * CLIENTS} open files, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Serve(database) as serve:
        streams = []
        for _ in range(0, CLIENTS, 250):
            streams += await asyncio.gather(*(connect(serve.port) for _ in range(250)))
        started = time.monotonic()
        await asyncio.to_thread(execute, database, "CREATE TABLE a ()", "CREATE TABLE b ()")
        heard = await asyncio.gather(*(changes(reader, 2) for reader, _ in streams))
        print(f"{CLIENTS} heard of two changes within {time.monotonic() - started:.2f} s")
        assert {tuple(tables) for tables, _ in heard} == {("public.a", "public.b")}
        assert '"clients": 5000' in serve.get("/status")[1]
        assert sessions(database) == 1
        # all come back at once, each where it was
        for _, writer in streams:
            writer.close()
        await asyncio.to_thread(execute, database, "CREATE TABLE c ()")
        cursor = heard[0][1]
        streams = []
        for _ in range(0, CLIENTS, 250):
            streams += await asyncio.gather(*(connect(serve.port, cursor) for _ in range(250)))
        assert {tuple(tables) for tables, _ in await asyncio.gather(*(changes(reader, 1) for reader, _ in streams))} == {
            ("public.c",)
        }
        assert sessions(database) == 1
        for _, writer in streams:
            writer.close()


async def connect(port: int, cursor: str | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An event stream that has begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    place = f"Last-Event-ID: {cursor}\r\n" if cursor else ""
    writer.write(f"GET /events HTTP/1.1\r\nHost: localhost\r\n{place}\r\n".encode())
    await reader.readuntil(b"event: alive\ndata: {}\n\n")
    return reader, writer


async def changes(reader: asyncio.StreamReader, number: int) -> tuple[list[str], str]:
    """The tables of the next changes, and the last id."""
    tables: list[str] = []
    last = ""
    while len(tables) < number:
        line = (await reader.readline()).decode()
        if line.startswith("id: "):
            last = line[4:].strip()
        tables += re.findall(r'"identity": "([^"]+)"', line)
    return tables, last
