"""Whoever answers at an address is not told the password in clear."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from schema_changes import check, history, listen_sync, status
from schema_changes.errors import LoginRefused, SchemaChangesError
from schema_changes.feed import transaction
from schema_changes.route import Route
from tests.support.postgres import Cluster

CLEAR, MD5 = struct.pack("!i", 3), struct.pack("!i4s", 5, b"salt")


@contextmanager
def false_server(method: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server without TLS that asks for the password; its port and what it was told."""
    told: list[bytes] = []

    def serve(server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                while (request := client.recv(8)) and len(request) == 8 and request[4:] in (b"\x04\xd2\x16/", b"\x04\xd2\x160"):
                    client.sendall(b"N")
                client.recv(10_000)
                client.sendall(b"R" + struct.pack("!i", len(method) + 4) + method)
                told.append(client.recv(10_000))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1], told
        deadline = time.monotonic() + 10
        while not told:  # that the client is gone
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.shutdown(socket.SHUT_RDWR)


def use(what: str, url: str) -> None:
    match what:
        case "check":
            check(url)
        case "status":
            status(url)
        case "history":
            history(url)
        case "listen":
            next(listen_sync(url))


@pytest.mark.parametrize("what", ["check", "status", "history", "listen"])
def test_no_password_in_clear_without_tls(what: str) -> None:
    with false_server(CLEAR) as (port, told):
        with pytest.raises(LoginRefused, match="in clear") as raised:
            use(what, f"postgresql://app:geheim@127.0.0.1:{port}/app")
        assert "geheim" not in str(raised.value)
        assert "sslmode=require" in str(raised.value)
    assert told == [b""]


def test_who_wants_it_in_clear_says_so() -> None:
    with false_server(CLEAR) as (port, told), pytest.raises(SchemaChangesError):
        status(f"postgresql://app:geheim@127.0.0.1:{port}/app?require_auth=password", timeout=2)
    assert b"geheim" in told[0]


@pytest.mark.parametrize("method", [CLEAR, MD5])
def test_at_a_container_s_address_no_password_that_can_be_worked_out(monkeypatch: pytest.MonkeyPatch, method: bytes) -> None:
    monkeypatch.setattr(Route, "_container_address", lambda route: "127.0.0.1")
    with false_server(method) as (port, told), Route("app-db", port=port) as route:
        parameters: dict[str, Any] = route.parameters
        with pytest.raises(LoginRefused, match="scram-sha-256"):
            status("user=app password=geheim", **parameters)
    assert told == [b""]


def test_what_an_md5_server_needs(cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    role = f"md5_{database.rpartition('_')[2]}"
    cluster.execute(f"SET password_encryption = md5; CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'right'")
    rules = cluster.data / "pg_hba.conf"
    rules.write_text(f"host all {role} 127.0.0.1/32 md5\n{rules.read_text()}")
    cluster.execute("SELECT pg_reload_conf()")
    monkeypatch.setattr(Route, "_container_address", lambda route: "127.0.0.1")
    words = f"dbname={database.rpartition('/')[2]} user={role} password=right"
    with Route("app-db", port=cluster.port) as route:
        parameters: dict[str, Any] = route.parameters
        with pytest.raises(LoginRefused, match="require_auth=md5"):
            status(words, **parameters)
        assert status(f"{words} require_auth=md5", **parameters)["healthy"]
        with transaction(f"{words} require_auth=md5", **parameters) as session:
            session.rows(f"SET password_encryption = 'scram-sha-256'; ALTER ROLE {role} PASSWORD 'right'")
        assert status(words, **parameters)["healthy"]
