"""A real PostgreSQL, 16 and 18, or with the mark `every_version` 14 to 18; and for each test a fresh database that has the extension
as a database of the image has: copied from template1."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.sql.database import Database
from tests.support.postgres import Cluster


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cluster" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("versions")
        every = metafunc.definition.get_closest_marker("every_version") is not None
        versions = only.args if only else range(14, 19) if every else (16, 18)
        metafunc.parametrize("cluster", versions, ids="postgres{}".format, indirect=True, scope="session")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    settings = {"max_prepared_transactions": "10", "wal_level": "logical", "log_statement": "none"}
    if request.param >= 17:
        settings["max_notify_queue_pages"] = "64"  # the least: a queue that a test can fill
    with Cluster(request.param, settings) as cluster:
        cluster.execute("CREATE EXTENSION schema_notifications", "template1")
        cluster.execute("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT bob TO alice")
        yield cluster


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    name = f"db{uuid.uuid4().hex[:12]}"
    cluster.execute(f"CREATE DATABASE {name}")
    database = Database(cluster, name)
    yield database
    for (subscription,) in database.execute("SELECT format('DROP SUBSCRIPTION %I', subname) FROM pg_subscription"):
        database.execute(subscription)
    cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")
