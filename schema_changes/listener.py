"""Listen without missing a change.

    async for change in listen("postgresql://app@db/app", store=FileCursorStore("app.cursor")):
        if isinstance(change, Reset):
            await read_the_whole_schema()
        else:
            print(change.tag, change.objects)

How nothing is missed and nothing comes twice: the listener first LISTENs, then asks the log for what came after its
cursor, then follows the notices.  Its position (cursor.py) is the snapshot that the log was last read with, plus what was
delivered since.  A notice of a transaction that the snapshot shows is old news and dropped; any other is new.  Now and then, and
after each reconnect, the log is read again from the position: what notices did not bring, it brings, and what a notice told
otherwise than the log, it tells again.

The socket is read all the time, so that the server's queue of notices never waits for a slow consumer.  What the consumer
has no room for is not kept: it is read from the log when the consumer is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import psycopg

from .cursor import CursorStore, Place, Position, digest
from .errors import CannotListen, SchemaChangesError, Unreachable
from .event import CHANNEL, MalformedNotice, Reset, SchemaChange, from_log_row, parse_notice
from .feed import CHANGES_SINCE, AsyncSession, async_session, may_not_read, require, told
from .filters import Filter
from .route import Route

if TYPE_CHECKING:
    from .diff import Difference, Picture

_log = logging.getLogger("schema_changes")
_Event = TypeVar("_Event")

# Rows asked of the log at a time: first, and at most (but for a longer transaction, which is never split).  Bounds the memory, and
# how long a slow line is busy with one answer.
_FIRST_ROWS, _MOST_ROWS = 500, 8000
# Seconds that an answer may well take; a longer one asks for less the next time.
_ANSWER = 1.0
# Changes delivered from notices before the log is read again, which bounds the length of the cursor: in the next moment of silence,
# of so many seconds, as the server sends a session no notice while it answers it; and whether there is one or not.
_DIRECT, _SILENCE, _MOST_DIRECT = 100, 0.2, 400
# Changes that wait for the consumer when there is no log to read them from later, and the most in a batch (but for a transaction).
_WAITING = 10_000
# Seconds after which it is told how many more notices were forged or malformed, as any user can send thousands.
_COUNTED_EVERY = 60.0
# Answers of the log with nothing in them, one after the other, that are counted; seconds from the last to the next question,
# half as many for each that lacks.  So forged notices cost the server 40 queries a second, and hold a change up for 25 ms.
_FUTILE, _PAUSE = 7, 0.025


class ListenOptions(TypedDict, total=False):
    """The keyword arguments of `listen` and its kin, all optional."""

    cursor: str | None
    """Go on after this one.  Without it (and without one in the store) from now."""
    store: CursorStore | None
    """Loads the cursor at the start unless `cursor` is given, and saves it when the consumer asks for the next event, having
    handled this one.  What the store raises, the iterator raises."""
    schemas: Collection[str]
    """Only changes with an object in one of these schemas, of these schemas themselves, and those that cannot be judged; patterns
    such as `app_*`, as for Python's fnmatchcase().  Here and below, `!audit` excludes."""
    kinds: Collection[str]
    """Only changes with an object of one of these kinds (table, index, …); patterns.  With `schemas`: the same object."""
    tags: Collection[str]
    """Only these commands; patterns such as `ALTER *`, in capitals or not; `!REFRESH *` excludes."""
    checks: bool
    """True: also the changes of `check`, which are left out otherwise (`filters.is_of_check` tells them)."""
    verify: bool
    """Believe the log only, so that a notice that another user forged can do nothing; costs a query per change.  Without it, such
    a notice is delivered, and within a heartbeat the truth, if it tells something else."""
    catch_up: bool
    """False: notices only, for a role that may not read the log.  What happens while disconnected is then lost, and a
    `Reset` says so after each reconnect."""
    heartbeat: float
    """Seconds of silence after which the server is asked for news and a sign of life; and seconds without a byte of an answer, or
    of waiting for a connection, after which it is given up (these at least 2, as libpq waits no less).  Default: 5."""
    backoff: tuple[float, float]
    """Seconds to wait before reconnecting: before the first attempt, and at most.  Doubled each time, and jittered.
    Default: (0.1, 10)."""
    route: Route | None
    """The way to a container that publishes no port; asked anew for each connection."""
    on_session: Callable[[AsyncSession], Awaitable[None]]
    """Awaited with each new session before it listens: for locks that last as long as the session."""
    on_ready: Callable[[str | None], object]
    """Called each time that the listener listens, at the start and after each reconnect, with the cursor from which on nothing is
    missed (None when not catching up).  From the event loop, or from the thread of `listen_sync`."""
    on_lost: Callable[[str], object]
    """Called with the reason each time that the connection is lost, or could not be made again.  From where `on_ready` is."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that came in one burst."""

    events: tuple[SchemaChange | Reset, ...]
    """In the order of `listen`.  At least one, but where differences from the last run are all there is to tell."""
    differences: tuple[Difference, ...] = ()
    """With `diff=True`: what has become different in the schema since the batch before, as read after this one."""
    picture: Picture | None = None
    """With `diff=True`: the schema after that."""

    @property
    def changes(self) -> tuple[SchemaChange, ...]:
        """The changes without the resets."""
        return tuple(event for event in self.events if isinstance(event, SchemaChange))

    @property
    def reset(self) -> Reset | None:
        """The last `Reset` among them, if any: the schema is to be read again as a whole."""
        return next((event for event in reversed(self.events) if isinstance(event, Reset)), None)

    @property
    def cursor(self) -> str | None:
        """Where to go on after this batch."""
        return self.events[-1].cursor if self.events else None


