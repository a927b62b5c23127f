"""The web application: the page, the events, the history, the state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..errors import SchemaChangesError
from ..event import Reset, SchemaChange
from ..hub import Hub
from .access import Access
from .database import BadQuestion, Database

# Seconds of silence after which a sign of life is sent, by which both ends find out that the line is dead.
_ALIVE = 15
# Events that are sent at once at most.
_MOST = 500
# Texts that are kept because thousands may want them.
_KEPT = 2000

_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Web:
    """What is served.

    relays: ask a relay for its state, each.
    """

    def __init__(self, hub: Hub, database: Database, access: Access, relays: Sequence[Callable[[], dict[str, Any]]] = ()) -> None:
        self.hub = hub
        self.clients = 0
        """Open event streams."""
        self._database = database
        self._relays = relays
        self._texts: dict[tuple[str | None, str], bytes] = {}
        self.app = Starlette(
            routes=[
                *(Route(path, self._page) for path in _PAGE),
                Route("/login", access.login, methods=["POST"]),
                Route("/events", access.guarded(self._events)),
                Route("/history", access.guarded(self._history)),
                Route("/status", access.guarded(self._status)),
            ]
        )

    async def _page(self, request: Request) -> Response:
        name, kind = _PAGE[request.url.path]
        return Response(files(__package__).joinpath(name).read_bytes(), media_type=kind, headers=_HEADERS)

    async def _events(self, request: Request) -> Response:
        """The feed after the cursor in `Last-Event-ID` or `?cursor=`; from now on without one."""
        cursor = request.headers.get("last-event-id") or request.query_params.get("cursor") or self.hub.cursor
        if not re.fullmatch(r"[0-9A-Za-z._~,:/+@-]{1,16000}", cursor):
            return JSONResponse({"error": "this is no cursor"}, 400)
        headers = {**_HEADERS, "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(cursor), media_type="text/event-stream", headers=headers)

    async def _stream(self, cursor: str) -> AsyncGenerator[bytes, None]:
        self.clients += 1
        try:
            # the place is known from the start: a browser comes back with it even if nothing happened meanwhile
            yield f"retry: 1000\nid: {cursor}\nevent: alive\ndata: {{}}\n\n".encode()
            async with contextlib.aclosing(self.hub.follow(cursor, _MOST, idle=_ALIVE)) as batches:
                async for events in batches:
                    yield b"".join(map(self._text, events)) or b"event: alive\ndata: {}\n\n"
        except SchemaChangesError:
            return  # the command ends, and says why
        finally:
            self.clients -= 1

    def _text(self, event: SchemaChange | Reset) -> bytes:
        """The event as it is sent, made once for all."""
        kind, text = ("reset", event.reason) if isinstance(event, Reset) else ("change", event.raw)
        key = (event.cursor, text)
        if key not in self._texts:
            if len(self._texts) >= _KEPT:
                del self._texts[next(iter(self._texts))]
            self._texts[key] = f"id: {event.cursor}\nevent: {kind}\ndata: {json.dumps(fields(event))}\n\n".encode()
        return self._texts[key]

    async def _history(self, request: Request) -> Response:
        """What the log has, newest first, and the cursor to follow it from."""
        try:
            changes, cursor, before = await self._database.history(dict(request.query_params))
        except BadQuestion as error:
            return JSONResponse({"error": str(error)}, 400)
        except SchemaChangesError as error:
            return JSONResponse({"error": str(error)}, 503)
        return JSONResponse(
            {"changes": [fields(change) for change in changes], "cursor": cursor, "before": before}, headers=_HEADERS
        )

    async def _status(self, request: Request) -> Response:
        """The health of the feed and of each relay, and how many look on."""
        feed, *relays = await asyncio.gather(self._database.status(), *(asyncio.to_thread(relay) for relay in self._relays))
        state = {"feed": feed, "relays": relays, "database": self.hub.where, "cursor": self.hub.cursor, "clients": self.clients}
        return JSONResponse(state, headers=_HEADERS)


def fields(event: SchemaChange | Reset) -> dict[str, Any]:
    """As `schema-changes listen --json` has it."""
    if isinstance(event, Reset):
        return {"type": "reset", "reason": event.reason, "cursor": event.cursor}
    return {**json.loads(event.raw), "cursor": event.cursor}
