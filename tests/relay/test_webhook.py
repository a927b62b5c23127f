"""`schema-changes relay` to a webhook: a real receiver over HTTPS, which verifies the signatures."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from tests.relay.servers import SECRET, Receiver, Relay, names, wait_until
from tests.support.postgres import execute


def test_each_change_is_one_signed_cloud_event(database: str, receiver: Receiver, cursors: Path) -> None:
    with Relay("--to", receiver.url, "--cursors", cursors, database):
        name = '"naïve\u009b\u202e</script>"'
        execute(database, f"CREATE TABLE {name} ()", f"ALTER TABLE {name} ADD q int")
        wait_until(lambda: len(receiver.requests()) == 2, "two requests")
    first, second = receiver.requests()
    assert first["type"].startswith("application/cloudevents+json")
    event = first["event"]
    assert event["specversion"] == "1.0"
    assert event["type"] == "notifying-postgres.schema_changed"
    assert datetime.fromisoformat(event["time"]).tzinfo is not None
    assert event["datacontenttype"] == "application/json"
    assert event["data"]["tag"] == "CREATE TABLE"
    assert list(names([event])) == [event["subject"]] == [f"public.{name}"]
    assert second["event"]["data"]["tag"] == "ALTER TABLE"
    assert first["event"]["source"] == second["event"]["source"]
    assert first["id"] != second["id"]
    # of what the receiver got, the ids and the sources name the change
    assert first["id"].endswith(event["id"])


def test_a_sink_that_was_down_gets_what_it_missed_and_delays_nobody(
    database: str, receiver: Receiver, tmp_path: Path, cursors: Path
) -> None:
    with (
        Receiver(tmp_path / "other") as other,
        Relay(
            *("--to", f"one={receiver.url}", "--to", f"two={other.url}", "--cursors", cursors, "--stuck-after", "0.5", database),
            env={"SSL_CERT_FILE": str(_bundle(tmp_path, receiver, other))},
        ) as relay,
    ):
        other.kill()
        execute(database, *(f"CREATE TABLE t{number} ()" for number in range(30)))
        wait_until(lambda: len(receiver.taken()) == 30, "30 events")
        assert other.requests() == []
        wait_until(lambda: not relay.status()["healthy"], "a sink that is stuck")
        one, two = relay.status()["sinks"]
        assert (one["healthy"], one["lag_seconds"], one["delivered"]) == (True, 0, 30)
        assert (two["healthy"], two["delivered"], two["sink"]) == (False, 0, "two")
        assert two["lag_seconds"] >= 0.5
        assert two["problem"]
        assert relay.get("/status")[0] == 503
        other.start()
        wait_until(lambda: len(other.taken()) == 30, "30 events")
        wait_until(lambda: relay.status()["healthy"], "all well")
        assert relay.get("/status")[0] == 200
    assert list(names(other.taken())) == list(names(receiver.taken())) == [f"public.t{number}" for number in range(30)]
    assert [one["id"] for one in other.requests()] == [one["id"] for one in receiver.requests()]


def test_between_two_runs_nothing_is_missed_and_nothing_comes_twice(database: str, receiver: Receiver, cursors: Path) -> None:
    words = ("--to", receiver.url, "--cursors", cursors, database)
    with Relay(*words) as relay:
        execute(database, "CREATE TABLE before ()")
        wait_until(receiver.taken, "an event")
        assert relay.end() == 0
    execute(database, "CREATE TABLE meanwhile ()")
    with Relay(*words):
        execute(database, "CREATE TABLE after ()")
        wait_until(lambda: len(receiver.taken()) == 3, "three events")
        time.sleep(0.5)
    assert list(names(receiver.taken())) == ["public.before", "public.meanwhile", "public.after"]


def test_an_answer_that_is_on_its_way_is_waited_for_at_the_end(database: str, receiver: Receiver, cursors: Path) -> None:
    (receiver.folder / "slow").touch()
    words = ("--to", receiver.url, "--cursors", cursors, database)
    with Relay(*words) as relay:
        execute(database, "CREATE TABLE before ()")
        wait_until(receiver.taken, "a request")
        assert relay.end() == 0
    with Relay(*words):
        execute(database, "CREATE TABLE after ()")
        wait_until(lambda: "public.after" in names(receiver.taken()), "the other event")
    assert list(names(receiver.taken())) == ["public.before", "public.after"]


def test_ended_while_a_sink_is_away_it_ends_at_once(database: str, receiver: Receiver, cursors: Path) -> None:
    with Relay("--to", receiver.url, "--cursors", cursors, database) as relay:
        receiver.kill()
        execute(database, "CREATE TABLE t ()")
        wait_until(lambda: relay.status()["sinks"][0]["failures"] > 1, "two failures")
        begun = time.monotonic()
        assert relay.end() == 0
        assert time.monotonic() - begun < 2


def test_cursors_are_kept_in_the_database_where_no_folder_is_given(database: str, receiver: Receiver) -> None:
    words = ("--to", f"hook={receiver.url}", "--tag", "CREATE TABLE", "--schema", "public", "--kind", "table", database)
    with Relay(*words):
        execute(database, "CREATE TABLE before ()")
        wait_until(lambda: "public.before" in names(receiver.taken()), "an event")
    execute(database, "CREATE TABLE meanwhile ()")
    with Relay(*words):
        wait_until(lambda: "public.meanwhile" in names(receiver.taken()), "the other event")
    with psycopg.connect(database) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM public.schema_changes_cursor")] == ["relay hook"]


@pytest.mark.parametrize("status", [500, 302, 400])
def test_what_is_not_taken_comes_again_with_the_same_id(database: str, receiver: Receiver, cursors: Path, status: int) -> None:
    receiver.answer(status, "location: /elsewhere")
    with Relay("--to", receiver.url, "--cursors", cursors, database) as relay:
        execute(database, "CREATE TABLE t ()", "CREATE TABLE u ()")
        wait_until(lambda: len(receiver.requests()) == 2, "a second attempt")
        assert str(status) in relay.status()["sinks"][0]["problem"]
        receiver.answer(200)
        wait_until(lambda: len(receiver.taken()) == 2, "both events")
        wait_until(lambda: relay.status()["sinks"][0]["problem"] is None, "all well")
    *refused, first, _ = receiver.requests()
    assert {one["id"] for one in refused} == {first["id"]}
    assert list(names(receiver.taken())) == ["public.t", "public.u"]


def test_a_receiver_is_left_alone_for_as_long_as_it_asks(database: str, receiver: Receiver, cursors: Path) -> None:
    receiver.answer(503, "retry-after: 3")
    with Relay("--to", receiver.url, "--cursors", cursors, database):
        execute(database, "CREATE TABLE t ()")
        wait_until(receiver.requests, "a request")
        time.sleep(2.5)
        assert len(receiver.requests()) == 1
        wait_until(lambda: len(receiver.requests()) == 2, "the second attempt")


def test_410_ends_that_sink_only(database: str, receiver: Receiver, tmp_path: Path, cursors: Path) -> None:
    receiver.answer(410)
    with (
        Receiver(tmp_path / "other") as other,
        Relay(
            *("--to", f"one={receiver.url}", "--to", f"two={other.url}", "--cursors", cursors, database),
            env={"SSL_CERT_FILE": str(_bundle(tmp_path, receiver, other))},
        ) as relay,
    ):
        execute(database, "CREATE TABLE t ()", "CREATE TABLE u ()")
        wait_until(lambda: len(other.taken()) == 2, "two events")
        wait_until(lambda: relay.status()["sinks"][0]["ended"], "the end of a sink")
        assert "410" in relay.status()["sinks"][0]["problem"]
        other.answer(410)
        execute(database, "CREATE TABLE v ()")
        assert relay.wait() == 1
        assert "No sink wants any more changes" in relay.said
    assert len(receiver.requests()) == 1


def test_a_forged_notice_is_not_handed_on(database: str, receiver: Receiver, cursors: Path) -> None:
    with Relay("--to", receiver.url, "--cursors", cursors, database):
        forged = '{"type": "ddl_command_end", "tag": "DROP TABLE", "timestamp": "2026-01-01 00:00:00+00"%s}'
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("SELECT pg_notify('schema_changed', %s)", [forged % ""])
            connection.execute("SELECT pg_notify('schema_changed', %s)", [forged % ', "id": 5, "txid": "99999999"'])
        execute(database, "CREATE TABLE t ()")
        wait_until(receiver.requests, "a request")
    assert list(names(receiver.taken())) == ["public.t"]


def test_secrets_come_from_a_file_and_can_be_changed_without_a_gap(
    database: str, receiver: Receiver, tmp_path: Path, cursors: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n" + SECRET + "\n")
    with Relay("--to", f"hook={receiver.url}", "--secret-file", f"hook={file}", "--cursors", cursors, database):
        execute(database, "CREATE TABLE t ()")
        wait_until(receiver.requests, "a request")
    assert receiver.requests()[0]["status"] == 204
    assert SECRET not in "".join(path.read_text() for path in cursors.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Where to?"),
        (("--to", "ftp://host/x"), "is not known"),
        (("--to", "https:///x"), "has no host"),
        (("--to", "https://h:99999/x"), "wrong port"),
        (("--to", "https://geheim@[h/x"), "cannot be read"),
        (("--to", "nats://user:geheim@localhost/"), "names no NATS subject"),
        (("--to", "redis://:geheim@localhost/"), "is no Redis stream"),
        (("--to", "redis://:geheim@localhost/s?maxlen=many"), "is no Redis stream"),
        (("--to", "https://h/x", "--to", "https://h/x"), "Two sinks"),
        (("--to", "a.b=https://h/x", "--to", "a_b=https://h/y", "--cursors", "."), "would keep their place in the same file"),
        (("--to", "https://h/x-1", "--to", "https://h/x_1", "--cursors", "."), "would keep their place in the same file"),
        (("--to", "https://h/x", "--secret-file", "y=/dev/null"), "no sink of that name"),
        (("--to", "https://h/x", "--secret-file", "/dev/null"), "no signing secret"),
        (("--to", "https://h/x", "--secret-file", "/nowhere"), "/nowhere"),
        (("--to", "https://h/x", "--cursors", "/nowhere"), "make it first"),
        (("--to", "https://h/x", "--cursors", ".", "--metrics", "9464"), "is no address"),
        (("--to", "https://h/x", "--cursors", ".", "--metrics", "192.0.2.1:9464"), "Cannot serve metrics"),
        (("--status", "127.0.0.1:1"), "No relay answers"),
    ],
)
def test_what_cannot_work_is_told_at_the_start(database: str, words: tuple[str, ...], sentence: str) -> None:
    relay = Relay(*words, database)
    if "--metrics" in words or "--status" in words:
        relay.words = [*words, database]
    relay.start()
    assert relay.wait() != 0
    assert sentence in relay.said
    assert "geheim" not in relay.said
    assert "Traceback" not in relay.said


def _bundle(folder: Path, *receivers: Receiver) -> Path:
    """One file with all their certificates."""
    file = folder / "bundle.pem"
    file.write_text("".join(receiver.certificate.read_text() for receiver in receivers))
    return file
