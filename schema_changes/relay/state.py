"""What a running relay says of itself, asked from another process; and the check that goes through it to every sink."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from ..errors import SchemaChangesError, Unhealthy, Unreachable
from ..metrics import parse_address

# Changes that one check makes.
_CHECKED = 3
# Attempts after which a sink does not take it.
_ATTEMPTS = 5


def print_status(address: str) -> int:
    """Print the state of the relay at HOST:PORT as JSON.

    Raises `Unreachable` when there is none, `Unhealthy` with the reasons when all is not well.
    """
    state = _state(address)
    print(json.dumps(state, indent=2), flush=True)
    if not state["healthy"]:
        raise Unhealthy(" ".join(_problems(state)))
    return 0


def check(address: str, conninfo: str, *, timeout: float = 10, **parameters: Any) -> int:
    """Change the schema of the database as `schema-changes check` does, and wait until each sink took that; print the state.

    conninfo and parameters: as for `psycopg.connect`.  timeout: seconds for each step.

    Raises `Unreachable` when no relay is at HOST:PORT, `Unhealthy` when a sink did not take it, and what `check` raises.
    """
    from ..check import check as check_database

    deadline = time.monotonic() + timeout
    while True:
        try:
            before = _state(address)
            if all(sink["cursor"] or sink["ended"] for sink in before["sinks"]):
                break
        except Unreachable:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            why = f": {before['problem']}" if before["problem"] else "."
            raise Unhealthy(f"The relay at {address} did not begin within {timeout:g} s{why}")
        time.sleep(0.1)
    if not before["checks"]:
        raise SchemaChangesError(f"The relay at {address} hands no changes of a check on: start it with --checks.")

    check_database(conninfo, timeout=timeout, **parameters)
    deadline = time.monotonic() + timeout
    while True:
        state = _state(address)
        pairs = zip(before["sinks"], state["sinks"], strict=True)
        waiting = [sink for was, sink in pairs if sink["checks"] < was["checks"] + _CHECKED]
        if not waiting:
            print(json.dumps(state))
            return 0
        failed = {was["sink"]: was["failures"] + _ATTEMPTS for was in before["sinks"]}
        if time.monotonic() > deadline or all(sink["ended"] or sink["failures"] >= failed[sink["sink"]] for sink in waiting):
            said = [state["problem"]] if state["problem"] else []
            for sink in waiting:
                said.append(f"The sink {sink['sink']} did not take the check's change: {sink['problem'] or 'it is slow'}.")
            raise Unhealthy(" ".join(said))
        time.sleep(0.05)


def _problems(state: dict[str, Any]) -> list[str]:
    said = [] if state["problem"] is None else [f"{state['problem']} (since {state['lost_since']})"]
    for sink in state["sinks"]:
        if not sink["healthy"]:
            what = "has ended" if sink["ended"] else f"takes nothing since {sink['failing_since']}"
            said.append(f"The sink {sink['sink']} {what}: {sink['problem']}.")
    return said


def _state(address: str) -> dict[str, Any]:
    host, port = parse_address(address)
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/status")
        return dict(json.loads(connection.getresponse().read()))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"No relay answers at {address}: {error}.") from error
    finally:
        connection.close()
