"""The parser, with everything that a notice may hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_changes.cursor import Place, Position, Snapshot
from schema_changes.event import ChangedObject, MalformedNotice, SchemaChange, from_log_row, parse_notice
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


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc00b"])
def test_half_of_a_surrogate_pair_is_malformed(text: str) -> None:
    notice = {"type": "ddl_command_end", "tag": text, "timestamp": "2025-11-07 12:34:56.789+00"}
    with pytest.raises(MalformedNotice, match="tag has half of a surrogate pair"):
        parse_notice(json.dumps(notice))


TABLE = {"action": "created", "kind": "table", "schema": "public", "identity": "public.tä"}
ROW = ("7", "901", "2025-11-07 12:34:56.789123+00", "ann", "CREATE TABLE", json.dumps([TABLE]))


def test_a_row_of_the_log_is_what_its_notice_would_have_told() -> None:
    change = from_log_row(ROW, database="shop", cursor="c")
    assert (change.type, change.tag, change.id, change.txid) == ("ddl_command_end", "CREATE TABLE", 7, 901)
    assert (change.database, change.user, change.cursor, change.truncated) == ("shop", "ann", "c", False)
    assert change.timestamp == datetime(2025, 11, 7, 12, 34, 56, 789123, UTC)
    assert change.objects == (ChangedObject(**TABLE),)
    assert json.loads(change.raw) == {
        **{"type": "ddl_command_end", "tag": "CREATE TABLE", "timestamp": "2025-11-07 12:34:56.789+00", "id": 7},
        **{"database": "shop", "user": "ann", "txid": "901", "objects": [TABLE]},
    }
    assert "ä" in change.raw
    assert from_log_row([one.encode() for one in ROW], database="shop", cursor="c") == change


def test_the_json_of_a_row_is_one_line_without_escapes_as_its_notice_is() -> None:
    quoted = TABLE | {"identity": 'public."tä\nü\\"'}
    for objects in (json.dumps([quoted], indent=1), f" {json.dumps([quoted], ensure_ascii=False)}\r"):
        change = from_log_row(("7", "901", "2025-11-07 12:34:56+00", 'a"nn', "CREATE\tTABLE", objects), database="shöp")
        assert change.objects == (ChangedObject(**quoted),)
        assert change.raw == json.dumps(json.loads(change.raw), ensure_ascii=False)
        assert (json.loads(change.raw)["user"], json.loads(change.raw)["tag"]) == ('a"nn', "CREATE\tTABLE")


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (0, None, {"id": 0}),
        (1, None, {"txid": 0}),
        (2, "infinity", {"timestamp": datetime(1970, 1, 1, tzinfo=UTC), "objects": (ChangedObject(**TABLE),)}),
        (2, None, {"timestamp": datetime(1970, 1, 1, tzinfo=UTC)}),
        (3, None, {"user": None}),
        (3, b"\xff", {"user": "\ufffd"}),
        (4, None, {"tag": ""}),
        (5, None, {"objects": ()}),
        (5, "{", {"objects": ()}),
        (5, "{}", {"objects": ()}),
        (5, "[] []", {"objects": ()}),
        (5, json.dumps([{"kind": "table"}, TABLE]), {"objects": (ChangedObject(**TABLE),)}),
    ],
)
def test_of_a_row_that_cannot_be_read_in_full_it_is_what_can_be(column: int, value: str | bytes | None, expected: Any) -> None:
    row: list[str | bytes | None] = [*ROW]
    row[column] = value
    change = from_log_row(row, database="shop")
    assert {key: getattr(change, key) for key in expected} == expected
    assert change.truncated == (column in (2, 5)), "only of what it changed, or when"
    assert json.loads(change.raw).get("truncated", False) is change.truncated
    assert ("objects" in json.loads(change.raw)) is not change.truncated


def test_nesting_that_exhausts_the_parser_is_malformed() -> None:
    with pytest.raises(MalformedNotice):
        parse_notice("[" * 7999)


snapshots = st.builds(
    lambda xmin, width, running: (
        f"{xmin}.{xmin + width}.{'_'.join(str(one) for one in sorted(running) if xmin <= one < xmin + width)}"
    ),
    st.integers(0, 30),
    st.integers(0, 10),
    st.sets(st.integers(0, 40)),
)
ids = st.integers(0, 2**53)
places = st.builds(lambda snapshot, number, txid: Place(Snapshot(snapshot), number, txid), snapshots, ids, ids)
digests = st.integers(0, 2**48 - 1).map("{:012x}".format)


@given(st.sampled_from(["1-7-5-1-", "2-7-5-1-a.b_c-"]), snapshots, st.dictionaries(st.tuples(ids, ids), digests), st.lists(places))
def test_every_cursor_that_is_given_out_is_read_again(
    start: str, snapshot: str, direct: dict[tuple[int, int], str], reached: list[Place]
) -> None:
    position = Position(start + snapshot, direct, tuple(reached))
    again = Position.parse(str(position))
    assert again.server == start + snapshot
    assert again.snapshot is not None
    assert str(again) == str(position)
    assert again.direct == direct
    assert [str(place) for place in again.places] == [str(place) for place in reached]


@pytest.mark.parametrize("ids", ["", "~17", "~17-19,22"])
def test_a_cursor_of_the_first_format_goes_back_to_the_server(ids: str) -> None:
    assert Position.parse(f"1-7-5-1-1-10.20.12{ids}").server == "1-7-5-1-1-10.20.12"


@given(text | st.text(st.sampled_from("12-._~@,:\0é\ud800"), max_size=30))
def test_what_is_no_cursor_is_left_to_the_server(cursor: str) -> None:
    assert Position.parse(cursor).server in (cursor, cursor.partition("@")[0].partition("~")[0])


@given(snapshots, st.integers(0, 50))
def test_a_snapshot_shows_what_postgresql_s_shows(snapshot: str, txid: int) -> None:
    _, xmax, running = snapshot.split(".")
    # the definition of pg_visible_in_snapshot()
    assert Snapshot(snapshot).shows(txid) == (txid < int(xmax) and str(txid) not in running.split("_"))


@given(snapshots, snapshots)
def test_a_snapshot_covers_what_shows_no_more(one: str, other: str) -> None:
    shown = {name: {txid for txid in range(60) if Snapshot(name).shows(txid)} for name in (one, other)}
    if Snapshot(one).covers(Snapshot(other)):
        assert shown[other] <= shown[one]
    if shown[other] <= shown[one] and Snapshot(one).xmax >= Snapshot(other).xmax:
        assert Snapshot(one).covers(Snapshot(other))


@given(st.integers(1, 1000), st.floats(0.001, 60), st.floats(0.001, 600))
def test_the_wait_before_reconnecting_is_bounded_and_jittered(attempt: int, first: float, longest: float) -> None:
    waits = [_delay(attempt, first, longest) for _ in range(10)]
    assert min(first, longest) / 2 <= min(waits) < max(waits) <= min(longest, first * 2.0 ** (attempt - 1))


def test_the_wait_before_reconnecting_grows_and_has_no_last_attempt() -> None:
    assert max(_delay(10, 0.1, 600) for _ in range(100)) > 1
    assert _delay(10**9, 0.1, 600) <= 600


def hear(one: _Feed, number: int, txid: int) -> None:
    fields = {"type": "ddl_command_end", "tag": "CREATE TABLE", "timestamp": "2025-11-07 12:34:56.789+00", "id": number}
    one._hear("schema_changed", json.dumps(fields | {"txid": str(txid)}), 1)


def feed(**state: bool) -> _Feed:
    """One that has read the log up to the snapshot 10:20:12 and hears notices since."""
    one = _Feed("", {"cursor": "2-7-5-1-10.20.12"})
    one._stale = False
    for name, value in state.items():
        setattr(one, name, value)
    return one


def test_a_notice_is_delivered_unless_the_snapshot_shows_its_transaction() -> None:
    # The server makes a transaction visible a moment before it sends its notices, too short a moment to hit in a test.
    one = feed()
    for txid in (9, 12, 15, 20):
        hear(one, txid, txid)
    assert [list(Position.parse(waiting.cursor or "").direct) for waiting in one.ready] == [[(12, 12)], [(12, 12), (20, 20)]]


def test_what_the_consumer_has_no_room_for_is_left_to_the_log() -> None:
    one = feed()
    for number in range(100, 2000):
        hear(one, number, number)
    assert 50 < len(one.ready) < 500
    assert one._stale


def test_a_notice_that_comes_while_the_log_is_read_asks_for_another_read() -> None:
    one = feed(_reading=True)
    hear(one, 30, 30)
    assert (len(one.ready), one._stale) == (0, True)


def test_an_id_that_was_delivered_before_is_for_the_log_to_decide() -> None:
    one = feed()
    hear(one, 30, 30)
    one.ready.clear()
    hear(one, 30, 30)
    assert (len(one.ready), one._stale) == (0, True)
