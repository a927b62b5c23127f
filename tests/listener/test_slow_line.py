"""A slow line gets there: the deadline is on progress, and after a cut less is asked for."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from schema_changes import FileCursorStore, SchemaChange, listen
from tests.listener.events import cursor_now
from tests.listener.proxy import Proxy
from tests.support.postgres import Cluster, execute

# about 600 bytes a row
MISSED = """
DO $$ BEGIN EXECUTE format('CREATE TABLE %I ()', repeat('t', 60));
FOR i IN 1..{} LOOP EXECUTE format('COMMENT ON TABLE %I IS %L', repeat('t', 60), i); {} END LOOP; END $$
"""


def miss(url: str, number: int, *, together: bool) -> str:
    """Changes since the cursor that is returned, in one transaction or in one each."""
    cursor = cursor_now(url)
    if together:
        execute(url, MISSED.format(number, ""))
    else:
        execute(
            url,
            "CREATE PROCEDURE miss() LANGUAGE plpgsql AS $p$" + MISSED.format(number, "COMMIT;")[3:].replace("$$", "") + "$p$",
            "CALL miss()",
        )
    return cursor


@pytest.mark.parametrize("together", [True, False], ids=["in one transaction", "in one each"])
async def test_more_than_a_deadline_s_worth_is_delivered(cluster: Cluster, database: str, tmp_path: Path, together: bool) -> None:
    cursor = miss(database, 500, together=together)
    store = FileCursorStore(tmp_path / "cursor")
    store.save(cursor)
    with Proxy(cluster.port) as proxy:
        proxy.rate = 60_000
        started = time.monotonic()
        saved: set[str | None] = set()
        count = 0
        url = database.replace(str(cluster.port), str(proxy.port))
        async with asyncio.timeout(60), aclosing(listen(url, store=store, heartbeat=0.5)) as events:
            async for event in events:
                assert isinstance(event, SchemaChange)
                saved.add(store.load())
                count += event.tag == "COMMENT"
                if count == 500:
                    break
        assert time.monotonic() - started > 3  # the deadline is 2
        assert proxy.accepted == 1
        assert len(saved) > 250


async def test_after_a_cut_less_is_asked_for(cluster: Cluster, database: str) -> None:
    cursor = miss(database, 1000, together=False)
    with Proxy(cluster.port) as proxy:
        proxy.most = 100_000
        count = 0
        url = database.replace(str(cluster.port), str(proxy.port))
        async with asyncio.timeout(60), aclosing(listen(url, cursor=cursor, backoff=(0.01, 0.1))) as events:
            async for event in events:
                assert isinstance(event, SchemaChange)
                count += event.tag == "COMMENT"
                if count == 1000:
                    break
        assert proxy.accepted > 3


@pytest.mark.soak
async def test_a_hundred_thousand_at_30_kb_a_second_make_steady_progress(cluster: Cluster, database: str, tmp_path: Path) -> None:
    cursor = miss(database, 100_000, together=False)
    store = FileCursorStore(tmp_path / "cursor")
    store.save(cursor)
    with Proxy(cluster.port) as proxy:
        proxy.rate = 30_000
        url = database.replace(str(cluster.port), str(proxy.port))
        count, longest, last = 0, 0.0, time.monotonic()
        async with aclosing(listen(url, store=store)) as events:
            async for event in events:
                assert isinstance(event, SchemaChange)
                count += 1
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
                if count == 5000:
                    break
        print(f"longest pause {longest:.1f} s")
        assert longest < 20
        assert store.load() != cursor
