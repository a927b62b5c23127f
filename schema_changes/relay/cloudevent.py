"""One change as a CloudEvents 1.0 event in JSON, the body that every sink gets: https://cloudevents.io."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from ..event import Reset, SchemaChange
from ..filters import is_of_check

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
CHANGE = "notifying-postgres.schema_changed"
RESET = "notifying-postgres.reset"
CHECK = "notifying-postgres.check"

_DIFFERENCES = ("differences", "differences_text")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def cloud_event(event: SchemaChange | Reset, differences: bool = True) -> dict[str, Any]:
    """The event's attributes, with the change as its `data`; without what is different in it, if so.

    `source` and `id` together name the change for ever, wherever and however often it is handed on: the cluster, the
    database and the installation of the extension, which a promoted standby shares; then transaction, row and time,
    since a cluster that was put back from a copy gives ids out again.
    """
    _, system, database, installation, *_ = (event.cursor or "").partition("~")[0].split("-")
    source = f"/postgresql/{system}/{database}/{installation}"
    if isinstance(event, Reset):
        data: dict[str, Any] = {"type": "reset", "reason": event.reason, "cursor": event.cursor}
        # one at each place
        return _event(f"reset-{event.cursor}", source, RESET, datetime.now(UTC), data)
    micros = (event.timestamp - _EPOCH) // timedelta(microseconds=1)
    kind = CHECK if is_of_check(event) else CHANGE
    data = {**json.loads(event.raw), "cursor": event.cursor}
    if not differences:
        data = {key: value for key, value in data.items() if key not in _DIFFERENCES}
    attributes = _event(f"{event.txid}-{event.id}-{micros}", source, kind, event.timestamp, data)
    if event.objects:
        attributes["subject"] = event.objects[0].identity or event.objects[0].kind
    return attributes


def identity(attributes: dict[str, Any]) -> str:
    """What a receiver can tell repetitions by: of an event in one word."""
    return f"{attributes['source'].removeprefix('/postgresql/').replace('/', '-')}-{attributes['id']}"


def body(attributes: dict[str, Any], most: int | None = None) -> str:
    """The JSON text; ASCII, so that no letter in a name can bend what shows it.

    most: characters; in a longer text `truncated` is true and the list of objects is left out.
    """
    text = json.dumps(attributes, separators=(",", ":"))
    if most is not None and len(text) > most:
        data = {key: value for key, value in attributes["data"].items() if key not in ("objects", *_DIFFERENCES)}
        text = json.dumps({**attributes, "data": {**data, "truncated": True}}, separators=(",", ":"))
    return text


def _event(id_: str, source: str, type_: str, time: datetime, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": id_,
        "source": source,
        "type": type_,
        "time": time.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }
