"""The resources that NotifyingPostgres registers."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pulumi
import pytest
from notifying_postgres import NotifyingPostgres
from notifying_postgres.coolify import CoolifyDatabase, provided, rules
from notifying_postgres.coolify.args import CoolifyDatabaseArgs
from notifying_postgres.names import camel_case
from pulumi_command import local

from tests.unit.mocked import HOST_KEY, Deployment

SSH = {"host": "ssh://deploy@db.example:2222", "host_key": HOST_KEY, "private_key_file": "~/id_ed25519"}


def program(**args: Any) -> Callable[[], Any]:
    def run() -> Any:
        component = NotifyingPostgres("pg", args)  # type: ignore[arg-type]
        return {"databases": component.databases, "image_id": component.image_id}

    return run


def test_one_local_database_is_an_image_a_volume_a_container_a_converge_and_a_check(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={"app": {"password": "s3cret"}}))

    assert made.of_type("local:Command") == ["pg-app-check", "pg-app-converge", "pg-app-volume", "pg-image", "pg-preflight"]
    assert made.of_type("remote:Command") == made.of_type("CopyToRemote") == []
    assert made.of_type("Volume") == ["pg-app-data"]
    assert made.of_type("Container") == ["pg-app"]
    assert {r.parent for r in made.resources.values() if r.name.startswith("pg-")} == {"pg"}


def test_a_remote_host_gets_the_scripts_and_runs_them(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={"app": {}}, **SSH))

    assert made.of_type("local:Command") == [
        *("pg-app-check", "pg-app-converge", "pg-app-volume", "pg-context", "pg-image", "pg-password-seed", "pg-preflight")
    ]
    for name in ("pg-context", "pg-image", "pg-app-converge"):
        assert re.match(
            r'(on\(\) \{ )?ssh -F "\$HOME/[^"]+" -l deploy -p 2222 -- db.example ', made.resources[name].inputs["create"]
        )


def test_every_way_to_the_host_is_given_up_after_a_minute_of_silence(deploy: Callable[..., Deployment], workstation: Path) -> None:
    """Whichever direction of the network was lost: the build, which may take half an hour, would wait for ever."""
    made = deploy(program(databases={"app": {}}, **SSH))
    (file,) = (workstation / ".notifying-postgres").glob("ssh-*.conf")
    assert "ServerAliveInterval 15\nServerAliveCountMax 3\n" in file.read_text()
    assert {"ServerAliveInterval=15", "ServerAliveCountMax=3"} < set(json.loads(made.resources["pg-docker"].inputs["sshOpts"]))


def test_every_way_to_the_host_pins_the_same_key(deploy: Callable[..., Deployment], workstation: Path) -> None:
    made = deploy(program(databases={"app": {}}, **SSH))

    provider = made.resources["pg-docker"].inputs
    options = json.loads(provider["sshOpts"])  # providers take their lists as JSON
    assert provider["host"] == "ssh://deploy@db.example:2222"
    assert f"KnownHostsCommand=/bin/echo %H {HOST_KEY}" in options
    assert "StrictHostKeyChecking=yes" in options
    (file,) = (workstation / ".notifying-postgres").glob("ssh-*.conf")
    assert f"KnownHostsCommand /bin/echo %H {HOST_KEY}\n" in file.read_text()
    assert "StrictHostKeyChecking yes\n" in file.read_text()
    for name in ("pg-context", "pg-image", "pg-app-converge", "pg-app-check"):
        assert f'"$HOME/.notifying-postgres/{file.name}"' in made.resources[name].inputs["create"]


def test_the_build_comes_before_the_container_and_the_check_comes_last(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={"app": {}}, **SSH))

    assert {"pg-preflight"} <= made.resources["pg-context"].depends_on
    assert {"pg-preflight", "pg-context"} <= made.resources["pg-image"].depends_on
    assert {"pg-preflight"} <= made.resources["pg-app-data"].depends_on
    assert {"pg-image", "pg-app-data"} <= made.resources["pg-app-volume"].depends_on
    assert {"pg-image", "pg-app-volume"} <= made.resources["pg-app"].depends_on
    assert {"pg-app"} <= made.resources["pg-app-converge"].depends_on
    assert {"pg-app-converge"} <= made.resources["pg-app-check"].depends_on


def test_docker_resources_use_the_provider_of_their_host(deploy: Callable[..., Deployment]) -> None:
    def two_hosts() -> None:
        NotifyingPostgres("here", {"databases": {"app": {}}})
        NotifyingPostgres("there", {"databases": {"app": {}}, **SSH})  # type: ignore[typeddict-item]

    made = deploy(two_hosts)

    for host in ("here", "there"):
        for resource in (f"{host}-app", f"{host}-app-data"):
            assert f"::{host}-docker::" in made.resources[resource].provider


def test_the_password_is_secret_everywhere_and_in_no_command(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={"app": {"password": "s3cret"}}, **SSH))

    for resource in made.resources.values():
        for key, value in resource.inputs.items():
            if "s3cret" in str(value):
                assert (resource.name, key) in {("pg-app", "uploads"), ("pg-app-converge", "stdin"), ("pg-app-check", "stdin")}
                assert key in resource.secrets or "s3cret" not in str(value).replace("'value': 's3cret'", ""), (resource.name, key)
    assert {"stdin"} <= made.resources["pg-app-converge"].secrets
    assert {"stdin"} <= made.resources["pg-app-check"].secrets
    assert "PRIVATE KEY" not in str([resource.inputs for resource in made.resources.values()])


def test_passwords_that_are_not_given_come_from_one_secret_seed(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={"app": {}, "other": {}, "own": {"password": "s3cret"}}))

    seed = made.resources["pg-password-seed"]
    assert set(seed.request.additionalSecretOutputs) == {"stdout", "stderr"}
    assert seed.inputs["logging"] == "none"
    app, other = (made.resources[f"pg-{key}-converge"] for key in ("app", "other"))
    assert re.fullmatch("[0-9a-f]{32}\n", app.inputs["stdin"])
    assert app.inputs["stdin"] != other.inputs["stdin"]
    assert "stdin" in app.secrets
    assert made.resources["pg-own-converge"].inputs["stdin"] == "s3cret\n"


def test_without_need_no_password_is_generated(deploy: Callable[..., Deployment]) -> None:
    assert "pg-password-seed" not in deploy(program(databases={"app": {"password": "s3cret"}})).resources


def test_urls_are_secret_and_quoted(deploy: Callable[..., Deployment]) -> None:
    args = {"databases": {"app": {"password": "p@ss/wörd", "user": "a b", "database_name": "d#b"}}}
    made = deploy(lambda: NotifyingPostgres("pg", args).urls)  # type: ignore[arg-type]

    assert made.result["secret"]
    assert made.result["value"] == {"app": "postgresql://a%20b:p%40ss%2Fw%C3%B6rd@pg-app:5432/d%23b"}


def test_outputs_tell_what_was_made_and_what_the_check_saw(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={"app": {"port": "5433"}}, **SSH))

    assert made.result["known"]
    assert not made.result["secret"]
    assert made.result["value"]["image_id"] == "sha256:1234"
    app = made.result["value"]["databases"]["app"]
    assert app["container_name"] == "pg-app"
    assert app["volume_name"] == "pg-app-data"
    assert app["host"] == "ssh://deploy@db.example:2222"
    assert app["published"] == "127.0.0.1:5433"
    assert app["check"]["ok"] is True


def test_preview_of_a_new_stack_knows_the_names_and_not_the_results(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={"app": {}}, **SSH), preview=True)

    assert made.resources["pg-app"].inputs["name"] == "pg-app"
    assert isinstance(made.resources["pg-app"].inputs["image"], pulumi.output.Unknown)
    assert not made.result["known"]


def test_a_host_that_another_resource_makes_may_be_unknown(deploy: Callable[..., Deployment]) -> None:
    def run() -> Any:
        url = pulumi.Output.concat("ssh://root@", local.Command("new-server").stdout)
        return NotifyingPostgres("pg", {**SSH, "databases": {"app": {}}, "host": url}).image_id  # type: ignore[typeddict-item]

    made = deploy(run, preview=True)
    assert "pg-app-converge" in made.resources


COOLIFY = {"project": "shop", "environment": "production", "server": "localhost"}


def test_a_database_in_coolify_pulls_from_the_loopback_registry_and_is_converged_and_checked(
    deploy: Callable[..., Deployment],
) -> None:
    made = deploy(program(databases={"app": {"coolify": COOLIFY, "password": "s3cret"}, "plain": {}}, **SSH))

    assert made.of_type("CoolifyDatabase") == ["pg-app"]
    assert made.of_type("Container") == ["pg-plain"]
    database = made.resources["pg-app"]
    assert database.inputs.pop("docker").endswith("-l deploy -p 2222 -- db.example docker")
    assert database.inputs == {
        **COOLIFY,
        "image": "127.0.0.1:16/x:16-1",
        "deleteVolumes": False,
        "postgresDb": "app",
        "postgresUser": "postgres",
        "postgresPassword": "s3cret",
    }
    assert "postgresPassword" in database.secrets
    assert list(database.request.ignoreChanges) == ["postgresPassword"]
    assert {"pg-registry"} <= database.depends_on
    assert "/on_host/converge.sh pg-app-id" in made.resources["pg-app-converge"].inputs["create"]
    assert "/on_host/volume-keep.sh postgres-data-pg-app-id" in made.resources["pg-app-volume-kept"].inputs["create"]
    assert "delete" not in made.resources["pg-app-volume-kept"].inputs
    assert {"pg-app-converge"} <= made.resources["pg-app-recorded-password"].depends_on
    assert {"pg-app-recorded-password"} <= made.resources["pg-app-check"].depends_on


def test_each_output_of_a_database_in_coolify_is_an_attribute(deploy: Callable[..., Deployment]) -> None:
    outputs = {camel_case(name): name for name in CoolifyDatabase.__annotations__}
    assert set(outputs) == set(provided.Database.outputs)
    assert not set(outputs) & set(rules.DATABASE), "an argument is no output"
    args = cast(CoolifyDatabaseArgs, {**COOLIFY, "image": "x:16", "environment_variables": {"aB_c": "1"}, "backups": []})

    def run() -> pulumi.Output[Any]:
        made = CoolifyDatabase("orders", args)
        return pulumi.Output.all(**{name: getattr(made, name) for name in outputs.values()})

    made = deploy(run)
    orders = made.resources["orders"]
    assert made.result["value"].keys() == set(outputs.values())
    assert made.result["value"]["volume_name"] == "postgres-data-orders-id"
    assert orders.inputs["environmentVariables"] == {"aB_c": "1"}
    assert orders.secrets == {"environmentVariables"}
    assert set(orders.request.additionalSecretOutputs) == {"internalUrl", "externalUrl", "password"}


def test_without_a_database_in_coolify_there_is_no_registry(deploy: Callable[..., Deployment]) -> None:
    assert "pg-registry" not in deploy(program(databases={"app": {}}, **SSH)).resources


def test_over_ssh_eight_databases_are_provisioned_at_once(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={f"d{n}": {} for n in range(20)}, **SSH))

    assert "pg-d0-check" in made.resources["pg-d8-data"].depends_on
    assert "pg-d11-check" in made.resources["pg-d19-data"].depends_on
    assert not any("check" in name for name in made.resources["pg-d7-data"].depends_on)


def test_data_is_kept_unless_the_stack_says_otherwise(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={"kept": {}, "gone": {"retain_data": False}}))

    assert made.resources["pg-kept-data"].request.retainOnDelete is True
    assert made.resources["pg-gone-data"].request.retainOnDelete is False


def test_derived_names_stick_and_a_given_container_name_is_followed(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={"a": {}, "b": {"container_name": "bee", "volume_name": "hive"}}))

    assert list(made.resources["pg-a-data"].request.ignoreChanges) == ["driver", "driverOpts", "labels", "name"]
    assert list(made.resources["pg-a"].request.ignoreChanges) == ["uploads", "name"]
    assert list(made.resources["pg-b-data"].request.ignoreChanges) == ["driver", "driverOpts", "labels", "name"]
    assert list(made.resources["pg-b"].request.ignoreChanges) == ["uploads"]
    assert made.resources["pg-b"].inputs["name"] == "bee"
    assert made.resources["pg-b-data"].inputs["name"] == "hive"


def test_the_container_is_stopped_cleanly_and_safe_from_coolifys_cleanup(deploy: Callable[..., Deployment]) -> None:
    container = deploy(program(databases={"app": {}}, network="coolify")).resources["pg-app"]

    assert container.inputs["destroyGraceSeconds"] == 60
    assert {"label": "coolify.managed", "value": "false"} in container.inputs["labels"]
    (mark,) = [label["value"] for label in container.inputs["labels"] if label["label"] == "notifying-postgres.stack"]
    assert mark.endswith("/project/test")
    assert container.inputs["networkMode"] == "coolify"
    assert container.request.deleteBeforeReplace
    assert container.inputs["image"] == "sha256:1234"


def test_nothing_is_published_by_default_and_then_on_loopback(deploy: Callable[..., Deployment]) -> None:
    made = deploy(
        program(databases={"none": {}, "local": {"port": "5433"}, "all": {"port": "0.0.0.0:5434"}, "six": {"port": "[::1]:5"}})
    )

    def port(name: str) -> Any:
        return made.resources[name].inputs.get("ports")

    assert port("pg-none") is None
    assert port("pg-local")[0] | {} == {"internal": 5432, "external": 5433, "ip": "127.0.0.1", "protocol": "tcp"}
    assert port("pg-all")[0]["ip"] == "0.0.0.0"
    assert port("pg-six")[0]["ip"] == "::1"


def test_sizes_are_read_with_dockers_units(deploy: Callable[..., Deployment]) -> None:
    inputs = deploy(program(databases={"app": {"memory": "2g", "shm_size": "256M"}})).resources["pg-app"].inputs

    assert (inputs["memory"], inputs["memorySwap"], inputs["shmSize"]) == (2048, 4096, 256)


def test_commands_name_no_path_of_this_machine(deploy: Callable[..., Deployment], workstation: Any) -> None:
    made = deploy(program(databases={"app": {}}))

    for name, resource in made.resources.items():
        assert str(workstation) not in str(resource.inputs), name


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({}, "databases is missing"),
    ({"databases": ["app"]}, "databases is ['app']"),
    ({"databases": {"a b": {}}}, "databases is 'a b'"),
    ({"databases": {}, "hots": "x"}, "hots is not an argument: there are allowUnverifiedHost, baseImage"),
    ({"databases": {"app": {"prot": "1"}}}, "databases.app.prot is not an argument"),
    ({"databases": {"app": {"port": "70000"}}}, "databases.app.port is '70000': give a port from 1 to 65535"),
    ({"databases": {"app": {"port": "x"}}}, "databases.app.port is 'x'"),
    ({"databases": {"app": {"memory": "512"}}}, "databases.app.memory is '512': give a number with its unit"),
    ({"databases": {"app": {"shm_size": "1t"}}}, "databases.app.shmSize is '1t'"),
    ({"databases": {"app": {"user": "pg_root"}}}, "databases.app.user is 'pg_root'"),
    ({"databases": {"app": {"user": "ü" * 32}}}, "databases.app.user is 'ü"),
    ({"databases": {"app": {"database_name": "template1"}}}, "databases.app.databaseName is 'template1'"),
    ({"databases": {"app": {"container_name": "a/b"}}}, "databases.app.containerName is 'a/b'"),
    ({"databases": {"app": {"volume_name": ""}}}, "databases.app.volumeName is ''"),
    ({"databases": {"a": {"volume_name": "v"}, "b": {"volume_name": "v"}}}, "databases.b.volumeName is 'v': databases.a has it"),
    ({"databases": {"a": {}, "b": {"volume_name": "pg-a-data"}}}, "databases.b.volumeName is 'pg-a-data'"),
    ({"databases": {"a": {}, "b": {"container_name": "pg-a"}}}, "databases.b.containerName is 'pg-a'"),
    ({"databases": {"app": {"password": ""}}}, "databases.app.password is not allowed: give at least one character"),
    ({"databases": {"app": {"coolify": {**COOLIFY, "x": 1}}}}, "databases.app.coolify.x is not an argument"),
    ({"databases": {"app": {"coolify": {"project": "a", "server": "b"}}}}, "databases.app.coolify.environment is missing"),
    ({"databases": {"app": {"coolify": COOLIFY, "memory": "1g"}}}, "databases.app.memory is given beside coolify"),
    ({"databases": {"app": {"database_name": 2024}}}, "databases.app.databaseName is 2024: give a text"),
    ({"databases": {"app": {"user": 'a"b'}}}, "databases.app.user is 'a\"b': initdb takes no quote"),
    ({"databases": {"app": {"memory": 512}}}, "databases.app.memory is 512: give a number with its unit"),
    ({"databases": {"app": {"container_name": 5}}}, "databases.app.containerName is 5: give a text"),
    ({"databases": {"app": {"password": 12345}}}, "databases.app.password is not allowed: "),
    ({"databases": {"app": {"retain_data": "no"}}}, "databases.app.retainData is 'no': give true or false"),
    ({"databases": {"app": ["x"]}}, "databases.app is ['x']: give its settings by name"),
    ({"databases": {"app": {"coolify": "yes"}}}, "databases.app.coolify is 'yes': give its settings by name"),
    ({"databases": {"x" * 62: {}}}, "no resolver takes a name of more than 63 characters"),
    ({"databases": {}, "network": "host"}, "network is 'host': the database would have no address of its own there"),
    ({"databases": {}, "network": "container:other"}, "network is 'container:other': the database would have no address"),
    ({"databases": {}, "network": "a\ntouch x"}, "network is 'a\\ntouch x': give the name of a network"),
    ({"databases": {}, "image": "UPPER"}, "image is 'UPPER'"),
    ({"databases": {}, "image": "untagged"}, "image is 'untagged'"),
    ({"databases": {}, "host": "db.example", "host_key": HOST_KEY}, "host is 'db.example': give ssh://user@address"),
    ({"databases": {}, "host": "ssh://db.example"}, "host is 'ssh://db.example'"),
    ({"databases": {}, "host": "ssh://a:hunter2@db.example"}, "host is '(a URL with a password)'"),
    ({"databases": {}, "host": "ssh://a@-oProxyCommand=x"}, "host is 'ssh://a@-oProxyCommand=x'"),
    ({"databases": {}, "host": "ssh://a@db.example"}, "hostKey is missing: give the server's public key"),
    ({"databases": {}, "host": "ssh://a@db.example", "host_key": "ssh-rsa AAAA"}, "hostKey is 'ssh-rsa AAAA'"),
    ({"databases": {}, "host": "ssh://a@db.example", "host_key": HOST_KEY}, "privateKeyFile is missing"),
    ({"databases": {}, "host": "ssh://a@b", "host_key": HOST_KEY, "private_key_file": "~/none"}, "privateKeyFile is '~/none'"),
    ({"databases": {}, "host_key": HOST_KEY}, "host is missing: hostKey belongs to a host"),
]


@pytest.mark.parametrize(("args", "sentence"), REFUSALS, ids=[sentence[:40] for _, sentence in REFUSALS])
@pytest.mark.parametrize("preview", [True, False])
def test_wrong_arguments_are_refused_with_a_sentence(
    deploy: Callable[..., Deployment], args: dict[str, Any], sentence: str, preview: bool
) -> None:
    with pytest.raises(pulumi.RunError) as refusal:
        deploy(program(**args), preview=preview)
    assert sentence in str(refusal.value)


def test_a_refused_password_is_not_shown(deploy: Callable[..., Deployment]) -> None:
    with pytest.raises(pulumi.RunError) as refusal:
        deploy(program(databases={"app": {"password": "hunter2\n"}}))
    assert "hunter2" not in str(refusal.value)


def test_an_encrypted_key_file_is_sent_to_the_agent(deploy: Callable[..., Deployment], workstation: Any) -> None:
    (workstation / "locked").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMC4=\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(pulumi.RunError, match="it is encrypted; add it to ssh-agent"):
        deploy(program(databases={}, **SSH | {"private_key_file": "~/locked"}))


def test_no_databases_are_empty_maps(deploy: Callable[..., Deployment]) -> None:
    def run() -> dict[str, Any]:
        component = NotifyingPostgres("pg", {"databases": {}})
        return {"databases": component.databases, "urls": component.urls}

    assert deploy(run).result["value"] == {"databases": {}, "urls": {}}


def test_an_agent_serves_instead_of_a_key_file(deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent")
    made = deploy(program(databases={}, host="ssh://a@db.example", host_key=HOST_KEY))
    assert "IdentityAgent" not in made.resources["pg-image"].inputs["create"]


def test_an_unverified_host_needs_as_many_words(deploy: Callable[..., Deployment]) -> None:
    made = deploy(program(databases={}, host="ssh://a@db.example", private_key_file="~/id_ed25519", allow_unverified_host=True))
    assert "StrictHostKeyChecking=no" in str(made.resources["pg-docker"].inputs["sshOpts"])


def test_docker_context_would_lead_elsewhere_and_is_refused(
    deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "desktop")
    with pytest.raises(pulumi.RunError, match="DOCKER_CONTEXT is set"):
        deploy(program(databases={}, **SSH))
