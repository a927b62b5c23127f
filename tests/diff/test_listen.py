"""Differences with the batches of a listener, across downtimes and resets too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from schema_changes import Batch, Reset, SchemaChangesError, listen, listen_batches
from schema_changes.diff import FilePictureStore, TablePictureStore, snapshot
from schema_changes.diff.store import PictureStore
from schema_changes.listener import ListenOptions
from tests.support.postgres import Cluster, execute


def told(batch: Batch) -> list[tuple[str, str, str]]:
    return [(difference.action, difference.kind, difference.identity) for difference in batch.differences]


async def one_batch(database: str, *statements: str, **options: object) -> Batch:
    """The first batch of a listener, which is ended after it was handled.  The statements run when it listens."""
    ready = asyncio.Event()
    listener = listen_batches(database, diff=True, quiet=0.1, on_ready=lambda _: ready.set(), **options)  # type: ignore[arg-type]
    first = asyncio.ensure_future(anext(listener))
    if statements:
        await asyncio.wait_for(ready.wait(), 10)
        await asyncio.to_thread(execute, database, *statements)
    batch = await asyncio.wait_for(first, 20)
    following = asyncio.ensure_future(anext(listener))  # which says that the batch was handled
    store = options.get("store")
    if isinstance(store, PictureStore):
        async with asyncio.timeout(10):
            while store._staged is None or store._saved is not store._staged.objects:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    following.cancel()
    await asyncio.wait([following])
    await listener.aclose()
    return batch


async def test_each_batch_has_its_differences(database: str) -> None:
    execute(database, "CREATE TABLE orders (id integer)")
    ready = asyncio.Event()
    listener = listen_batches(database, diff=True, quiet=0.1, on_ready=lambda _: ready.set())
    first = asyncio.ensure_future(anext(listener))
    await asyncio.wait_for(ready.wait(), 10)
    await asyncio.to_thread(execute, database, "ALTER TABLE orders ADD qty integer NOT NULL DEFAULT 0")
    batch = await first
    assert [str(difference) for difference in batch.differences] == ["+ column public.orders.qty integer not null default 0"]
    assert [change.tag for change in batch.changes] == ["ALTER TABLE"]
    await asyncio.to_thread(execute, database, "ALTER TABLE orders RENAME qty TO quantity", "CREATE INDEX i ON orders (quantity)")
    batch = await anext(listener)
    assert told(batch) == [("renamed", "column", "public.orders.quantity"), ("added", "index", "public.orders.i")]
    assert len(batch.changes) == 2
    await listener.aclose()


async def test_without_diff_nothing_is_read(database: str) -> None:
    listener = listen_batches(database, quiet=0.1)
    first = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0.5)
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'schema_changes%'"
    )
    with psycopg.connect(database) as connection:
        assert connection.execute(sessions).fetchone() == (1,)
    first.cancel()
    await asyncio.wait([first])
    await listener.aclose()


async def test_a_difference_belongs_to_a_batch(database: str) -> None:
    with pytest.raises(SchemaChangesError, match="ask listen_batches for diff=True"):
        await anext(listen(database, diff=True))  # type: ignore[call-arg]


StoreOf = Callable[[], PictureStore]


@pytest.fixture(params=["file", "table"])
def store_of(request: pytest.FixtureRequest, cluster: Cluster, database: str, tmp_path: Path) -> StoreOf:
    if request.param == "file":
        return lambda: FilePictureStore(tmp_path / "picture")
    elsewhere = cluster.create_database(database.rpartition("/")[2] + "_state", extension=False)
    return lambda: TablePictureStore(elsewhere, "test")


async def test_a_downtime_is_told_exactly(database: str, store_of: StoreOf) -> None:
    await one_batch(database, "CREATE TABLE t (a integer, b text)", store=store_of())
    execute(database, "ALTER TABLE t RENAME TO renamed", "ALTER TABLE renamed DROP b", "CREATE VIEW v AS SELECT a FROM renamed")
    batch = await one_batch(database, store=store_of())
    assert [change.tag for change in batch.changes] == ["ALTER TABLE", "ALTER TABLE", "CREATE VIEW"]
    assert told(batch) == [
        ("renamed", "table", "public.renamed"),
        ("removed", "column", "public.renamed.b"),
        ("added", "view", "public.v"),
        ("added", "column", "public.v.a"),
    ]
    # nothing is told twice
    batch = await one_batch(database, "DROP VIEW v", store=store_of())
    assert told(batch) == [("removed", "view", "public.v"), ("removed", "column", "public.v.a")]
    store = store_of()
    store.load()
    assert store.picture == await asyncio.to_thread(snapshot, database)


async def test_what_no_event_tells_is_told_at_the_start(cluster: Cluster, database: str, store_of: StoreOf) -> None:
    await one_batch(database, "CREATE TABLE t (a integer)", store=store_of())
    execute(database, "BEGIN; SET LOCAL schema_notifications.log = off; SET LOCAL schema_notifications.notify = off; "
            "ALTER TABLE t ADD b integer; COMMIT")  # fmt: skip
    batch = await one_batch(database, store=store_of())
    assert batch.events == () and batch.cursor is None
    assert told(batch) == [("added", "column", "public.t.b")]


async def test_after_a_reset_it_is_what_really_differs(cluster: Cluster, database: str, store_of: StoreOf) -> None:
    await one_batch(database, "CREATE TABLE t (a integer)", "CREATE TABLE u (a integer)", store=store_of())
    # the same schema, but for a column, in another database: as after a restore
    other = cluster.create_database(database.rpartition("/")[2] + "_restored")
    execute(other, "CREATE TABLE spare ()", "DROP TABLE spare", "CREATE TABLE u (a integer)", "CREATE TABLE t (a integer, b text)")
    batch = await one_batch(other, store=store_of())
    assert isinstance(batch.events[0], Reset)
    assert told(batch) == [("added", "column", "public.t.b")]


async def test_a_consumer_that_dies_is_told_again(database: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    await one_batch(database, "CREATE TABLE t (a integer)", store=FilePictureStore(path))
    execute(database, "ALTER TABLE t ADD b integer")
    for _ in range(2):
        listener = listen_batches(database, diff=True, quiet=0.1, store=FilePictureStore(path))
        batch = await asyncio.wait_for(anext(listener), 20)
        assert told(batch) == [("added", "column", "public.t.b")]
        await listener.aclose()
    # a line that was not written to its end is as good as none
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"cursor": "2-')
    store = FilePictureStore(path)
    assert store.load() is not None and store.picture is not None


async def test_a_lost_server_loses_no_difference(tmp_path: Path) -> None:
    with Cluster() as cluster:
        database = cluster.create_database("app")
        ready: asyncio.Queue[object] = asyncio.Queue()
        options: ListenOptions = {"on_ready": ready.put_nowait, "backoff": (0.1, 0.3), "heartbeat": 1}
        listener = listen_batches(database, diff=True, quiet=0.1, **options)
        first = asyncio.ensure_future(anext(listener))
        await asyncio.wait_for(ready.get(), 10)
        cluster.settings["fsync"] = "on"
        execute(database, "CREATE TABLE t (a integer)")
        assert told(await first)[0] == ("added", "table", "public.t")
        cluster.kill()
        cluster.start()
        execute(database, "ALTER TABLE t ADD b integer")
        batch = await asyncio.wait_for(anext(listener), 30)
        assert told(batch) == [("added", "column", "public.t.b")]
        await listener.aclose()


async def test_only_what_is_in_the_schemas_asked_for(database: str) -> None:
    execute(database, 'CREATE SCHEMA "App"', "CREATE SCHEMA other")
    batch = await one_batch(database, "CREATE TABLE other.t (a integer)", 'CREATE TABLE "App".t (a integer)', schemas=["App"])
    assert {difference.schema for difference in batch.differences} == {'"App"'}


def test_the_file_stays_short(tmp_path: Path, user: psycopg.Connection, database: str) -> None:
    """A line for each save, until these are more than the picture."""
    path = tmp_path / "picture"
    store = FilePictureStore(path)
    assert store.load() is None
    store.stage(snapshot(database))
    store.save("2-0")
    size = path.stat().st_size
    for number in range(3000):
        store.save(f"2-{number}")
    assert size < path.stat().st_size < size + 150_000
    again = FilePictureStore(path)
    assert again.load() == "2-2999"
    assert again.picture == store.picture
    json.loads(path.read_text().splitlines()[-1])
