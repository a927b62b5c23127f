"""Sinks that answer as no server should: none ends the relay, none gets again what it has, none writes into a terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schema_changes.errors import SchemaChangesError
from schema_changes.relay import sinks
from schema_changes.relay.sinks import NotDelivered, open_sink
from tests.relay.servers import SECRET, Relay, wait_until
from tests.support.postgres import execute

EVENT: dict[str, Any] = {"source": "/postgresql/1/2/3", "id": "1-1-0", "type": "t", "data": {"tag": "CREATE TABLE", "objects": []}}


@contextlib.asynccontextmanager
async def answering(reply: bytes, again: bytes = b"") -> AsyncIterator[int]:
    """A server that says this to whoever comes, and the rest again and again; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(reply)
            while again:
                writer.write(again)
                await writer.drain()
                await asyncio.sleep(0.01)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_TIMEOUT", 1)
    monkeypatch.setattr(sinks, "_BODY", 0.3)


@pytest.mark.parametrize(
    "again",
    [b"1\r\nx\r\n", b"nonsense\r\n", b"10000\r\n" + b"x" * 0x10000 + b"\r\n"],
    ids=["slow", "wrong", "long"],
)
async def test_what_was_answered_with_2xx_is_taken_whatever_the_body_is(again: bytes) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", again) as port:
        sink = open_sink(f"http://127.0.0.1:{port}/hook", SECRET)
        await sink.deliver([EVENT])
        await sink.close()


@pytest.mark.parametrize(
    ("scheme", "reply", "again", "said"),
    [
        ("http", b"", b"", "no answer within 1 s"),
        ("http", b"", b"HTTP/1.1 100 Continue\r\n\r\n", "no answer within 1 s"),
        ("http", b"", b"x" * 10_000, "Receive buffer too long"),
        ("http", b"HTTP/1.1 500 \x1b[31mred\x07" + b"!" * 5000 + b"\r\nContent-Length: 0\r\n\r\n", b"", "answered 500 "),
        ("http", b"HTTP/1.1 429 Slow\r\nRetry-After: \xc2\xb2\r\nContent-Length: 0\r\n\r\n", b"", "answered 429 Slow"),
        ("http", b"HTTP/1.1 429 Slow\r\nRetry-After: Mon, 01 Jan 0001 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n", b"", "429 Slow"),
        ("nats", b"", b"", "no answer within 1 s"),
        ("nats", b'INFO {"max_payload":1}\r\n', b"", "no answer within 1 s"),
        ("redis", b"-NOAUTH \x1b[31mred\r\n", b"", "red"),
        ("rediss", b"nonsense\r\n", b"", "SSL"),
    ],
)
async def test_an_answer_that_is_none_is_told_without_its_commands(scheme: str, reply: bytes, again: bytes, said: str) -> None:
    async with answering(reply, again) as port:
        sink = open_sink(
            f"{scheme}://user:geheim@127.0.0.1:{port}/place?x=geheim".removesuffix("?x=geheim" * (scheme != "http")), SECRET
        )
        with pytest.raises(NotDelivered) as told:
            await sink.deliver([EVENT])
        await sink.close()
    assert said in str(told.value)
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 500
    assert "geheim" not in str(told.value)


@pytest.mark.parametrize(
    "url",
    ["https://h\x00/x", "https://☃.invalid/x", "https://h/" + "x" * 70_000, "redis://h/s?maxlen=0", "nats://h/a..b", "nats://h/.a"],
)
def test_a_url_that_leads_nowhere_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SchemaChangesError):
        open_sink(url, SECRET)


async def test_what_a_sinks_library_does_not_foresee_ends_nobody_else(database: str, tmp_path: Any) -> None:
    """A server that is none of NATS sends more than a line can have."""
    async with answering(b"", b"x" * 10_000) as port, answering(b"HTTP/1.1 204 No Content\r\n\r\n") as hook:
        sink = ("--to", f"broken=nats://127.0.0.1:{port}/app.x", "--to", f"hook=http://127.0.0.1:{hook}/x")
        await asyncio.to_thread(_hands_on, Relay(*sink, "--cursors", tmp_path, database), database)


def _hands_on(relay: Relay, database: str) -> None:
    with relay:
        execute(database, "CREATE TABLE one ()")
        wait_until(lambda: relay.status()["sinks"][0]["failures"] > 1, "two failures")
        execute(database, "CREATE TABLE two ()")
        wait_until(lambda: relay.status()["sinks"][1]["delivered"] == 2, "two deliveries")
        assert relay.status()["sinks"][0]["problem"]
