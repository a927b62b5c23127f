"""What others put into notices and into the log ends no listener and hides nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import aclosing
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schema_changes import Reset, SchemaChange, history, listen
from schema_changes.event import MalformedNotice, from_log_row, parse_notice
from tests.listener.events import cursor_now, listening
from tests.support.postgres import execute

TIME = "2025-11-07 12:34:56.789+00"


def notify(url: str, payload: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_notify('schema_changed', %s)", [payload])


def notice(**fields: Any) -> str:
    return json.dumps({"type": "ddl_command_end", "tag": "CREATE TABLE", "timestamp": TIME} | fields)


MALFORMED = {
    "objects of numbers": notice(objects=[1]),
    "half a surrogate pair": notice(tag="\ud800"),
    "half a surrogate pair in a name": notice(objects=[{"action": "created", "kind": "table", "identity": "\udfff"}]),
    "no year in UTC": notice(timestamp="0001-01-01 00:00:00+23:59"),
    "no year in UTC either": notice(timestamp="9999-12-31 23:59:59-23:59"),
    "a negative id": notice(id=-5, txid="7"),
    "an id beyond bigint": notice(id=2**63, txid="7"),
    "a transaction beyond xid8": notice(id=5, txid=str(2**64)),
    "a negative transaction": notice(id=5, txid=-1),
    "deep JSON": "[" * 3000,
    "deep JSON inside": '{"type":"ddl_command_end","x":' + "[" * 3500 + "]" * 3500 + "}",
    "8 kB of anything": "x" * 7999,
    "many digits": '{"id":' + "9" * 7000 + "}",
    "nothing": "",
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_notice_is_logged_and_skipped(database: str, caplog: pytest.LogCaptureFixture, payload: str) -> None:
    async with listening(database) as queue:
        notify(database, payload)
        execute(database, "CREATE TABLE t ()")
        async with asyncio.timeout(10):
            change = await queue.get()
        assert isinstance(change, SchemaChange)
        assert [item.identity for item in change.objects] == ["public.t"]
        assert queue.empty()
    assert sum("malformed notice" in record.getMessage() for record in caplog.records) == 1
    async with listening(database, cursor=change.cursor) as queue:
        execute(database, "CREATE TABLE u ()")
        async with asyncio.timeout(10):
            change = await queue.get()
        assert isinstance(change, SchemaChange)
        assert [item.identity for item in change.objects] == ["public.u"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["type", "tag", "timestamp", "id", "database", "user", "txid", "objects", "truncated"]
likely = {
    "type": st.just("ddl_command_end"),
    "tag": st.sampled_from(["CREATE TABLE", "\ud800", "\x9b", ""]),
    "timestamp": st.sampled_from([TIME, "0001-01-01 00:00:00+23:59", "9999-12-31 23:59:59-01", "infinity", "x"]),
    "id": st.integers(-10, 2**70),
    "txid": st.integers(-10, 2**70).map(str) | st.integers(),
    "objects": st.lists(
        st.dictionaries(st.sampled_from(["action", "kind", "schema", "identity"]), json_values, max_size=4) | json_values,
        max_size=3,
    ),
}


@given(
    st.dictionaries(st.sampled_from(KEYS), json_values)
    | st.fixed_dictionaries({}, optional={key: likely.get(key, json_values) | json_values for key in KEYS})
    | st.fixed_dictionaries(likely)
)
def test_a_payload_is_read_or_malformed_and_what_is_read_can_be_told(fields: dict[str, Any]) -> None:
    from schema_changes.__main__ import _json_line, _readable

    try:
        change = parse_notice(json.dumps(fields))
    except MalformedNotice as error:
        str(error).encode()
        return
    assert json.loads(_json_line(change))["tag"] == change.tag
    _json_line(change).encode("ascii")
    _readable(change).encode()


@given(
    st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1)),
    st.sampled_from(
        ["2025-11-07 12:34:56.78+00", "infinity", "-infinity", "0044-03-15 00:00:00+00 BC", "294276-12-31 23:59:59+00"]
    ),
    st.none() | st.text(st.characters(codec="utf-8")).map(str.encode) | st.binary(),
    st.text(st.characters(codec="utf-8")).map(str.encode) | st.binary(),
    st.none() | json_values.map(json.dumps) | st.text() | st.just("[" * 5000),
)
@example((1, 2), "infinity", b"\xff", b"", "[1]")
def test_every_log_row_is_an_event(
    row: tuple[int, int], changed_at: str, user: bytes | None, tag: bytes, objects: str | None
) -> None:
    from schema_changes.__main__ import _json_line, _readable

    listed = None if objects is None else objects.encode(errors="replace")
    change = from_log_row([str(row[0]), str(row[1]), changed_at, user, tag, listed], database="app")
    assert (change.id, change.txid) == row
    _json_line(change).encode("ascii")
    _readable(change).encode()


async def test_a_log_row_that_cannot_be_read_in_full_is_delivered_with_what_can_be(database: str) -> None:
    start = cursor_now(database)
    with psycopg.connect(database, autocommit=True) as connection:
        for changed_at, objects in (
            ("now", "[1]"),
            ("infinity", "[]"),
            ("0044-03-15 BC", "[]"),
            ("294276-12-31", "[]"),
            ("now", "{}"),
            ("now", '[{"action": "created", "kind": "table", "schema": null, "identity": "public.seen"}, {"action": 7}]'),
            ("now", "[" * 3000 + "]" * 3000),
        ):
            connection.execute(
                "INSERT INTO schema_notifications.log (id, tag, changed_at, objects) "
                "VALUES (pg_current_wal_insert_lsn() - '0/0', 'POISON', %s, %s)",
                [changed_at, objects],
            )
    execute(database, "CREATE TABLE after ()")
    async with listening(database, cursor=start) as queue:
        async with asyncio.timeout(10):
            got = [await queue.get() for _ in range(8)]
        assert queue.empty()
    changes = [one for one in got if isinstance(one, SchemaChange)]
    assert sorted((one.tag, one.truncated) for one in changes) == [("CREATE TABLE", False), *[("POISON", True)] * 7]
    assert sorted(item.identity for one in changes for item in one.objects) == ["public.after", "public.seen"]
    for one in changes:
        assert one.cursor is not None
        assert len(history(database, since=one.cursor)) >= 0
    assert len(history(database)) == 8
    done = subprocess.run(  # noqa: ASYNC221
        [sys.executable, "-m", "schema_changes", "history", "--json", database], capture_output=True, text=True, check=True
    )
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 8


@settings(max_examples=30)
@given(st.text(max_size=40) | st.sampled_from(["\0\0\0", "2-\0", "1-1-1-1-1-1.1.~1-2", "2-1-1-1~zz.1.1", "@", "~", "2-x~@@"]))
@example("\0" * 100)
def test_whatever_a_cursor_holds_the_answer_is_a_reset(database: str, cursor: str) -> None:
    async def first() -> SchemaChange | Reset:
        async with asyncio.timeout(10), aclosing(listen(database, cursor=cursor)) as events:
            return await anext(events)

    event = asyncio.run(first())
    assert isinstance(event, Reset)
    assert "cursor" in event.reason
