"""Listen without missing a change.

    async for change in listen("postgresql://app@db/app", store=FileCursorStore("app.cursor")):
        if isinstance(change, Reset):
            await read_the_whole_schema()
        else:
            print(change.tag, change.objects)

How nothing is missed and nothing comes twice: the listener first LISTENs, then asks the log for what came after its
cursor, then follows the notices.  Its position is the snapshot that the log was last read with, plus the ids delivered
from notices since.  A notice of a transaction that the snapshot shows is old news and dropped; any other is new.  Now
and then, and after each reconnect, the log is read again from the position: what notices did not bring, it brings.

One task owns the connection and empties it all the time, so that the server's queue of notices never waits for a slow
consumer.  What the consumer has no room for is not kept: it is read from the log when the consumer is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Generator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypedDict, TypeVar, Unpack

import psycopg
from psycopg import sql

from .cursor import CursorStore, Position
from .errors import (
    CannotListen,
    NotInstalled,
    NotPermitted,
    SchemaChangesError,
    Unreachable,
    connection_error,
    describe,
    first_line,
    lost,
)
from .event import CHANNEL, LOG_COLUMNS, MalformedNotice, Reset, SchemaChange, from_log_row, parse_notice
from .route import Route

_log = logging.getLogger("schema_changes")
_Event = TypeVar("_Event")

# Rows asked for at a time: bounds the memory, and how long a consumer that turns away holds a session's attention.
_ROWS = 5000
# Changes delivered from notices before the log is read again; bounds the length of the cursor.
_DIRECT = 256
# Changes that wait for the consumer when there is no log to read them from later.
_WAITING = 10_000


class ListenOptions(TypedDict, total=False):
    """The keyword arguments of `listen` and its kin, all optional."""

    cursor: str | None
    """Go on after this one.  Without it (and without one in the store) from now."""
    store: CursorStore | None
    """Loads the cursor at the start unless `cursor` is given, and saves it when the consumer asks for the next event, having
    handled this one.  What the store raises, the iterator raises."""
    schemas: Collection[str]
    """Only changes with an object in one of these schemas; patterns such as `app_*`, as for Python's fnmatchcase()."""
    kinds: Collection[str]
    """Only changes with an object of one of these kinds (table, index, …); patterns.  With `schemas`: the same object."""
    tags: Collection[str]
    """Only these commands; patterns such as `ALTER *`, in capitals or not."""
    verify: bool
    """Believe the log only, so that a notice that another user forged can do nothing; costs a query per change."""
    catch_up: bool
    """False: notices only, for a role that may not read the log.  What happens while disconnected is then lost, and a
    `Reset` says so after each reconnect."""
    heartbeat: float
    """Seconds of silence after which the server is asked for a sign of life, and seconds that it may take to answer or to accept
    a connection (these at least 2, as libpq waits no less for a connection).  Default: 5."""
    backoff: tuple[float, float]
    """Seconds to wait before reconnecting: before the first attempt, and at most.  Doubled each time, and jittered.
    Default: (0.1, 10)."""
    route: Route | None
    """The way to a container that publishes no port; asked anew for each connection."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that came in one burst."""

    events: tuple[SchemaChange | Reset, ...]
    """At least one, in the order of `listen`."""

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
        return self.events[-1].cursor


async def listen(conninfo: str = "", **options: Unpack[ListenOptions]) -> AsyncGenerator[SchemaChange | Reset, None]:
    """Yield each committed schema change of the database, once, for ever; and a `Reset` where the server cannot.

    conninfo: as for `psycopg.connect`; what it leaves out comes from the PG* variables.

    Raises at the start what keeps it from listening: `Unreachable`, `LoginRefused`, `NotInstalled`, `NotPermitted`,
    `CannotListen`, or their base `SchemaChangesError` for a connection string or options that make no sense.  Later it
    reconnects while the server is away or a standby, and raises when it is back and refuses.

    Exactly once holds for this iterator and the cursors in its events.  A consumer that dies after it was handed a
    change and before that change's cursor was stored gets the change again.
    """
    async with _feed(conninfo, options) as feed:
        while (event := await feed.next()) is not None:
            yield event


