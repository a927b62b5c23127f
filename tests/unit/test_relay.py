"""A database's relay: its image, its container, its check; and what is refused."""

import json
from collections.abc import Callable
from typing import Any

import pulumi
import pytest
from notifying_postgres import NotifyingPostgres
from notifying_postgres.errors import InvalidArgument

from tests.unit.mocked import Deployment

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK = {"url": "https://example.org/hook", "secret": SECRET, "name": "hook", "differences": True}
STREAM = {"url": "redis://user@redis/changes"}


def program(*sinks: Any, **more: Any) -> Callable[[], Any]:
    return lambda: NotifyingPostgres("pg", {"databases": {"app": {"relay": list(sinks), "password": "geheim", **more}}})  # type: ignore[typeddict-item]


def test_a_relay_is_an_image_a_container_and_a_check_beside_the_database(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(HOOK, STREAM)).resources
    assert "-relay:16 python:3.13-alpine" in made["pg-relay-image"].inputs["create"]
    container = made["pg-app-relay"]
    assert container.inputs["name"] == "pg-app-relay"
    assert container.inputs["capabilities"] == {"drops": ["ALL"]}
    assert container.inputs["securityOpts"] == ["no-new-privileges:true"]
    assert container.inputs["envs"] == ["PGDATABASE=app", "PGUSER=postgres"]
    assert [volume["containerPath"] for volume in container.inputs["volumes"]] == ["/var/run/postgresql"]
    assert container.inputs["volumes"][0] in made["pg-app"].inputs["volumes"]
    assert "pg-app-check" in container.depends_on
    assert "pg-app-relay" in made["pg-app-relay-check"].depends_on
    assert 'relay-check.sh" pg-app-relay-id pg-app-id' in made["pg-app-relay-check"].inputs["create"]


def test_its_secrets_are_secret_and_in_its_files_alone(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(HOOK, STREAM)).resources
    container = made["pg-app-relay"]
    assert "uploads" in container.secrets
    sinks, password = container.inputs["uploads"]
    assert json.loads(sinks["content"]) == [HOOK, {**STREAM, "secret": "", "differences": False}]
    assert password["content"] == "geheim\n"
    for resource in made.values():
        plain = {key: value for key, value in resource.inputs.items() if key not in resource.secrets}
        assert SECRET not in json.dumps(plain)
        assert "geheim" not in json.dumps(plain)


def test_without_a_relay_there_is_neither_image_nor_socket(deploy: Callable[..., Deployment]) -> None:
    for none in (program(), lambda: NotifyingPostgres("pg", {"databases": {"app": {}}})):
        assert not [name for name in deploy(none).resources if "relay" in name or "socket" in name]


def test_backups_and_relay_share_the_socket(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(STREAM, backup={"folder": "/var/backups"})).resources
    assert len(made["pg-app"].inputs["volumes"]) == 2


def test_what_is_not_known_yet_is_checked_when_it_is(deploy: Callable[..., Deployment]) -> None:
    def late() -> Any:
        return program({"url": pulumi.Output.from_input("https://example.org/hook")})()

    with pytest.raises(InvalidArgument, match=r"relay\[0\]\.secret is missing"):
        deploy(late)


@pytest.mark.parametrize(
    ("sinks", "sentence"),
    [
        ("https://example.org", "databases.app.relay is not allowed: give a list of sinks, each with its url"),
        (["https://example.org"], "databases.app.relay[0] is not allowed: give its settings by name"),
        ([{}], "databases.app.relay[0].url is missing: give https://host/path"),
        ([HOOK, {"link": "x"}], "databases.app.relay[1].link is not an argument: there are differences, name, secret, url"),
        ([{"url": "ftp://host/x"}], "databases.app.relay[0].url is not allowed: give https://host/path"),
        ([{"url": "https:///x"}], "databases.app.relay[0].url is not allowed: give https://host/path"),
        ([{"url": "https://[h/x"}], "databases.app.relay[0].url is not allowed: its host or port cannot be read"),
        ([{"url": "https://h:99999/x"}], "databases.app.relay[0].url is not allowed: its host or port cannot be read"),
        ([{"url": "https://h/a b"}], "databases.app.relay[0].url is not allowed: give a URL without spaces"),
        ([{"url": "redis://:geheim@h/x"}], "databases.app.relay[0].url is not allowed: there is a password in it"),
        ([{"url": "nats://h/"}], "databases.app.relay[0].url is not allowed: the SUBJECT is missing"),
        ([{"url": 5}], "databases.app.relay[0].url is not allowed"),
        ([{"url": "https://h/x"}], "databases.app.relay[0].secret is missing: a webhook's receiver knows by it who sends"),
        (
            [{"url": "https://h/x", "secret": "geheim"}],
            "databases.app.relay[0].secret is not allowed: a webhook's receiver knows",
        ),
        ([{"url": "redis://h/x", "secret": 1234}], "databases.app.relay[0].secret is not allowed: give a text"),
        ([{"url": "redis://h/x", "secret": "ge\theim"}], "databases.app.relay[0].secret is not allowed: give a text"),
        ([{"url": "redis://h/x", "name": "a b"}], "databases.app.relay[0].name is 'a b': give 1 to 63 letters"),
        ([{"url": "redis://h/x", "differences": "yes"}], "databases.app.relay[0].differences is 'yes': give true or false"),
        ([STREAM, STREAM], "databases.app.relay[1].name is missing: another sink has it"),
        ([HOOK, {**STREAM, "name": "hook"}], "databases.app.relay[1].name is 'hook': another sink has it"),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence_that_shows_no_secret(
    deploy: Callable[..., Deployment], sinks: Any, sentence: str
) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        deploy(lambda: NotifyingPostgres("pg", {"databases": {"app": {"relay": sinks}}}))
    assert sentence in str(refusal.value)
    assert "geheim" not in str(refusal.value)


def test_a_database_in_coolify_has_none(deploy: Callable[..., Deployment]) -> None:
    with pytest.raises(InvalidArgument, match="is given beside coolify: run 'schema-changes relay' beside it"):
        deploy(program(STREAM, coolify={"project": "p", "environment": "e", "server": "s"}))
