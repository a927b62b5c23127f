"""One real PostgreSQL for all tests here, and a database for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.relay.servers import NatsServer, Receiver, RedisServer
from tests.support.postgres import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A server that tests share and leave running."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def database(cluster: Cluster) -> str:
    """The URL of a new database with the extension."""
    return cluster.create_database(f"test_{uuid.uuid4().hex[:12]}")


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
