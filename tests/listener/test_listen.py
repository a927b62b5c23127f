"""The library against a real server: what is delivered, what is refused, what a slow or forgetful consumer gets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from contextlib import aclosing, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from schema_changes import (
    Batch,
    FileCursorStore,
    ListenOptions,
    Reset,
    SchemaChange,
    TableCursorStore,
    listen,
    listen_batches,
    listen_sync,
)
from schema_changes.errors import CannotListen, LoginRefused, NotInstalled, NotPermitted, SchemaChangesError, Unreachable
from tests.listener.events import Event, cursor_now, identities, listening, nothing_more, take
from tests.listener.pgbouncer import PgBouncer
from tests.listener.proxy import Proxy
from tests.support.postgres import Cluster, execute


async def test_a_change_is_delivered_as_it_was_made(database: str) -> None:
    async with listening(database) as queue:
        execute(database, 'CREATE TABLE "Order Items" ()')
        (change,) = await take(queue, 1)
    assert isinstance(change, SchemaChange)
    assert (change.type, change.tag, change.user, change.truncated) == ("ddl_command_end", "CREATE TABLE", "postgres", False)
    assert change.database == database.rpartition("/")[2]
    assert abs(change.timestamp - datetime.now(UTC)) < timedelta(seconds=10)
    assert [(item.action, item.kind, item.schema, item.identity) for item in change.objects] == [
        ("created", "table", "public", 'public."Order Items"')
    ]
    assert json.loads(change.raw)["tag"] == "CREATE TABLE"


async def test_the_log_tells_a_change_as_its_notice_did(database: str) -> None:
    cursor = cursor_now(database)
    async with listening(database) as queue:
        execute(database, "CREATE TABLE t (id int PRIMARY KEY)")
        (live,) = await take(queue, 1)
    async with listening(database, cursor=cursor) as queue:
        (logged,) = await take(queue, 1)
    assert isinstance(live, SchemaChange)
    assert isinstance(logged, SchemaChange)
    # the notice's timestamp is cut to milliseconds
    assert timedelta() <= logged.timestamp - live.timestamp < timedelta(milliseconds=1)
    assert replace(logged, timestamp=live.timestamp, cursor=live.cursor, raw=live.raw) == live
    assert json.loads(logged.raw) == json.loads(live.raw)


async def test_nothing_is_missed_or_repeated_when_going_on_from_the_cursor_of_any_change(database: str) -> None:
    start = cursor_now(database)
    async with listening(database) as queue:
        for number in range(4):
            execute(database, f"CREATE TABLE live{number} ()")
        live = await take(queue, 4)
    execute(database, "CREATE TABLE away1 ()", "CREATE TABLE away2 ()")
    async with listening(database, cursor=start) as queue:
        everything = await take(queue, 6)
        await nothing_more(queue)
    names = [f"public.live{number}" for number in range(4)] + ["public.away1", "public.away2"]
    assert identities(everything) == names
    for events in (live, everything):
        for position, event in enumerate(events, 1):
            async with listening(database, cursor=event.cursor) as queue:
                rest = await take(queue, len(names) - position)
                await nothing_more(queue, 0.1)
            assert identities(rest) == names[position:]


async def test_changes_of_a_transaction_that_commits_late_are_delivered(database: str) -> None:
    start = cursor_now(database)
    async with listening(database) as queue:
        with psycopg.connect(database) as early:
            early.execute("CREATE TABLE early ()")
            execute(database, "CREATE TABLE late ()")
            first = await take(queue, 1)
            early.execute("CREATE TABLE early_too ()")
            early.commit()
        rest = await take(queue, 2)
        await nothing_more(queue)
    # as they committed
    assert identities(first + rest) == ["public.late", "public.early", "public.early_too"]
    async with listening(database, cursor=first[0].cursor) as queue:
        assert identities(await take(queue, 2)) == ["public.early", "public.early_too"]
    async with listening(database, cursor=start) as queue:
        # as they ran
        assert identities(await take(queue, 3)) == ["public.early", "public.late", "public.early_too"]


async def test_a_rolled_back_change_is_not_delivered(database: str) -> None:
    async with listening(database) as queue:
        with psycopg.connect(database) as connection:
            connection.execute("CREATE TABLE never ()")
            connection.rollback()
        execute(database, "CREATE TABLE yes ()")
        assert identities(await take(queue, 1)) == ["public.yes"]
        await nothing_more(queue)


async def test_a_truncated_notice_is_completed_from_the_log(database: str) -> None:
    columns = ", ".join(f"c{number} int UNIQUE" for number in range(150))
    async with listening(database) as queue, listening(database, catch_up=False) as bare:
        execute(database, f"CREATE TABLE wide ({columns})")
        (change,) = await take(queue, 1)
        (notice,) = await take(bare, 1)
        await nothing_more(queue)
    assert isinstance(notice, SchemaChange)
    assert isinstance(change, SchemaChange)
    assert (notice.truncated, notice.objects) == (True, ())
    assert (change.truncated, len(change.objects)) == (False, 151)


async def test_what_even_the_log_has_not_in_full_is_truncated(database: str) -> None:
    """Of more than 5,000 objects."""
    create = "DO $$ BEGIN FOR n IN 1..5000 LOOP EXECUTE format('CREATE DOMAIN s.d%s AS int', n); END LOOP; END $$"
    execute(database, f"SET schema_notifications.log = off; SET schema_notifications.notify = off; CREATE SCHEMA s; {create}")
    async with listening(database) as queue:
        execute(database, "DROP SCHEMA s CASCADE", "CREATE TABLE t ()")
        change, _ = await take(queue, 2)
        await nothing_more(queue)
    assert isinstance(change, SchemaChange)
    assert (change.tag, change.truncated, len(change.objects)) == ("DROP SCHEMA", True, 5000)


async def test_what_was_logged_and_not_announced_comes_with_the_heartbeat(database: str) -> None:
    async with listening(database, heartbeat=0.3) as queue:
        execute(database, "SET schema_notifications.notify = off", "CREATE TABLE silent ()")
        assert identities(await take(queue, 1, 5)) == ["public.silent"]
        await nothing_more(queue)


async def test_what_was_announced_and_not_logged_is_delivered_and_has_no_id(database: str) -> None:
    async with listening(database) as queue:
        execute(database, "SET schema_notifications.log = off", "CREATE TABLE unlogged ()")
        (change,) = await take(queue, 1)
        await nothing_more(queue)
    assert isinstance(change, SchemaChange)
    assert (change.id, change.tag) == (None, "CREATE TABLE")
    assert change.cursor is not None


def forged(number: int, txid: int = 2**40) -> str:
    payload = {
        "type": "ddl_command_end",
        "tag": "FORGED",
        "timestamp": "2025-11-07 12:34:56.789+00",
        "id": number,
        "txid": str(txid),
    }
    return f"NOTIFY schema_changed, '{json.dumps(payload)}'"


async def test_a_forged_notice_hides_no_real_change(database: str) -> None:
    async with listening(database, heartbeat=0.5) as queue:
        # the ids that the next changes will have
        execute(database, *(forged(number) for number in range(1, 20)))
        execute(database, *(f"CREATE TABLE t{number} ()" for number in range(5)))
        await asyncio.sleep(1.5)
        events = [queue.get_nowait() for _ in range(queue.qsize())]
    real = [event for event in events if isinstance(event, SchemaChange) and event.tag != "FORGED"]
    assert len(real) < len(events)  # which verify=True keeps away
    assert sorted(identities(list(real))) == [f"public.t{number}" for number in range(5)]


async def test_a_forged_notice_does_nothing_to_a_listener_that_verifies(database: str) -> None:
    async with listening(database, verify=True) as queue:
        execute(database, forged(1), forged(2, 5), "CREATE TABLE t ()", forged(1))
        payload = json.dumps({"type": "ddl_command_end", "tag": "FORGED", "timestamp": "2025-11-07 12:34:56.789+00"})
        execute(database, f"NOTIFY schema_changed, '{payload}'")
        assert identities(await take(queue, 1)) == ["public.t"]
        await nothing_more(queue)


async def test_a_malformed_notice_is_reported_and_skipped(database: str, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(database) as queue:
        execute(database, "NOTIFY schema_changed, 'hello'", "NOTIFY schema_changed", "CREATE TABLE t ()")
        assert identities(await take(queue, 1)) == ["public.t"]
    assert sum("malformed notice" in record.getMessage() for record in caplog.records) == 2


async def test_a_cursor_that_the_server_cannot_follow_gives_a_reset_and_goes_on(database: str) -> None:
    for cursor in ("nonsense", "", "1-nonsense", "1-1-1-1-3.3.", "1-1-1-1-3.3.~7-x", "2-of-a-later-version"):
        async with listening(database, cursor=cursor) as queue:
            (reset,) = await take(queue, 1)
            assert isinstance(reset, Reset)
            assert "cursor" in reset.reason
            execute(database, "CREATE TABLE t ()", "DROP TABLE t")
            assert identities(await take(queue, 2)) == ["public.t", "public.t"]
    async with listening(database, cursor=reset.cursor) as queue:
        assert identities(await take(queue, 2)) == ["public.t", "public.t"]


async def test_pruned_history_gives_a_reset(cluster: Cluster, database: str) -> None:
    cursor = cursor_now(database)
    name = database.rpartition("/")[2]
    execute(database, f"ALTER DATABASE {name} SET schema_notifications.retention_rows = 10")
    execute(
        database,
        *(f"COMMENT ON SCHEMA public IS '{number}'" for number in range(30)),
        "SELECT schema_notifications.prune_now()",
    )
    async with listening(database, cursor=cursor) as queue:
        (reset,) = await take(queue, 1)
    assert isinstance(reset, Reset)
    assert "retention" in reset.reason


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schemas": ["app_*"]}, ["app_one", "app_one.t", "app_one.t_pkey", "app_one.v"]),
        ({"schemas": ["app_one"], "kinds": ["view"]}, ["app_one.v"]),
        ({"kinds": {"index"}}, ["app_one.t", "app_one.t_pkey"]),
        ({"tags": ["create v*"]}, ["app_one.v"]),
    ],
)
async def test_filters(database: str, options: ListenOptions, expected: list[str]) -> None:
    cursor = cursor_now(database)
    execute(
        database,
        "CREATE SCHEMA app_one",
        "CREATE TABLE app_one.t (id int PRIMARY KEY)",
        "CREATE VIEW app_one.v AS SELECT 1",
        "CREATE TABLE public.t ()",
    )
    async with listening(database, cursor=cursor, **options) as queue:
        await asyncio.sleep(0.2)
        assert identities([queue.get_nowait() for _ in range(queue.qsize())]) == expected


async def test_a_migration_comes_as_one_batch(database: str) -> None:
    async with aclosing(listen_batches(database, quiet=0.3, cursor=cursor_now(database))) as batches:
        first = asyncio.create_task(anext(batches))
        await asyncio.sleep(0.2)
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            for number in range(10):
                await connection.execute(f"CREATE TABLE t{number} ()")
                await asyncio.sleep(0.02)
            batch = await first
            assert isinstance(batch, Batch)
            assert [change.objects[0].identity for change in batch.changes] == [f"public.t{number}" for number in range(10)]
            assert batch.reset is None
            await connection.execute("CREATE TABLE later ()")
        second = await anext(batches)
        assert len(second.events) == 1


async def test_a_batch_ends_in_a_stream_that_never_rests(database: str) -> None:
    async with aclosing(listen_batches(database, quiet=1, longest=0.5, cursor=cursor_now(database))) as batches:
        task = asyncio.create_task(anext(batches))
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            for number in range(100):
                await connection.execute(f"COMMENT ON SCHEMA public IS '{number}'")
                await asyncio.sleep(0.02)
                if task.done():
                    break
        assert task.done()
        assert 5 < len(task.result().changes) < 60


async def test_the_file_keeps_the_place_once_the_consumer_comes_back(database: str, tmp_path: Path) -> None:
    store = FileCursorStore(tmp_path / "cursor")
    async with listening(database, store=store):
        pass
    assert store.load() is not None  # from now: also what comes before the first change is not missed
    execute(database, "CREATE TABLE a ()", "CREATE TABLE b ()")
    async with aclosing(listen(database, store=store)) as events:
        assert identities([await anext(events)]) == ["public.a"]
        # died here, a not handled
    async with aclosing(listen(database, store=store)) as events:
        assert identities([await anext(events), await anext(events)]) == ["public.a", "public.b"]
    async with listening(database, store=store) as queue:
        assert identities(await take(queue, 1)) == ["public.b"]
    async with listening(database, store=store) as queue:
        await nothing_more(queue)
    assert os.listdir(tmp_path) == ["cursor"]


async def test_the_cursor_passes_what_the_filters_hold_back(database: str, tmp_path: Path) -> None:
    store = FileCursorStore(tmp_path / "cursor")
    async with listening(database, store=store, tags=["DROP *"]) as queue:
        execute(database, "CREATE TABLE a ()")
        await nothing_more(queue)
    async with listening(database, store=store) as queue:
        await nothing_more(queue)


async def test_the_table_keeps_a_cursor_for_each_name(database: str) -> None:
    one, two = TableCursorStore(database, "one"), TableCursorStore(database, "two", table="schema_changes_cursor")
    assert one.load() is None
    one.save("1-a")
    one.save("1-b")
    two.save("1-c")
    assert (one.load(), two.load()) == ("1-b", "1-c")
    async with listening(database, store=TableCursorStore(database, "three")):
        await asyncio.sleep(0.1)
    assert str(TableCursorStore(database, "three").load()).startswith("2-")


async def test_a_store_that_fails_is_told_whatever_its_error(database: str) -> None:
    class Slow:
        def load(self) -> None:
            return None

        def save(self, cursor: str) -> None:
            raise TimeoutError(cursor)  # which asyncio's own timeouts raise too

    async with aclosing(listen(database, store=Slow())) as events:
        with pytest.raises(TimeoutError):
            await anext(events)


def change_much(url: str) -> None:
    """20,000 changes, until the queue is empty; beside a listener that does not read it stays filled (5,000 fit in the sockets)."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "DO $$ BEGIN FOR i IN 1..20000 LOOP EXECUTE format('COMMENT ON COLUMN first.%I IS %L', 'tableoid', i); "
            "PERFORM pg_notify('other', repeat('x', 1000) || i); END LOOP; END $$"
        )
        connection.execute("CREATE TABLE last ()")
        deadline = time.monotonic() + 10
        while connection.execute("SELECT pg_notification_queue_usage()").fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def assert_all_of_much(got: list[Event]) -> None:
    assert identities(got)[-1] == "public.last"
    assert len({event.id for event in got if isinstance(event, SchemaChange)}) == 20_001


