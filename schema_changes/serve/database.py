"""What the page asks the database beside the feed: the history and the state, over a connection that is opened for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from ..errors import NotPermitted, SchemaChangesError
from ..event import SchemaChange, from_log_row
from ..feed import LOG_COLUMNS, status, transaction
from ..route import Route

_Answer = TypeVar("_Answer")

_MOST = 500
# Seconds that the state is kept for the next who asks.
_FRESH = 5

# The cursor and the log in one statement, and so in one snapshot: what the cursor follows is what the page has not.
_HISTORY = f"""
SELECT now.cursor, current_database()::text, found.*
FROM schema_notifications.changes_since(NULL) AS now
LEFT JOIN LATERAL (
    SELECT {LOG_COLUMNS} FROM schema_notifications.log AS l
    WHERE (%(from)s::timestamptz IS NULL OR changed_at >= %(from)s::timestamptz AND changed_at < %(to)s::timestamptz)
      AND (%(before)s::timestamptz IS NULL
           OR (changed_at, l.txid, l.id) < (%(before)s::timestamptz, %(txid)s::text::xid8, %(id)s::text::bigint))
      AND (%(user)s::text IS NULL OR user_name::text = %(user)s::text)
      AND (%(tag)s::text IS NULL OR tag = upper(%(tag)s::text))
      AND (%(object)s::text IS NULL OR EXISTS (
           SELECT FROM json_array_elements(objects::json) AS item
           WHERE strpos(lower(item->>'identity'), lower(%(object)s::text)) > 0))
    ORDER BY changed_at DESC, l.txid DESC, l.id DESC
    LIMIT {_MOST + 1}
) AS found ON true
"""  # noqa: S608


class BadQuestion(ValueError):
    """A filter that cannot be read; str() of it says which."""


class Database:
    """Answers one question at a time, so that any number of browsers are one session more at most."""

    def __init__(self, conninfo: str, route: Route | None = None) -> None:
        self._conninfo = conninfo
        self._route = route
        self._one = asyncio.Lock()
        self._state: dict[str, Any] = {}
        self._asked = float("-inf")

    async def history(self, filters: dict[str, str]) -> tuple[list[SchemaChange], str, str | None]:
        """Up to 500 changes, newest first; the cursor that follows the newest of all; the `before` for older ones, if there are.

        filters: `day` (2026-11-25, UTC), `user`, `object` (a part of the name), `tag`, `before` (as returned).

        Raises `BadQuestion`, and `SchemaChangesError` where the database does not answer or permit it.
        """
        values: dict[str, Any] = {name: filters.get(name) or None for name in ("user", "tag", "object")}
        try:
            day = date.fromisoformat(filters["day"]) if filters.get("day") else None
            begins = None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC)
            values |= {"from": begins, "to": None if begins is None else begins + timedelta(days=1)}
            moment, txid, number = filters["before"].split("/") if filters.get("before") else (None, "0", "0")
            values["before"] = None if moment is None else datetime.fromisoformat(moment)
            values["txid"], values["id"] = str(int(txid)), str(int(number))
            if any("\0" in value for value in filters.values()):
                raise ValueError("no name has a NUL")
            if not -(2**63) <= int(number) < 2**63 or not 0 <= int(txid) < 2**64:
                raise ValueError("no such row")
        except (ValueError, OverflowError) as error:
            raise BadQuestion(f"{error}: write a day as 2026-11-25, and before= as it was answered") from error

        def ask() -> list[tuple[Any, ...]]:
            name, parameters = "schema-changes serve", self._parameters()
            with transaction(self._conninfo, name=name, **parameters) as session:
                return session.rows(_HISTORY, values)

        rows = await self._alone(ask)
        cursor, database = rows[0][:2]
        changes = [from_log_row(row[2:], database=database) for row in rows[:_MOST] if row[2] is not None]
        last = changes[-1] if len(rows) > _MOST else None
        return changes, str(cursor), None if last is None else f"{last.timestamp.isoformat()}/{last.txid}/{last.id}"

    async def status(self) -> dict[str, Any]:
        """The row of `schema_notifications.status()`; `healthy` false and a `problem` where it cannot be had."""
        if time.monotonic() - self._asked > _FRESH:
            try:
                row = await self._alone(lambda: status(self._conninfo, timeout=5, **self._parameters()))
                self._state = json.loads(json.dumps(row, default=str))
            except NotPermitted as error:
                self._state = {"healthy": None, "problem": str(error)}
            except SchemaChangesError as error:
                self._state = {"healthy": False, "problem": str(error)}
            self._asked = time.monotonic()
        return self._state

    def _parameters(self) -> dict[str, Any]:
        return {} if self._route is None else dict(self._route.parameters)

    async def _alone(self, ask: Callable[[], _Answer]) -> _Answer:
        async with self._one:
            return await asyncio.to_thread(ask)
