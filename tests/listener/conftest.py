"""A proxy to the server that can freeze and cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.listener.proxy import Proxy
from tests.support.postgres import Cluster


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    """A way to the shared server that can break."""
    with Proxy(cluster.port) as proxy:
        yield proxy
