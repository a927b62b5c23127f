"""Two relays with one cursor: the second waits and says for whom, and goes on where the first ended, however it ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.relay.servers import Receiver, Relay, names, wait_until
from tests.relay.test_state import command
from tests.support.postgres import execute


def told(receiver: Receiver) -> list[str]:
    """What the receiver was told of, but the relays' own table."""
    return [name for name in names(receiver.taken()) if name != "public.schema_changes_cursor"]


@pytest.fixture(params=["table", "file"])
def words(request: pytest.FixtureRequest, receiver: Receiver, cursors: Path) -> Iterator[list[str | Path]]:
    kept: list[str | Path] = ["--cursors", cursors] if request.param == "file" else []
    yield ["--to", f"hook={receiver.url}", *kept]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_second_waits_for_the_first_and_goes_on_after_it(
    database: str, receiver: Receiver, words: list[str | Path], number: int
) -> None:
    with Relay(*words, database) as first, Relay(*words, "--stuck-after", "1", database, waits=True) as second:
        said = second.status()["problem"]
        code, _, error = command("--check", f"127.0.0.1:{second.metrics}", "--timeout", "1", database)
        assert (code, said in error) == (6, True), error
        assert said.startswith("The cursor of sink hook is another relay's: ")
        assert f"process {first.process.pid} " in said or "a session of " in said  # type: ignore[union-attr]
        execute(database, "CREATE TABLE a ()")
        wait_until(lambda: told(receiver), "the first change")
        wait_until(lambda: not second.status()["healthy"], "a health check that tells of it")
        first.end(number)
        execute(database, "CREATE TABLE b ()")
        wait_until(second.has_begun, "the second relay")
        execute(database, "CREATE TABLE c ()")
        wait_until(lambda: "public.c" in told(receiver), "the others")
        assert second.end() == 0
        assert said in second.said
    # the first may have been killed before it noted what it had handed over
    again = ["public.a"] if number == signal.SIGKILL and told(receiver).count("public.a") == 2 else []
    assert told(receiver) == ["public.a", *again, "public.b", "public.c"]


def test_one_that_waits_ends_when_it_is_told_to(database: str, words: list[str | Path]) -> None:
    with Relay(*words, database), Relay(*words, database, waits=True) as second:
        started = time.monotonic()
        assert second.end() == 0
        assert time.monotonic() - started < 3


def test_relays_with_other_sinks_do_not_wait_for_each_other(database: str, receiver: Receiver, words: list[str | Path]) -> None:
    other = [f"other={receiver.url}" if str(word).startswith("hook=") else word for word in words]
    with Relay(*words, database), Relay(*other, database):
        execute(database, "CREATE TABLE a ()")
        wait_until(lambda: told(receiver) == ["public.a"] * 2, "one each")


def test_one_that_lost_its_session_to_another_neither_hands_over_nor_saves_until_it_is_its_turn(
    database: str, receiver: Receiver
) -> None:
    words = ("--to", f"hook={receiver.url}", database)
    receiver.answer(500)
    with ExitStack() as stack:
        first = stack.enter_context(Relay(*words))
        execute(database, "CREATE TABLE a ()")
        wait_until(lambda: first.status()["sinks"][0]["failures"], "a change that the first keeps trying to hand over")
        assert first.process is not None
        first.process.send_signal(signal.SIGSTOP)
        second = stack.enter_context(Relay(*words, waits=True))
        execute(database, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        receiver.answer(204)
        wait_until(second.has_begun, "the second relay")
        execute(database, "CREATE TABLE b ()")
        wait_until(lambda: len(told(receiver)) == 2, "both from the second")
        first.process.send_signal(signal.SIGCONT)
        wait_until(lambda: "is another relay's: a session of " in str(first.status()["problem"]), "the first that waits")
        time.sleep(2)  # in which it would have tried again
        execute(database, "CREATE TABLE c ()")
        wait_until(lambda: len(told(receiver)) == 3, "the third from the second")
        second.end()
        wait_until(lambda: first.status()["problem"] is None, "the first's turn")
        execute(database, "CREATE TABLE d ()")
        wait_until(lambda: len(told(receiver)) >= 4, "the last from the first")
        time.sleep(0.5)
    assert told(receiver) == ["public.a", "public.b", "public.c", "public.d"]
