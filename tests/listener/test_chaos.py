"""Proof of "exactly once": servers die, connections are cut and freeze, the listener is killed, while eight writers commit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.listener.proxy import Proxy
from tests.support.postgres import Cluster

WRITERS = 8
# Ten minutes of it: CHAOS_SECONDS=600
SECONDS = float(os.environ.get("CHAOS_SECONDS", "6"))  # of chaos, besides the time that each event takes
CHANGES = 2000 if SECONDS <= 6 else 5000
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'schema_changes'"

# Stores each event and its cursor in one write, so that a kill leaves either both or none: a consumer that is exact.
CONSUMER = """
import json, os, sys, time
from schema_changes import Reset, listen_sync
from schema_changes.errors import Unreachable
url, path = sys.argv[1:]
with open(path, "ab+") as file:
    file.seek(0)
    *whole, _ = file.read().split(b"\\n")
    file.truncate(sum(len(line) + 1 for line in whole))  # a line that a kill cut short was not handled
    cursor = json.loads(whole[-1])["cursor"]
    def events():
        while True:
            try:
                yield from listen_sync(url, cursor=cursor, heartbeat=0.5, backoff=(0.05, 0.5), verify=True)
            except Unreachable:
                time.sleep(0.1)  # only at the start, with the server away: nothing was delivered yet
    for event in events():
        line = {"cursor": event.cursor, "reset": event.reason} if isinstance(event, Reset) else {
            "cursor": event.cursor, "id": event.id, "names": [item.identity for item in event.objects], "tag": event.tag}
        os.write(file.fileno(), json.dumps(line).encode() + b"\\n")
"""


def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def eventually_more(count: Callable[[], int]) -> None:
    before = count()
    eventually(lambda: count() > before)


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """Durable, for it is killed: with fsync off that would be unfair."""
    with Cluster(settings={"fsync": "on", "synchronous_commit": "on", "restart_after_crash": "off"}) as cluster:
        yield cluster


class Writer(threading.Thread):
    """Creates tables in transactions of one to four commands, some long, some rolled back; knows what it committed."""

    def __init__(self, url: str, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.number, self.stopping = url, number, stop
        self.random = random.Random(number)
        self.committed: list[str] = []
        # the server died while the answer to COMMIT was on its way
        self.unknown: list[list[str]] = []
        self.error: BaseException | None = None
        self.serial = 0

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                try:
                    with psycopg.connect(self.url, autocommit=True, connect_timeout=2) as connection:
                        while not self.stopping.is_set():
                            self.transaction(connection)
                except psycopg.OperationalError:
                    time.sleep(0.05)
        except BaseException as error:
            self.error = error
            raise

    def transaction(self, connection: psycopg.Connection) -> None:
        names = []
        connection.execute("BEGIN")
        for _ in range(self.random.choice([1, 1, 2, 4])):
            self.serial += 1
            names.append(f"public.w{self.number}_{self.serial}")
            connection.execute(f"CREATE TABLE {names[-1]} ()")
        if self.random.random() < 0.1:
            time.sleep(self.random.random() * 0.3)
        if self.random.random() < 0.1:
            connection.execute("ROLLBACK")
            return
        try:
            connection.execute("COMMIT")
            self.committed += names
        except psycopg.OperationalError:
            self.unknown.append(names)
            raise
        time.sleep(self.random.random() * 0.02)


class Forger(threading.Thread):
    """A user without rights who sends what is no notice, and notices that look like those of transactions under way."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.stopping = url, stop
        self.random = random.Random(7)
        self.sent = 0

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                with psycopg.connect(self.url, autocommit=True, connect_timeout=2) as connection:
                    while not self.stopping.is_set():
                        self.forge(connection)
                        time.sleep(0.01)
            except psycopg.OperationalError:
                time.sleep(0.05)

    def forge(self, connection: psycopg.Connection) -> None:
        ((txid, place),) = connection.execute(
            "SELECT coalesce((SELECT max(transactionid::text::bigint) FROM pg_locks WHERE locktype = 'transactionid'), 800), "
            "pg_current_wal_insert_lsn() - '0/0'"
        )
        notice = {
            "type": "ddl_command_end",
            "tag": "FORGED",
            "timestamp": "2025-11-07 12:34:56.789+00",
            "id": int(place) + self.random.randrange(5000),
            "txid": str(txid + self.random.randrange(3)),
            "objects": [{"action": "dropped", "kind": "table", "schema": "public", "identity": "public.forged"}],
        }
        payload = self.random.choice([json.dumps(notice), json.dumps(notice), json.dumps(notice | {"objects": [1]}), "x" * 7999])
        connection.execute("SELECT pg_notify('schema_changed', %s)", [payload])
        self.sent += 1


# For the listener's role, while it runs and before it connects again.
HOSTILE = [
    "client_encoding = 'sjis'",
    "DateStyle = 'German'",
    "search_path = 'nowhere'",
    "statement_timeout = 1",
    "idle_session_timeout = 1",
    "role = 'mallory'",
    "default_transaction_isolation = 'serializable'",
    "bytea_output = 'escape'",
]


