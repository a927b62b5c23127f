"""The provider base: marks of secrets and of what is not known, on their way through it."""

from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from notifying_postgres import provider
from notifying_postgres.component import NotifyingPostgres
from notifying_postgres.plugin import Plugin
from pulumi.runtime.proto import provider_pb2

URN = "urn:pulumi:test::project::notifying-postgres:index:CoolifyDatabase::orders"
INPUTS = {"image": "x:16", "project": "p", "environment": "e", "server": "s", "postgresPassword": "secret"}


@pytest.fixture(scope="module")
def plugin() -> Plugin:
    return Plugin([NotifyingPostgres], "127.0.0.1:1")


def struct(values: dict[str, Any]) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(values)
    return made


def plain(message: struct_pb2.Struct) -> dict[str, Any]:
    return json_format.MessageToDict(message)


@pytest.mark.parametrize("mark", sorted(provider._UNKNOWNS))
@pytest.mark.parametrize("key", ["image", "project", "publicPort", "environmentVariables", "backups", "tags", "mountPath"])
def test_what_is_not_known_yet_is_no_problem_and_stays_unknown(plugin: Plugin, mark: str, key: str) -> None:
    answer = plugin.Check(provider_pb2.CheckRequest(urn=URN, news=struct({**INPUTS, key: mark})), None)  # type: ignore[arg-type]
    assert list(answer.failures) == []
    assert provider.has_unknown(provider.plain(plain(answer.inputs)[key]))
    assert provider.plain(plain(answer.inputs))["name"] == "orders"


def test_secrets_are_marked_whatever_they_came_as(plugin: Plugin) -> None:
    answer = plugin.Check(provider_pb2.CheckRequest(urn=URN, news=struct(INPUTS)), None)  # type: ignore[arg-type]
    inputs = plain(answer.inputs)
    assert inputs["postgresPassword"] == {provider.SIGNATURE: provider.SECRET, "value": "secret"}
    assert inputs["image"] == "x:16"


def test_what_is_refused_is_named_all_at_once(plugin: Plugin) -> None:
    wrong = {"image": "x", "limitsCpus": 1.5, "colour": "red"}
    answer = plugin.Check(provider_pb2.CheckRequest(urn=URN, news=struct(wrong)), None)  # type: ignore[arg-type]
    assert {failure.property for failure in answer.failures} == {*wrong, "project", "environment", "server"}


def test_a_change_is_shown_and_an_ignored_one_is_not(plugin: Plugin) -> None:
    request = provider_pb2.DiffRequest(
        urn=URN,
        olds=struct({**INPUTS, "ready": True}),
        news=struct({**INPUTS, "postgresPassword": "other", "image": provider.UNKNOWN, "docker": "ssh other docker"}),
        old_inputs=struct(INPUTS),
        ignoreChanges=["postgresPassword"],
    )
    answer = plugin.Diff(request, None)  # type: ignore[arg-type]
    assert list(answer.diffs) == ["image"]
    assert list(answer.replaces) == []


def test_a_coolify_that_is_not_known_yet_is_not_asked_in_a_preview(plugin: Plugin) -> None:
    """The provider's token may be another resource's output."""
    configured = {"coolifyUrl": "http://127.0.0.1:9", "coolifyToken": provider.UNKNOWN}
    plugin.Configure(provider_pb2.ConfigureRequest(args=struct(configured)), None)  # type: ignore[arg-type]
    request = provider_pb2.CreateRequest(urn=URN, properties=struct(INPUTS), preview=True)
    assert plain(plugin.Create(request, None).properties)["image"] == "x:16"  # type: ignore[arg-type]


def test_a_changed_setting_of_the_provider_is_a_change_and_no_addition(plugin: Plugin) -> None:
    request = provider_pb2.DiffRequest(
        olds=struct({"coolifyUrl": "http://a"}), news=struct({"coolifyUrl": "http://b", "coolifyToken": "x"})
    )
    kinds = {key: one.kind for key, one in plugin.DiffConfig(request, None).detailedDiff.items()}  # type: ignore[arg-type]
    assert kinds == {"coolifyUrl": provider_pb2.PropertyDiff.UPDATE, "coolifyToken": provider_pb2.PropertyDiff.ADD}
