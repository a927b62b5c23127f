"""One real server for all tests here, a database for each test, and a proxy that can freeze and cut."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.listener.proxy import Proxy
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
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    """A way to the shared server that can break."""
    with Proxy(cluster.port) as proxy:
        yield proxy
