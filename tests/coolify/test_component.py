"""NotifyingPostgres with a database in Coolify: the project's own program over SSH, with the real CLI."""

import re
from typing import Any

from tests.coolify.test_database import connect, tags_of_notices
from tests.support.coolify import FakeCoolify
from tests.support.docker import docker
from tests.support.sshd import Sshd
from tests.support.stack import Stack


def test_a_database_in_coolify_from_config_to_notice(fake: FakeCoolify, sshd: Sshd, stack: Stack, registry_image: str) -> None:
    stack.env["NOTIFYING_POSTGRES_REGISTRY_IMAGE"] = registry_image
    place = {"project": "shop", "environment": "production", "server": "localhost"}
    orders: dict[str, Any] = {"password": "first", "coolify": {**place, "tags": ["shop"]}}
    stack.config |= {**sshd.config, "coolifyUrl": fake.url, "coolifyToken": fake.token, "databases": {"orders": orders}}
    # Whoever waits sees for what: the build, the first start, the proof.
    told = stack.up()
    for step in ("Building ", "it is not started yet", "waiting for running:healthy", "CREATE TABLE"):
        assert step in told, told
    outputs = stack.outputs()
    [uuid] = fake.databases
    assert outputs["urls"] == {"orders": f"postgresql://postgres:first@{uuid}:5432/orders"}
    assert outputs["databases"]["orders"]["check"].endswith("heard CREATE TABLE, ALTER TABLE, DROP TABLE")
    image = docker("inspect", "--format", "{{.Config.Image}}", uuid)
    assert image.startswith(f"127.0.0.1:16/{stack.name}:16-")
    patched = [path for method, path, _ in fake.requests if method == "PATCH"]
    assert not any(path.endswith("/storages") for path in patched), "the registry's port leads Coolify to the right mount"
    stack.up("--expect-no-changes")

    # Restarted through the API by what a deploy changes: converge and check run again.
    orders["coolify"]["limitsMemory"] = "512m"
    assert re.search("orders-check .*updat", stack.up())

    # Another password: PostgreSQL has it before Coolify's record does, and no restart is needed.
    # A deploy that breaks off before the first, or between the two, is mended by the next.
    orders["password"] = "second"
    command = docker("exec", uuid, "which", "schema-notifications-converge")
    docker("exec", uuid, "chmod", "-x", command)
    assert "orders-converge" in stack.up(fails=True)
    connect(uuid, "first", "orders").close()
    assert fake.databases[uuid].fields["postgres_password"] == "first"
    docker("exec", uuid, "chmod", "+x", command)
    fake.abilities.remove("write")
    assert "ability 'write'" in stack.up(fails=True)
    connect(uuid, "second", "orders").close()
    assert fake.databases[uuid].fields["postgres_password"] == "first"
    fake.abilities.add("write")
    stack.up()
    assert fake.databases[uuid].fields["postgres_password"] == "second"
    with connect(uuid, "second", "orders") as connection:
        connection.execute("CREATE TABLE kept ()")
    fake.act(uuid, "restart")
    fake.settle()
    stack.refresh()
    stack.up()
    with connect(uuid, "second", "orders") as connection:
        assert tags_of_notices(connection, "DROP TABLE kept") == ["DROP TABLE"]

    stack.destroy()
    assert fake.databases[uuid].deleted
    assert docker("volume", "ls", "-q", "--filter", f"name=postgres-data-{uuid}")
    assert docker("ps", "-aq", "--filter", "name=notifying-postgres-registry-16") == ""
    # Kept from Coolify's cleanup, also where that deletes unused volumes.
    assert docker("container", "inspect", "--format", "{{.State.Status}}", f"postgres-data-{uuid}-kept") == "created"
    docker("rm", f"postgres-data-{uuid}-kept")
