"""A database's life in Coolify, as the API and the engine see it: a real PostgreSQL from our image out of a real registry."""

import subprocess
import time
import uuid
from typing import Any

import psycopg
import pytest
from notifying_postgres.coolify import rules
from notifying_postgres.coolify.client import Coolify, CoolifyError
from notifying_postgres.coolify.database import Databases, Refused
from notifying_postgres.coolify.provided import Database
from notifying_postgres.provider import HalfDone

from tests.coolify.fixtures import Deploy, Registry
from tests.support.coolify import FakeCoolify, Refusal
from tests.support.docker import docker

GOOD: dict[str, Any] = {"project": "shop", "environment": "production", "server": "localhost", "startTimeout": 600}


def arguments(image: str, **more: Any) -> dict[str, Any]:
    """Arguments as the engine hands them on: completed and checked."""
    return Database().check("orders", {}, {**GOOD, "image": image, **more})


def changes(state: dict[str, Any], inputs: dict[str, Any]) -> set[str]:
    """What a deploy would change."""
    return Database().diff({}, state, inputs).update


def connect(container: str, password: str, database: str = "postgres", user: str = "postgres") -> psycopg.Connection:
    address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)
    return psycopg.connect(host=address, user=user, password=password, dbname=database, autocommit=True, connect_timeout=10)


def tags_of_notices(connection: psycopg.Connection, ddl: str) -> list[str]:
    """Which changes a listener hears of."""
    connection.execute("LISTEN schema_changed")
    connection.execute(ddl)
    return [notice.payload.split('"tag"', 1)[1].split('"')[1] for notice in connection.notifies(timeout=5, stop_after=1)]


def mounts(container: str) -> dict[str, str]:
    return dict(
        line.split(" ")
        for line in docker("inspect", "--format", "{{range .Mounts}}{{.Destination}} {{.Name}}\n{{end}}", container).splitlines()
        if line
    )


def started(fake: FakeCoolify) -> list[str]:
    return [path for method, path, _ in fake.requests if method == "POST" and path.endswith(("/start", "/restart"))]


