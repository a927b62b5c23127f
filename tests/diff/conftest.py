"""A real server for the tests here, and a database for each test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest

from schema_changes.diff.reader import Reader
from tests.support.postgres import Cluster

Connect = Callable[[], psycopg.Connection]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with Cluster(16) as cluster:
        yield cluster


@pytest.fixture
def database(cluster: Cluster) -> str:
    """The URL of a new database with the extension."""
    return cluster.create_database(f"test_{uuid.uuid4().hex[:12]}")


@pytest.fixture
def connect(database: str) -> Iterator[Connect]:
    """Opens sessions in the test's database, and closes them."""
    opened: list[psycopg.Connection] = []

    def connect() -> psycopg.Connection:
        opened.append(psycopg.connect(database, autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def user(connect: Connect) -> psycopg.Connection:
    """The session of somebody who changes the schema."""
    return connect()


@pytest.fixture
def reader(connect: Connect) -> Reader:
    """One that has the picture of the empty database."""
    reader = Reader(connect())
    reader.refresh()
    return reader
