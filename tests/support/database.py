"""One real server for all tests of a worker, and a database for each test. tests/sql has its own, for several versions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

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