async def listen_batches(
    conninfo: str = "", *, quiet: float = 0.2, longest: float = 5, **options: Unpack[ListenOptions]
) -> AsyncGenerator[Batch, None]:
    """As `listen`, a burst of changes (a migration) as one `Batch`: it ends after `quiet` seconds without a change.

    longest: seconds after which a batch ends even so; 10,000 events end it too.  With a store, the cursor is saved once a batch is
    handled: when the next is asked for.  Raises what `listen` raises.
    """
    loop = asyncio.get_running_loop()
    async with _feed(conninfo, options) as feed:
        while (event := await feed.next()) is not None:
            events = [event]
            ends = loop.time() + longest
            while (left := ends - loop.time()) > 0 and len(events) < _WAITING:
                following = await feed.next(within=min(quiet, left), handled=False)
                if following is None:
                    break
                events.append(following)
            yield Batch(tuple(events))


def listen_sync(conninfo: str = "", **options: Unpack[ListenOptions]) -> Generator[SchemaChange | Reset, None, None]:
    """`listen` for programs without asyncio: a plain iterator, which raises the same.

    A thread reads from the connection meanwhile; it ends with the iterator: when that is closed, garbage, or left by an exception.
    """
    return _iterate(listen(conninfo, **options))


def listen_batches_sync(
    conninfo: str = "", *, quiet: float = 0.2, longest: float = 5, **options: Unpack[ListenOptions]
) -> Generator[Batch, None, None]:
    """`listen_batches` for programs without asyncio, as `listen_sync` is `listen`."""
    return _iterate(listen_batches(conninfo, quiet=quiet, longest=longest, **options))


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


def wanted(change: SchemaChange, *, schemas: Collection[str] = (), kinds: Collection[str] = (), tags: Collection[str] = ()) -> bool:
    """Whether a change passes the filters; one whose objects are unknown passes those by schema and kind."""
    if tags and not _matches(change.tag.upper(), [tag.upper() for tag in tags]):
        return False
    if not (schemas or kinds) or change.truncated:
        return True
    return any(
        (not schemas or _matches(item.schema or "", schemas)) and (not kinds or _matches(item.kind, kinds))
        for item in change.objects
    )


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
        if not feed.task.cancelled():
            feed.task.exception()  # it was raised by next(), or the consumer left before