def test_created_checked_started_and_it_notifies(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    inputs = arguments(
        registry.reference,
        postgresUser="shop",
        postgresDb="orders",
        postgresPassword="pass-word:1",
        tags=["blue"],
        limitsMemory="256m",
        description="Orders",
        healthCheckInterval=20,
        publicPort=15432,
    )
    database, state = deploy.databases.create(inputs)

    # Coolify read the registry's port as PostgreSQL's version. The mount was mended before the first start, not after.
    calls = [(method, path.rpartition("/")[2]) for method, path, _ in fake.requests if method != "GET"]
    assert calls.index(("PATCH", "storages")) < calls.index(("POST", "start"))
    assert fake.requests[[path for _, path, _ in fake.requests].index("/databases/postgresql")][2]["instant_deploy"] is False
    assert mounts(database) == {"/var/lib/postgresql/data": f"postgres-data-{database}"}

    assert state["status"] == "running:healthy"
    assert state["ready"] is True
    assert state["volumeName"] == f"postgres-data-{database}"
    assert state["internalUrl"] == f"postgres://shop:pass-word%3A1@{database}:5432/orders"
    assert any("it belongs at /var/lib/postgresql/data" in line for line in deploy.log)
    assert "pass-word" not in str(deploy.log)
    with connect(database, "pass-word:1", "orders", "shop") as connection:
        assert tags_of_notices(connection, "CREATE TABLE t ()") == ["CREATE TABLE"]

    fields = fake.databases[database].fields
    assert (fields["limits_memory"], fields["health_check_interval"], fields["is_public"]) == ("256m", 20, True)
    assert [tag["name"] for tag in fake.databases[database].tags] == ["blue"]
    assert docker("inspect", "--format", "{{.HostConfig.Memory}}", database) == str(256 * 2**20)

    # Nothing is done when nothing changed.
    before = len(fake.requests)
    assert deploy.databases.update(database, state, inputs)["ready"] is True
    assert {method for method, _, _ in fake.requests[before:]} == {"GET"}

    # And all is as it was told.
    read = deploy.databases.read(database, state, inputs)
    assert read is not None
    assert read[1] == inputs
    assert changes(read[0], inputs) == set()


def test_a_rebuilt_image_reaches_it_and_the_data_stays(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    inputs = arguments(registry.reference)
    database, state = deploy.databases.create(inputs)
    with connect(database, state["password"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    name = f"coolify-test-rebuilt-{uuid.uuid4().hex[:8]}"
    subprocess.run(
        ["docker", "build", "-q", "-t", name, "-"], input=f"FROM {registry.image}\nLABEL rebuilt=yes\n", text=True, check=True
    )
    rebuilt = registry.push(docker("image", "inspect", "--format", "{{.Id}}", name))
    try:
        assert rebuilt != registry.reference
        new = deploy.databases.update(database, state, arguments(rebuilt))
        assert new["ready"] is True
        assert docker("inspect", "--format", "{{.Config.Image}}", database) == rebuilt
        assert docker("inspect", "--format", '{{index .Config.Labels "rebuilt"}}', database) == "yes"
        assert started(fake) == [f"/databases/{database}/start", f"/databases/{database}/restart"]
        with connect(database, state["password"]) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]
            assert tags_of_notices(connection, "DROP TABLE kept") == ["DROP TABLE"]
    finally:
        docker("rm", "-fv", database, check=False)
        docker("image", "rm", rebuilt.partition("@")[0], name, check=False)


def test_an_image_that_cannot_be_pulled_makes_way_for_the_one_before(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    database, state = deploy.databases.create(arguments(registry.reference))
    missing = registry.name + "-missing"
    with pytest.raises(HalfDone, match=f"It runs again with the image before, {registry.reference}") as caught:
        deploy.databases.update(database, state, arguments(missing, startTimeout=60))
    assert f"docker pull {missing}" in str(caught.value)
    assert docker("inspect", "--format", "{{.Config.Image}} {{.State.Running}}", database) == f"{registry.reference} true"
    assert caught.value.state["ready"] is False  # so that the next deploy tries again
    with connect(database, state["password"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_first_start_that_fails_says_why_and_goes_on_later(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    missing = f"127.0.0.1:{registry.port}/absent:16"
    with pytest.raises(
        HalfDone, match=r"it is exited:unhealthy\. The next .* Its container does not run\. Most often .* pulled"
    ) as caught:
        deploy.databases.create(arguments(missing, startTimeout=20))
    fake.settle()
    assert fake.errors, "the fake did not try to pull"
    state = deploy.databases.update(caught.value.id, caught.value.state, arguments(registry.reference))
    assert state["ready"] is True
    assert list(fake.databases) == [caught.value.id]


def test_a_database_that_stays_unhealthy_shows_its_log(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    fake.healthy_by_itself = False
    with pytest.raises(HalfDone, match=r"(?s)last lines of its log:.*database system is ready"):
        deploy.databases.create(arguments(registry.reference, startTimeout=150))


def test_a_wrong_mount_is_never_started(
    deploy: Deploy, fake: FakeCoolify, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "_patch_storage", lambda uuid, body: {})  # accepted and ignored
    with pytest.raises(HalfDone, match=r"keeps the mount .* it was not started"):
        deploy.databases.create(arguments(registry.reference))
    assert started(fake) == []
    assert not any(command.startswith("docker run") for command in fake.commands)


def test_a_running_database_with_a_wrong_mount_is_not_touched(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    """As one gets it by letting Coolify choose: its data is in an anonymous volume, which the next start would leave behind."""
    with Coolify(fake.url, fake.token) as coolify:
        body = {
            "project_uuid": "project-shop",
            "environment_name": "production",
            "server_uuid": "server-one",
            "instant_deploy": True,
        }
        database = coolify.create("/databases/postgresql", {**body, "image": registry.reference})["uuid"]
    fake.settle()
    read = deploy.databases.read(database, {}, {})
    assert read is not None
    with pytest.raises(HalfDone, match="Dump it with pg_dumpall"):
        deploy.databases.update(database, read[0], arguments(registry.reference, limitsMemory="300m"))
    assert started(fake) == []


def test_delete_keeps_the_volume_unless_told(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    for keep in (True, False):
        database, state = deploy.databases.create(arguments(registry.reference, **({} if keep else {"deleteVolumes": True})))
        deploy.databases.delete(database, state)
        flags = fake.requests[[method for method, _, _ in fake.requests].index("DELETE")][1]
        assert "delete_configurations=true" in flags
        assert "delete_connected_networks=false" in flags
        assert "docker_cleanup=false" in flags
        assert (docker("volume", "ls", "-q", "--filter", f"name=postgres-data-{database}") != "") is keep
        assert docker("ps", "-aq", "--filter", f"name={database}") == ""
        assert "cleanup" not in fake.commands
        fake.requests.clear()
        deploy.databases.delete(database, state)  # gone already


def test_drift_is_seen_and_mended(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    inputs = arguments(registry.reference, description="Orders", tags=["a1"], backups=[{"frequency": "daily", "keepDays": 7}])
    database, state = deploy.databases.create(inputs)
    row = fake.databases[database]
    row.fields |= {"description": "by hand", "limits_memory": "1g"}
    row.tags = [{"uuid": "t", "name": "by-hand"}]
    row.backups[0]["database_backup_retention_days_locally"] = 1
    docker("stop", "-t", "5", database)

    read = deploy.databases.read(database, state, inputs)
    assert read is not None
    # What no argument speaks of, such as the limit, is left to the dashboard.
    assert changes(read[0], inputs) == {"description", "tags", "backups", "ready"}
    assert read[1]["description"] == "by hand"
    assert read[1]["backups"] == [{"frequency": "daily", "keepDays": 1}]

    new = deploy.databases.update(database, read[0], inputs)
    assert row.fields["description"] == "Orders"
    assert row.fields["limits_memory"] == "1g"
    assert [tag["name"] for tag in row.tags] == ["a1"]
    assert row.backups[0]["database_backup_retention_days_locally"] == 7
    assert new["status"] == "running:healthy"

    row.deleted = True
    assert deploy.databases.read(database, state, inputs) is None


@pytest.mark.usefixtures("without_engine")
def test_adopting_finds_the_arguments(deploy: Deploy, fake: FakeCoolify) -> None:
    inputs = arguments("127.0.0.1:5000/x:16", limitsMemory="512m", postgresDb="orders", tags=["a1"], publicPort=15433)
    database, state = deploy.databases.create(inputs)
    read = deploy.databases.read(database, {}, {})
    assert read is not None
    assert {*state, *read[0]} - set(rules.DATABASE) | {"queued", "externalUrl"} == set(Database.outputs)
    expected = {key: value for key, value in inputs.items() if key != "startTimeout"}
    assert read[1] == expected
    assert changes(read[0], expected) == set()
    assert deploy.databases.update(database, read[0], expected)["ready"] is True
    assert len(started(fake)) == 1

    # Which variables it has, an import does not know: they are sent, and take effect by a restart.
    state = deploy.databases.update(database, read[0], {**expected, "environmentVariables": {"TZ": "UTC"}})
    assert [variable["value"] for variable in fake.databases[database].variables] == ["UTC"]
    assert state["ready"] is True
    assert started(fake)[1:] == [f"/databases/{database}/restart"]


def test_arguments_taken_away_go_back_to_the_default(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    conf = "shared_buffers = 32MB\nunix_socket_directories = '/var/run/postgresql,/tmp'"
    inputs = arguments(registry.reference, limitsCpuShares=512, postgresConf=conf, publicPort=15434, tags=["a1"])
    database, state = deploy.databases.create(inputs)
    row = fake.databases[database]
    assert row.fields["postgres_conf"] == conf + "\nlisten_addresses = '*'"
    with connect(database, state["password"]) as connection:
        assert connection.execute("SHOW shared_buffers").fetchone() == ("32MB",)
    assert deploy.databases.read(database, state, inputs) == (state, inputs), "the line that Coolify adds is no drift"
    deploy.databases.update(database, state, arguments(registry.reference))
    assert (row.fields["limits_cpu_shares"], row.fields["is_public"], row.fields["public_port"], row.tags) == (
        1024,
        False,
        None,
        [],
    )
    assert row.fields["postgres_conf"].strip() == ""


def test_variables_reach_the_container_before_its_first_start(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    variables = {"POSTGRES_INITDB_ARGS": "--data-checksums --encoding=UTF8", "SECRET": "one"}
    inputs = arguments(registry.reference, environmentVariables=variables)
    database, state = deploy.databases.create(inputs)
    row = fake.databases[database]
    row.variables.append({"uuid": "by-hand", "key": "BY_HAND", "value": "x"})
    with connect(database, state["password"]) as connection:
        assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
    assert deploy.databases.read(database, state, inputs) == (state, inputs)
    assert changes(state, inputs) == set()

    # One is changed, one taken away, one added; a failure on the way is gone over again by the next deploy.
    inputs = arguments(registry.reference, environmentVariables={"SECRET": "two", "NEW": "n"})
    fake.abilities.remove("write")
    with pytest.raises(HalfDone, match="ability 'write'") as caught:
        deploy.databases.update(database, state, inputs)
    fake.abilities.add("write")
    assert changes(caught.value.state, inputs) == {"environmentVariables", "ready"}
    state = deploy.databases.update(database, caught.value.state, inputs)
    environment = docker("inspect", "--format", "{{json .Config.Env}}", database)
    assert '"SECRET=two"' in environment
    assert '"NEW=n"' in environment
    assert '"BY_HAND=x"' in environment
    assert "INITDB" not in environment
    assert started(fake) == [f"/databases/{database}/start", f"/databases/{database}/restart"]

    # Deleted in the dashboard: a refresh sees it.
    row.variables = [one for one in row.variables if one["key"] != "NEW"]
    read = deploy.databases.read(database, state, inputs)
    assert read is not None
    assert changes(read[0], inputs) == {"environmentVariables"}
    assert "two" not in str(deploy.log)


@pytest.mark.usefixtures("without_engine")
def test_what_was_taken_away_is_not_forgotten_when_a_deploy_fails(deploy: Deploy, fake: FakeCoolify) -> None:
    database, state = deploy.databases.create(arguments("127.0.0.1:1/x:16", limitsMemory="1g", postgresPassword="first"))
    fake.abilities.remove("write")
    inputs = arguments("127.0.0.1:1/x:16", postgresPassword="second")
    with pytest.raises(HalfDone) as caught:
        deploy.databases.update(database, state, inputs)
    fake.abilities.add("write")
    assert "limitsMemory" in changes(caught.value.state, inputs)
    deploy.databases.update(database, caught.value.state, inputs)
    fields = fake.databases[database].fields
    assert (fields["limits_memory"], fields["postgres_password"]) == ("0", "second")


@pytest.mark.usefixtures("without_engine")
def test_backups_are_created_changed_and_removed(deploy: Deploy, fake: FakeCoolify) -> None:
    database, state = deploy.databases.create(
        arguments("127.0.0.1:5000/x:16", backups=[{"frequency": "daily"}, {"frequency": "hourly"}])
    )
    row = fake.databases[database]
    by_hand = {"uuid": "by-hand", "frequency": "weekly"}
    row.backups.append(by_hand)
    kept = row.backups[0]["uuid"]
    new = [{"frequency": "0 3 * * *", "allDatabases": True, "s3Storage": "s3-one", "keepAmountS3": 5}]
    state = deploy.databases.update(database, state, arguments("127.0.0.1:5000/x:16", backups=new))
    assert [one["uuid"] for one in row.backups] == [kept, "by-hand"]
    assert (row.backups[0]["frequency"], row.backups[0]["dump_all"], row.backups[0]["save_s3"]) == ("0 3 * * *", True, True)
    assert "delete_s3=false" in fake.requests[[method for method, _, _ in fake.requests].index("DELETE")][1]

    # Another S3 storage, set in the dashboard, is a drift that is mended.
    inputs = arguments("127.0.0.1:5000/x:16", backups=new)
    assert deploy.databases.read(database, state, inputs) == (state, inputs)
    row.backups[0]["s3_storage_id"] = 2
    read = deploy.databases.read(database, state, inputs)
    assert read is not None
    assert changes(read[0], inputs) == {"backups"}
    state = deploy.databases.update(database, read[0], inputs)
    assert row.backups[0]["s3_storage_id"] == 1

    deploy.databases.update(database, state, arguments("127.0.0.1:5000/x:16"))
    assert row.backups == [by_hand]
    assert len(started(fake)) == 1, "backups need no restart"


@pytest.mark.usefixtures("without_engine")
def test_a_password_reaches_the_record_and_only_the_record(deploy: Deploy, fake: FakeCoolify) -> None:
    database, state = deploy.databases.create(arguments("127.0.0.1:5000/x:16", postgresPassword="first"))
    state = deploy.databases.update(database, state, arguments("127.0.0.1:5000/x:16", postgresPassword="second"))
    assert fake.databases[database].fields["postgres_password"] == "second"
    assert "second" in state["internalUrl"]
    assert any("ALTER ROLE" in line for line in deploy.log)
    assert "second" not in str(deploy.log)


@pytest.mark.usefixtures("without_engine")
def test_another_environment_is_a_move_another_server_is_refused(deploy: Deploy, fake: FakeCoolify) -> None:
    database, state = deploy.databases.create(arguments("127.0.0.1:5000/x:16"))
    state = deploy.databases.update(database, state, arguments("127.0.0.1:5000/x:16", environment="staging"))
    assert fake.databases[database].environment_id == 12
    assert len(started(fake)) == 1

    fake.servers.append({"id": 5, "uuid": "server-two", "name": "second", "ip": "203.0.113.2"})
    fake.destinations["server-two"] = [{"uuid": "destination-two", "name": "coolify", "network": "coolify"}]
    before = len(fake.requests)
    with pytest.raises(Refused, match="cannot move to another server"):
        deploy.databases.update(database, state, arguments("127.0.0.1:5000/x:16", environment="staging", server="second"))
    with pytest.raises(Refused, match=r"postgresDb .* is 'postgres' since its first start"):
        deploy.databases.update(database, state, arguments("127.0.0.1:5000/x:16", environment="staging", postgresDb="other"))
    assert {method for method, _, _ in fake.requests[before:]} == {"GET"}
    # The same server by its other name is the same server.
    deploy.databases.update(
        database, state, arguments("127.0.0.1:5000/x:16", environment="environment-staging", server="server-one")
    )

    # Moved by hand: the refresh finds it.
    fake.databases[database].environment_id = 21
    read = deploy.databases.read(database, state, arguments("127.0.0.1:5000/x:16", environment="staging"))
    assert read is not None
    assert (read[1]["project"], read[1]["environment"]) == ("other", "production")


@pytest.mark.usefixtures("without_engine")
def test_names_that_fit_nothing_or_too_much_are_refused(deploy: Deploy, fake: FakeCoolify) -> None:
    fake.projects.append({"id": 3, "uuid": "project-third", "name": "shop", "description": None})
    with pytest.raises(Refused, match=r"several projects named 'shop' .* project-shop, project-third"):
        deploy.databases.create(arguments("x:16"))
    with pytest.raises(Refused, match=r"no environment 'qa' in the project shop in Coolify.*production .environment-production."):
        deploy.databases.create(arguments("x:16", project="project-shop", environment="qa"))
    assert fake.databases == {}


def test_several_destinations_need_a_name(deploy: Deploy, fake: FakeCoolify) -> None:
    fake.destinations["server-one"].append({"uuid": "destination-b", "name": "private", "network": "private"})
    with pytest.raises(CoolifyError, match="multiple destinations"):
        deploy.databases.create(arguments("x:16"))
    with pytest.raises(HalfDone):
        deploy.databases.create(arguments("127.0.0.1:1/x:16", destination="private", startTimeout=10))
    assert next(iter(fake.databases.values())).destination["uuid"] == "destination-b"


@pytest.mark.parametrize("missing", ["read", "write", "deploy"])
def test_a_token_that_may_not_is_told_so(fake: FakeCoolify, missing: str) -> None:
    fake.abilities = {"read", "write", "deploy"} - {missing}
    with Coolify(fake.url, fake.token) as coolify, pytest.raises((CoolifyError, HalfDone), match=f"ability '{missing}'"):
        Databases(coolify, lambda line: None).create(arguments("x:16"))


@pytest.mark.usefixtures("without_engine")
def test_a_sensitive_token_reads_the_passwords(deploy: Deploy, fake: FakeCoolify) -> None:
    inputs = arguments("127.0.0.1:5000/x:16", publicPort=15435)
    database, state = deploy.databases.create(inputs)
    assert "externalUrl" not in state
    fake.abilities.add("read:sensitive")
    fake.databases[database].fields["postgres_password"] = "by-hand"
    read = deploy.databases.read(database, state, inputs)
    assert read is not None
    assert read[0]["password"] == "by-hand"
    assert read[0]["externalUrl"].startswith("postgres://postgres:by-hand@127.0.0.1:15435/")


def test_a_busy_coolify_is_asked_again(fake: FakeCoolify) -> None:
    pauses: list[float] = []
    fake.answer_first = [
        Refusal(429, {"message": "Too Many Attempts."}, {"Retry-After": "3"}),
        Refusal(500, {"message": "Server Error"}),
    ]
    with Coolify(fake.url, fake.token, sleep=pauses.append) as coolify:
        assert coolify.get("/servers")[0]["uuid"] == "server-one"
    assert pauses == [3.0, 2.0]


def test_cancelling_ends_the_waiting(fake: FakeCoolify) -> None:
    begun = time.monotonic()
    with Coolify(fake.url, fake.token) as coolify, pytest.raises(HalfDone):
        Databases(coolify, lambda line: None, cancelled=lambda: True).create(arguments("127.0.0.1:1/x:16"))
    assert time.monotonic() - begun < 5
