"""The relay: one session to the database, and for each sink a cursor of its own.

A sink that is down is tried again, later each time, for as long as it takes; meanwhile its cursor stays, and the others
go on.  A cursor is saved after the sink has what came before it, so a relay that dies hands the last events over again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from ..cursor import CursorStore, TableCursorStore
from ..errors import SchemaChangesError
from ..event import Reset, SchemaChange
from ..filters import Filter, is_of_check
from ..hub import Hub
from ..listener import _delay as backoff
from ..metrics import Sample
from .cloudevent import CHECK, cloud_event
from .sinks import Gone, NotDelivered, Sink

_log = logging.getLogger("schema_changes")

# Seconds before the second attempt, and at most between two.
_BACKOFF = (0.5, 300.0)
# Seconds that an answer may take once the relay is to end; Docker kills after 10.
_LAST_ANSWER = 5


class Delivery:
    """What one sink has and has not.

    differences: whether it is told them, where the hub does.
    """

    def __init__(self, name: str, sink: Sink, store: CursorStore, differences: bool = True) -> None:
        self.name = name
        self.sink = sink
        self.store = store
        self.differences = differences
        self.cursor: str | None = None
        self.delivered = 0
        self.checks = 0
        """How many of them were changes that a check made."""
        self.failures = 0
        self.problem: str | None = None
        """Why the last attempt failed; None when it succeeded."""
        self.failing_since: float | None = None
        """time.time() of the first failure after the last success."""
        self.ended = False
        self._oldest: datetime | None = None
        self._ending = asyncio.Event()
        self._session = 0

    @property
    def lag(self) -> float:
        """Seconds since the oldest change that the sink has not was made; 0 when it has all."""
        return 0.0 if self._oldest is None else max(0.0, (datetime.now(UTC) - self._oldest).total_seconds())

    def as_dict(self, stuck_after: float, away: float = 0) -> dict[str, Any]:
        """Its state for people and programs.

        away: seconds since the database was lost; what happened there meanwhile, the sink has not.
        """
        return {
            "sink": self.name,
            "to": self.sink.where,
            "healthy": not self.ended and not (self.failing_since is not None and time.time() - self.failing_since >= stuck_after),
            "problem": self.problem,
            "failing_since": _time(self.failing_since),
            "ended": self.ended,
            "lag_seconds": round(max(self.lag, away), 3),
            "delivered": self.delivered,
            "checks": self.checks,
            "failures": self.failures,
            "cursor": self.cursor,
        }

    async def run(self, hub: Hub, wanted: Callable[[SchemaChange], bool]) -> None:
        """Deliver until cancelled or the sink is gone; raises what `Hub.follow` raises."""
        session = hub.session or 0
        self.cursor = await asyncio.to_thread(self.store.load)
        self._session = session
        if self.cursor is None:
            await self._save(hub, hub.cursor)
        while True:
            try:
                return await self._follow(hub, wanted)
            except _Overtaken:
                _log.warning("Another relay had the cursor of sink %s meanwhile: going on after that one.", self.name)

    async def _follow(self, hub: Hub, wanted: Callable[[SchemaChange], bool]) -> None:
        async with contextlib.aclosing(hub.follow(self.cursor, self.sink.most)) as batches:
            async for events in batches:
                handing_over = asyncio.create_task(self._hand_over(hub, events, wanted))
                try:
                    await asyncio.shield(handing_over)
                except Gone as error:
                    self.problem, self.ended = str(error), True
                    _log.error("Sink %s has ended: %s.", self.name, error)
                    return
                except asyncio.CancelledError:
                    # an answer that is on its way is waited for, so that the next run need not ask again
                    self._ending.set()
                    await asyncio.wait([handing_over], timeout=_LAST_ANSWER)
                    handing_over.cancel()
                    raise

    async def _hand_over(self, hub: Hub, events: Sequence[SchemaChange | Reset], wanted: Callable[[SchemaChange], bool]) -> None:
        if chosen := [event for event in events if isinstance(event, Reset) or wanted(event)]:
            await self._deliver(hub, chosen)
        if events[-1].cursor is not None:
            await self._save(hub, events[-1].cursor)

    async def _deliver(self, hub: Hub, events: Sequence[SchemaChange | Reset]) -> None:
        self._oldest = min((event.timestamp for event in events if isinstance(event, SchemaChange)), default=datetime.now(UTC))
        cloud_events = [cloud_event(event, self.differences) for event in events]
        attempts = 0
        while True:
            await self._turn(hub)
            try:
                await self.sink.deliver(cloud_events)
                break
            except NotDelivered as error:
                reason = error
            except Gone:
                raise
            except Exception as error:  # noqa: BLE001 - what a sink's library does not foresee is to end no other sink
                reason = NotDelivered(f"{type(error).__name__}: {error}")
            attempts += 1
            wait = max(backoff(attempts, *_BACKOFF), reason.wait)
            self._failed(str(reason))
            _log.warning("Sink %s does not take changes: %s.  Trying again in %.1f s.", self.name, reason, wait)
            await self._pause(wait)
        self.delivered += len(events)
        self.checks += sum(event["type"] == CHECK for event in cloud_events)
        self.problem = self.failing_since = self._oldest = None

    async def _save(self, hub: Hub, cursor: str) -> None:
        attempts = 0
        while True:
            await self._turn(hub)
            try:
                await asyncio.to_thread(self.store.save, cursor)
                break
            except (OSError, SchemaChangesError) as error:
                attempts += 1
                wait = backoff(attempts, 0.1, 10)
                reason = " ".join(str(error).split())
                self._failed(f"its cursor cannot be saved: {reason}")
                _log.warning("The cursor of sink %s cannot be saved: %s.  Trying again in %.1f s.", self.name, reason, wait)
                await self._pause(wait)
        self.cursor = cursor
        self.problem = self.failing_since = None

    async def _turn(self, hub: Hub) -> None:
        """See that the cursor is this relay's: a cursor in the database is lost with the session, and another may have it then.

        Waits for the next session, which has the cursor again; raises `_Overtaken` when another relay moved it meanwhile.
        """
        if not isinstance(self.store, TableCursorStore):
            return
        while (session := hub.session) is None or session != self._session:
            if session is not None:
                try:
                    kept = await asyncio.to_thread(self.store.load)
                except SchemaChangesError as error:
                    self._failed(f"its cursor cannot be read: {' '.join(str(error).split())}")
                else:
                    self._session = session
                    if kept not in (None, self.cursor):
                        self.cursor = kept
                        raise _Overtaken
                    continue
            await self._pause(0.2)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()
            raise asyncio.CancelledError

    def _failed(self, problem: str) -> None:
        self.failures += 1
        self.problem = problem
        self.failing_since = self.failing_since or time.time()


class _Overtaken(Exception):
    """Another relay moved the cursor."""


class Relay:
    """Follows one database and hands each change on to all sinks.

    wanted: which changes are handed over.
    checks: also those that `check` makes, whatever is wanted, as events of a type of their own.
    stuck_after: seconds after which a sink that takes nothing, or a database that is away, makes the relay unhealthy.
    """

    def __init__(
        self,
        hub: Hub,
        deliveries: Sequence[Delivery],
        *,
        stuck_after: float = 300,
        wanted: Filter | None = None,
        checks: bool = False,
    ) -> None:
        self.hub = hub
        self.deliveries = deliveries
        self._stuck_after = stuck_after
        self._wanted = wanted or Filter()
        self._checks = checks

    async def run(self) -> None:
        """Until cancelled.

        Raises what `listen` raises, what a store raises at the start, and `SchemaChangesError` when no sink is left.
        """
        async with self.hub:
            tasks = [asyncio.create_task(delivery.run(self.hub, self._is_wanted)) for delivery in self.deliveries]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                for delivery in self.deliveries:
                    await delivery.sink.close()
        why = "; ".join(f"{delivery.name}: {delivery.problem}" for delivery in self.deliveries)
        raise SchemaChangesError(f"No sink wants any more changes ({why}).")

    def _is_wanted(self, change: SchemaChange) -> bool:
        return self._checks if is_of_check(change) else self._wanted(change)

    @property
    def _away(self) -> float:
        """Seconds since the database was lost; 0 while it is there."""
        return 0.0 if self.hub.lost_since is None else max(0.0, time.time() - self.hub.lost_since)

    def status(self) -> dict[str, Any]:
        """The state of all: `healthy` unless a sink is stuck or has ended, or the database is away for long."""
        away = self._away
        sinks = [delivery.as_dict(self._stuck_after, away) for delivery in self.deliveries]
        return {
            "healthy": all(sink["healthy"] for sink in sinks) and (self.hub.lost_since is None or away < self._stuck_after),
            "database": self.hub.where,
            "problem": self.hub.problem,
            "lost_since": _time(self.hub.lost_since),
            "events": self.hub.events,
            "checks": self._checks,
            "sinks": sinks,
        }

    def samples(self) -> Iterable[Sample]:
        """The numbers for OpenMetrics."""
        away = self._away
        yield "counter", "schema_changes_events", "Changes and resets that came from the database.", {}, self.hub.events
        yield "gauge", "schema_changes_database_lost_seconds", "Since the database is away; 0 while it is there.", {}, away
        for one in self.deliveries:
            labels = {"sink": one.name}
            yield "counter", "schema_changes_deliveries", "Changes and resets that the sink took.", labels, one.delivered
            yield "counter", "schema_changes_delivery_failures", "Attempts that failed.", labels, one.failures
            lag = max(one.lag, away)
            yield "gauge", "schema_changes_lag_seconds", "Age of the oldest change that the sink has not.", labels, lag
            healthy = one.as_dict(self._stuck_after)["healthy"]
            yield "gauge", "schema_changes_sink_healthy", "1 unless the sink is stuck or has ended.", labels, float(healthy)


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
