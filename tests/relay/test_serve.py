"""`schema-changes serve`: the event stream, the history, and who is let in."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.relay.servers import Serve, wait_until
from tests.support.postgres import Cluster, execute


class Events:
    """An EventSource of few lines."""

    def __init__(self, port: int, cursor: str | None = None, headers: dict[str, str] | None = None, query: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        given = {**({} if cursor is None else {"Last-Event-ID": cursor}), **(headers or {})}
        self._connection.request("GET", "/events" + query, headers=given)
        self.answer = self._connection.getresponse()
        self.cursor = cursor

    def __enter__(self) -> Events:
        assert self.answer.status == 200, self.answer.read()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def next(self) -> tuple[str, dict[str, Any]]:
        """Kind and data of the next event."""
        fields: dict[str, str] = {}
        while line := self.answer.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        self.cursor = fields.get("id", self.cursor)
        return fields["event"], json.loads(fields["data"])

    def tables(self, number: int) -> Iterator[str]:
        """The objects of the next changes."""
        while number:
            kind, data = self.next()
            if kind == "change":
                number -= 1
                yield data["objects"][0]["identity"]


def get(port: int, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: str = "") -> tuple[int, Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, body, headers=headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        kind = answer.headers.get("content-type", "")
        return answer.status, json.loads(text) if kind == "application/json" else (dict(answer.headers), text)


def sessions(url: str) -> int:
    with psycopg.connect(url) as connection:
        ((number,),) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    return int(number)


def test_a_stream_goes_on_exactly_where_it_was(database: str) -> None:
    with Serve(database) as serve:
        with Events(serve.port) as events:
            assert events.next() == ("alive", {})
            execute(database, "CREATE TABLE a ()", "CREATE TABLE b ()")
            assert list(events.tables(2)) == ["public.a", "public.b"]
        execute(database, "CREATE TABLE c ()")
        with Events(serve.port, events.cursor) as events:
            assert list(events.tables(1)) == ["public.c"]
            execute(database, "CREATE TABLE d ()")
            assert list(events.tables(1)) == ["public.d"]
        assert sessions(database) == 1
    # another process, which has nothing in memory
    execute(database, "CREATE TABLE e ()")
    with Serve(database) as serve, Events(serve.port, events.cursor) as events:
        execute(database, "CREATE TABLE f ()")
        assert list(events.tables(2)) == ["public.e", "public.f"]
        wait_until(lambda: sessions(database) == 1, "one session")


def test_who_is_idle_and_comes_back_to_another_process_misses_nothing(database: str) -> None:
    with Serve(database) as serve, Events(serve.port) as events:
        events.next()
    execute(database, "CREATE TABLE meanwhile ()")
    with Serve(database) as serve, Events(serve.port, events.cursor) as events:
        assert list(events.tables(1)) == ["public.meanwhile"]


def test_a_cursor_from_elsewhere_is_a_reset(database: str, cluster: Cluster) -> None:
    other = cluster.create_database(f"other_{time.time_ns()}")
    with psycopg.connect(other) as connection:
        ((cursor,),) = connection.execute("SELECT cursor FROM schema_notifications.changes_since(NULL)")
    with Serve(database) as serve:
        for foreign in (cursor, "nonsense", "1-2-3", "2-~,~"):
            with Events(serve.port, foreign) as events:
                events.next()
                kind, data = events.next()
                assert kind == "reset"
                assert data["reason"]
                execute(database, "CREATE TABLE IF NOT EXISTS t ()", "DROP TABLE t")
                assert list(events.tables(2)) == ["public.t", "public.t"]
        assert get(serve.port, "/events?cursor=%00")[0] == 400


def test_the_history_and_the_stream_after_it_are_all(database: str) -> None:
    with Serve(database) as serve:
        execute(database, *(f"CREATE TABLE t{number} ()" for number in range(1203)), "DROP TABLE t5")
        seen, query = [], "/history"
        while True:
            status, page = get(serve.port, query)
            assert status == 200
            seen += [change["objects"][0]["identity"] for change in page["changes"]]
            if page["before"] is None:
                break
            query = f"/history?before={page['before'].replace('+', '%2B')}"
        assert seen == ["public.t5", *(f"public.t{number}" for number in reversed(range(1203)))]
        execute(database, "CREATE TABLE after ()")
        with Events(serve.port, query=f"?cursor={page['cursor']}") as events:
            assert list(events.tables(1)) == ["public.after"]
        assert len(get(serve.port, "/history?object=T120")[1]["changes"]) == 4
        assert len(get(serve.port, "/history?tag=drop+table&user=postgres")[1]["changes"]) == 1
        today = page["changes"][0]["timestamp"][:10]
        assert get(serve.port, f"/history?day={today}")[1]["before"]
        for nothing in ("day=1999-01-01", "user=nobody", "object=%25", "tag=%25"):
            assert get(serve.port, f"/history?{nothing}")[1]["changes"] == []
        for wrong in (
            "day=today",
            "day=9999-12-31",
            "before=now",
            "before=2026-01-01/x/y",
            "user=%00",
            "before=2026-01-01T00:00%2B00:00/1/99999999999999999999",
        ):
            assert get(serve.port, f"/history?{wrong}")[0] == 400


def test_health_is_shown(database: str) -> None:
    with Serve("--relay", "127.0.0.1:1", database) as serve:
        _, state = get(serve.port, "/status")
        assert state["feed"]["healthy"] is True
        assert state["relays"][0]["healthy"] is False
    assert "password" not in json.dumps(state)


def test_a_token_is_asked_for(database: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a token\n")
    with Serve("--token-file", file, database) as serve:
        for path in ("/events", "/history", "/status"):
            assert get(serve.port, path)[0] == 401
            assert get(serve.port, path, {"Authorization": "Bearer other"})[0] == 401
            assert get(serve.port, path, {"Cookie": "schema_changes=a token"})[0] == 401
        assert get(serve.port, "/status", {"Authorization": "bearer a token"})[0] == 200
        with Events(serve.port, headers={"Authorization": "Bearer a token"}) as events:
            assert events.next()[0] == "alive"
        assert get(serve.port, "/login", method="POST", body="other")[0] == 403
        _, (headers, _) = get(serve.port, "/login", method="POST", body="a token")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "a token" not in cookie
        assert get(serve.port, "/status", {"Cookie": cookie.partition(";")[0]})[0] == 200


def test_a_proxys_header_is_believed_from_its_address_only(database: str) -> None:
    with Serve("--proxy-header", "Remote-User", database) as serve:
        assert get(serve.port, "/status")[0] == 403
        assert get(serve.port, "/status", {"Remote-User": "alice"})[0] == 200
    with Serve("--proxy-header", "Remote-User", "--proxy-from", "192.0.2.0/24", database) as serve:
        assert get(serve.port, "/status", {"Remote-User": "alice"})[0] == 403


def test_a_page_elsewhere_cannot_read_along(database: str) -> None:
    """It can make its own name lead to 127.0.0.1, but then that name is in the request."""
    with Serve(database) as serve:
        assert get(serve.port, "/history", {"Host": f"evil.example:{serve.port}"})[0] == 403
        assert get(serve.port, "/history", {"Host": f"localhost:{serve.port}"})[0] == 200
        headers, _ = get(serve.port, "/")[1]
        assert "access-control-allow-origin" not in headers
        assert "script-src 'self'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--bind", "0.0.0.0:0"), "everybody who reaches it"),
        (("--bind", "[::]:0"), "everybody who reaches it"),
        (("--bind", "8420"), "is no address"),
        (("--bind", "192.0.2.1:80", "--proxy-header", "x"), "Cannot serve"),
        (("--proxy-header", "x", "--proxy-from", "everywhere"), "--proxy-from"),
        (("--token-file", "/dev/null"), "no token"),
        (("--token-file", "/nowhere"), "/nowhere"),
        (("--relay", "x"), "is no address"),
    ],
)
def test_what_cannot_work_is_told_at_the_start(database: str, words: tuple[str, ...], sentence: str) -> None:
    serve = Serve(*words, database)
    serve.words = [*words, database]
    serve.start()
    assert serve.wait() != 0
    assert sentence in serve.said
    assert "Traceback" not in serve.said


def test_it_ends_quietly_and_tells_when_the_database_refuses(database: str, cluster: Cluster) -> None:
    with Serve(database) as serve, Events(serve.port) as events:
        events.next()
        assert serve.end() == 0
        assert "Traceback" not in serve.said
    with Serve(database) as serve, Events(serve.port) as events:
        events.next()
        execute(database, "DROP EXTENSION schema_notifications CASCADE")
        assert serve.wait() == 5
        assert "Traceback" not in serve.said


def test_a_token_as_long_as_a_film_is_not_read(database: str) -> None:
    """Whoever reaches the port may ask to be let in."""
    with Serve(database, env={"SCHEMA_CHANGES_TOKEN": "a token"}) as serve:
        assert serve.process is not None
        status = Path(f"/proc/{serve.process.pid}/status")
        with socket.create_connection(("127.0.0.1", serve.port), timeout=10) as connection:
            connection.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000000\r\n\r\n")
            with contextlib.suppress(ConnectionError, TimeoutError):
                for _ in range(100):
                    connection.sendall(b"x" * 1_000_000)
        assert get(serve.port, "/login", method="POST", body="x" * 20_000)[0] == 413
        assert get(serve.port, "/login", method="POST", body="a token")[0] == 204
        assert int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) < 100_000
        serve.end()
    assert "Traceback" not in serve.said