async def listen(conninfo: str = "", **options: Unpack[ListenOptions]) -> AsyncGenerator[SchemaChange | Reset, None]:
    """Yield each committed schema change of the database, once, for ever; and a `Reset` where the server cannot.

    conninfo: as for `psycopg.connect`; what it leaves out comes from the PG* variables.

    Raises at the start what keeps it from listening: `Unreachable`, `LoginRefused`, `NotInstalled`, `NotPermitted`,
    `CannotListen`, or their base `SchemaChangesError` for a connection string or options that make no sense.  Later it
    reconnects while the server is away or a standby, and raises when it is back and refuses.

    Exactly once holds for this iterator and the cursors in its events.  A consumer that dies after it was handed a
    change and before that change's cursor was stored gets the change again.
    """
    if "diff" in options:
        raise SchemaChangesError("A difference belongs to a batch of changes: ask listen_batches for diff=True.")
    async with _feed(conninfo, options) as feed:
        while (event := await feed.next()) is not None:
            yield event


async def listen_batches(
    conninfo: str = "", *, quiet: float = 0.2, longest: float = 5, diff: bool = False, **options: Unpack[ListenOptions]
) -> AsyncGenerator[Batch, None]:
    """As `listen`, a burst of changes (a migration) as one `Batch`: it ends after `quiet` seconds without a change.

    A batch never ends within a transaction, nor while the listener is still reading what it missed.

    longest: seconds after which a batch ends even so; 10,000 events end it too, both together with the transaction.  With a store,
    the cursor is saved once a batch is handled: when the next is asked for.  Raises what `listen` raises.

    diff: keep a picture of the schema, in a session of its own, and tell with each batch what has become different, of objects
    in `schemas`.  With a `FilePictureStore` or `TablePictureStore` the first batch has what is different since the last run.
    """
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        pictures = None
        if diff:
            from .diff import follow

            # before the feed begins: no change is to be in both
            pictures = await stack.enter_async_context(follow.following(conninfo, options))
        feed = await stack.enter_async_context(_feed(conninfo, options))
        within = quiet if pictures is not None and pictures.differs else None
        while True:
            event = await feed.next(within)
            within = None
            events = [] if event is None else [event]
            ends = loop.time() + longest
            while events and (left := ends - loop.time()) > 0 and len(events) < _WAITING:
                following = await feed.next(within=min(quiet, left), handled=False)
                if following is None:
                    break
                events.append(following)
            events += await feed.rest(events)
            if pictures is None:
                yield Batch(tuple(events))
            else:
                differences = await pictures.differences()
                yield Batch(tuple(events), differences, pictures.picture)
            if not events:
                feed.saved = None  # the cursor may be the same, and the picture is another


def listen_sync(conninfo: str = "", **options: Unpack[ListenOptions]) -> Generator[SchemaChange | Reset, None, None]:
    """`listen` for programs without asyncio: a plain iterator, which raises the same.

    A thread reads from the connection meanwhile; it ends with the iterator: when that is closed, garbage, or left by an exception.
    """
    return _iterate(listen(conninfo, **options))


