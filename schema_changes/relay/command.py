"""What `schema-changes relay` does."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import logging
import os
import re
import signal
from pathlib import Path
from urllib.parse import urlsplit

from ..cursor import CursorStore, FileCursorStore, TableCursorStore
from ..errors import SchemaChangesError, Unhealthy, Unreachable
from ..filters import Filter
from ..hub import Hub
from ..metrics import parse_address, serving
from ..route import Route
from .relay import Delivery, Relay
from .sinks import open_sink


def run(options: argparse.Namespace, conninfo: str, route: Route | None) -> int:
    """Relay until SIGTERM or Ctrl-C."""
    sinks = _sinks(options)
    if options.cursors is None and route is not None:
        raise SchemaChangesError("With --container or --stack, the cursors are kept in files: give --cursors FOLDER.")
    if options.cursors is not None and not Path(options.cursors).is_dir():
        raise SchemaChangesError(f"The folder {options.cursors!r} for the cursors is not there: make it first.")
    logging.basicConfig(level=logging.INFO, format="schema-changes: %(message)s")
    for noisy in ("httpx", "nats"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)

    deliveries = []
    for name, (url, secret) in sinks.items():
        store: CursorStore
        if options.cursors is not None:
            store = FileCursorStore(Path(options.cursors) / f"{_word(name)}.cursor")
        else:
            store = TableCursorStore(conninfo, f"relay {name}")
        deliveries.append(Delivery(name, open_sink(url, secret), store))
    asyncio.run(_relay(options, Hub(conninfo, diff=options.diff, route=route), deliveries))
    return 0


async def _relay(options: argparse.Namespace, hub: Hub, deliveries: list[Delivery]) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    wanted = Filter(options.schemas, options.kinds, options.tags, options.checks)
    relay = Relay(hub, deliveries, stuck_after=options.stuck_after, wanted=wanted)
    with contextlib.ExitStack() as stack:
        if options.metrics:
            stack.enter_context(serving(options.metrics, relay.samples, relay.status))
        with contextlib.suppress(asyncio.CancelledError):
            await relay.run()


def _sinks(options: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """URL and secret of each sink, by name."""
    secrets = {}
    for words in options.secret_file:
        name, file = _named(words)
        secrets[name] = Path(file).read_text().strip()
    sinks: dict[str, tuple[str, str]] = {}
    for words in options.to:
        name, url = _named(words)
        name = name or urlsplit(url)._replace(query="", netloc=url.split("//")[-1].split("/")[0].rpartition("@")[2]).geturl()
        if name in sinks:
            raise SchemaChangesError(f"Two sinks have the name {name!r}: give them names of their own, --to NAME=URL.")
        variable = f"SCHEMA_CHANGES_SECRET_{_word(name).upper()}"
        inherited = os.environ.get(variable, os.environ.get("SCHEMA_CHANGES_SECRET", ""))
        sinks[name] = url, secrets.get(name, secrets.get("", inherited))
    if not sinks:
        raise SchemaChangesError("Where to?  Give a sink: --to https://…, nats://…/SUBJECT or redis://…/STREAM.")
    if unknown := sorted(set(secrets) - set(sinks) - {""}):
        raise SchemaChangesError(f"There is a secret for {unknown[0]!r}, and no sink of that name.")
    return sinks


def _named(words: str) -> tuple[str, str]:
    """NAME=VALUE or VALUE; the name is a word, so that the = in a URL's query is none."""
    found = re.fullmatch(r"(?:([A-Za-z0-9_.-]+)=)?(.+)", words)
    if found is None:
        raise SchemaChangesError(f"{words!r} is neither VALUE nor NAME=VALUE.")
    return found[1] or "", found[2]


def _word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def print_status(address: str) -> int:
    """Print the state of the relay at HOST:PORT as JSON; 6 when it is unhealthy, `Unreachable` when there is none."""
    host, port = parse_address(address)
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/status")
        state = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"No relay answers at {address}: {error}.") from error
    finally:
        connection.close()
    print(json.dumps(state, indent=2))
    return 0 if state["healthy"] else Unhealthy.exit_code
