"""What subscribers cost: N sessions that LISTEN, beside N clients of NATS behind one relay.

    python benchmarks/subscribers.py [N ...]        (10 100 1000 unless given; prints the table of docs/relay.md)

Writers' commits a second (two of them, each CREATE TABLE in a transaction of its own, with the extension), and the time from
COMMIT until the last subscriber has the change. Server, relay, NATS and all subscribers share the machine; the clients read bare
sockets, so that what is measured is not Python's. The server has fsync off: nothing here is about disks.
"""

from __future__ import annotations

import os
import resource
import selectors
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.relay.servers import NatsServer, Relay, wait_until
from tests.support.postgres import Cluster

SECONDS = 4
ROUNDS = 9


class Subscribers:
    """Any number of sockets on which something comes for each change; `heard` counts."""

    def __init__(self, marker: bytes) -> None:
        self.heard = 0
        self._marker = marker
        self._selector = selectors.DefaultSelector()
        self._ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def add(self, one: socket.socket) -> None:
        one.setblocking(False)
        self._selector.register(one, selectors.EVENT_READ)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]

    def _read(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(0.05):
                data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
                self.heard += data.count(self._marker)


def measure(cluster: Cluster, url: str, subscribers: Subscribers, number: int) -> tuple[float, float]:
    """Commits a second, and milliseconds until the last has a change."""
    subscribers.start()
    until_last = []
    with psycopg.connect(url, autocommit=True) as connection:
        for index in range(ROUNDS):
            before = subscribers.heard
            begun = time.perf_counter()
            connection.execute(f"CREATE TABLE round{index}_{time.time_ns()} ()")
            while subscribers.heard < before + number:
                time.sleep(0.0002)
                assert time.perf_counter() - begun < 60, (subscribers.heard - before, number)
            until_last.append((time.perf_counter() - begun) * 1000)
    commits = [0, 0]
    ends = time.perf_counter() + SECONDS

    def write(index: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while time.perf_counter() < ends:
                connection.execute(f"CREATE TABLE w{index}_{time.time_ns()} ()")
                commits[index] += 1

    writers = [threading.Thread(target=write, args=(index,)) for index in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    subscribers.end()
    return sum(commits) / SECONDS, statistics.median(until_last)


def by_listen(number: int) -> tuple[float, float]:
    with Cluster(settings={"max_connections": str(number + 20)}) as cluster:
        url = cluster.create_database("app")
        # a frame of the protocol for each notice has the channel's name once
        subscribers = Subscribers(b"schema_changed\0")
        connections = [psycopg.connect(url, autocommit=True) for _ in range(number)]
        for connection in connections:
            connection.execute("LISTEN schema_changed")
            subscribers.add(socket.socket(fileno=os.dup(connection.fileno())))
        result = measure(cluster, url, subscribers, number)
        for connection in connections:
            connection.close()
        return result


def through_nats(number: int) -> tuple[float, float]:
    folder = Path(tempfile.mkdtemp())
    (folder / "cursors").mkdir()
    with Cluster() as cluster, NatsServer(folder / "nats") as nats:
        url = cluster.create_database("app")
        with Relay("--to", f"{nats.url}/schema", "--cursors", folder / "cursors", url) as relay:
            subscribers = Subscribers(b"MSG schema ")
            for _ in range(number):
                one = socket.create_connection(("127.0.0.1", nats.port))
                one.sendall(b'CONNECT {"verbose":false}\r\nSUB schema 1\r\nPING\r\n')
                while b"PONG" not in one.recv(65536):
                    pass
                subscribers.add(one)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE TABLE first ()")  # which makes the stream
            wait_until(lambda: relay.status()["sinks"][0]["delivered"], "the first delivery")
            time.sleep(0.5)
            return measure(cluster, url, subscribers, number)


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ways: list[tuple[str, Callable[[int], tuple[float, float]]]] = [("LISTEN", by_listen), ("NATS", through_nats)]
    print("| Subscribers | commits/s, LISTEN | commits/s, NATS | last has it, LISTEN | last has it, NATS |")
    print("|---:|---:|---:|---:|---:|")
    for number in map(int, sys.argv[1:] or ["10", "100", "1000"]):
        (rate, last), (other_rate, other_last) = (way(number) for _, way in ways)
        print(f"| {number:,} | {rate:,.0f} | {other_rate:,.0f} | {last:.1f} ms | {other_last:.1f} ms |", flush=True)


if __name__ == "__main__":
    main()
