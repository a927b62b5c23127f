"""Real sinks: a webhook's receiver, NATS, Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.relay.servers import NatsServer, Receiver, RedisServer


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A webhook's receiver whose certificate the relay trusts."""
    with Receiver(tmp_path / "receiver") as receiver:
        monkeypatch.setenv("SSL_CERT_FILE", str(receiver.certificate))
        yield receiver


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def cursors(tmp_path: Path) -> Path:
    folder = tmp_path / "cursors"
    folder.mkdir()
    return folder
