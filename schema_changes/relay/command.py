"""What `schema-changes relay` does."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import logging
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..cursor import CursorStore, FileCursorStore, TableCursorStore
from ..errors import SchemaChangesError
from ..filters import Filter
from ..hub import Hub
from ..metrics import serving
from ..route import Route
from .alone import hold_rows, holding_files
from .relay import Delivery, Relay
from .sinks import open_sink


def run(options: argparse.Namespace, conninfo: str, route: Route | None) -> int:
    """Relay until SIGTERM or Ctrl-C."""
    sinks = _sinks(options)
    if options.cursors is None and route is not None:
        raise SchemaChangesError("With --container or --stack, the cursors are kept in files: give --cursors FOLDER.")
    if options.cursors is not None and len({_word(name) for name in sinks}) < len(sinks):
        raise SchemaChangesError(
            f"Two of the sinks {', '.join(sinks)} would keep their place in the same file: give them names that differ in "
            "letters or digits, --to NAME=URL."
        )
    if options.cursors is not None and not Path(options.cursors).is_dir():
        raise SchemaChangesError(f"The folder {options.cursors!r} for the cursors is not there: make it first.")
    logging.basicConfig(level=logging.INFO, format="schema-changes: %(message)s")
    for noisy in ("httpx", "nats"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)

    deliveries = []
    files: dict[str, Path] = {}
    rows: dict[str, TableCursorStore] = {}
    for name, wanted in sinks.items():
        store: CursorStore
        if options.cursors is not None:
            files[name] = Path(options.cursors) / f"{_word(name)}.cursor"
            store = FileCursorStore(files[name])
        else:
            store = rows[name] = TableCursorStore(conninfo, f"relay {name}")
        deliveries.append(Delivery(name, open_sink(wanted.url, wanted.secret), store, wanted.differences))
    differences = any(wanted.differences for wanted in sinks.values())
    hold = functools.partial(hold_rows, rows) if rows else None
    hub = Hub(conninfo, diff=differences, hold=hold, route=route, checks=options.checks)
    asyncio.run(_relay(options, hub, deliveries, files))
    return 0


async def _relay(options: argparse.Namespace, hub: Hub, deliveries: list[Delivery], files: dict[str, Path]) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    wanted = Filter(options.schemas, options.kinds, options.tags)
    relay = Relay(hub, deliveries, stuck_after=options.stuck_after, wanted=wanted, checks=options.checks)
    with contextlib.ExitStack() as stack:
        if options.metrics:
            stack.enter_context(serving(options.metrics, relay.samples, relay.status))
        with contextlib.suppress(asyncio.CancelledError):
            async with holding_files(files, hub.lost):
                await relay.run()


_NAME = "[A-Za-z0-9_.-]*"


@dataclass(frozen=True)
class _Wanted:
    """A sink as it was asked for."""

    url: str
    secret: str
    differences: bool


def _sinks(options: argparse.Namespace) -> dict[str, _Wanted]:
    """Each sink, by name."""
    secrets = {}
    for words in options.secret_file:
        name, file = _named(words)
        secrets[name] = Path(file).read_text().strip()
    listed: list[tuple[str, str, str | None, bool]] = [(*_named(words), None, options.diff) for words in options.to]
    if options.sinks is not None:
        listed += _read(Path(options.sinks), options.diff)

    sinks: dict[str, _Wanted] = {}
    for given_name, url, secret, differences in listed:
        name = given_name or _name_of(url)
        if name in sinks:
            raise SchemaChangesError(f"Two sinks have the name {name!r}: give them names of their own, --to NAME=URL.")
        variable = f"SCHEMA_CHANGES_SECRET_{_word(name).upper()}"
        inherited = os.environ.get(variable, os.environ.get("SCHEMA_CHANGES_SECRET", ""))
        sinks[name] = _Wanted(url, secrets.get(name, secrets.get("", inherited)) if secret is None else secret, differences)
    if not sinks:
        raise SchemaChangesError("Where to?  Give a sink: --to https://…, nats://…/SUBJECT or redis://…/STREAM.")
    if unknown := sorted(set(secrets) - set(sinks) - {""}):
        raise SchemaChangesError(f"There is a secret for {unknown[0]!r}, and no sink of that name.")
    return sinks


def _name_of(url: str) -> str:
    """The URL without what may be secret."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # brackets that are none of an IPv6 address
        raise SchemaChangesError("A sink's URL cannot be read: write https://host/path, nats://host/SUBJECT …") from error
    return parts._replace(query="", fragment="", netloc=parts.netloc.rpartition("@")[2]).geturl()


def _read(file: Path, differences: bool) -> list[tuple[str, str, str | None, bool]]:
    """Name, URL, secret and whether it is told differences, of each sink in a file.  What is wrong is told without the values."""
    try:
        listed = json.loads(file.read_text())
    except ValueError:
        listed = None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise SchemaChangesError(f'{file} is no JSON list of sinks, such as [{{"url": "nats://nats/app.schema"}}].')
    found = []
    for number, one in enumerate(listed, 1):
        where = f"Sink {number} in {file}"
        if unknown := sorted(one.keys() - {"name", "url", "secret", "differences"}):
            raise SchemaChangesError(f"{where}: {unknown[0]!r} is not known; name, url, secret and differences are.")
        if "url" not in one:
            raise SchemaChangesError(f"{where} has no url.")
        for key in ("name", "url", "secret"):
            if not isinstance(one.get(key, ""), str):
                raise SchemaChangesError(f"{where}: its {key} is a text.")
        if not re.fullmatch(_NAME, one.get("name", "")):
            raise SchemaChangesError(f"{where}: its name has letters, digits, _, . and -, and no others.")
        if not isinstance(one.get("differences", False), bool):
            raise SchemaChangesError(f"{where}: its differences is true or false.")
        found.append((one.get("name", ""), one["url"], one.get("secret"), one.get("differences", differences)))
    return found


def _named(words: str) -> tuple[str, str]:
    """NAME=VALUE or VALUE; the name is a word, so that the = in a URL's query is none."""
    found = re.fullmatch(rf"(?:({_NAME})=)?(.+)", words)
    if found is None:
        raise SchemaChangesError(f"{words!r} is neither VALUE nor NAME=VALUE.")
    return found[1] or "", found[2]


def _word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
