"""`schema-changes relay` to NATS JetStream and to a Redis stream: what is handed over twice is there once."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, cast

import nats as nats_client
import pytest
import redis as redis_client
from nats.js.errors import NotFoundError

from schema_changes.errors import SchemaChangesError
from schema_changes.relay.sinks import NotDelivered, open_sink
from tests.relay.servers import NatsServer, RedisServer, Relay, names, wait_until
from tests.support.postgres import execute


async def in_nats(server: NatsServer, stream: str = "app_schema", login: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """The events of the stream, in order."""
    client = await nats_client.connect(server.url, **(login or {}))
    try:
        context = client.jetstream()
        try:
            last = (await context.stream_info(stream)).state.last_seq
        except NotFoundError:
            return []
        messages = [await context.get_msg(stream, number) for number in range(1, last + 1)]
        return [dict(json.loads(message.data or b"")) for message in messages]
    finally:
        await client.close()


def entries(server: RedisServer, stream: str = "schema") -> list[dict[str, str]]:
    """The fields of each entry of the stream, in order."""
    with redis_client.Redis(port=server.port, decode_responses=True) as client:
        return cast(list[dict[str, str]], [fields for _, fields in client.xrange(stream) or ()])


def in_redis(server: RedisServer, stream: str = "schema") -> list[dict[str, Any]]:
    """The events of the stream, in order."""
    return [json.loads(fields["event"]) for fields in entries(server, stream)]


def event(number: int, size: int = 0) -> dict[str, Any]:
    data = {"tag": "CREATE TABLE", "objects": [{"identity": f"t{number}" + "x" * size}]}
    return {"source": "/postgresql/1/2/3", "id": f"{number}-{number}-0", "type": "notifying-postgres.schema_changed", "data": data}


def test_each_change_is_a_message_and_an_entry(database: str, nats: NatsServer, redis: RedisServer, cursors: Path) -> None:
    with Relay(
        *("--to", f"{nats.url}/app.schema", "--to", f"{redis.url}/schema", "--cursors", cursors, database),
        env={"SCHEMA_CHANGES_SECRET": ""},
    ) as relay:
        execute(database, *(f"CREATE TABLE t{number} ()" for number in range(250)))
        wait_until(lambda: all(sink["delivered"] == 250 for sink in relay.status()["sinks"]), "250 changes")
    expected = [f"public.t{number}" for number in range(250)]
    assert list(names(asyncio.run(in_nats(nats)))) == expected
    assert list(names(in_redis(redis))) == expected
    assert asyncio.run(in_nats(nats)) == in_redis(redis)
    fields = entries(redis)[0]
    assert fields["type"] == "notifying-postgres.schema_changed"
    assert fields["id"].endswith(in_redis(redis)[0]["id"])


async def test_nats_has_once_what_is_published_twice_also_after_its_window(nats: NatsServer) -> None:
    client = await nats_client.connect(nats.url)
    await client.jetstream().add_stream(name="mine", subjects=["app.>"], duplicate_window=0.2)
    await client.close()
    for numbers in ([0, 1, 2], [1, 2, 3], [2, 3, 4]):
        sink = open_sink(f"{nats.url}/app.schema")
        await sink.deliver([event(number) for number in numbers])
        await sink.close()
        await asyncio.sleep(0.5)
    assert [one["id"] for one in await in_nats(nats, "mine")] == [f"{number}-{number}-0" for number in range(5)]


async def test_redis_has_once_what_is_added_twice(redis: RedisServer) -> None:
    sink = open_sink(f"{redis.url}/schema")
    for numbers in ([0, 1, 2], [1, 2, 3], [2, 3, 4]):
        await sink.deliver([event(number) for number in numbers])
    await sink.close()
    assert [one["id"] for one in in_redis(redis)] == [f"{number}-{number}-0" for number in range(5)]


async def test_the_redis_stream_is_trimmed(redis: RedisServer) -> None:
    sink = open_sink(f"{redis.url}/schema?maxlen=1000")
    for first in range(0, 3000, 100):
        await sink.deliver([event(number) for number in range(first, first + 100)])
    await sink.close()
    assert 1000 <= len(in_redis(redis)) <= 1200
    assert in_redis(redis)[-1]["id"] == "2999-2999-0"


async def test_a_message_that_nats_would_refuse_comes_without_its_objects(nats: NatsServer) -> None:
    sink = open_sink(f"{nats.url}/app.schema")
    await sink.deliver([event(1, size=2_000_000), event(2)])
    await sink.close()
    first, second = await in_nats(nats)
    assert first["data"] == {"tag": "CREATE TABLE", "truncated": True}
    assert second["data"]["objects"]


async def test_a_password_or_a_token_is_the_secret(tmp_path: Path) -> None:
    with (
        NatsServer(tmp_path / "nats", "--user", "u", "--pass", "p") as nats,
        RedisServer(tmp_path / "redis", "--requirepass", "p") as redis,
    ):
        for url in (nats.url.replace("//", "//u@") + "/app.schema", redis.url + "/schema"):
            wrong = open_sink(url, "wrong")
            with pytest.raises(NotDelivered, match=r"(?i)authorization|password"):
                await wrong.deliver([event(1)])
            await wrong.close()
            right = open_sink(url, "p\n")
            await right.deliver([event(1)])
            await right.close()
        assert len(await in_nats(nats, login={"user": "u", "password": "p"})) == 1
    with NatsServer(tmp_path / "t", "--auth", "word") as nats:
        sink = open_sink(nats.url + "/app.schema", "word")
        await sink.deliver([event(1)])
        await sink.close()


@pytest.mark.parametrize("url", ["nats://h/a b", "nats://h/a.*", "nats://h/%3e", "redis://h/s?x=1", "redis://h"])
def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(SchemaChangesError):
        open_sink(url)


def test_a_sink_that_was_not_there_yet_gets_all(database: str, tmp_path: Path, cursors: Path) -> None:
    nats, redis = NatsServer(tmp_path / "nats"), RedisServer(tmp_path / "redis")
    with Relay("--to", f"{nats.url}/app.schema", "--to", f"{redis.url}/schema", "--cursors", cursors, database) as relay:
        execute(database, "CREATE TABLE t ()")
        wait_until(lambda: all(sink["problem"] for sink in relay.status()["sinks"]), "two failures")
        time.sleep(0.2)
        with nats, redis:
            wait_until(lambda: all(sink["delivered"] for sink in relay.status()["sinks"]), "a delivery to each")
            assert list(names(asyncio.run(in_nats(nats)))) == list(names(in_redis(redis))) == ["public.t"]
