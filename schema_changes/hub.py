"""One database session for any number of followers, each with a cursor of its own.

    async with Hub("postgresql://app@db/app") as hub:
        async for event in hub.follow(cursor):
            ...

The hub listens once and keeps the last events in memory.  A follower that is up to date reads them from there, so that a
thousand followers cost the database what one does.  One that comes from further back, or was too slow, is brought up by
reading the log from its cursor, over a connection that is closed again; then it goes on in memory.

How nothing is missed and nothing comes twice in between: the follower notes where the memory ends, then reads the log
until there is no more.  All that the hub had told before was committed, so that is in the log's answer; what the hub
tells from then on is left out where the snapshot of that answer shows it.  Meanwhile the follower's cursors are the
snapshot plus what was told since, as the listener's own are.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, Unpack

from .cursor import Place, Position, digest
from .errors import CannotListen, SchemaChangesError, Unreachable, describe
from .event import Reset, SchemaChange, from_log_row
from .feed import CHANGES_SINCE, AsyncSession, async_session, may_not_read, require, told
from .listener import Batch, ListenOptions, listen, listen_batches
from .listener import _delay as backoff

Event = SchemaChange | Reset

_log = logging.getLogger("schema_changes")

# What is kept in memory for followers that are a little behind: events, and characters of their JSON.
_EVENTS = 10_000
_CHARACTERS = 32_000_000
# Rows of the log that a follower asks for at a time.
_ROWS = 500
# Changes told since a follower read the log before it reads it again; bounds the length of its cursors.
_DIRECT = 256


class Hub:
    """Async context manager; inside, `follow` may be called any number of times at once.

    diff: tell with each burst of changes, in the `raw` of its last one, what has become different: `differences` as
    `listen --diff` has them, and `differences_text`.  That is told live only; what is read from the log later has none.
    hold: awaited with each new session before it listens, and with what to tell why that takes so long.
    options: as for `listen`, but for cursor, store, verify and the other callbacks.

    Entering raises what `listen` raises at its start.  What ends the listener later, `follow` raises.
    """

    def __init__(
        self,
        conninfo: str = "",
        *,
        diff: bool = False,
        hold: Callable[[AsyncSession, Callable[[str], object]], Awaitable[None]] | None = None,
        **options: Unpack[ListenOptions],
    ) -> None:
        self.where = describe(conninfo)
        """The server and database in words."""
        self.cursor = ""
        """Where the feed stands: that of the last event, or from the start."""
        self.events = 0
        """Events so far."""
        self.problem: str | None = None
        """Why the database is away; None while it is there."""
        self.lost_since: float | None = None
        """time.time() of when it went."""
        self._conninfo = conninfo
        self._diff = diff
        # what is handed on to others must be true: the log is believed, not the notices, which any user can send
        self._options: ListenOptions = {**options, "verify": True}
        if hold is not None:
            self._options["on_session"] = lambda session: hold(session, self.lost)
        self._sessions = 0
        # the last events, the number of the first of them, and the number of the event that follows a cursor
        self._kept: deque[Event] = deque()
        self._first = 0
        self._after: dict[str, int] = {}
        self._characters = 0
        self._news = asyncio.Event()
        # one connection at a time reads the log, once for all followers that stand at the same place
        self._one = asyncio.Semaphore(1)
        self._reads: dict[str, asyncio.Task[_Page]] = {}

    async def __aenter__(self) -> Self:
        page = await self._read(None)
        self.cursor = page.cursor
        self._after[self.cursor] = 0
        listens = asyncio.Event()

        def ready(_: object) -> None:
            self.problem = self.lost_since = None
            self._sessions += 1
            listens.set()

        self._options["on_ready"], self._options["on_lost"] = ready, self.lost
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._wake())
        waiting = asyncio.create_task(listens.wait())
        try:
            await asyncio.wait([self._task, waiting], return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
        except BaseException:
            self._task.cancel()
            raise
        finally:
            waiting.cancel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks = [self._task, *self._reads.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def follow(
        self, cursor: str | None = None, most: int = 1, idle: float | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """Yield each change after `cursor` (from now on without one), once, for ever; and a `Reset` where nobody can tell.

        They come as lists of at most `most` events: what there is, without waiting for more; after `idle` seconds without
        any, an empty list.  Each event's cursor says where to go on after it, here or with `listen`.

        Waits while the server is away, and raises what `listen` raises when it is back and refuses.  Ends with the hub.
        """
        cursor = self.cursor if cursor is None else cursor
        while not self._task.cancelled():
            own = None
            number = self._after.get(cursor)
            if number is None:
                page = await self._missed(cursor)
                for start in range(0, len(page.events), most):
                    yield page.events[start : start + most]
                number, cursor = page.number, page.cursor
                if page.is_full:
                    continue
                own = Position.parse(cursor)
            while number >= self._first and not self._task.cancelled():
                events: list[Event] = []
                while number < self._first + len(self._kept) and len(events) < most:
                    event = self._kept[number - self._first]
                    number += 1
                    if own is not None and _is_told(event, own):
                        continue
                    if own is not None and _covers(event, own):
                        own = None
                    if own is not None and isinstance(event, SchemaChange):
                        own.add(*_row(event), digest(event))
                        event = replace(event, cursor=str(own))
                    events.append(event)
                if events:
                    cursor = events[-1].cursor or cursor
                    yield events
                elif number == self._first + len(self._kept) and not await self._news_within(idle):
                    yield []
                if own is not None and len(own.direct) >= _DIRECT:
                    break  # the log is read again, for a short cursor

    @property
    def session(self) -> int | None:
        """The number of the session that listens, None while there is none.  Raises what ended the listener."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()
        return None if self.lost_since is not None else self._sessions

    def lost(self, reason: str) -> None:
        """Note that the feed does not come, and why; until it listens."""
        self.problem, self.lost_since = reason, self.lost_since or time.time()

    async def _run(self) -> None:
        options: ListenOptions = {**self._options, "cursor": self.cursor}
        if self._diff:
            async with contextlib.aclosing(listen_batches(self._conninfo, diff=True, **options)) as batches:
                async for batch in batches:
                    for event in _with_differences(batch):
                        self._keep(event)
            return
        async with contextlib.aclosing(listen(self._conninfo, **options)) as events:
            async for event in events:
                self._keep(event)

    def _keep(self, event: Event) -> None:
        self._kept.append(event)
        self._characters += _size(event)
        while len(self._kept) > 1 and (len(self._kept) > _EVENTS or self._characters > _CHARACTERS):
            gone = self._kept.popleft()
            self._characters -= _size(gone)
            self._first += 1
            # Before its first event the memory cannot be entered any more.
            for cursor in [cursor for cursor, number in itertools.islice(self._after.items(), 2) if number < self._first]:
                del self._after[cursor]
        self.cursor = event.cursor or self.cursor
        self.events += 1
        self._after.pop(self.cursor, None)
        self._after[self.cursor] = self._first + len(self._kept)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _news_within(self, seconds: float | None) -> bool:
        """Wait for the next event; raises what ended the listener."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def ended(self) -> None:
        """Wait for the end of the listener, and raise why."""
        await asyncio.shield(self._task)

    async def _missed(self, cursor: str) -> _Page:
        """What the log has after the cursor."""
        if cursor not in self._reads:
            self._reads[cursor] = task = asyncio.create_task(self._read_until_answered(cursor))
            task.add_done_callback(lambda _: self._reads.pop(cursor))
        task = self._reads[cursor]
        await asyncio.wait([task])  # which goes on for the others when this one is cancelled
        if task.cancelled():
            raise SchemaChangesError("The hub is closed.")
        return task.result()

    async def _read_until_answered(self, cursor: str) -> _Page:
        async with self._one:
            attempts = 0
            while True:
                try:
                    return await self._read(cursor)
                except (Unreachable, CannotListen) as error:
                    if self._task.done():
                        self._task.result()
                    attempts += 1
                    delay = backoff(attempts, *self._options.get("backoff", (0.1, 10.0)))
                    _log.warning("%s  Reading the log again in %.1f s.", error, delay)
                    await asyncio.sleep(delay)

    async def _read(self, cursor: str | None) -> _Page:
        """One answer of the log, over a connection of its own."""
        number = self._first + len(self._kept)
        route = self._options.get("route")
        parameters: dict[str, Any] = {}
        if route is not None:
            await asyncio.to_thread(route.refresh)
            parameters = route.parameters
        position = None if cursor is None else Position.parse(cursor)
        async with async_session(self._conninfo, **parameters) as session:
            require(session.facts, session.where)
            if not session.facts.may_read:
                raise may_not_read(session.role, session.where)
            with told(session.where, session.role):
                *rows, last = await session.rows(CHANGES_SINCE, [None if position is None else position.server, str(_ROWS)])
        kind, fresh, reason = ((last[column] or b"").decode(errors="replace") for column in (0, 1, 6))
        after = Position(fresh) if position is None else position.after(fresh, len(rows) < _ROWS or kind == "reset")
        events: list[Event] = []
        for _, _, *row in [] if position is None else rows:
            change = from_log_row(row, database=session.facts.database)
            if position is None or _is_told(change, position) or after.snapshot is None:
                continue
            txid, row_id = _row(change)
            events.append(replace(change, cursor=position.at(Place(after.snapshot, row_id, txid))))
        if kind == "reset":
            events.append(Reset(reason, fresh))
        elif events:
            events[-1] = replace(events[-1], cursor=str(after))
        return _Page(events, str(after), len(rows) >= _ROWS, number)


@dataclass(frozen=True, slots=True)
class _Page:
    """What the log answered."""

    events: list[Event]
    cursor: str
    is_full: bool
    """There may be more."""
    number: int
    """Of the event that the hub told next, when the log was asked."""


def _with_differences(batch: Batch) -> list[Event]:
    from . import diff

    events: list[Event] = list(batch.events)
    last = next((index for index in reversed(range(len(events))) if isinstance(events[index], SchemaChange)), None)
    if batch.differences and last is not None:
        change = batch.changes[-1]
        found = [difference.as_dict() for difference in batch.differences]
        fields = {**json.loads(change.raw), "differences": found, "differences_text": diff.text(batch.differences)}
        events[last] = replace(change, raw=json.dumps(fields, ensure_ascii=False))
    return events


def _row(change: SchemaChange) -> tuple[int, int]:
    """Transaction and id: which row of the log it is."""
    if change.txid is None or change.id is None:
        raise ValueError("a change that the log does not have")
    return change.txid, change.id


def _is_told(event: Event, position: Position) -> bool:
    if isinstance(event, Reset):
        return False
    txid, number = _row(event)
    shown = position.snapshot is not None and position.snapshot.shows(txid)
    return shown or (txid, number) in position.direct or position.passed(txid, number)


def _covers(event: Event, position: Position) -> bool:
    """Whether who has all up to this event has all that the position's snapshot shows."""
    if isinstance(event, Reset) or event.cursor is None:
        return True
    snapshot = Position.parse(event.cursor).snapshot
    return snapshot is not None and position.snapshot is not None and snapshot.covers(position.snapshot)


def _size(event: Event) -> int:
    return len(event.raw) if isinstance(event, SchemaChange) else 0
