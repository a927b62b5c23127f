"""A batch never ends within a transaction, nor while the listener reads what it missed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from schema_changes import Batch, listen_batches
from tests.listener.commands import COMMAND
from tests.listener.events import cursor_now
from tests.listener.proxy import Proxy
from tests.support.postgres import Cluster, execute

MANY = "DO $$ BEGIN FOR i IN 1..{} LOOP EXECUTE 'CREATE TABLE t' || i || ' ()'; END LOOP; END $$"


async def batches_until(url: str, last: str, start: Any, **options: Any) -> list[Batch]:
    """Batches up to the one with a table of this name; `start` is called once the listener listens."""
    batches: list[Batch] = []
    loop = asyncio.get_running_loop()
    starting: list[asyncio.Future[None]] = []

    def begin(_: str | None) -> None:
        if not starting:
            starting.append(loop.run_in_executor(None, start))

    async with asyncio.timeout(60), aclosing(listen_batches(url, on_ready=begin, **options)) as events:
        async for batch in events:
            batches.append(batch)
            if any(item.identity == f"public.{last}" for change in batch.changes for item in change.objects):
                break
    await starting[0]
    return batches


def assert_whole(batches: list[Batch]) -> None:
    """No transaction is in two batches."""
    seen: set[int | None] = set()
    for batch in batches:
        txids = {change.txid for change in batch.changes}
        assert not txids & seen
        seen |= txids


@pytest.mark.parametrize("number", [500, 3000])
async def test_one_transaction_is_one_batch(database: str, number: int) -> None:
    batches = await batches_until(database, f"t{number}", lambda: execute(database, MANY.format(number)), quiet=0.05)
    assert [len(batch.changes) for batch in batches] == [number]


@pytest.mark.parametrize("number", [500, 3000])
async def test_one_transaction_that_was_missed_is_one_batch(database: str, number: int) -> None:
    cursor = cursor_now(database)
    execute(database, MANY.format(number))
    batches = await batches_until(database, f"t{number}", lambda: None, quiet=0.001, longest=0.001, cursor=cursor)
    assert [len(batch.changes) for batch in batches] == [number]


async def test_transactions_of_many_writers_are_whole(database: str) -> None:
    def write() -> None:
        def some(writer: int) -> None:
            with psycopg.connect(database, autocommit=True) as connection:
                for turn in range(15):
                    with connection.transaction():
                        for table in range(1 + (turn * 7 + writer) % 30):
                            connection.execute(f"CREATE TABLE w{writer}_{turn}_{table} ()")

        threads = [threading.Thread(target=some, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        execute(database, "CREATE TABLE the_end ()")

    batches = await batches_until(database, "the_end", write, quiet=0.002, longest=0.05)
    assert len(batches) > 5
    assert_whole(batches)
    names = [item.identity for batch in batches for change in batch.changes for item in change.objects]
    expected = sum(1 + (turn * 7 + writer) % 30 for turn in range(15) for writer in range(4)) + 1
    assert len(names) == len(set(names)) == expected


async def test_a_transaction_that_comes_in_pieces_is_whole(cluster: Cluster, database: str) -> None:
    """Its notices arrive with pauses longer than `quiet`."""
    with Proxy(cluster.port) as proxy:
        proxy.rate = 20_000
        url = database.replace(str(cluster.port), str(proxy.port))
        batches = await batches_until(url, "t80", lambda: execute(database, MANY.format(80)), quiet=0.01)
    assert [len(batch.changes) for batch in batches] == [80]


async def test_a_transaction_that_was_announced_in_part_is_whole(database: str) -> None:
    def write() -> None:
        with psycopg.connect(database) as connection:
            for number in range(10):
                connection.execute(f"SET LOCAL schema_notifications.notify = {'on' if number % 3 else 'off'}")
                connection.execute(f"CREATE TABLE t{number} ()")

    batches = await batches_until(database, "t9", write, quiet=0.05)
    assert sorted(item.identity for change in batches[0].changes for item in change.objects) == [f"public.t{n}" for n in range(10)]


def test_the_command_runs_once_for_a_transaction(database: str, tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    process = subprocess.Popen(
        [*COMMAND, "listen", "--exec", f"wc -l >> {counts}; exit 0", database], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert "Listening to" in process.stderr.readline()
        execute(database, MANY.format(2000))
        deadline = time.monotonic() + 60
        while not counts.exists() or not counts.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)  # for a second one
    finally:
        process.terminate()
        process.wait(20)
    assert counts.read_text().split() == ["2000"]


def test_a_batch_has_the_cursor_after_it(database: str) -> None:
    cursor = cursor_now(database)
    execute(database, MANY.format(20))
    code = """
import sys, json
from contextlib import closing
from schema_changes import listen_batches_sync
with closing(listen_batches_sync(sys.argv[1], cursor=sys.argv[2])) as batches:
    batch = next(batches)
    print(json.dumps([len(batch.changes), batch.cursor]))
"""
    done = subprocess.run([sys.executable, "-c", code, database, cursor], capture_output=True, text=True, check=True)
    number, after = json.loads(done.stdout)
    assert number == 20
    execute(database, "CREATE TABLE last ()")
    done = subprocess.run([sys.executable, "-c", code, database, after], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0] == 1
