"""Keeps a picture of a database true over the years: in a session of its own, and another when that is lost."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
from collections.abc import AsyncIterator, Collection, Iterable
from typing import TYPE_CHECKING, Any

import psycopg

from ..errors import SchemaChangesError, Unreachable, first_line, lost
from ..feed import UNTRANSLATABLE
from ..filters import Patterns
from ..route import Route
from .differences import Difference, compare
from .picture import Picture
from .reader import Locked, Reader
from .store import PictureStore

if TYPE_CHECKING:
    from ..listener import ListenOptions

_log = logging.getLogger("schema_changes")

# Seconds that a reading may take; then the session is given up for another.
_LONGEST = 120


def snapshot(conninfo: str = "", *, timeout: float = 10, **parameters: Any) -> Picture:
    """A picture of the database, in one snapshot.

    conninfo and parameters: as for `psycopg.connect`.  timeout: seconds for connecting, and for locks that others hold.

    Any role may; the extension is not needed.  Raises `Unreachable`, `LoginRefused`, or `Locked` after `timeout` seconds in
    which somebody else had a lock.
    """
    with Follower(conninfo, timeout=timeout, **parameters) as follower:
        follower.refresh()
        return follower.picture


class Follower:
    """Holds the picture of a database.  A context manager; used from one thread at a time.

    picture: the one of an earlier run, which the first `refresh` tells the differences from.
    route: the way to a container, asked anew for each connection.  The rest as for `snapshot`.
    """

    def __init__(
        self,
        conninfo: str = "",
        picture: Picture | None = None,
        *,
        timeout: float = 10,
        route: Route | None = None,
        **parameters: Any,
    ) -> None:
        self.picture = picture or Picture()
        """As of the last `refresh`."""
        self._has_picture = picture is not None
        self._conninfo, self._parameters = conninfo, parameters
        self._timeout, self._route = timeout, route
        self._session = contextlib.ExitStack()
        self._where = ""
        self._reader: Reader | None = None

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def refresh(self) -> list[Difference]:
        """Make the picture as the schema is; returns what is different, which is nothing the first time without a picture.

        Raises `Unreachable` when the server is away or goes away; what has changed meanwhile, the next call tells.
        """
        try:
            if self._reader is None:
                self._begin()
            assert self._reader is not None  # noqa: S101
            try:
                differences = self._reader.refresh()
            except UNTRANSLATABLE:
                # a name in the database's encoding that UTF8 does not have: as it is from now on, for all names
                self._read_as_it_is()
                differences = self._reader.refresh()
        except psycopg.OperationalError as error:
            self._end()
            raise lost(error, self._where) from error
        except psycopg.Error as error:
            self._end()
            raise SchemaChangesError(f"The schema of {self._where} cannot be read: {first_line(error)}.") from error
        except BaseException:
            self._end()
            raise
        self.picture, self._has_picture = self._reader.picture, True
        return differences

    def cut(self) -> None:
        """Have a `refresh` that another thread is in fail as when the server went away."""
        reader = self._reader
        if reader is not None and not reader.connection.closed:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(reader.connection.fileno())) as twin:
                twin.shutdown(socket.SHUT_RDWR)

    def _begin(self) -> None:
        from .. import feed

        parameters = self._parameters
        if self._route is not None:
            self._route.refresh()
            parameters = {**parameters, **self._route.parameters}
        session = self._session.enter_context(
            feed.listening_session(self._conninfo, timeout=self._timeout, name="schema_changes diff", **parameters)
        )
        self._where = session.where
        # the same few queries again and again
        session.connection.prepare_threshold = 0
        self._read_as_it_is = functools.partial(session.pin, as_it_is=True)
        self._reader = Reader(session.connection, self.picture if self._has_picture else None, patience=self._timeout)

    def _end(self) -> None:
        self._reader = None
        self._session.close()


class Following:
    """What `listen_batches(diff=True)` asks after each batch.  Made by `following`."""

    def __init__(self, follower: Follower, options: ListenOptions, store: PictureStore | None) -> None:
        self._follower = follower
        self._store = store
        self._schemas = options.get("schemas", ())
        self._backoff = options.get("backoff", (0.1, 10.0))
        self._task: asyncio.Task[list[Difference]] | None = None
        # those of the last run, until they are told
        self._left = follower.picture if store is not None and store.picture is not None else None
        self.picture: Picture | None = None
        """The schema with the differences that were told last."""
        self.differs = False
        """Whether there is something to tell, be it without an event."""

    async def begin(self) -> None:
        """Read the picture that the first batch is compared with; raises what `Follower.refresh` raises."""
        found = await self._refresh()
        self.differs = bool(of_schemas(found, self._schemas))

    async def differences(self) -> tuple[Difference, ...]:
        """What is different since the last call; waits while the server is away or the schema is locked."""
        first, longest = self._backoff
        delay = first
        while True:
            try:
                found = await self._refresh()
                break
            except (Unreachable, Locked) as error:
                _log.warning("%s  Trying again in %.1f s.", error, delay)
                await asyncio.sleep(delay)
                delay = min(longest, 2 * delay)
        self.picture = self._follower.picture.copy()
        if self._left is not None:
            found, self._left = compare(self._left, self.picture), None
        if self._store is not None:
            self._store.stage(self.picture)
        return tuple(of_schemas(found, self._schemas))

    async def end(self) -> None:
        """Wait for a reading that was left."""
        if self._task is not None:
            self._follower.cut()
            await asyncio.wait([self._task])

    async def _refresh(self) -> list[Difference]:
        self._task = asyncio.create_task(asyncio.to_thread(self._follower.refresh))
        cut = asyncio.get_running_loop().call_later(_LONGEST, self._follower.cut)
        try:
            return await asyncio.shield(self._task)
        finally:
            cut.cancel()
            if self._task.done():
                self._task = None


def of_schemas(found: Iterable[Difference], schemas: Collection[str]) -> list[Difference]:
    """Those of objects in schemas that match these patterns, of these schemas themselves, and of what is in no schema."""
    patterns = Patterns(schemas)

    def name(difference: Difference) -> str | None:
        quoted = difference.name if difference.kind == "schema" else difference.schema
        return quoted[1:-1].replace('""', '"') if quoted is not None and quoted.startswith('"') else quoted

    return [difference for difference in found if (schema := name(difference)) is None or patterns.match(schema)]


@contextlib.asynccontextmanager
async def following(conninfo: str, options: ListenOptions) -> AsyncIterator[Following]:
    """For the time of a listener: loads the cursor from its store, if that has a picture too, and reads the first picture."""
    store = options.get("store")
    store = store if isinstance(store, PictureStore) else None
    if store is not None and options.get("cursor") is None:
        options["cursor"] = await asyncio.to_thread(store.load)
    with Follower(conninfo, None if store is None else store.picture, route=options.get("route")) as follower:
        one = Following(follower, options, store)
        try:
            await one.begin()
            yield one
        finally:
            await one.end()
