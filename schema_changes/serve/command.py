"""What `schema-changes serve` does."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import logging
import os
import signal
import socket
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SchemaChangesError
from ..hub import Hub
from ..metrics import Sample, parse_address, serving
from ..route import Route

if TYPE_CHECKING:
    import uvicorn

    from .app import Web


def run(options: argparse.Namespace, conninfo: str, route: Route | None) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    try:
        import uvicorn

        from .access import Access
        from .app import Web
    except ModuleNotFoundError as error:
        raise SchemaChangesError(f"serve needs the Python package {error.name}: pip install 'notifying-postgres[web]'.") from error
    from .database import Database

    host, port = parse_address(options.bind)
    token = Path(options.token_file).read_text() if options.token_file else os.environ.get("SCHEMA_CHANGES_TOKEN", "")
    if options.token_file and not token.strip():
        raise SchemaChangesError(f"The file {options.token_file!r} has no token in it.")
    access = Access(host, token.strip(), options.proxy_header or "", options.proxy_from)
    relays = [partial(relay_state, *parse_address(address)) for address in options.relay]
    logging.basicConfig(level=logging.INFO, format="schema-changes: %(message)s")
    web = Web(Hub(conninfo, diff=options.diff, route=route), Database(conninfo, route), access, relays)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=4096)
    except OSError as error:
        raise SchemaChangesError(f"Cannot serve at {options.bind}: {error.strerror or error}.") from error
    config = uvicorn.Config(web.app, log_level="error", access_log=False, server_header=False, proxy_headers=False, lifespan="off")
    config.backlog, config.timeout_graceful_shutdown = 4096, 1
    with listening:
        asyncio.run(_serve(options, web, uvicorn.Server(config), listening))
    return 0


async def _serve(options: argparse.Namespace, web: Web, server: uvicorn.Server, listening: socket.socket) -> None:
    def samples() -> Iterable[Sample]:
        yield "counter", "schema_changes_events", "Changes and resets that came from the database.", {}, web.hub.events
        yield "gauge", "schema_changes_clients", "Open event streams.", {}, web.clients

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # the signals are ours: uvicorn would wait for the streams, which end with the hub
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    answering = None
    try:
        async with web.hub:
            answering = asyncio.create_task(server.serve([listening]))
            stopped, ended = asyncio.create_task(stop.wait()), asyncio.create_task(web.hub.ended())
            with contextlib.ExitStack() as stack:
                if options.metrics:
                    stack.enter_context(serving(options.metrics, samples, lambda: {"healthy": True, "clients": web.clients}))
                await asyncio.wait([stopped, ended], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if ended.done():
                ended.result()
            ended.cancel()
    finally:
        server.should_exit = True
        if answering is not None:
            await answering


def relay_state(host: str, port: int) -> dict[str, Any]:
    """What the relay says of itself; unhealthy where none answers."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/status")
        return dict(json.loads(connection.getresponse().read(1_000_000)))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return {"healthy": False, "problem": f"no relay answers at {host}:{port}: {error}", "sinks": []}
    finally:
        connection.close()
