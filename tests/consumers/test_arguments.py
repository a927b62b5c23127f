"""Each argument means the same in a Python program and through the plugin, whichever way its value comes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from notifying_postgres import DatabaseArgs, NotifyingPostgresArgs
from notifying_postgres.args import BackupArgs
from notifying_postgres.coolify import CoolifyArgs
from notifying_postgres.relay.args import RelaySinkArgs

from tests.support.coolify import FakeCoolify
from tests.support.stack import Stack

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVxhN0aWcGcRKD4xrK1mPGs5lYvW0pJ7dEmTfYkkXyL"
DATABASE = {
    "database_name": "orders",
    "user": "owner",
    "password": "a password",
    "port": "5433",
    "memory": "256m",
    "shm_size": "80m",
    "container_name": "a-container",
    "volume_name": "a-volume",
    "retain_data": False,
    "upgrade": True,
    "backup": {"folder": "/var/backups", "schedule": "0 1 * * *", "verify": "0 2 * * 0", "keep": "3", "keep_days": "30"},
    "restore_from": "/var/backups/old",
    "relay": [
        {
            "url": "https://example.org/hook",
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "name": "hook",
            "differences": True,
        },
        {"url": "redis://redis/changes"},
    ],
}
COOLIFY = {
    "project": "shop",
    "environment": "production",
    "server": "localhost",
    "destination": "coolify",
    "description": "orders",
    "postgres_conf": "work_mem = '8MB'",
    "environment_variables": {"TZ": "UTC"},
    "public_port": 15432,
    "public_port_timeout": 60,
    "limits_memory": "512m",
    "limits_memory_swap": "1g",
    "limits_memory_swappiness": 10,
    "limits_memory_reservation": "64m",
    "limits_cpus": "1.5",
    "limits_cpuset": "0-1",
    "limits_cpu_shares": 512,
    "health_check_enabled": True,
    "health_check_interval": 5,
    "health_check_timeout": 4,
    "health_check_retries": 3,
    "health_check_start_period": 2,
    "tags": ["shop", "orders"],
    "backups": [{"frequency": "0 3 * * *"}],
    "mount_path": "/var/lib/postgresql/data",
    "delete_volumes": False,
    "start_timeout": 100,
}
ARGS = {
    "host": "ssh://root@127.0.0.1:2222",
    "host_key": HOST_KEY,
    "allow_unverified_host": True,
    "jump_host": "ssh://root@127.0.0.1:2223",
    "jump_host_key": HOST_KEY,
    "image": "an-image:16",
    "base_image": "postgres:16-alpine",
    "network": "a-network",
    "verify_each_up": False,
    "registry_image": "a-registry:2",
    "relay_base_image": "python:3.13-alpine",
}


@pytest.fixture
def consumer(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, Path(__file__).parent / "every_argument", "every-argument")
    stack.init()
    key = stack.home / "id_ed25519"
    key.write_text("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----\n")
    yield stack
    stack.remove()


def planned(stack: Stack, form: str) -> dict[str, Any]:
    """What a preview would make, by URN; secrets show as such, and unknown values too."""
    stack.config["form"] = form
    resources = {}
    for step in json.loads(stack.preview("--json"))["steps"]:
        new = step["newState"]
        resource = {key: new.get(key) for key in ("inputs", "parent", "provider")}
        # Through the plugin the component itself depends on what its arguments come from, which changes nothing.
        if not new["type"].endswith(":NotifyingPostgres"):
            resource["dependencies"] = sorted(new.get("dependencies", []))
        resources[step["urn"].partition("::")[2]] = resource
    return resources


@pytest.mark.parametrize("way", ["plain", "output", "secret", "late"])
def test_every_argument_means_the_same_in_both_forms(consumer: Stack, way: str, tmp_path: Path) -> None:
    args = ARGS | {"private_key_file": str(consumer.home / "id_ed25519")}
    managed: dict[str, Any] = {"database_name": "orders", "user": "owner", "password": "a-password", "retain_data": False}
    databases = {"app": DATABASE, "empty": {}, "port": {"port": "127.0.0.1:5434"}, "managed": managed}
    if way == "plain":
        databases["number"] = {"port": 5435}  # a program without types may give a number; on the wire it is a float
    assert args.keys() | {"databases"} == NotifyingPostgresArgs.__annotations__.keys()
    assert DATABASE.keys() | {"coolify"} == DatabaseArgs.__annotations__.keys()
    assert DATABASE["backup"].keys() == BackupArgs.__annotations__.keys()  # type: ignore[attr-defined]
    assert DATABASE["relay"][0].keys() == RelaySinkArgs.__annotations__.keys()  # type: ignore[index]
    assert COOLIFY.keys() | {"url", "token"} == CoolifyArgs.__annotations__.keys()
    consumer.config = {"way": way, "args": {**args, "databases": databases}}

    with FakeCoolify(tmp_path, "bridge") as fake:  # a preview asks it whether the server is there
        managed["coolify"] = COOLIFY | {"url": fake.url, "token": fake.token}
        native, packaged = planned(consumer, "native"), planned(consumer, "packaged")

    assert len(native) > 15
    assert packaged.keys() == native.keys()
    for urn, resource in packaged.items():
        assert resource == native[urn]


@pytest.mark.parametrize(
    ("way", "databases", "sentence"),
    [
        ("plain", {"app": {"pasword": "p"}}, "databases.app.pasword"),
        ("plain", {"app": {"port": "70000"}}, "databases.app.port is '70000': give a port from 1 to 65535, or address:port"),
        ("output", {"app": {"port": "70000"}}, "databases.app.port is '70000': give a port from 1 to 65535, or address:port"),
        ("outer", {"app": {"port": "5432"}}, "give the settings by name; only a single setting may be an output"),
    ],
)
def test_what_is_wrong_is_refused_through_the_plugin_with_its_key(
    consumer: Stack, way: str, databases: dict[str, Any], sentence: str
) -> None:
    consumer.config = {"form": "packaged", "way": way, "args": {"databases": databases}}
    assert sentence in consumer.preview(fails=True)
