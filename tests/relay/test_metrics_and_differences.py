"""OpenMetrics of listener, relay and page; and what exactly changed, where it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.relay.servers import Receiver, Relay, Serve, wait_until
from tests.relay.test_serve import Events
from tests.support.postgres import Cluster, execute


class Listen(Relay):
    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.process.communicate()
        try:
            return self.get("/status")[0] == 200
        except OSError:
            return False


def numbers(relay: Relay) -> dict[str, float]:
    """Read as Prometheus reads it; the names with the value of their label."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(relay.get("/metrics")[1])  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def test_numbers_of_a_listener(tmp_path: Path) -> None:
    with Cluster() as cluster:
        database = cluster.create_database("app")
        with Listen("--json", database, command="listen") as listener:
            execute(database, "CREATE TABLE a ()", "CREATE TABLE b ()")
            wait_until(lambda: numbers(listener)["schema_changes_changes_total"] == 2, "two changes")
            cluster.stop()
            cluster.start()
            wait_until(lambda: numbers(listener)["schema_changes_reconnects_total"] == 1, "a reconnect")
            now = numbers(listener)
            assert now["schema_changes_resets_total"] == 0
            assert 0 <= now["schema_changes_lag_seconds"] < 5
            assert listener.get("/nowhere")[0] == 404


def test_numbers_of_a_relay(database: str, receiver: Receiver, cursors: Path) -> None:
    receiver.answer(500)
    with Relay("--to", f"hook={receiver.url}", "--cursors", cursors, "--stuck-after", "0.1", database) as relay:
        execute(database, "CREATE TABLE a ()", "CREATE TABLE b ()")
        wait_until(lambda: numbers(relay)["schema_changes_sink_healthy hook"] == 0, "trouble")
        now = numbers(relay)
        assert now["schema_changes_delivery_failures_total hook"] >= 1
        assert now["schema_changes_lag_seconds hook"] > 0
        receiver.answer(204)
        wait_until(lambda: numbers(relay)["schema_changes_deliveries_total hook"] == 2, "two deliveries")
        wait_until(lambda: numbers(relay)["schema_changes_sink_healthy hook"] == 1, "all well")
        now = numbers(relay)
        assert now["schema_changes_events_total"] == 2
        assert now["schema_changes_lag_seconds hook"] == 0


@pytest.mark.parametrize("sink", ["relay", "serve"])
def test_what_exactly_changed_is_told_where_it_is_asked_for(database: str, receiver: Receiver, cursors: Path, sink: str) -> None:
    execute(database, "CREATE TABLE orders (id int)")
    if sink == "relay":
        with Relay("--to", receiver.url, "--cursors", cursors, "--diff", database):
            execute(database, "ALTER TABLE orders ADD qty integer NOT NULL DEFAULT 0")
            wait_until(receiver.taken, "a request")
        data = receiver.taken()[0]["data"]
    else:
        with Serve("--diff", database) as serve, Events(serve.port) as events:
            events.next()
            execute(database, "ALTER TABLE orders ADD qty integer NOT NULL DEFAULT 0")
            _, data = events.next()
    assert data["tag"] == "ALTER TABLE"
    (difference,) = data["differences"]
    assert (difference["action"], difference["kind"], difference["table"], difference["name"]) == (
        "added",
        "column",
        "orders",
        "qty",
    )
    assert "+ qty integer not null default 0" in data["differences_text"]


def test_a_sink_that_was_away_is_told_each_difference_from_memory_and_none_from_the_log(
    database: str, receiver: Receiver, cursors: Path
) -> None:
    execute(database, "CREATE TABLE orders (id int)")
    with Relay("--to", receiver.url, "--cursors", cursors, "--diff", database) as relay:
        receiver.kill()
        for number, column in enumerate(("a", "b", "c"), 1):
            execute(database, f"ALTER TABLE orders ADD {column} int")
            wait_until(lambda number=number: relay.status()["events"] == number, "the burst")  # type: ignore[misc]
        receiver.start()
        wait_until(lambda: len(receiver.taken()) == 3, "what it missed")
        told = [event["data"]["differences"] for event in receiver.taken()]
        assert [[(one["action"], one["name"]) for one in differences] for differences in told] == [
            [("added", name)] for name in ("a", "b", "c")
        ]
        receiver.kill()
        execute(database, "ALTER TABLE orders ADD d int")
        wait_until(lambda: relay.status()["events"] == 4, "the burst")
        relay.end()
        receiver.start()
        relay.start()
        wait_until(lambda: len(receiver.taken()) == 4, "what it missed")
        execute(database, "ALTER TABLE orders ADD e int")
        wait_until(lambda: len(receiver.taken()) == 5, "what is live")
    from_log, live = (event["data"] for event in receiver.taken()[3:])
    assert not {"differences", "differences_text"} & from_log.keys()
    assert [one["name"] for one in live["differences"]] == ["e"]
