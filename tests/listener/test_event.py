"""The parser, with everything that a notice may hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_changes.cursor import Position
from schema_changes.event import ChangedObject, MalformedNotice, SchemaChange, parse_notice
from schema_changes.listener import _delay, _Feed

text = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.fixed_dictionaries(
    {"action": st.sampled_from(["created", "altered", "dropped"]), "kind": text, "schema": st.none() | text, "identity": text}
)
notices = st.fixed_dictionaries(
    {
        "type": st.just("ddl_command_end"),
        "tag": text,
        "timestamp": st.datetimes(timezones=st.just(UTC)).map(
            lambda at: at.isoformat(sep=" ", timespec="milliseconds").removesuffix(":00")
        ),
    },
    optional={
        "id": st.integers(0, 2**63 - 1),
        "database": text,
        "user": text,
        "txid": st.integers(0, 2**64 - 1).map(str),
        "objects": st.lists(objects, max_size=3),
        "truncated": st.just(True),
    },
)


def test_the_payload_of_the_specification() -> None:
    payload = '{"type":"ddl_command_end","tag":"CREATE TABLE","timestamp":"2025-11-07 12:34:56.789+00"}'
    assert parse_notice(payload) == SchemaChange(
        type="ddl_command_end", tag="CREATE TABLE", timestamp=datetime(2025, 11, 7, 12, 34, 56, 789000, UTC), raw=payload
    )


@given(notices, st.dictionaries(text.map("x_".__add__), json_values, max_size=3))
def test_every_notice_is_read_whatever_later_versions_add(notice: dict[str, Any], later: dict[str, Any]) -> None:
    payload = json.dumps(notice | later)
    change = parse_notice(payload)
    assert (change.type, change.tag, change.id, change.database, change.user, change.truncated, change.raw) == (
        notice["type"],
        notice["tag"],
        notice.get("id"),
        notice.get("database"),
        notice.get("user"),
        notice.get("truncated", False),
        payload,
    )
    assert change.timestamp == datetime.fromisoformat(notice["timestamp"])
    assert change.timestamp.utcoffset() is not None
    assert change.txid == (int(notice["txid"]) if "txid" in notice else None)
    assert change.objects == tuple(ChangedObject(**item) for item in notice.get("objects", ()))
    with pytest.raises(AttributeError):
        change.tag = "other"  # type: ignore[misc]


@given(
    text
    | json_values.map(json.dumps)
    | st.dictionaries(st.sampled_from(["type", "tag", "timestamp", "id", "objects"]), json_values).map(json.dumps)
)
def test_anything_else_is_malformed_or_read_but_never_another_error(payload: str) -> None:
    try:
        parse_notice(payload)
    except MalformedNotice as error:
        assert str(error)


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": "2025-11-07 12:34:56"},
        {"timestamp": "yesterday"},
        {"timestamp": None},
        {"tag": 1},
        {"id": "x"},
        {"id": True},
        {"id": 1.5},
        {"objects": {}},
        {"objects": [1]},
        {"objects": [{"kind": "table"}]},
    ],
)
def test_malformed(change: dict[str, Any]) -> None:
    notice = {"type": "ddl_command_end", "tag": "CREATE TABLE", "timestamp": "2025-11-07 12:34:56.789+00"}
    parse_notice(json.dumps(notice))
    with pytest.raises(MalformedNotice):
        parse_notice(json.dumps(notice | change))


def test_nesting_that_exhausts_the_parser_is_malformed() -> None:
    with pytest.raises(MalformedNotice):
        parse_notice("[" * 7999)


@given(st.lists(st.integers(1, 50)), st.integers(1, 50))
def test_a_position_holds_the_ids_added_to_it_and_survives_being_written(ids: list[int], other: int) -> None:
    position = Position("1-7-5-1-10.20.12_15")
    for number in ids:
        position.add(number)
    again = Position(str(position))
    assert str(again) == str(position)
    assert len(again) == len(set(ids))
    assert all(number in again for number in ids)
    assert (other in again) == (other in ids)


@given(st.integers(0, 30), st.integers(0, 10), st.sets(st.integers(0, 40)), st.integers(0, 50))
def test_a_position_shows_what_its_snapshot_shows(xmin: int, width: int, running: set[int], txid: int) -> None:
    xmax = xmin + width
    inside = sorted(number for number in running if xmin <= number < xmax)
    position = Position(f"1-7-5-1-{xmin}.{xmax}.{'_'.join(map(str, inside))}")
    assert position.is_readable
    # the definition of pg_visible_in_snapshot()
    assert position.shows(txid) == (txid < xmax and txid not in inside)


@given(st.integers(1, 1000), st.floats(0.001, 60), st.floats(0.001, 600))
def test_the_wait_before_reconnecting_is_bounded_and_jittered(attempt: int, first: float, longest: float) -> None:
    waits = [_delay(attempt, first, longest) for _ in range(10)]
    assert min(first, longest) / 2 <= min(waits) < max(waits) <= min(longest, first * 2.0 ** (attempt - 1))


def test_the_wait_before_reconnecting_grows_and_has_no_last_attempt() -> None:
    assert max(_delay(10, 0.1, 600) for _ in range(100)) > 1
    assert _delay(10**9, 0.1, 600) <= 600


def notice(number: int, txid: int) -> psycopg.Notify:
    fields = {"type": "ddl_command_end", "tag": "CREATE TABLE", "timestamp": "2025-11-07 12:34:56.789+00", "id": number}
    return psycopg.Notify("schema_changed", json.dumps(fields | {"txid": str(txid)}), 1)


def feed(**state: bool) -> _Feed:
    """One that has read the log up to the snapshot 10:20:12 and hears notices since."""
    one = _Feed("", {"cursor": "1-7-5-1-10.20.12"})
    one._stale = False
    for name, value in state.items():
        setattr(one, name, value)
    return one


def test_a_notice_is_delivered_unless_the_snapshot_shows_its_transaction() -> None:
    # The server makes a transaction visible a moment before it sends its notices, too short a moment to hit in a test.
    one = feed()
    for txid in (9, 12, 15, 20):
        one._hear(notice(txid, txid))
    assert [event.cursor for event in one.ready] == ["1-7-5-1-10.20.12~12", "1-7-5-1-10.20.12~12,20"]


def test_what_the_consumer_has_no_room_for_is_left_to_the_log() -> None:
    one = feed()
    for number in range(100, 2000):
        one._hear(notice(number, number))
    assert 100 < len(one.ready) < 500
    assert one._stale


def test_a_notice_that_comes_while_the_log_is_read_asks_for_another_read() -> None:
    one = feed(_reading=True)
    one._hear(notice(30, 30))
    assert (len(one.ready), one._stale) == (0, True)


def test_an_id_that_was_delivered_before_is_for_the_log_to_decide() -> None:
    one = feed()
    one._hear(notice(30, 30))
    one.ready.clear()
    one._hear(notice(30, 31))
    assert (len(one.ready), one._stale) == (0, True)
