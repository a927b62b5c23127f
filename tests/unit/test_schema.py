"""The schema by which stacks in every language know the package, and the documents that say the same."""

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from notifying_postgres import NotifyingPostgres
from notifying_postgres.coolify import rules
from notifying_postgres.coolify.provided import Database
from notifying_postgres.names import camel_case
from notifying_postgres.plugin import PACKAGE, VERSION, schema
from notifying_postgres.provider import Refusal
from pulumi.provider.experimental.component import ComponentProvider

from tests.support import REPOSITORY


@pytest.fixture(scope="module")
def package() -> Any:
    return json.loads(schema(ComponentProvider([NotifyingPostgres], PACKAGE, version=VERSION).schema or ""))


def everything(package: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each argument and each output of each resource and type, by its path in the schema."""
    for kind in ("resources", "types"):
        for token, described in package[kind].items():
            for list_name in ("inputProperties", "properties"):
                for key, one in described.get(list_name, {}).items():
                    yield f"{token.rpartition(':')[2]}.{list_name}.{key}", one
    for key, one in package["config"]["variables"].items():
        yield f"config.{key}", one


def test_everything_is_named_typed_and_described(package: Any) -> None:
    found = dict(everything(package))
    assert len(found) > 100
    assert [path for path, one in found.items() if not one.get("description", "").endswith(".")] == []
    assert [path for path, one in found.items() if not one.get("type") and not one.get("$ref")] == []
    assert [path for path in found if not re.fullmatch(r"[A-Za-z]+\.(\w+\.)?[a-z][A-Za-z0-9]*", path)] == []
    for described in (*package["resources"].values(), *package["types"].values()):
        assert described["description"].splitlines()[0].endswith(".")
        assert "\n  " not in described["description"]


def test_every_reference_leads_somewhere(package: Any) -> None:
    references = set(re.findall(r'"#/types/([^"]+)"', json.dumps(package)))
    assert references <= package["types"].keys()
    assert len(references) >= 6


def test_secrets_are_marked_and_nothing_else_is(package: Any) -> None:
    secrets = {path for path, one in everything(package) if one.get("secret")}
    assert {path.rpartition(".")[2] for path in secrets} == {
        "password", "postgresPassword", "environmentVariables", "token", "coolifyToken", "urls", "internalUrl", "externalUrl",
        "secret",
    }  # fmt: skip
    assert {"DatabaseArgs.properties.password", "NotifyingPostgres.properties.urls", "CoolifyArgs.properties.token"} <= secrets
    unmarked = {path.rpartition(".")[2] for path, one in everything(package) if not one.get("secret")}
    assert not unmarked & {path.rpartition(".")[2] for path in secrets}


def test_only_the_databases_are_required(package: Any) -> None:
    assert package["resources"][f"{PACKAGE}:index:NotifyingPostgres"]["requiredInputs"] == ["databases"]
    assert "required" not in package["types"][f"{PACKAGE}:index:DatabaseArgs"]


def table(heading: str, column: int) -> dict[str, str]:
    """A table of docs/configuration.md: the first column's keys, and what stands in another column."""
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    rows = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    return {row[0].strip("` "): row[column] for row in cells}


def default(described: dict[str, Any]) -> str | None:
    """The default in an argument's description, when it is a literal."""
    found = re.search(r"Default: `?([^`,.][^`,]*?)`?[,.]", described["description"])
    return found[1] if found else None


def test_the_documented_configuration_is_the_schemas(package: Any) -> None:
    listed = table("Key (`pulumi config set …`)", 2)
    component = package["resources"][f"{PACKAGE}:index:NotifyingPostgres"]["inputProperties"]
    database = package["types"][f"{PACKAGE}:index:DatabaseArgs"]["properties"]
    # Coolify's settings are in docs/coolify.md; the registry's image is a stand-in's business.
    known = {**component, **{f"databases.KEY.{key}": one for key, one in database.items()}}
    for elsewhere in ("databases", "databases.KEY.coolify", "registryImage"):
        del known[elsewhere]
    assert list(listed) == [key for key in listed if key in known]
    assert sorted(listed) == sorted(known)
    literal = {key: default(one) for key, one in known.items() if f"Default: `{default(one)}`" in one["description"]}
    assert len(literal) >= 3
    for key, value in literal.items():
        if "<" not in str(value):
            assert f"`{value}`" in listed[key], key


def test_the_documented_outputs_are_the_schemas(package: Any) -> None:
    listed = table("Output", 1)
    assert sorted(listed) == sorted(package["resources"][f"{PACKAGE}:index:NotifyingPostgres"]["properties"])
    named = {camel_case(name) for name in re.findall(r"`(\w+)`", listed["databases"])}
    assert named == set(package["types"][f"{PACKAGE}:index:DatabaseOutputs"]["properties"])


def test_the_defaults_of_coolifys_arguments_are_those_of_the_table(package: Any) -> None:
    """One table has each argument's field, default and rule; the descriptions are for those who read."""
    for fields, described in (
        (rules.DATABASE, package["resources"][f"{PACKAGE}:index:CoolifyDatabase"]["inputProperties"]),
        (rules.BACKUP, package["types"][f"{PACKAGE}:index:CoolifyBackupArgs"]["properties"]),
        (rules.PASSWORD, package["resources"][f"{PACKAGE}:index:CoolifyPassword"]["inputProperties"]),
    ):
        assert set(fields) == set(described)
        for key, field in fields.items():
            if field.default is not None:
                literal = json.dumps(field.default) if isinstance(field.default, bool) else str(field.default)
                assert re.search(rf"Default: `?{re.escape(literal)}`?[.;]", described[key]["description"]), key


def test_the_stack_file_knows_the_same_configuration(package: Any) -> None:
    project = (REPOSITORY / "Pulumi.yaml").read_text()
    keys = set(re.findall(r"^  (\w+):$", project[project.index("\nconfig:") :], re.M))
    component = set(package["resources"][f"{PACKAGE}:index:NotifyingPostgres"]["inputProperties"])
    assert keys == component - {"registryImage"} | package["config"]["variables"].keys()


def test_the_api_page_is_up_to_date() -> None:
    printed = subprocess.run([sys.executable, REPOSITORY / "toolchain" / "api_page.py"], capture_output=True, text=True, check=True)
    assert (REPOSITORY / "docs" / "api.md").read_text() == printed.stdout, "python toolchain/api_page.py >docs/api.md"


def test_a_plugin_gets_the_versions_that_the_tests_ran_with() -> None:
    pinned = re.findall("^(.+==.+)$", (REPOSITORY / "components" / "requirements.txt").read_text(), re.M)
    assert {"pulumi", "pulumi-command", "pulumi-docker"} <= {one.partition("==")[0] for one in pinned}
    relay = REPOSITORY / "components/notifying_postgres/relay/image/requirements.txt"
    for one in [*pinned, *re.findall("^(.+==.+)$", relay.read_text(), re.M)]:
        assert f'"{one}",' in (REPOSITORY / "pyproject.toml").read_text()


def test_the_version_is_in_one_place() -> None:
    assert 'path = "components/notifying_postgres/plugin.py"' in (REPOSITORY / "pyproject.toml").read_text()
    assert importlib.metadata.version(PACKAGE) == VERSION
    assert f"## {VERSION}\n" in (REPOSITORY / "CHANGELOG.md").read_text()


VALUES: dict[str, list[Any]] = {
    "string": ["", "x"],
    "boolean": [True, False],
    "integer": [7, 10**12, -1],
    "number": [0.5, -1.5, 1e300],
    "array": [[], [5], ["a", "a"]],
    "object": [{}, {"a": 1}, {"": None}],
    "null": [None],
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_of_another_type_is_refused_before_coolify_sees_it(package: Any, kind: str) -> None:
    place = {"image": "x:16", "project": "p", "environment": "e", "server": "s"}

    def refused(key: str, value: Any) -> bool:
        try:
            if key.startswith("backups."):
                Database().check("orders", {}, {**place, "backups": [{"frequency": "daily", key.removeprefix("backups."): value}]})
            else:
                Database().check("orders", {}, {**place, key: value})
        except Refusal as refusal:
            assert all(problem.startswith((key, key.replace("backups.", "backups[0]."))) for problem, _ in refusal.problems)
            return True
        return False

    resource = package["resources"][f"{PACKAGE}:index:CoolifyDatabase"]["inputProperties"]
    backup = package["types"][f"{PACKAGE}:index:CoolifyBackupArgs"]["properties"]
    for key, described in {**resource, **{f"backups.{key}": one for key, one in backup.items()}}.items():
        if kind != described["type"] and (kind, described["type"]) != ("integer", "number"):
            for value in VALUES[kind]:
                assert refused(key, value), (key, value)