async def test_a_slow_consumer_gets_everything_and_does_not_hold_the_queue(database: str) -> None:
    start = cursor_now(database)
    async with aclosing(listen(database, cursor=start)) as events:
        execute(database, "CREATE TABLE first ()")
        await anext(events)
        await asyncio.to_thread(change_much, database)  # what the consumer is busy with meanwhile
        async with asyncio.timeout(30):
            assert_all_of_much([await anext(events) for _ in range(20_001)])
    async with aclosing(listen_batches(database, cursor=start, longest=60)) as batches:
        assert len((await anext(batches)).events) == 20_001  # more than a batch may have, but for the transaction


def test_a_blocking_consumer_of_listen_sync_gets_everything_and_does_not_hold_the_queue(database: str) -> None:
    with closing(listen_sync(database, cursor=cursor_now(database))) as events:
        execute(database, "CREATE TABLE first ()")
        next(events)
        change_much(database)
        assert_all_of_much([next(events) for _ in range(20_001)])


def test_listen_sync_is_a_plain_iterator(database: str) -> None:
    cursor = cursor_now(database)
    execute(database, "CREATE TABLE a ()", "CREATE TABLE b ()")
    with closing(listen_sync(database, cursor=cursor)) as events:
        assert identities([next(events), next(events)]) == ["public.a", "public.b"]
        execute(database, "CREATE TABLE c ()")
        assert identities([next(events)]) == ["public.c"]


