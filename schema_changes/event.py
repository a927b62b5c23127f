"""The events: a `SchemaChange` for each DDL command, a `Reset` where the feed starts anew.

The notice's JSON is written by the extension (image/schema_notifications--*.sql).  Keys that later versions add are
kept in `raw` and otherwise ignored; what cannot be read at all raises `MalformedNotice`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring

CHANNEL = "schema_changed"

_parse = json.JSONDecoder().raw_decode


class MalformedNotice(ValueError):
    """A notice on the channel that is not a schema change in JSON; any user of the database can send one."""


@dataclass(frozen=True, slots=True)
class ChangedObject:
    """One object that the command created, altered or dropped."""

    action: str
    """created, altered or dropped."""
    kind: str
    """PostgreSQL's object type: table, index, function, table column, …"""
    schema: str | None
    """None where the object belongs to no schema, such as an extension, or a schema itself."""
    identity: str
    """Quoted where needed, ready for SQL: public."Order Items"."""


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One committed DDL command."""

    type: str
    """ddl_command_end."""
    tag: str
    """The command: CREATE TABLE, ALTER TABLE, DROP INDEX, …"""
    timestamp: datetime
    """When the command ran, timezone-aware, UTC; a notice tells it to the millisecond, the log to the microsecond."""
    id: int | None = None
    """Row of the change log; None when the change was not logged (and then it is delivered at most once)."""
    database: str | None = None
    """Its name; None only where a notice leaves it out."""
    user: str | None = None
    """The role that ran the command."""
    txid: int | None = None
    """The transaction, a 64-bit number (PostgreSQL's xid8): changes of one migration share it."""
    objects: tuple[ChangedObject, ...] = ()
    """What it created, altered or dropped, dependants included."""
    truncated: bool = False
    """What it changed is not known, or not in full: the notice was too long to list its objects and the log was not asked, or the
    log has something that cannot be read."""
    cursor: str | None = None
    """Where to go on after this change: pass it to `listen(cursor=…)`.  None when listening without catching up."""
    raw: str = ""
    """The JSON text of the change."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Nobody can say what happened before this point: read the whole schema again, then go on."""

    reason: str
    """In words."""
    cursor: str | None = None
    """Where to go on after this.  None when listening without catching up."""


def parse_notice(payload: str) -> SchemaChange:
    """Read the payload of a notice on the channel `schema_changed`.

    Raises `MalformedNotice` for anything but an object with at least a string `type`, `tag` and ISO `timestamp`.
    """
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MalformedNotice(f"not JSON: {payload[:80]!r}") from error
    if not isinstance(fields, dict):
        raise MalformedNotice(f"not a JSON object: {payload[:80]!r}")
    try:
        timestamp = datetime.fromisoformat(_string(fields, "timestamp"))
        # such as the year 1 east of Greenwich, which is no year in UTC
        utc = timestamp.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise MalformedNotice(f"timestamp is not a time: {payload[:80]!r}") from error
    if timestamp.tzinfo is None:
        raise MalformedNotice(f"timestamp has no time zone: {payload[:80]!r}")
    return SchemaChange(
        type=_string(fields, "type"),
        tag=_string(fields, "tag"),
        timestamp=utc,
        id=_integer(fields, "id", 2**63),
        database=_optional_string(fields, "database"),
        user=_optional_string(fields, "user"),
        txid=_integer(fields, "txid", 2**64),
        objects=parse_objects(fields.get("objects")),
        truncated=fields.get("truncated") is True,
        raw=payload,
    )


def from_log_row(row: Sequence[str | bytes | None], *, database: str, cursor: str | None = None) -> SchemaChange:
    """The change that a row of the log (its `feed.LOG_COLUMNS`, all text) records, as its notice would have told it.

    Never fails: of a row that cannot be read in full, what can be read, marked `truncated`.
    """
    # not UTF-8 in a database whose encoding is SQL_ASCII
    row_id, txid, changed_at, user, tag, objects = [one.decode(errors="replace") if isinstance(one, bytes) else one for one in row]
    truncated = False
    try:
        timestamp = datetime.fromisoformat(changed_at or "").astimezone(UTC)
    except (ValueError, OverflowError):
        # PostgreSQL's time reaches further than Python's
        timestamp, truncated = datetime.fromtimestamp(0, UTC), True
    listed: object = None
    try:
        listed = _parsed(objects or "null")
    except (ValueError, RecursionError):
        truncated = True
    found = []
    for item in listed if isinstance(listed, list) else ():
        try:
            found.append(_object(item))
        except MalformedNotice:
            truncated = True
    truncated = truncated or not isinstance(listed, list)
    number = int(row_id or 0)
    told = timestamp.isoformat(sep=" ", timespec="milliseconds").removesuffix(":00")
    # The server's text of the objects stays as it is, but for line breaks, as a change is one line, and for escapes.
    if truncated or objects is None:
        rest = '"truncated": true'
    elif "\n" in objects or "\r" in objects or "\\" in objects:
        rest = f'"objects": {json.dumps(listed, ensure_ascii=False)}'
    else:
        rest = f'"objects": {objects}'
    return SchemaChange(
        type="ddl_command_end",
        tag=tag or "",
        timestamp=timestamp,
        id=number,
        database=database,
        user=user,
        txid=int(txid or 0),
        objects=tuple(found),
        truncated=truncated,
        cursor=cursor,
        raw=f'{{"type": "ddl_command_end", "tag": {_quoted(tag or "")}, "timestamp": "{told}", "id": {number}, '
        f'"database": {_quoted(database)}, "user": {_quoted(user)}, "txid": {_quoted(txid)}, {rest}}}',
    )


def parse_objects(objects: object) -> tuple[ChangedObject, ...]:
    """Read the list `objects` of a notice; None is an empty list."""
    if objects is None:
        return ()
    if not isinstance(objects, list):
        raise MalformedNotice("objects is not a list")
    return tuple(map(_object, objects))


def _object(item: object) -> ChangedObject:
    if not isinstance(item, dict):
        raise MalformedNotice("an entry of objects is not an object")
    return ChangedObject(
        action=_string(item, "action"),
        kind=_string(item, "kind"),
        schema=_optional_string(item, "schema"),
        # GRANT has no object identity
        identity=_optional_string(item, "identity") or "",
    )


def _parsed(text: str) -> object:
    """What json.loads(text) gives and raises, at a third of its price."""
    text = text.strip(" \t\n\r")
    value, end = _parse(text)
    if end != len(text):
        raise ValueError(f"something follows the JSON: {text[end : end + 80]!r}")
    return value


def _quoted(value: str | None) -> str:
    """As JSON: what json.dumps(value, ensure_ascii=False) gives, at a third of its price."""
    return "null" if value is None else encode_basestring(value)


def _string(fields: dict[str, object], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise MalformedNotice(f"{key} is not a string")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise MalformedNotice(f"{key} has half of a surrogate pair")
    return value


def _optional_string(fields: dict[str, object], key: str) -> str | None:
    return None if fields.get(key) is None else _string(fields, key)


def _integer(fields: dict[str, object], key: str, limit: int) -> int | None:
    """A whole number below `limit`, or one written as a decimal string as PostgreSQL's 64-bit ids are."""
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit:
        return value
    raise MalformedNotice(f"{key} is not a whole number that PostgreSQL could give")