class _Feed:
    """Runs as a task that owns the connection and fills `ready`, and is emptied by the consumer with `next`."""

    task: asyncio.Task[None]

    def __init__(self, conninfo: str, options: ListenOptions) -> None:
        self.ready: deque[SchemaChange | Reset] = deque()
        self.filled = asyncio.Event()
        self.wake = asyncio.Event()
        cursor = options.get("cursor")
        # None until the first session gave one, or for ever when not catching up
        self.position = None if cursor is None else Position(cursor)
        # the cursor of the event that the consumer took last, and the one in the store
        self._taken = self._saved = cursor
        self._conninfo = conninfo
        self._options = options
        self._route = options.get("route")
        self._schemas, self._kinds, self._tags = options.get("schemas", ()), options.get("kinds", ()), options.get("tags", ())
        self._catch_up = options.get("catch_up", True)
        self._verify = options.get("verify", False)
        self._heartbeat = options.get("heartbeat", 5.0)
        self._backoff = options.get("backoff", (0.1, 10.0))
        # the log has, or may have, changes that were not delivered
        self._stale = True
        self._reading = False
        # what was delivered from notices since the log was last read, to tell it from what others forged
        self._direct: dict[int, SchemaChange] = {}
        self._overflowed = False
        self._sessions = 0
        if self._verify and not self._catch_up:
            raise SchemaChangesError("verify=True asks the log, which catch_up=False does without: choose one of them.")

    async def next(self, within: float | None = None, handled: bool = True) -> SchemaChange | Reset | None:
        """The next event, or None after `within` seconds.

        handled: the consumer is done with all that it took before, so that the store may say so.
        """
        try:
            async with asyncio.timeout(within) as limit:
                if handled:
                    await self._save()
                while True:
                    while self.ready:
                        event = self.ready.popleft()
                        self._taken = event.cursor
                        if isinstance(event, Reset) or wanted(event, schemas=self._schemas, kinds=self._kinds, tags=self._tags):
                            return event
                    if handled:
                        await self._save()  # of what the filters held back, and of silence
                    if self.task.done() and not self.ready:
                        self.task.result()
                    self.filled.clear()
                    if self._stale or self._overflowed:
                        self.wake.set()
                    if not self.ready:
                        await self.filled.wait()
        except TimeoutError:
            if not limit.expired():
                raise  # the store's: no reason to end as if all were told
            return None

    async def _save(self) -> None:
        store = self._options.get("store")
        cursor = self._taken if self.ready else self._cursor()
        if store is not None and cursor is not None and cursor != self._saved:
            await asyncio.to_thread(store.save, cursor)
            self._saved = cursor

    async def run(self) -> None:
        """Connect, and again when the connection is lost, until cancelled or refused."""
        first, longest = self._backoff
        attempts = 0
        while True:
            started = time.monotonic()
            try:
                await self._session()
            except (Unreachable, CannotListen) as error:
                if self._sessions == 0:
                    raise
                attempts = 1 if time.monotonic() - started > longest else attempts + 1
                delay = _delay(attempts, first, longest)
                _log.warning("%s  Trying again in %.1f s.", error, delay)
                await asyncio.sleep(delay)

    async def _session(self) -> None:
        """One connection's life; ends in an exception."""
        where = describe(self._conninfo) if self._route is None else f"PostgreSQL in {self._route.name}"
        async with contextlib.AsyncExitStack() as stack:
            connection = await self._connect(where)
            stack.push_async_callback(connection.close)
            try:
                await self._ask(connection, f"LISTEN {CHANNEL}")
                connection.add_notify_handler(self._hear)
                self._stale = True
                if self._sessions and not self._catch_up:
                    self._deliver(Reset("the connection was lost, and what happened meanwhile was not asked for"))
                self._sessions += 1
                _log.info("Listening to %s.", where)
                while True:
                    await self._turn(connection)
            except psycopg.errors.InsufficientPrivilege as error:
                raise NotPermitted(f"Listening to {where} is not permitted: {error.diag.message_primary}.") from error
            except psycopg.OperationalError as error:
                raise lost(error, where) from error
            except psycopg.Error as error:
                # gone with the extension, for one
                raise NotInstalled(f"The log of {where} cannot be read: {first_line(error)}.") from error

    async def _turn(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Read the log if there is cause, then wait: for the server, for the consumer, at most until the heartbeat."""
        if self._overflowed and not self.ready:
            self._overflowed = False
            self._deliver(Reset(f"more than {_WAITING} unlogged changes came while the consumer was busy", self._cursor()))
        if self._catch_up and self._stale and not self.ready:
            await self._read_log(connection)
        heard = await self._wait(connection)
        if not heard and not self.ready:
            if self._catch_up:
                # reading the log is a sign of life as good as any, and finds what was logged and not announced
                self._stale = True
            else:
                await self._ask(connection, "SELECT 1")

    async def _wait(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        """False when the time is over."""
        if self._stale and self._catch_up and not self.ready:
            return True
        loop = asyncio.get_running_loop()
        loop.add_reader(connection.fileno(), self.wake.set)
        try:
            async with asyncio.timeout(self._heartbeat):
                await self.wake.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(connection.fileno())
            self.wake.clear()
        connection.pgconn.consume_input()
        while notice := connection.pgconn.notifies():
            self._hear(psycopg.Notify(notice.relname.decode(), notice.extra.decode(errors="replace"), notice.be_pid))
        return True

    def _hear(self, notice: psycopg.Notify) -> None:
        """Deliver a notice that is news, or note that the log is to be read."""
        if notice.channel != CHANNEL:
            return
        try:
            change = parse_notice(notice.payload)
        except MalformedNotice as error:
            _log.warning("Skipped a malformed notice from process %d: %s.", notice.pid, error)
            return
        position = self.position
        if not self._catch_up or change.id is None or change.txid is None:
            # not in the log: now or never
            if self._verify:
                return
            if len(self.ready) >= _WAITING:
                self._overflowed = True
            else:
                self._deliver(replace(change, cursor=self._cursor()))
        elif (
            position is None
            or not position.is_readable
            or self._stale
            or self._reading
            or self._verify
            or change.truncated
            or len(self.ready) >= _DIRECT
        ):
            self._stale = True
        elif position.shows(change.txid):
            return
        elif change.id in position:
            # The server tells each change once: this notice or the one before it is forged.  The log knows.
            self._stale = True
        else:
            self._direct[change.id] = change
            position.add(change.id)
            self._deliver(replace(change, cursor=str(position)))
            self._stale = len(position) >= _DIRECT

    async def _read_log(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Deliver what came after the position, up to a number of rows; a new position."""
        former = self.position
        self._stale, self._reading = False, True
        try:
            rows = await self._ask(
                connection,
                f"SELECT kind, cursor, {LOG_COLUMNS} FROM schema_notifications.changes_since(%s, %s)",  # noqa: S608
                [None if former is None else former.server, _ROWS],
            )
        finally:
            self._reading = False
        *changes, (kind, cursor, *_, reason, _) = rows
        for number, (_, _, *row) in enumerate(changes, 1):
            if number % 100 == 0:
                await asyncio.sleep(0)  # others have their turn
            row_id, txid, _, _, tag, _ = row
            if former is None or (row_id in former and self._is_delivered(row_id, int(txid), tag)):
                continue
            former.add(row_id)
            self._deliver(from_log_row(row, database=connection.info.dbname, cursor=str(former)))
        if self.ready:
            self.ready.append(replace(self.ready.pop(), cursor=cursor))
        if kind == "reset":
            _log.warning("Reset: %s.", reason)
            self._deliver(Reset(reason, cursor))
        self.position, self._direct = Position(cursor), {}
        self._stale = self._stale or len(changes) >= _ROWS
        self.filled.set()

    def _is_delivered(self, row_id: int, txid: int, tag: str) -> bool:
        """Whether an id in the position stands for this change, and not for a forged one."""
        change = self._direct.get(row_id)
        return change is None or (change.txid, change.tag) == (txid, tag)

    def _deliver(self, event: SchemaChange | Reset) -> None:
        self.ready.append(event)
        self.filled.set()

    def _cursor(self) -> str | None:
        return None if self.position is None else str(self.position)

    async def _connect(self, where: str) -> psycopg.AsyncConnection[Any]:
        """A session that can hear notices and, when catching up, may read the log."""
        parameters: dict[str, Any] = {"connect_timeout": max(2, round(self._heartbeat))}
        parameters["fallback_application_name"] = "schema_changes"
        # for what happens between heartbeats while the consumer is busy
        parameters |= {"keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3}
        given = psycopg.conninfo.conninfo_to_dict(self._conninfo)
        parameters = {name: value for name, value in parameters.items() if name not in given}
        if self._route is not None:
            await asyncio.to_thread(self._route.refresh)
            parameters |= self._route.parameters
        try:
            connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, **parameters)
        except psycopg.OperationalError as error:
            raise connection_error(error, where) from error
        try:
            await self._inspect(connection, where, parameters)
        except psycopg.Error as error:
            await connection.close()
            raise lost(error, where) from error
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _inspect(self, connection: psycopg.AsyncConnection[Any], where: str, parameters: dict[str, Any]) -> None:
        ((standby, pid, version, may_read),) = await self._ask(
            connection,
            "SELECT pg_is_in_recovery(), pg_backend_pid(), "
            "(SELECT extversion FROM pg_extension WHERE extname = 'schema_notifications'), "
            "(SELECT has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE') FROM pg_proc AS p "
            "JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname = 'schema_notifications' AND proname = 'changes_since')",
        )
        if standby:
            raise CannotListen(f"Cannot listen to {where}: it is a standby, which carries no notices; connect to the primary.")
        if pid != connection.info.backend_pid and await self._is_shared(connection, pid, parameters):
            raise CannotListen(
                f"Cannot listen to {where}: a proxy in between pools transactions, and LISTEN needs a session of its own; "
                "connect to PostgreSQL directly, or through a pool in session mode."
            )
        if version is None:
            raise NotInstalled(
                f"The extension schema_notifications is not installed in {where}: "
                "connect as a superuser and run CREATE EXTENSION schema_notifications."
            )
        if self._catch_up and not may_read:
            role = sql.Identifier(connection.info.user).as_string()
            raise NotPermitted(
                f"Role {role} may not read the log of {where}: run GRANT USAGE ON SCHEMA schema_notifications TO {role} and "
                f"GRANT EXECUTE ON FUNCTION schema_notifications.changes_since TO {role}, or listen without catching up."
            )

    async def _is_shared(self, connection: psycopg.AsyncConnection[Any], pid: int, parameters: dict[str, Any]) -> bool:
        """Whether a proxy (it invents process ids, so it is known to be there) gives our server session to others.

        A second client of the proxy opens a transaction.  When transactions are pooled, it either gets the session that
        was ours, or our next query is answered by another.
        """
        # not autocommit: the first query opens the transaction
        async with await psycopg.AsyncConnection.connect(self._conninfo, **parameters) as other:
            ((taken,),) = await self._ask(other, "SELECT pg_backend_pid()")
            if taken == pid:
                return True
            ((ours,),) = await self._ask(connection, "SELECT pg_backend_pid()")
            return bool(ours != pid)

    async def _ask(self, connection: psycopg.AsyncConnection[Any], query: str, arguments: list[Any] | None = None) -> list[Any]:
        """Run a query; when the answer does not come in time, cut the connection, which makes the query fail.

        Not cancelled: psycopg would ask the server to cancel and wait for it, and the server is what does not answer.
        """
        cut = asyncio.get_running_loop().call_later(max(self._heartbeat, 2), _cut, connection)
        try:
            cursor = await connection.execute(query, arguments)
            return await cursor.fetchall() if cursor.description else []
        finally:
            cut.cancel()


def _cut(connection: psycopg.AsyncConnection[Any]) -> None:
    if not connection.closed:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)


def _delay(attempt: int, first: float, longest: float) -> float:
    """Seconds before attempt number `attempt`, from 1 on; random, so that listeners of one server do not come back all at once.

    "Full jitter" between half of `first` and `first` doubled with each attempt, at most `longest`:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return random.uniform(min(first, longest) / 2, min(longest, first * 2 ** min(attempt - 1, 30)))  # noqa: S311


def _matches(value: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


async def _next(events: AsyncGenerator[_Event, None], under_way: list[asyncio.Task[Any]]) -> _Event:
    under_way[:] = filter(None, [asyncio.current_task()])
    return await anext(events)


async def _end(events: AsyncGenerator[Any, None], under_way: list[asyncio.Task[Any]]) -> None:
    for task in under_way:
        task.cancel()
        await asyncio.wait([task])
    await events.aclose()
    await asyncio.get_running_loop().shutdown_default_executor()