def listen_batches_sync(
    conninfo: str = "", *, quiet: float = 0.2, longest: float = 5, diff: bool = False, **options: Unpack[ListenOptions]
) -> Generator[Batch, None, None]:
    """`listen_batches` for programs without asyncio, as `listen_sync` is `listen`."""
    return _iterate(listen_batches(conninfo, quiet=quiet, longest=longest, diff=diff, **options))


def _iterate(events: AsyncGenerator[_Event, None]) -> Generator[_Event, None, None]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="schema_changes", daemon=True)
    thread.start()
    # kept by the loop's thread, as Ctrl-C may strike this one at any line
    under_way: list[asyncio.Task[Any]] = []
    try:
        while True:
            yield asyncio.run_coroutine_threadsafe(_next(events, under_way), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(_end(events, under_way), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.asynccontextmanager
async def _feed(conninfo: str, options: ListenOptions) -> AsyncIterator[_Feed]:
    store = options.get("store")
    if options.get("cursor") is None and store is not None:
        options["cursor"] = await asyncio.to_thread(store.load)
    feed = _Feed(conninfo, options)
    feed.task = asyncio.create_task(feed.run())
    feed.task.add_done_callback(lambda _: feed.filled.set())
    try:
        yield feed
    finally:
        feed.task.cancel()
        await asyncio.wait([feed.task])
        feed.close()
        if not feed.task.cancelled():
            feed.task.exception()  # it was raised by next(), or the consumer left before


@dataclass(slots=True)
class _Waiting:
    """What waits for the consumer: an event, or a row of the log that becomes one when it is taken."""

    txid: int | None
    cursor: str | None
    event: SchemaChange | Reset | None = None
    row: tuple[bytes | None, ...] = ()


class _Feed:
    """Runs as a task that owns the session and fills `ready`, and is emptied by the consumer with `next`."""

    task: asyncio.Task[None]
    _timer: asyncio.TimerHandle

    def __init__(self, conninfo: str, options: ListenOptions) -> None:
        self.ready: deque[_Waiting] = deque()
        self.filled = asyncio.Event()
        self.wake = asyncio.Event()
        cursor = options.get("cursor")
        # None until the first session gave one, or for ever when not catching up
        self.position = None if cursor is None else Position.parse(cursor)
        # the cursor of the event that the consumer took last, and the one in the store
        self._taken = self.saved = cursor
        self._saving = asyncio.Lock()
        self._conninfo = conninfo
        self._options = options
        self._route = options.get("route")
        self._wanted = Filter(
            options.get("schemas", ()), options.get("kinds", ()), options.get("tags", ()), options.get("checks", False)
        )
        self._catch_up = options.get("catch_up", True)
        self._verify = options.get("verify", False)
        self._heartbeat = options.get("heartbeat", 5.0)
        self._backoff = options.get("backoff", (0.1, 10.0))
        self._on_session = options.get("on_session")
        self._on_ready = options.get("on_ready")
        self._on_lost = options.get("on_lost")
        self._database = ""
        # the log has, or may have, changes that were not delivered
        self._stale = self._catch_up
        # the log is to be read for a new snapshot alone, as nothing is known to lack
        self._due = False
        self._reading = self._refreshing = False
        self._rows = _FIRST_ROWS
        # complete answers of the log, by the number of the one that is or comes next
        self._answer, self._answered = 1, 0
        self._futile = 0
        self._overflowed = False
        self._resting = False
        self._sessions = 0
        self._had_session = False
        self._malformed, self._forged = _Counted(), _Counted()
        if self._verify and not self._catch_up:
            raise SchemaChangesError("verify=True asks the log, which catch_up=False does without: choose one of them.")

    # The consumer's side ------------------------------------------------------------------------------------------------

    async def next(self, within: float | None = None, handled: bool = True) -> SchemaChange | Reset | None:
        """The next event, or None after `within` seconds in which nothing was pending.

        handled: the consumer is done with all that it took before, so that the store may say so.
        """
        if handled:
            await self._save()
        while True:
            event = self._take()
            if event is not None:
                return event
            if handled:
                await self._save()  # of what the filters held back, and of silence
            if self.task.done() and not self.ready:
                self.task.result()
            self._ask_for_more()
            if not self.ready:
                try:
                    async with asyncio.timeout(within):
                        await self.filled.wait()
                except TimeoutError:
                    if not self._stale and not self._reading:
                        return None

    async def rest(self, events: list[SchemaChange | Reset]) -> list[SchemaChange | Reset]:
        """What is still to come of the transactions of these events, and what comes before that."""
        self._resting = True
        try:
            return await self._rest(events)
        finally:
            self._resting = False

    async def _rest(self, events: list[SchemaChange | Reset]) -> list[SchemaChange | Reset]:
        more: list[SchemaChange | Reset] = []

        def take() -> None:
            event = self._take()
            if event is not None:
                more.append(event)

        def transactions() -> set[int | None]:
            return {event.txid for event in (*events, *more) if isinstance(event, SchemaChange)} - {None}

        # A complete answer that is asked for from now on has all of the transactions that notices told of.
        answer = self._answer
        while (
            self.position is not None
            and self._answered < answer
            and any(txid in transactions() for txid, _ in self.position.direct)
        ):
            self._stale = True
            while self.ready:
                take()
            if self.task.done():
                self.task.result()
            self._ask_for_more()
            await self.filled.wait()
        while self._reading:  # and what it brings is on its way to `ready`
            self.filled.clear()
            await self.filled.wait()
        while any(waiting.txid in transactions() for waiting in self.ready):
            take()
        return more

    def _take(self) -> SchemaChange | Reset | None:
        """The first waiting event that the filters let pass."""
        while self.ready:
            waiting = self.ready.popleft()
            self._taken = waiting.cursor
            event = waiting.event
            if event is None:
                event = from_log_row(waiting.row, database=self._database, cursor=self._taken)
            if isinstance(event, Reset) or self._wanted(event):
                return event
        return None

    def _ask_for_more(self) -> None:
        self.filled.clear()
        if self._stale or self._due or self._overflowed:
            self.wake.set()

    async def _save(self) -> None:
        store = self._options.get("store")
        if store is None:
            return
        async with self._saving:
            # the position is further than the consumer while something waits, or comes from an answer
            cursor = self._taken if self.ready or self._reading else self._cursor()
            if cursor is None or cursor == self.saved:
                return
            saving = asyncio.ensure_future(asyncio.to_thread(store.save, cursor))
            try:
                await asyncio.shield(saving)
            finally:
                # whoever goes on from there must not be overtaken by this
                await asyncio.wait([saving])
            self.saved = cursor

    # The server's side --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, and again when the connection is lost, until cancelled or refused."""
        first, longest = self._backoff
        attempts = 0
        while True:
            started = time.monotonic()
            try:
                await self._session()
            except (Unreachable, CannotListen) as error:
                if not self._had_session:
                    raise
                if self._reading:
                    # perhaps the answer was too long for the line
                    self._reading = self._refreshing = False
                    self._rows = max(1, self._rows // 8)
                    self.filled.set()
                attempts = 1 if time.monotonic() - started > longest else attempts + 1
                delay = _delay(attempts, first, longest)
                _log.warning("%s  Trying again in %.1f s.", error, delay)
                if self._on_lost is not None:
                    self._on_lost(str(error))
                await asyncio.sleep(delay)

    async def _session(self) -> None:
        """One connection's life; ends in an exception."""
        parameters: dict[str, Any] = {}
        if self._route is not None:
            await asyncio.to_thread(self._route.refresh)
            parameters = self._route.parameters
        async with async_session(
            self._conninfo, hear=self._hear, ended=self.wake.set, timeout=max(2, self._heartbeat), **parameters
        ) as session:
            require(session.facts, session.where)
            if self._catch_up and not session.facts.may_read:
                raise may_not_read(session.role, session.where)
            self._database = session.facts.database
            with told(session.where, session.role):
                if self._on_session is not None:
                    self._had_session = True  # what it waits for may outlast the session
                    await self._on_session(session)
                self._stale = self._catch_up
                await session.rows(f"LISTEN {CHANNEL}")
                if self._sessions and not self._catch_up:
                    self._deliver(Reset("the connection was lost, and what happened meanwhile was not asked for"))
                self._sessions += 1
                self._had_session = True
                start = self._cursor()
                if self._catch_up and not self.ready:
                    await self._read_log(session)
                _log.info("Listening to %s.", session.where if self._route is None else f"PostgreSQL in {self._route.name}")
                if start is None:
                    await self._save()  # so that a program that ends before the first change knows where it stood
                if self._on_ready is not None:
                    self._on_ready(start or self._cursor())
                while True:
                    await self._turn(session)

    async def _turn(self, session: AsyncSession) -> None:
        """Read the log if there is cause, or wait: for a notice, for the consumer, at most until the heartbeat."""
        session.check()
        if self._overflowed and not self.ready:
            self._overflowed = False
            self._deliver(Reset(f"more than {_WAITING} unlogged changes came while the consumer was busy", self._cursor()))
        if (self._stale or self._due) and not self.ready:
            if self._futile:
                await asyncio.sleep(_PAUSE / 2 ** (_FUTILE - self._futile))
            await self._read_log(session)
            return
        self.wake.clear()
        self._timer = asyncio.get_running_loop().call_at(session.last_heard + self._patience, self._beat, session)
        try:
            await self.wake.wait()
        finally:
            self._timer.cancel()

    @property
    def _patience(self) -> float:
        """Seconds of silence after which the log is asked for news."""
        many = self.position is not None and len(self.position.direct) >= _DIRECT
        return min(_SILENCE, self._heartbeat) if many else self._heartbeat

    def _beat(self, session: AsyncSession) -> None:
        """Ask the log for news after a time of silence: a sign of life as good as any, and finds what was logged and not announced.

        What is usual, that there is none, wakes nobody.
        """
        position = self.position
        due = session.last_heard + self._patience
        loop = asyncio.get_running_loop()
        if loop.time() < due:
            self._timer = loop.call_at(due, self._beat, session)
            return
        if session.is_asked:
            self._timer = loop.call_later(self._heartbeat, self._beat, session)
            return
        try:
            if position is not None and not position.direct and not position.places and not self.ready:
                self._reading = True
                session.pulse(CHANGES_SINCE, [position.server, "1"], self._answered_beat)
                self._timer = loop.call_later(self._heartbeat, self._beat, session)
            elif self._catch_up and not self.ready:
                self._due = True
                self.wake.set()
            else:
                session.pulse("SELECT 1, 1", [], lambda *_: None)
                self._timer = loop.call_later(self._heartbeat, self._beat, session)
        except psycopg.Error:
            self.wake.set()  # the session tells why

    def _answered_beat(self, kind: str, cursor: str) -> None:
        self._reading = False
        if kind != "cursor" or self._stale:
            self._stale = True
            self.wake.set()
        elif self.position is not None and cursor != self.position.server:
            self.position = Position(cursor)
            self._answered, self._answer = self._answer, self._answer + 1
        if self._options.get("store") is not None or self._resting:
            self.filled.set()

    def _hear(self, channel: str, payload: str, pid: int) -> None:
        """Deliver a notice that is news, or note that the log is to be read."""
        if channel != CHANNEL:
            return
        try:
            change = parse_notice(payload)
        except MalformedNotice as error:
            self._malformed.warn(f"Skipped a malformed notice from process {pid}: {error}.")
            return
        position = self.position
        if not self._catch_up or change.id is None or change.txid is None:
            # not in the log: now or never
            if self._verify:
                return
            if len(self.ready) >= _WAITING:
                self._overflowed = True
            else:
                self._deliver(replace(change, cursor=self._cursor()), change.txid)
        elif position is not None and position.snapshot is not None and position.snapshot.shows(change.txid):
            return
        elif (
            position is None
            or position.snapshot is None
            or position.places
            or self._stale
            or (self._reading and not self._refreshing)
            or self._verify
            or change.truncated
            or len(self.ready) >= _DIRECT
            or len(position.direct) >= _MOST_DIRECT + _DIRECT
            # The server tells each change once: this notice or the one before it is forged.  The log knows.
            or (change.txid, change.id) in position.direct
        ):
            self._stale = True
            if not self.ready:
                self.wake.set()
        else:
            position.add(change.txid, change.id, digest(change))
            self._deliver(replace(change, cursor=str(position)), change.txid)
            self._due = not self._reading and len(position.direct) >= _MOST_DIRECT
            if len(position.direct) == _DIRECT:
                self.wake.set()  # for a shorter patience

    async def _read_log(self, session: AsyncSession) -> None:
        """Deliver what came after the position, some rows of it; a new position."""
        await session.idle()
        former = self.position
        asked = 0 if former is None else len(former.direct)
        # what notices tell meanwhile goes to the consumer even so, unless it were before what the answer brings
        self._reading, self._refreshing = True, not self._stale and former is not None and not former.places
        self._stale = self._due = False
        answer, limit = self._answer, self._rows
        self._answer += 1
        started = time.monotonic()
        rows = await session.rows(CHANGES_SINCE, [None if former is None else former.server, str(limit)])
        took = time.monotonic() - started
        self._refreshing = False
        *changes, (kind, cursor, *_, reason, _) = rows
        complete = len(changes) < limit
        self._rows = min(2 * limit, _MOST_ROWS) if took < _ANSWER / 2 else max(1, int(limit * min(1, _ANSWER / took)))
        new = Position((cursor or b"").decode())
        if former is not None:
            new = former.after(new.server, complete or kind == b"reset", asked)
            await self._deliver_rows([row[2:] for row in changes], former, new, complete and kind != b"reset")
            self._futile = self._futile // 2 if changes else min(self._futile + 1, _FUTILE)
            if kind == b"reset":
                text = (reason or b"").decode(errors="replace")
                _log.warning("Reset: %s.", text)
                self._deliver(Reset(text, new.server))
        self.position, self._reading, self._due = new, False, len(new.direct) >= _MOST_DIRECT
        if complete:
            self._answered = answer
        else:
            self._stale = True
        self.filled.set()

    async def _deliver_rows(self, rows: list[tuple[bytes | None, ...]], former: Position, new: Position, complete: bool) -> None:
        """Deliver the rows of an answer that were not delivered before, in the order of their commands."""
        told_before = {key: said for key, said in former.direct.items() if key not in new.direct}
        waiting: _Waiting | None = None
        # no notice adds to the former position meanwhile
        cursor, passed, snapshot = str(former), former.places, new.snapshot
        for count, (number, txid, row) in enumerate(sorted((int(row[0] or 0), int(row[1] or 0), row) for row in rows), 1):
            if count % 100 == 0:
                self.filled.set()
                await asyncio.sleep(0)  # others have their turn
            said = told_before.pop((txid, number), None)
            if passed and former.passed(txid, number):
                continue
            if said is not None:
                if said == digest(from_log_row(row, database=self._database)):
                    continue
                self._forged.warn(f"A notice told change {number} of transaction {txid} otherwise than the log: it was forged.")
            place = "" if snapshot is None else f"@{Place(snapshot, number, txid)}"
            waiting = _Waiting(txid, cursor + place, None, row)
            self.ready.append(waiting)
        if complete and told_before:
            self._forged.warn(f"{len(told_before)} notices told of changes that were never made: they were forged.")
        if waiting is not None:
            waiting.cursor = str(new)

    def _deliver(self, event: SchemaChange | Reset, txid: int | None = None) -> None:
        self.ready.append(_Waiting(txid, event.cursor, event))
        self.filled.set()

    def _cursor(self) -> str | None:
        return None if self.position is None else str(self.position)

    def close(self) -> None:
        """Tell what was only counted so far."""
        self._malformed.close()
        self._forged.close()


class _Counted:
    """Warnings that others can cause by the thousand: the first at once, then how many more there were, at intervals."""

    def __init__(self) -> None:
        self._more, self._last = 0, ""
        self._timer: asyncio.TimerHandle | None = None

    def warn(self, sentence: str) -> None:
        if self._timer is not None:
            self._more, self._last = self._more + 1, sentence
            return
        _log.warning("%s", sentence)
        self._timer = asyncio.get_running_loop().call_later(_COUNTED_EVERY, self._tell)

    def _tell(self) -> None:
        self._timer = None
        if self._more:
            self._tell_more()
            self._timer = asyncio.get_running_loop().call_later(_COUNTED_EVERY, self._tell)

    def _tell_more(self) -> None:
        _log.warning("%d more of this kind since, within %.0f s, the last: %s", self._more, _COUNTED_EVERY, self._last)
        self._more = 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._more:
            self._tell_more()


def _delay(attempt: int, first: float, longest: float) -> float:
    """Seconds before attempt number `attempt`, from 1 on; random, so that listeners of one server do not come back all at once.

    "Full jitter" between half of `first` and `first` doubled with each attempt, at most `longest`:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return random.uniform(min(first, longest) / 2, min(longest, first * 2 ** min(attempt - 1, 30)))  # noqa: S311


async def _next(events: AsyncGenerator[_Event, None], under_way: list[asyncio.Task[Any]]) -> _Event:
    under_way[:] = filter(None, [asyncio.current_task()])
    return await anext(events)


async def _end(events: AsyncGenerator[Any, None], under_way: list[asyncio.Task[Any]]) -> None:
    for task in under_way:
        task.cancel()
        await asyncio.wait([task])
    await events.aclose()
    await asyncio.get_running_loop().shutdown_default_executor()