def test_ctrl_c_while_the_next_event_is_asked_for_ends_it(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment when the question is on its way to the other thread, and this one does not know of it yet."""
    ask = asyncio.run_coroutine_threadsafe

    def ask_and_be_interrupted(*arguments: Any) -> Any:
        future = ask(*arguments)
        if arguments[0].__name__ == "_next":
            raise KeyboardInterrupt
        return future

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", ask_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(listen_sync(database))


def test_listen_sync_raises_what_listen_raises(cluster: Cluster) -> None:
    with pytest.raises(NotInstalled):
        next(listen_sync(cluster.url("postgres")))


async def start(url: str, **options: Any) -> None:
    async with asyncio.timeout(15), aclosing(listen(url, **options)) as events:
        await anext(events)


async def test_refuses_a_database_without_the_extension(cluster: Cluster) -> None:
    with pytest.raises(NotInstalled, match="CREATE EXTENSION schema_notifications"):
        await start(cluster.url("postgres"))


async def test_refuses_an_unknown_database_role_and_port(cluster: Cluster) -> None:
    with pytest.raises(LoginRefused, match="does not exist"):
        await start(cluster.url("nowhere"))
    with pytest.raises(LoginRefused, match="does not exist"):
        await start(cluster.url(user="nobody_known"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="Connection refused"):
            await start(cluster.url(port=closed.getsockname()[1]))


async def test_refuses_a_role_without_rights_and_serves_it_without_catching_up(cluster: Cluster, database: str) -> None:
    role = f"reader_{database.rpartition('_')[2]}"
    cluster.execute(f"CREATE ROLE {role} LOGIN")
    theirs = database.replace("postgres@", f"{role}@")
    with pytest.raises(NotPermitted, match=f'GRANT USAGE ON SCHEMA schema_notifications TO "{role}"'):
        await start(theirs)
    async with listening(theirs, catch_up=False) as queue:
        execute(database, "CREATE TABLE t ()")
        assert identities(await take(queue, 1)) == ["public.t"]
    execute(
        database,
        f"GRANT USAGE ON SCHEMA schema_notifications TO {role}",
        f"GRANT EXECUTE ON FUNCTION schema_notifications.changes_since TO {role}",
    )
    async with listening(theirs) as queue:
        execute(database, "CREATE TABLE u ()")
        assert identities(await take(queue, 1)) == ["public.u"]


async def test_refuses_a_standby_and_resets_when_what_it_told_is_lost() -> None:
    with Cluster() as primary, Proxy(primary.port) as proxy:
        primary.create_database("app")
        standby = Cluster()
        subprocess.run(  # noqa: ASYNC221
            [standby.bin / "pg_basebackup", "-D", standby.data, "-R", "-X", "fetch", "-c", "fast", "-d", primary.url()],
            check=True,
            user=standby.user,
            cwd="/",
        )
        with standby:
            with pytest.raises(CannotListen, match="standby"):
                await start(standby.url("app"))
            async with listening(primary.url("app", port=proxy.port), backoff=(0.05, 0.2)) as queue:
                standby.execute("SELECT pg_promote()")
                execute(primary.url("app"), "CREATE TABLE lost ()")
                await take(queue, 1)
                primary.kill()
                proxy.target = standby.port
                (reset,) = await take(queue, 1)
                assert isinstance(reset, Reset)
                assert "timeline" in reset.reason
                execute(standby.url("app"), "CREATE TABLE after ()")
                assert identities(await take(queue, 1)) == ["public.after"]


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_refuses_a_pool_of_transactions_and_serves_one_of_sessions(cluster: Cluster, database: str, mode: str) -> None:
    pool = PgBouncer(cluster, mode)
    with pool:
        pooled = database.replace(str(cluster.port), str(pool.port))
        if mode == "transaction":
            with pytest.raises(CannotListen, match="pools transactions"):
                await start(pooled)
        else:
            async with listening(pooled) as queue:
                execute(database, "CREATE TABLE t ()")
                assert identities(await take(queue, 1)) == ["public.t"]


async def test_refuses_options_that_contradict(database: str) -> None:
    with pytest.raises(SchemaChangesError, match="verify"):
        await start(database, verify=True, catch_up=False)


async def test_a_half_open_connection_is_found_within_seconds(
    cluster: Cluster, database: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(database.replace(str(cluster.port), str(proxy.port)), heartbeat=0.5) as queue:
        proxy.freeze()
        execute(database, "CREATE TABLE missed ()")
        await nothing_more(queue, 0.2)
        found = time.monotonic()
        async with asyncio.timeout(10):
            while not any("Lost" in record.getMessage() for record in caplog.records):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert time.monotonic() - found < 5
        proxy.thaw()
        assert identities(await take(queue, 1, 5)) == ["public.missed"]
        await nothing_more(queue)


async def test_waits_between_attempts_while_the_server_is_away(
    cluster: Cluster, database: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(database.replace(str(cluster.port), str(proxy.port)), backoff=(0.01, 0.04)) as queue:
        proxy.target = 1
        proxy.cut()
        waits: list[float] = []
        async with asyncio.timeout(10):
            while len(waits) < 10:
                await asyncio.sleep(0.01)
                waits = [record.args[1] for record in caplog.records if "Trying again" in record.msg]  # type: ignore[index,misc]
        assert 0.005 <= min(waits) <= max(waits) <= 0.04
        assert len(set(waits)) == len(waits)
        proxy.target = cluster.port
        execute(database, "CREATE TABLE t ()")
        assert identities(await take(queue, 1)) == ["public.t"]


async def test_a_server_that_refuses_when_it_is_back_ends_it(cluster: Cluster, database: str) -> None:
    role = f"leaver_{database.rpartition('_')[2]}"
    cluster.execute(f"CREATE ROLE {role} LOGIN")
    async with aclosing(listen(database.replace("postgres@", f"{role}@"), catch_up=False, backoff=(0.01, 0.1))) as events:
        task = asyncio.create_task(anext(events))
        sessions = f"SELECT pid FROM pg_stat_activity WHERE usename = '{role}' AND query LIKE 'LISTEN%'"
        async with asyncio.timeout(10):
            while not cluster.execute(sessions):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        cluster.execute(f"ALTER ROLE {role} NOLOGIN; SELECT pg_terminate_backend(pid) FROM ({sessions}) AS theirs")
        with pytest.raises(LoginRefused, match="not permitted to log in"):
            await asyncio.wait_for(task, 10)


async def test_without_catching_up_a_lost_connection_is_told_by_a_reset(cluster: Cluster, database: str, proxy: Proxy) -> None:
    async with listening(database.replace(str(cluster.port), str(proxy.port)), catch_up=False) as queue:
        proxy.cut()
        (reset,) = await take(queue, 1)
        assert isinstance(reset, Reset)
        assert reset.cursor is None
        execute(database, "CREATE TABLE t ()")
        assert identities(await take(queue, 1)) == ["public.t"]


async def test_ends_when_the_extension_is_dropped(database: str) -> None:
    async with aclosing(listen(database, heartbeat=0.3)) as events:
        task = asyncio.create_task(anext(events))
        await asyncio.sleep(0.3)
        execute(database, "DROP EXTENSION schema_notifications")
        with pytest.raises(NotInstalled):
            async with asyncio.timeout(10):
                while True:
                    await task
                    task = asyncio.create_task(anext(events))
