"""A primary dies, its standby is promoted: listener and relay are on the new one within seconds, exact where the cursor allows."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from schema_changes import Reset, SchemaChange, listen
from tests.relay.servers import Receiver, Relay, names, wait_until
from tests.support.postgres import Cluster, execute


@pytest.fixture
def pair() -> Iterator[tuple[Cluster, Cluster]]:
    """A primary with a database app, and its standby, which confirms each commit."""
    with Cluster(settings={"fsync": "on"}) as primary:
        primary.create_database("app")
        standby = Cluster()
        subprocess.run(
            [standby.bin / "pg_basebackup", "-d", primary.url(), "-D", standby.data, "-R", "-c", "fast"],
            check=True,
            capture_output=True,
            user=standby.user,
            cwd="/",
        )
        with standby:
            wait_until(lambda: primary.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"), "replication")
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.execute("SELECT pg_reload_conf()")
            yield primary, standby
        primary.start()  # its fixture ends it


def both(primary: Cluster, standby: Cluster) -> str:
    return f"host=127.0.0.1,127.0.0.1 port={primary.port},{standby.port} dbname=app user=postgres target_session_attrs=read-write"


def fail_over(primary: Cluster, standby: Cluster) -> float:
    """Returns the moment of the promotion."""
    primary.kill()
    time.sleep(0.3)
    standby.execute("SELECT pg_promote()")
    return time.monotonic()


@contextlib.asynccontextmanager
async def listening(conninfo: str) -> AsyncIterator[asyncio.Queue[SchemaChange | Reset]]:
    """What a listener hears, from when it listens on."""
    heard: asyncio.Queue[SchemaChange | Reset] = asyncio.Queue()
    ready = asyncio.Event()

    async def follow() -> None:
        async for event in listen(conninfo, on_ready=lambda _: ready.set()):
            heard.put_nowait(event)

    task = asyncio.create_task(follow())
    try:
        await ready.wait()
        yield heard
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_listener_follows_and_misses_nothing_that_the_standby_has(pair: tuple[Cluster, Cluster]) -> None:
    primary, standby = pair
    async with listening(both(primary, standby)) as heard:
        await asyncio.to_thread(execute, primary.url("app"), "CREATE TABLE before ()")
        assert (await heard.get()).objects[0].identity == "public.before"  # type: ignore[union-attr]
        promoted = await asyncio.to_thread(fail_over, primary, standby)
        await asyncio.to_thread(execute, standby.url("app"), "CREATE TABLE after ()")
        event = await asyncio.wait_for(heard.get(), 20)
        assert isinstance(event, SchemaChange), event
        assert event.objects[0].identity == "public.after"
        assert time.monotonic() - promoted < 15


async def test_a_listener_that_heard_what_the_standby_never_got_is_told(pair: tuple[Cluster, Cluster]) -> None:
    primary, standby = pair
    primary.execute("ALTER SYSTEM RESET synchronous_standby_names")
    primary.execute("SELECT pg_reload_conf()")
    async with listening(both(primary, standby)) as heard:
        standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
        standby.execute("SELECT pg_reload_conf()")
        wait_until(lambda: not primary.execute("SELECT FROM pg_stat_replication"), "the end of replication")
        await asyncio.to_thread(execute, primary.url("app"), "CREATE TABLE lost ()")
        assert (await heard.get()).objects[0].identity == "public.lost"  # type: ignore[union-attr]
        await asyncio.to_thread(fail_over, primary, standby)
        event = await asyncio.wait_for(heard.get(), 20)
        assert isinstance(event, Reset), event
        await asyncio.to_thread(execute, standby.url("app"), "CREATE TABLE after ()")
        event = await asyncio.wait_for(heard.get(), 20)
        assert isinstance(event, SchemaChange)
        assert event.objects[0].identity == "public.after"


def test_of_two_relays_one_hands_on_before_and_after(pair: tuple[Cluster, Cluster], receiver: Receiver) -> None:
    primary, standby = pair
    words = ("--to", f"hook={receiver.url}", both(primary, standby))
    with Relay(*words) as first, Relay(*words, waits=True) as second:
        execute(primary.url("app"), "CREATE TABLE before ()")
        wait_until(lambda: "public.before" in names(receiver.taken()), "the first")
        time.sleep(0.3)  # in which its cursor is saved
        execute(primary.url("postgres"), "CREATE TABLE confirmed ()")  # what came before that, the standby has
        fail_over(primary, standby)
        execute(standby.url("app"), "CREATE TABLE after ()")
        wait_until(lambda: "public.after" in names(receiver.taken()), "the second")
        wait_until(lambda: sorted(relay.status()["problem"] is None for relay in (first, second)) == [False, True], "one of them")
        time.sleep(1.5)
    assert [name for name in names(receiver.taken()) if "cursor" not in name] == ["public.before", "public.after"]


def test_a_relay_follows_and_hands_on_each_change_once(pair: tuple[Cluster, Cluster], receiver: Receiver, cursors: Path) -> None:
    primary, standby = pair
    with Relay("--to", receiver.url, "--cursors", cursors, both(primary, standby)) as relay:
        execute(primary.url("app"), "CREATE TABLE before ()")
        wait_until(receiver.taken, "the first")
        relay.end()
        # what the relay has not told yet when the primary dies
        execute(primary.url("app"), "CREATE TABLE meanwhile ()")
        fail_over(primary, standby)
        execute(standby.url("app"), "CREATE TABLE after ()")
        relay.start()
        wait_until(lambda: len(receiver.taken()) == 3, "all three")
        assert list(names(receiver.taken())) == ["public.before", "public.meanwhile", "public.after"]
    assert len({event["source"] for event in receiver.taken()}) == 1
    assert len({request["id"] for request in receiver.requests()}) == 3
