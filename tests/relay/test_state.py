"""What a relay says of itself, sinks that come from a file, and the check that goes through it to every sink."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.relay.servers import SECRET, NatsServer, Receiver, RedisServer, Relay, names, wait_until
from tests.support.postgres import Cluster, execute


def command(*words: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `schema-changes relay`."""
    done = subprocess.run(
        [sys.executable, "-m", "schema_changes", "relay", *words], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def listed(folder: Path, *sinks: dict[str, Any]) -> Path:
    file = folder / "sinks.json"
    file.write_text(json.dumps(list(sinks)))
    return file


def test_a_database_that_is_away_is_told_and_so_is_what_the_sinks_may_lack(receiver: Receiver, cursors: Path) -> None:
    with (
        Cluster() as cluster,
        Relay(
            *("--to", f"hook={receiver.url}", "--cursors", cursors, "--stuck-after", "1", cluster.create_database("app"))
        ) as relay,
    ):
        assert relay.status()["problem"] is None
        cluster.stop()
        wait_until(lambda: relay.status()["problem"], "the loss")
        wait_until(lambda: not relay.status()["healthy"], "ill health")
        state = relay.status()
        assert state["lost_since"]
        assert state["sinks"][0]["lag_seconds"] >= 1
        assert relay.get("/status")[0] == 503
        code, said, error = command("--status", f"127.0.0.1:{relay.metrics}")
        assert code == 6
        assert "Connection refused" in json.loads(said)["problem"]
        assert json.loads(said)["problem"] in error
        cluster.start()
        wait_until(lambda: relay.status()["healthy"], "health")
        assert (relay.status()["problem"], relay.status()["sinks"][0]["lag_seconds"]) == (None, 0)


def test_what_is_wrong_with_a_sink_is_the_last_line_that_a_health_check_prints(
    database: str, receiver: Receiver, cursors: Path
) -> None:
    receiver.answer(500)
    with Relay("--to", f"hook={receiver.url}", "--cursors", cursors, "--stuck-after", "0.1", database) as relay:
        assert command("--status", f"127.0.0.1:{relay.metrics}")[0] == 0
        execute(database, "CREATE TABLE a ()")
        wait_until(lambda: not relay.status()["healthy"], "trouble")
        code, _, error = command("--status", f"127.0.0.1:{relay.metrics}")
    assert code == 6
    assert "The sink hook takes nothing since " in error
    assert "the receiver answered 500" in error


def test_sinks_come_from_a_file_each_with_its_secret_and_with_differences_or_without(
    database: str, receiver: Receiver, nats: NatsServer, redis: RedisServer, cursors: Path
) -> None:
    import redis as client

    file = listed(
        cursors,
        {"name": "hook", "url": receiver.url, "secret": SECRET, "differences": True},
        {"url": f"{redis.url}/changes"},
        {"name": "nats", "url": f"{nats.url}/app.schema", "differences": False},
    )
    with Relay("--sinks", file, "--cursors", cursors, database, env={"SCHEMA_CHANGES_SECRET": ""}) as relay:
        execute(database, "CREATE TABLE orders (id int)")
        wait_until(lambda: all(sink["delivered"] == 1 for sink in relay.status()["sinks"]), "three deliveries")
        assert [sink["sink"] for sink in relay.status()["sinks"]][::2] == ["hook", "nats"]
    assert "+ table public.orders" in receiver.taken()[0]["data"]["differences_text"]
    entries: Any = client.Redis(port=redis.port).xrange("changes")
    ((_, fields),) = entries
    assert not {"differences", "differences_text"} & json.loads(fields[b"event"])["data"].keys()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no JSON list of sinks"),
        ('{"url": "https://h/x"}', "is no JSON list of sinks"),
        ("[]", "Where to?"),
        ('["https://h/x"]', "is no JSON list of sinks"),
        ('[{"name": "a"}]', "has no url"),
        ('[{"url": "https://h/x", "sekret": "geheim"}]', "'sekret' is not known"),
        ('[{"url": "https://h/x", "differences": "geheim"}]', "differences is true or false"),
        ('[{"url": ["geheim"]}]', "url is a text"),
        ('[{"url": "redis://h/x", "name": "a\\nb"}]', "its name has letters, digits"),
        ('[{"url": "ftp://u:geheim@h/x"}]', "is not known"),
        ('[{"url": "nats://h/x"}, {"url": "nats://h/x"}]', "Two sinks"),
    ],
)
def test_a_file_of_sinks_that_makes_no_sense_is_told_without_what_is_in_it(
    database: str, cursors: Path, tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "sinks.json").write_text(text)
    code, _, error = command("--sinks", tmp_path / "sinks.json", "--cursors", cursors, database)
    assert code == 1
    assert sentence in error
    assert "geheim" not in error
    assert "Traceback" not in error


def test_the_check_goes_through_the_relay_to_every_sink(
    database: str, receiver: Receiver, redis: RedisServer, cursors: Path
) -> None:
    sinks = ("--to", f"hook={receiver.url}", "--to", f"stream={redis.url}/changes")
    with Relay(*sinks, "--cursors", cursors, "--checks", "--schema", "nowhere", database) as relay:
        code, said, error = command("--check", f"127.0.0.1:{relay.metrics}", database)
        assert (code, error) == (0, ""), said
        assert [sink["sink"] for sink in json.loads(said)["sinks"]] == ["hook", "stream"]
        execute(database, "CREATE TABLE elsewhere ()")
        wait_until(lambda: relay.status()["events"] == 4, "what is not wanted")
    # by their type nobody takes them for changes of the schema
    assert {event["type"] for event in receiver.taken()} == {"notifying-postgres.check"}
    assert {name.partition("_check_")[0] for name in names(receiver.taken())} == {"public.schema_changes"}
    assert len(receiver.taken()) == 3


def test_a_check_fails_that_a_sink_does_not_take_or_that_is_not_handed_on(
    database: str, receiver: Receiver, cursors: Path, tmp_path: Path
) -> None:
    words = ("--to", f"hook={receiver.url}", "--cursors", cursors)
    with Relay(*words, database) as relay:
        code, _, error = command("--check", f"127.0.0.1:{relay.metrics}", database)
        assert code == 1
        assert "--checks" in error
        relay.end()
        receiver.answer(403)
        relay.words.append("--checks")
        relay.start()
        wait_until(relay.is_ready, "the relay")
        code, _, error = command("--check", f"127.0.0.1:{relay.metrics}", "--timeout", "5", database)
        assert code == 6
        assert "The sink hook " in error
        assert "the receiver answered 403" in error
    assert command("--check", "127.0.0.1:1", "--timeout", "1", database)[0] == 3
