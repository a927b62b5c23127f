"""Sessions in the test's database, and a reader of its schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from schema_changes.diff.reader import Reader

Connect = Callable[[], psycopg.Connection]


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