def test_every_committed_change_is_delivered_exactly_once(own_cluster: Cluster, tmp_path: Path) -> None:
    chance = random.Random(5)
    url = own_cluster.create_database("app")
    own_cluster.execute("CREATE ROLE mallory LOGIN; CREATE ROLE consumer LOGIN; GRANT mallory TO consumer")
    own_cluster.execute("GRANT USAGE ON SCHEMA schema_notifications TO consumer", "app")
    own_cluster.execute("GRANT EXECUTE ON FUNCTION schema_notifications.changes_since TO consumer", "app")
    with psycopg.connect(url) as connection:
        ((cursor,),) = connection.execute("SELECT cursor FROM schema_notifications.changes_since()")
    journal = tmp_path / "journal"
    journal.write_text(json.dumps({"cursor": cursor}) + "\n")
    happened: Counter[str] = Counter()
    places: set[int] = set()
    stop = threading.Event()
    writers = [Writer(url, number, stop) for number in range(WRITERS)]
    forger = Forger(own_cluster.url("app", user="mallory"), stop)

    with Proxy(own_cluster.port) as proxy, ExitStack() as listeners:
        command = [sys.executable, "-c", CONSUMER, own_cluster.url("app", user="consumer", port=proxy.port), str(journal)]

        # a file, not a pipe that fills up: each malformed notice is complained of
        complaints = listeners.enter_context((tmp_path / "complaints").open("ab"))

        def start_listener() -> subprocess.Popen[bytes]:
            listener = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=complaints)
            listeners.callback(listener.kill)
            return listener

        def said() -> str:
            return (tmp_path / "complaints").read_text()[-3000:]

        listener = start_listener()
        for writer in [*writers, forger]:
            writer.start()
        events = ["kill server", "restart server", "terminate", "cut", "stall", "freeze", "kill listener"]
        # each at least twice, in random order
        plan = events * max(2, int(SECONDS / 15)) + chance.choices(["terminate", "cut", "kill listener"], k=8)
        chance.shuffle(plan)
        for event in plan:
            own_cluster.execute(f"ALTER ROLE consumer SET {chance.choice(HOSTILE)}")
            time.sleep(chance.random() * 2 * SECONDS / len(plan))
            match event:
                case "kill server":
                    own_cluster.kill()
                    own_cluster.start()
                case "restart server":
                    own_cluster.stop()
                    own_cluster.start()
                case "terminate":
                    eventually(lambda: (True,) in own_cluster.execute(TERMINATE))
                case "cut":
                    eventually(proxy.cut)
                case "stall" | "freeze":
                    proxy.freeze()
                    eventually_more(lambda: proxy.held)
                    if event == "stall":
                        time.sleep(0.5)
                    else:  # until the listener finds the connection half-open and makes another
                        eventually_more(lambda: proxy.accepted)
                    proxy.thaw()
                case "kill listener":
                    if happened[event] % 2 == 0:  # the others may meet it before it has delivered anything
                        eventually_more(lambda: journal.read_bytes().count(b"\n"))
                    assert listener.poll() is None, said()
                    listener.send_signal(signal.SIGKILL)
                    listener.communicate()
                    assert listener.returncode == -signal.SIGKILL
                    places.add(journal.read_bytes().count(b"\n"))
                    time.sleep(chance.random() * 0.5)
                    listener = start_listener()
            happened[event] += 1
        eventually(lambda: sum(len(writer.committed) for writer in writers) >= CHANGES)
        stop.set()
        for writer in writers:
            writer.join(30)
            assert writer.error is None
        # A last change, so that there is an end to wait for.
        own_cluster.execute("CREATE TABLE public.the_end ()", "app")
        eventually(lambda: listener.poll() is not None or b"public.the_end" in journal.read_bytes())
        time.sleep(0.5)
        assert listener.poll() is None, said()
        assert "Traceback" not in (tmp_path / "complaints").read_text()

    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert not [line for line in lines if "reset" in line]
    delivered = [name for line in lines for name in line["names"]]
    assert [name for name, times in Counter(delivered).items() if times > 1] == []
    committed = {name for writer in writers for name in writer.committed} | {"public.the_end"}
    assert committed - set(delivered) == set()
    assert forger.sent > 50
    assert not [line for line in lines if line["tag"] == "FORGED"]
    # what came besides is exactly what the database has: transactions whose COMMIT was not answered
    ((there,),) = own_cluster.execute(
        "SELECT array_agg('public.' || relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 2200", "app"
    )
    assert isinstance(there, list)
    assert set(delivered) == set(there)
    # and it was no easy ride
    assert len(committed) > CHANGES
    assert len(writers) == 8
    assert all(writer.committed for writer in writers)
    assert all(happened[event] >= 2 for event in events)
    log = own_cluster.log.read_text()
    assert log.count("was not properly shut down") == happened["kill server"]
    assert log.count("database system was shut down at") == happened["restart server"] + 1
    assert len(places) > 2
    print(
        f"{len(delivered)} changes, {dict(happened)}, {sum(len(writer.unknown) for writer in writers)} unanswered commits",
        file=sys.stderr,
    )
