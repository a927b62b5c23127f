"""Numbers for OpenMetrics, and the state as JSON, over HTTP: `/metrics` and `/status`.

Needs prometheus-client, of the extras `relay` and `web`.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from .errors import SchemaChangesError
from .event import Reset, SchemaChange

Sample = tuple[str, str, str, dict[str, str], float]
"""Kind (`counter` or `gauge`), name, what it is, labels, value."""


@contextlib.contextmanager
def serving(address: str, samples: Callable[[], Iterable[Sample]], status: Callable[[], dict[str, Any]]) -> Iterator[int]:
    """Serve at `HOST:PORT` (port 0: any) until left; yields the port.

    samples: the numbers, asked for at each request.
    status: the state; `/status` answers 503 when its `healthy` is false.

    Raises `SchemaChangesError` when the address is wrong or taken, or prometheus-client is missing.
    """
    try:
        from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
    except ModuleNotFoundError as error:
        raise SchemaChangesError(
            "--metrics needs the Python package prometheus-client: pip install 'notifying-postgres[relay]'."
        ) from error

    def answer(environment: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        match environment["PATH_INFO"]:
            case "/metrics":
                start("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
                return [generate_latest(_Collected(samples))]  # type: ignore[no-untyped-call]
            case "/status":
                state = status()
                healthy = "200 OK" if state["healthy"] else "503 Service Unavailable"
                start(healthy, [("Content-Type", "application/json")])
                return [json.dumps(state).encode()]
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"/metrics and /status are here\n"]

    host, port = parse_address(address)
    try:
        server = make_server(host, port, answer, _Server, _Quiet)
    except OSError as error:
        raise SchemaChangesError(f"Cannot serve metrics at {address}: {error.strerror or error}.") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class ListenerNumbers:
    """What a listener has done: call `ready` when it listens and `heard` with each event.

    then: called after `ready`.
    """

    def __init__(self, then: Callable[[str | None], object]) -> None:
        self._then = then
        self.sessions = self.changes = self.resets = 0
        self.lag = 0.0

    def ready(self, cursor: str | None) -> None:
        """For `on_ready`."""
        self.sessions += 1
        self._then(cursor)

    def heard(self, event: SchemaChange | Reset) -> None:
        """Count it."""
        if isinstance(event, Reset):
            self.resets += 1
        else:
            self.changes += 1
            self.lag = max(0.0, (datetime.now(UTC) - event.timestamp).total_seconds())

    def samples(self) -> Iterable[Sample]:
        """The numbers for OpenMetrics."""
        yield "counter", "schema_changes_changes", "Changes heard.", {}, self.changes
        yield "counter", "schema_changes_resets", "Resets: what happened before could not be told.", {}, self.resets
        yield "counter", "schema_changes_reconnects", "Sessions after the first.", {}, max(0, self.sessions - 1)
        yield "gauge", "schema_changes_lag_seconds", "From the last change's command to its arrival here.", {}, self.lag

    def status(self) -> dict[str, Any]:
        """The state: healthy once it has listened."""
        return {"healthy": self.sessions > 0, "changes": self.changes, "resets": self.resets, "sessions": self.sessions}


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 address stands in brackets."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SchemaChangesError(f"{address!r} is no address: write HOST:PORT, such as 127.0.0.1:9464.")
    return host.removeprefix("[").removesuffix("]"), int(port)


class _Collected:
    """What prometheus-client asks for the metrics."""

    def __init__(self, samples: Callable[[], Iterable[Sample]]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[str, Any] = {}
        for kind, name, what, labels, value in self._samples():
            if name not in families:
                family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
                families[name] = family(name, what, labels=list(labels))
            families[name].add_metric(list(labels.values()), value)
        return families.values()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def address_string(self) -> str:
        return str(self.client_address[0])

    def log_message(self, format: str, *args: Any) -> None:
        pass
