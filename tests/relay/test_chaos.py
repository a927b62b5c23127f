"""The relay, its sinks and the database are killed at random: nothing is lost, and nothing twice where the sink can know."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from tests.relay.servers import NatsServer, Receiver, RedisServer, Relay, names, wait_until
from tests.relay.test_nats_and_redis import in_nats, in_redis
from tests.support.postgres import Cluster


class Writers:
    """Commit tables until stopped, through whatever happens to the server; `made` has those that were certainly committed."""

    def __init__(self, url: str, number: int, pause: float = 0.1) -> None:
        self.made: set[str] = set()
        self._url = url
        self._pause = pause
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(index,)) for index in range(number)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _write(self, index: int) -> None:
        chance = random.Random(index)
        count = 0
        while not self._stopped.is_set():
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._url, connect_timeout=2) as connection:
                while not self._stopped.is_set():
                    some = [f"t{index}_{count + more}" for more in range(chance.choice([1, 1, 1, 7]))]
                    count += len(some)
                    for name in some:
                        connection.execute(f"CREATE TABLE {name} ()")
                    if chance.random() < 0.1:
                        connection.rollback()
                        continue
                    connection.commit()
                    self.made |= {f"public.{name}" for name in some}
                    time.sleep(chance.random() * self._pause)
            time.sleep(0.05)


def is_back(relay: Relay) -> bool:
    """As a container's restart policy has it: a relay that was started while the database was away ends, and is started again."""
    assert relay.process is not None
    if relay.process.poll() is not None:
        relay.wait()
        relay.start()
        return False
    with contextlib.suppress(OSError):
        return all(sink["cursor"] for sink in relay.status()["sinks"])
    return False


@pytest.mark.parametrize("seconds", [12, pytest.param(120, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_killed_at_random(receiver: Receiver, nats: NatsServer, redis: RedisServer, cursors: Path, seconds: int) -> None:
    with Cluster(settings={"fsync": "on", "synchronous_commit": "on"}) as cluster:
        database = cluster.create_database("app")
        relay = Relay(
            *("--to", f"hook={receiver.url}", "--to", f"nats={nats.url}/app.schema", "--to", f"redis={redis.url}/schema"),
            *("--cursors", cursors, database),
        )
        relay.start()
        wait_until(relay.is_ready, "the relay")
        kills: Counter[str] = Counter()
        ends = time.monotonic() + seconds
        try:
            with Writers(database, 4) as writers:
                while time.monotonic() < ends:
                    time.sleep(random.random())
                    victims: list[Relay | Receiver | NatsServer | RedisServer | Cluster]
                    victims = [relay, relay, receiver, nats, redis, cluster]
                    victim = random.choice(victims)
                    kills[type(victim).__name__] += 1
                    victim.kill()
                    time.sleep(random.choice([0, 0.3, 1]))
                    victim.start()
                    is_back(relay)
                wait_until(lambda: len(writers.made) > 100, "100 changes")
            wait_until(lambda: is_back(relay), "the relay")
            existing = {
                f"public.{name}"
                for (name,) in cluster.execute(
                    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'", "app"
                )
            }
            assert writers.made <= existing

            def missing() -> dict[str, int]:
                """How many of them each sink has not."""
                taken = {"hook": receiver.taken(), "redis": in_redis(redis), "nats": asyncio.run(in_nats(nats))}
                return {sink: len(left) for sink, events in taken.items() if (left := existing - set(names(events)))}

            # how long all of it takes is the machine's matter, as long as something comes; the pauses are 10 s at most
            delivered, last = -1, time.monotonic()
            while left := missing():
                now = sum(sink["delivered"] for sink in relay.status()["sinks"])
                if now != delivered:
                    delivered, last = now, time.monotonic()
                assert time.monotonic() - last < 30, (left, relay.status())
                time.sleep(1)
        finally:
            relay.kill()
            print(kills, relay.said)  # shown when the test fails
        assert sorted(names(in_redis(redis))) == sorted(existing)
        assert sorted(names(asyncio.run(in_nats(nats)))) == sorted(existing)
        # a receiver of webhooks knows repetitions by the id: one at most for each time that it or the relay was killed
        ids = Counter(request["id"] for request in receiver.requests())
        assert len(ids) == len(existing)
        assert ids.total() - len(ids) <= kills["Relay"] + kills["Receiver"]
