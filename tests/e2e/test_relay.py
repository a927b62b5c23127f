"""`databases.KEY.relay`: a container that hands changes on, deployed, checked, changed and removed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.relay.servers import RedisServer, free_port, wait_until
from tests.support.docker import docker
from tests.support.stack import Stack

PASSWORD = "geheim of the stream"


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that containers reach, by the bridge's own address."""
    gateway = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    with RedisServer(tmp_path / "redis", "--bind", "127.0.0.1", gateway, "--requirepass", PASSWORD) as server:
        server.url = f"redis://{gateway}:{server.port}"
        yield server


def entries(stream: RedisServer, name: str) -> list[dict[str, Any]]:
    found: Any = redis.Redis(port=stream.port, password=PASSWORD).xrange(name)
    return [json.loads(fields[b"event"]) for _, fields in found]


def changes(stream: RedisServer, name: str) -> list[str]:
    """What was created, by the changes that are no check's."""
    found = [event for event in entries(stream, name) if event["type"] == "notifying-postgres.schema_changed"]
    return [event["data"]["objects"][0]["identity"] for event in found if "schema_changes_cursor" not in str(event)]


def becomes_unhealthy_with_the_reason(stack: Stack) -> None:
    """Another of the same image, whose sink takes nothing, and that is asked more often."""
    name, image = f"{stack.name}-stuck", stack.container("app-relay")["Config"]["Image"]
    often = ("--health-interval", "1s", "--health-retries", "1", "--health-start-period", "0s")
    socket = ("--volume", f"{stack.name}-app-socket:/var/run/postgresql", "--env", "PGDATABASE=app", "--env", "PGUSER=postgres")
    relay = (
        "schema-changes",
        "relay",
        "--to",
        "stuck=redis://127.0.0.1:1/x",
        "--metrics",
        "127.0.0.1:9464",
        "--stuck-after",
        "0.1",
    )
    docker("run", "--detach", "--name", name, *often, *socket, image, *relay)
    health = ("inspect", "--format", "{{json .State.Health}}", name)
    wait_until(lambda: json.loads(docker(*health))["Status"] == "healthy", "health", 60)
    stack.sql("CREATE TABLE last ()")
    wait_until(lambda: json.loads(docker(*health))["Status"] == "unhealthy", "ill health", 60)
    assert "The sink stuck takes nothing since " in json.loads(docker(*health))["Log"][-1]["Output"]
    docker("rm", "--force", name)


def test_a_relay_is_deployed_checked_changed_and_removed(stack: Stack, stream: RedisServer) -> None:
    one = {"url": f"{stream.url}/one", "secret": PASSWORD, "name": "one", "differences": True}
    stack.config["databases"]["app"] = {"relay": [one]}
    said = stack.up()
    assert "Step 1/" not in said
    assert {event["type"] for event in entries(stream, "one")} >= {"notifying-postgres.check"}
    stack.sql("CREATE TABLE first (id int)")
    wait_until(lambda: changes(stream, "one") == ["public.first"], "the change")
    assert "+ table public.first" in entries(stream, "one")[-1]["data"]["differences_text"]

    inspected = stack.container("app-relay")
    password = stack.outputs()["urls"]["app"].split(":")[2].split("@")[0]
    for place in (said, stack.stderr, json.dumps(inspected), stack.state(), docker("logs", f"{stack.name}-app-relay")):
        assert PASSWORD not in place
        assert password not in place
    assert (inspected["Config"]["User"], inspected["HostConfig"]["PortBindings"] or {}) == ("65534", {})
    stack.refresh()
    stack.up_changes_nothing()

    # what happens while it is away comes from the log, by the place that the database keeps
    docker("stop", f"{stack.name}-app-relay")
    stack.sql("CREATE TABLE meanwhile ()")
    dead = {"url": f"{stream.url.rpartition(':')[0]}:{free_port()}/two", "name": "two"}
    stack.config["databases"]["app"]["relay"] = [one, dead]
    said = stack.up(fails=True)
    assert "A change of the schema did not arrive at every sink of the relay:" in said
    assert "The sink two did not take the check's change: " in said
    wait_until(lambda: changes(stream, "one") == ["public.first", "public.meanwhile"], "the other change")
    assert stack.container("app-relay")["Id"] != inspected["Id"]

    stack.config["databases"]["app"]["relay"] = [one, {**one, "url": f"{stream.url}/two", "name": "two", "differences": False}]
    stack.up()
    assert {event["type"] for event in entries(stream, "two")} == {"notifying-postgres.check"}
    state = json.loads(docker("exec", f"{stack.name}-app-relay", "schema-changes", "relay", "--status", "127.0.0.1:9464"))
    assert [sink["sink"] for sink in state["sinks"]] == ["one", "two"]

    becomes_unhealthy_with_the_reason(stack)

    del stack.config["databases"]["app"]["relay"]
    stack.up()
    assert docker("ps", "-aq", "--filter", f"name={stack.name}-app-relay") == ""
    assert stack.sql("SELECT count(*) FROM first") == [(0,)]
    stack.destroy()
    assert f"{stack.name}-relay" not in docker("image", "ls", "--format", "{{.Repository}}")
