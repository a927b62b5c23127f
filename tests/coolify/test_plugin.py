"""The resources through the real Pulumi CLI and the plugin as the engine starts it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from notifying_postgres.component import NotifyingPostgres
from notifying_postgres.plugin import Plugin

from tests.coolify.fixtures import Registry
from tests.support import REPOSITORY
from tests.support.coolify import FakeCoolify
from tests.support.docker import docker
from tests.support.stack import Stack

PROJECT = f"""\
name: notifying-postgres
runtime: {{name: python, options: {{virtualenv: {REPOSITORY / ".venv"}}}}}
plugins:
  providers:
    - {{name: notifying-postgres, path: {REPOSITORY / "components"}}}
"""
PLACE = {"project": "shop", "environment": "production", "server": "localhost"}
PROGRAM = """\
import json, pathlib
import pulumi
from notifying_postgres.coolify import CoolifyDatabase, CoolifyPassword

args = json.loads(pathlib.Path("args").read_text())
if args:
    database = CoolifyDatabase("orders", args, pulumi.ResourceOptions(ignore_changes=["postgresPassword"]))
    CoolifyPassword("record", {"database": database.id, "password": args["postgres_password"]})
    pulumi.export("uuid", database.id)
    pulumi.export("status", database.status)
    pulumi.export("url", database.internal_url)
"""


def write(stack: Stack, args: dict[str, Any]) -> None:
    """Sets the program's arguments: in a file, since the state's history would have the configuration in clear text."""
    (stack.program / "args").write_text(json.dumps(args))


def up(stack: Stack, args: dict[str, Any], *words: str, fails: bool = False) -> str:
    write(stack, args)
    return stack.up(*words, fails=fails)


@pytest.fixture
def program(tmp_path: Path, fake: FakeCoolify) -> Iterator[Stack]:
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text(PROJECT)
    (folder / "__main__.py").write_text(PROGRAM)
    made = Stack(tmp_path / "stack", folder)
    made.config = {"coolifyUrl": fake.url}
    made.init()
    made.set_secret("coolifyToken", fake.token)
    yield made
    made.remove()


def test_a_stacks_life(program: Stack, fake: FakeCoolify, registry: Registry, tmp_path: Path) -> None:
    args: dict[str, Any] = {"image": registry.reference, **PLACE}
    args |= {"postgres_password": "secret-one", "start_timeout": 60}
    up(program, args, "-v=9", "--logtostderr", "--logflow")
    said, everything_logged = program.stdout, program.stderr
    assert "is running:healthy" in said
    outputs = program.outputs()
    uuid = outputs["uuid"]
    assert outputs["status"] == "running:healthy"
    assert outputs["url"] == f"postgres://postgres:secret-one@{uuid}:5432/postgres"
    assert docker("inspect", "--format", "{{.State.Running}}", uuid) == "true"
    up(program, args, "--expect-no-changes")

    # No secret is anywhere in clear text, but in what the engine itself logs of every provider when asked for all (glog's lines).
    state = "".join(path.read_text() for path in (tmp_path / "stack").rglob("*.json*"))
    of_the_engine = re.compile(r"^[IWEF]\d{4} [\d:.]+ +\d+ \w+\.go:\d+\] .*\n", re.MULTILINE)
    logged, lines = of_the_engine.subn("", everything_logged)
    assert lines > 100
    for secret in ("secret-one", fake.token):
        assert secret not in said + logged + state

    # Changes reach Coolify, the password by the record's own resource; a drift is seen by a refresh.
    args |= {"postgres_password": "secret-two", "description": "Orders"}
    up(program, args)
    assert fake.databases[uuid].fields["postgres_password"] == "secret-two"
    assert fake.databases[uuid].fields["description"] == "Orders"
    fake.databases[uuid].fields["description"] = "by hand"
    assert "by hand" in program.refresh("--diff")

    # What would need another database is refused, in the preview already.
    write(program, {**args, "postgres_db": "other"})
    assert "since its first start" in program.preview(fails=True)

    # Forgotten, and adopted again as it is: nothing restarts.
    kind = "notifying-postgres:index:CoolifyDatabase"
    program.run("state", "delete", "--yes", "--target-dependents", f"urn:pulumi:{program.name}::notifying-postgres::{kind}::orders")
    program._change("import", "--yes", "--skip-preview", "--protect=false", "--generate-code=false", kind, "orders", uuid)
    before = docker("inspect", "--format", "{{.State.StartedAt}}", uuid)
    up(program, args)
    assert docker("inspect", "--format", "{{.State.StartedAt}}", uuid) == before
    assert fake.databases[uuid].fields["description"] == "Orders", "the drift is mended"

    program.destroy()
    assert fake.databases[uuid].deleted
    assert docker("volume", "ls", "-q", "--filter", f"name=postgres-data-{uuid}") == f"postgres-data-{uuid}"


def test_a_deploy_that_fails_goes_on_where_it_stopped(program: Stack, fake: FakeCoolify, registry: Registry) -> None:
    args: dict[str, Any] = {"image": f"127.0.0.1:{registry.port}/absent:16", **PLACE}
    args |= {"postgres_password": "x", "start_timeout": 2}
    said = up(program, args, fails=True)
    assert "Most often the image cannot be pulled" in said
    assert "coolify/database.py" not in said, "a sentence, not a traceback"
    up(program, {**args, "image": registry.reference, "start_timeout": 60})
    assert len(fake.databases) == 1


def test_the_schema_has_the_resources_and_marks_secrets() -> None:
    schema = json.loads(Plugin([NotifyingPostgres], "127.0.0.1:1").schema)
    database = schema["resources"]["notifying-postgres:index:CoolifyDatabase"]
    assert schema["resources"]["notifying-postgres:index:NotifyingPostgres"]["isComponent"]
    assert {key for key, one in database["properties"].items() if one.get("secret")} == {
        *("token", "postgresPassword", "environmentVariables", "password", "internalUrl", "externalUrl"),
    }
    assert database["requiredInputs"] == ["environment", "image", "project", "server"]
    assert schema["config"]["variables"]["coolifyToken"]["secret"] is True
    backups = database["inputProperties"]["backups"]["items"]
    assert backups["$ref"].rpartition("/")[2] in schema["types"]
    assert "null" not in json.dumps(database)
