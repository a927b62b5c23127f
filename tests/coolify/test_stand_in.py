"""The stand-in, row by row where a real Coolify 4.3.11 was measured to differ from what its documents say."""

import socket
import time
from typing import Any

import httpx
import pytest

from tests.support.coolify import FakeCoolify

pytestmark = pytest.mark.usefixtures("without_engine")


@pytest.fixture
def api(fake: FakeCoolify) -> httpx.Client:
    return httpx.Client(base_url=f"{fake.url}/api/v1", headers={"Authorization": f"Bearer {fake.token}"})


@pytest.fixture
def database(api: httpx.Client, fake: FakeCoolify) -> str:
    place = {"project_uuid": "project-shop", "environment_uuid": "environment-production", "server_uuid": "server-one"}
    answer = api.post(
        "/databases/postgresql", json={**place, "image": "x:16", "name": " <b>orders</b> ", "description": "1 < 2<br>"}
    )
    assert answer.status_code == 201
    return str(answer.json()["uuid"])


def record(api: httpx.Client, database: str) -> Any:
    return api.get(f"/databases/{database}").json()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_record_is_as_old_as_the_last_look_and_every_look_moves_its_time(
    api: httpx.Client, fake: FakeCoolify, database: str
) -> None:
    fake.minute = 600
    time.sleep(0.8)
    api.post(f"/databases/{database}/start")
    fake.settle()
    assert record(api, database)["status"] == "exited:unhealthy"
    times = []
    for _ in range(3):
        fake.look()
        assert record(api, database)["status"] == "running:healthy"
        times.append(record(api, database)["last_online_at"])
    assert times == sorted(set(times))
    fake.databases[database].container = None
    assert record(api, database)["status"] == "running:healthy", "of one that is gone"


def test_two_starts_are_both_taken_and_the_second_replaces_what_the_first_made(
    api: httpx.Client, fake: FakeCoolify, database: str
) -> None:
    fake.minute = 600
    answers = [api.post(f"/databases/{database}/start").status_code for _ in range(2)]
    fake.settle()
    assert answers == [200, 200]
    assert len([line for line in fake.commands if line.startswith("docker run ")]) == 2


def test_names_and_variables_are_stored_otherwise_than_given(api: httpx.Client, fake: FakeCoolify, database: str) -> None:
    shown = record(api, database)
    assert (shown["name"], shown["description"]) == ("orders", "1 < 2")
    fake.abilities.add("read:sensitive")
    path = f"/databases/{database}/envs"
    assert api.post(path, json={"key": "A", "value": " a "}).json()["value"] == "a"
    changed = api.patch(path, json={"key": "A", "value": ""})
    assert changed.status_code == 201
    assert {"uuid", "key", "value", "is_literal"} <= changed.json().keys()
    assert changed.json()["value"] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"description": "x" * 255}, 200),
        ({"description": "x" * 256}, 500),
        ({"limits_cpus": 1.5}, 422),
        ({"limits_memory": None}, 422),
        ({"limits_cpuset": None}, 200),
        ({"enable_ssl": True}, 422),
    ],
)
def test_what_a_patch_is_answered_with(
    api: httpx.Client, fake: FakeCoolify, database: str, body: dict[str, Any], status: int
) -> None:
    assert api.patch(f"/databases/{database}", json=body).status_code == status
    fake.undocumented.clear()


def test_only_a_flip_of_public_reaches_the_proxy_and_a_taken_port_is_taken_back_later(
    api: httpx.Client, fake: FakeCoolify, database: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path, row = f"/databases/{database}", fake.databases[database]
    assert api.patch(path, json={"is_public": True, "public_port": port}).status_code == 200
    fake.settle()
    assert row.proxy
    proxy = row.proxy
    assert api.patch(path, json={"public_port": port + 1, "public_port_timeout": 5}).status_code == 200
    fake.settle()
    assert row.proxy is proxy
    assert record(api, database)["public_port"] == port + 1
    api.patch(path, json={"is_public": False})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = api.patch(path, json={"is_public": True, "public_port": taken.getsockname()[1]})
        assert answer.status_code == 200
        until(lambda: record(api, database)["is_public"] is False)


def test_a_403_says_success(api: httpx.Client, fake: FakeCoolify) -> None:
    fake.api_enabled = False
    answer = api.get("/servers")
    assert (answer.status_code, answer.json()) == (403, {"success": True, "message": "API is disabled."})
    fake.api_enabled, fake.allowed_address = True, False
    assert api.get("/servers").json()["message"] == "You are not allowed to access the API."


def test_a_stop_dispatches_a_cleanup_unless_told_not_to(api: httpx.Client, fake: FakeCoolify, database: str) -> None:
    for query, cleanups in (("?docker_cleanup=false", 0), ("", 1)):
        api.post(f"/databases/{database}/start")
        fake.settle()
        fake.look()
        assert api.post(f"/databases/{database}/stop{query}").status_code == 200
        fake.settle()
        assert fake.commands.count("cleanup") == cleanups
    fake.undocumented.clear()
