"""What a real Coolify 4.3.11 was seen to do, and what a deploy makes of it. Each test has its sentence in docs/coolify.md."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from notifying_postgres.coolify.client import Coolify, CoolifyError
from notifying_postgres.coolify.provided import Database
from notifying_postgres.provider import HalfDone
from notifying_postgres.provider import Refusal as Refusing

from tests.coolify.fixtures import Deploy, Registry
from tests.coolify.test_database import arguments, changes, connect, started
from tests.support.coolify import FakeCoolify, Refusal
from tests.support.docker import docker

PHASES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)


def inspect(container: str, form: str) -> str:
    return docker("inspect", "--format", form, container)


def at_phase(fake: FakeCoolify, phase: float) -> None:
    """Returns at a part of the minute: 0 is just after the look at the containers, while it is being written down."""
    looked = threading.Event()
    look = fake.look

    def noticed() -> None:
        looked.set()
        look()

    fake.look = noticed  # type: ignore[method-assign]
    assert looked.wait(10)
    fake.look = look  # type: ignore[method-assign]
    time.sleep(phase * fake.minute)


@pytest.fixture
def fake_port() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    yield port


def published(port: int, password: str) -> str:
    with psycopg.connect(host="127.0.0.1", port=port, user="postgres", password=password, connect_timeout=5) as connection:
        return str(connection.execute("SELECT 1").fetchone())


# The proof that it runs


def test_a_tag_that_does_not_exist_fails_at_every_phase_of_the_minute(
    deploy: Deploy, fake: FakeCoolify, registry: Registry
) -> None:
    fake.minute, fake.lag = 1.0, 0.3
    database, state = deploy.databases.create(arguments(registry.reference))
    missing = arguments(f"{registry.name}-missing", startTimeout=50)
    for phase in (0.0, 0.5, 0.95):
        at_phase(fake, phase)
        with pytest.raises(HalfDone, match="runs again with the image before"):
            deploy.databases.update(database, state, missing)
        assert inspect(database, "{{.State.Running}} {{.Config.Image}}") == f"true {registry.reference}"
        assert fake.databases[database].fields["image"] == registry.reference


def test_a_changed_limit_is_reported_when_the_new_container_runs(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    fake.minute, fake.lag = 1.0, 0.3
    database, state = deploy.databases.create(arguments(registry.reference))
    for megabytes, phase in enumerate(PHASES, 256):
        before = inspect(database, "{{.Id}}")
        at_phase(fake, phase)
        state = deploy.databases.update(database, state, arguments(registry.reference, limitsMemory=f"{megabytes}m"))
        seen = inspect(database, "{{.Id}} {{.State.Health.Status}} {{.HostConfig.Memory}}").split()
        assert seen[0] != before
        assert seen[1:] == ["healthy", str(megabytes * 2**20)]
        with connect(database, state["password"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_what_runs_is_left_alone_whatever_the_stale_word(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    inputs = arguments(registry.reference)
    database, state = deploy.databases.create(inputs)
    fake.minute = 600  # Coolify has not looked at it yet
    time.sleep(1)
    fake.databases[database].set_status("exited:unhealthy")
    before = inspect(database, "{{.Id}} {{.State.StartedAt}}")
    for known in (state, {}):
        read = deploy.databases.read(database, known, inputs if known else {})
        assert read is not None
        assert changes(read[0], read[1]) == set()
        assert deploy.databases.update(database, read[0], inputs)["ready"] is True
    assert inspect(database, "{{.Id}} {{.State.StartedAt}}") == before
    assert started(fake) == [f"/databases/{database}/start"]


def test_what_is_gone_is_started_whatever_the_stale_word(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    inputs = arguments(registry.reference)
    database, state = deploy.databases.create(inputs)
    fake.healthy_by_itself = False  # nobody looks: it stays running:healthy
    time.sleep(1)
    docker("rm", "-f", database)
    assert fake.databases[database].status == "running:healthy"
    read = deploy.databases.read(database, state, inputs)
    assert read is not None
    assert changes(read[0], inputs) == {"ready"}
    fake.healthy_by_itself = True
    assert deploy.databases.update(database, read[0], inputs)["ready"] is True
    assert inspect(database, "{{.State.Running}}") == "true"


def test_asked_on_the_host_the_container_is_proof_enough(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    """No deploy waits for Coolify to look, nor believes what it has seen before."""
    deploy.databases._docker = "docker"
    fake.minute = 600
    time.sleep(1)
    database, state = deploy.databases.create(arguments(registry.reference))
    before = inspect(database, "{{.Id}}")
    assert fake.databases[database].status == "exited:unhealthy"
    state = deploy.databases.update(database, state, arguments(registry.reference, limitsMemory="256m"))
    assert inspect(database, "{{.Id}}") != before
    assert inspect(database, "{{.State.Health.Status}} {{.HostConfig.Memory}}") == f"healthy {256 * 2**20}"

    fake.databases[database].set_status("running:healthy")
    missing = arguments(f"{registry.name}-missing", limitsMemory="256m", startTimeout=50)
    with pytest.raises(HalfDone, match="runs again with the image before"):
        deploy.databases.update(database, state, missing)
    assert inspect(database, "{{.State.Running}} {{.Config.Image}}") == f"true {registry.reference}"

    # Another image than the record says, as after a start that failed half way.
    fake.databases[database].fields["image"] = f"{registry.name}-other"
    read = deploy.databases.read(database, state, arguments(registry.reference))
    assert read is not None
    assert changes(read[0], arguments(registry.reference)) >= {"ready", "image"}

    # Where the way to the host is none, Coolify is asked.
    deploy.databases._docker = "/absent/docker"
    fake.databases[database].fields["image"] = registry.reference
    read = deploy.databases.read(database, state, arguments(registry.reference, limitsMemory="256m"))
    assert read is not None
    assert read[0]["ready"] is True


# Starts


def test_a_start_whose_answer_is_lost_is_not_sent_again(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    """The second would kill the first, in the middle of making the cluster."""
    answered = fake.act

    def lost(uuid: str, action: str, cleanup: bool = True) -> Any:
        answered(uuid, action, cleanup)
        raise Refusal(502, {"message": "Bad Gateway"})

    fake.act = lost  # type: ignore[method-assign]
    database, state = deploy.databases.create(arguments(registry.reference))
    assert started(fake) == [f"/databases/{database}/start"]
    assert state["ready"] is True
    deploy.databases.update(database, state, arguments(registry.reference, limitsMemory="300m"))
    assert started(fake)[1:] == [f"/databases/{database}/restart"]


def test_the_next_deploy_does_not_start_again_what_is_starting(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    fake.healthy_by_itself = False
    with pytest.raises(HalfDone) as caught:
        deploy.databases.create(arguments(registry.reference, startTimeout=150))
    fake.settle()
    fake.healthy_by_itself = True
    before = inspect(caught.value.id, "{{.Id}}")
    state = deploy.databases.update(caught.value.id, caught.value.state, arguments(registry.reference))
    assert state["ready"] is True
    assert inspect(caught.value.id, "{{.Id}}") == before
    assert len(started(fake)) == 1


# The public port


def test_another_public_port_takes_effect(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    database, state = deploy.databases.create(arguments(registry.reference, publicPort=ports[0]))
    assert published(ports[0], state["password"]) == "(1,)"
    before = inspect(database, "{{.Id}}")
    state = deploy.databases.update(database, state, arguments(registry.reference, publicPort=ports[1]))
    assert published(ports[1], state["password"]) == "(1,)"
    with pytest.raises(psycopg.OperationalError, match="refused"):
        published(ports[0], state["password"])

    timeout = arguments(registry.reference, publicPort=ports[1], publicPortTimeout=600)
    state = deploy.databases.update(database, state, timeout)
    proxy = fake.databases[database].proxy
    assert proxy
    assert proxy.timeout_of_idle == 600
    assert inspect(database, "{{.Id}}") == before, "the database itself needs no restart"

    # The proxy is gone, and the record does not tell.
    fake._stop_proxy(fake.databases[database])
    read = deploy.databases.read(database, state, timeout)
    assert read is not None
    assert changes(read[0], timeout) == {"publicPort"}
    state = deploy.databases.update(database, read[0], timeout)
    assert published(ports[1], state["password"]) == "(1,)"

    state = deploy.databases.update(database, state, arguments(registry.reference))
    assert fake.databases[database].proxy is None
    assert fake.databases[database].fields["is_public"] is False


def test_a_port_that_is_taken_is_told(deploy: Deploy, fake: FakeCoolify, registry: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HalfDone, match=rf"{port} .*127\.0\.0\.1.* taken") as caught:
            deploy.databases.create(arguments(registry.reference, publicPort=port))
        assert inspect(caught.value.id, "{{.State.Running}}") == "true", "the database itself is there"
    state = deploy.databases.update(caught.value.id, caught.value.state, arguments(registry.reference, publicPort=port))
    assert published(port, state["password"]) == "(1,)"
    assert len(started(fake)) == 1


def test_a_proxy_that_does_not_come_up_is_told(
    deploy: Deploy, fake: FakeCoolify, registry: Registry, fake_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without its image: Coolify answers 200, and takes the setting back by itself."""
    monkeypatch.setattr(fake, "_start_proxy", lambda database: database.fields.update(is_public=False))
    with pytest.raises(HalfDone, match=rf"Coolify took .*{fake_port} back"):
        deploy.databases.create(arguments(registry.reference, publicPort=fake_port))


# Values as Coolify stores them


@pytest.mark.usefixtures("without_engine")
def test_values_stored_otherwise_are_no_change(deploy: Deploy, fake: FakeCoolify) -> None:
    """With a token that may read them, an empty variable restarted the database at every `up --refresh`."""
    fake.abilities.add("read:sensitive")
    inputs = arguments("127.0.0.1:1/x:16", environmentVariables={"EMPTY": "", "FULL": "a b"}, description="1 < 2, a > b")
    database, state = deploy.databases.create(inputs)
    assert fake.databases[database].variables[0]["value"] is None
    for _ in range(2):
        read = deploy.databases.read(database, state, inputs)
        assert read is not None
        assert changes(read[0], inputs) == set()
        state = deploy.databases.update(database, read[0], inputs)
    assert len(started(fake)) == 1


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("environmentVariables", {"A": " x"}, "begin or end"),
        ("environmentVariables", {"A": "x\u00a0"}, "begin or end"),
        ("environmentVariables", {"A": "\u200bx"}, "begin or end"),
        ("name", "<b>orders</b>", "tag"),
        ("name", "orders ", "begin or end"),
        ("description", "the <b>orders</b>", "tag"),
        ("description", "x<", "tag"),
        ("description", "", "leave it out"),
        ("description", " orders", "begin or end"),
        ("description", "x" * 256, "255"),
        ("mountPath", "/var/lib/postgresql/data ", "begin or end"),
        ("enableSsl", True, "dashboard"),
        ("sslMode", "require", "dashboard"),
    ],
)
def test_values_that_coolify_would_change_are_refused(key: str, value: Any, sentence: str) -> None:
    inputs = {"image": "x:16", "project": "p", "environment": "e", "server": "s", key: value}
    with pytest.raises(Refusing) as refused:
        Database().check("orders", {}, inputs)
    assert [sentence in problem for _, problem in refused.value.problems] == [True], refused.value


@pytest.mark.usefixtures("without_engine")
def test_the_longest_description_is_taken(deploy: Deploy, fake: FakeCoolify) -> None:
    database, _ = deploy.databases.create(arguments("127.0.0.1:1/x:16", description="ä" * 255))
    assert fake.databases[database].fields["description"] == "ä" * 255


# Other answers


@pytest.mark.parametrize("retry_after", ["0", "-1", "soon", None])
def test_too_many_requests_are_asked_again_later_and_later(retry_after: str | None) -> None:
    pauses: list[float] = []
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    transport = httpx.MockTransport(lambda request: httpx.Response(429, headers=headers))
    coolify = Coolify("https://coolify.test", "t", sleep=pauses.append, transport=transport)
    with coolify, pytest.raises(CoolifyError, match="too many requests"):
        coolify.get("/servers")
    assert pauses == [1.0, 2.0, 4.0, 8.0]


def test_a_403_is_told_as_it_comes(fake: FakeCoolify) -> None:
    with Coolify(fake.url, fake.token) as coolify:
        fake.api_enabled = False
        with pytest.raises(CoolifyError, match=r"API is disabled\. Switch it on"):
            coolify.get("/servers")
        fake.api_enabled, fake.allowed_address = True, False
        with pytest.raises(CoolifyError, match=r"to access the API\. Add this machine's address"):
            coolify.get("/servers")
        fake.allowed_address, fake.abilities = True, set()
        with pytest.raises(CoolifyError, match=r"permissions: read\. This needs"):
            coolify.get("/servers")


@pytest.mark.usefixtures("without_engine")
def test_only_a_changed_backup_is_sent(deploy: Deploy, fake: FakeCoolify) -> None:
    backups = [{"frequency": "daily", "keepDays": 7, "s3Storage": "s3-one"}, {"frequency": "hourly", "keepGigabytes": 1.5}]
    database, state = deploy.databases.create(arguments("127.0.0.1:1/x:16", backups=backups))
    fake.requests.clear()
    state = deploy.databases.update(database, state, arguments("127.0.0.1:1/x:16", backups=backups, description="x"))
    assert [path for method, path, _ in fake.requests if method != "GET"] == [f"/databases/{database}"]
    changes: list[dict[str, Any]] = [{"keepDays": 8}, {"s3Storage": "s3-two"}, {"enabled": False}, {"frequency": "weekly"}]
    for change in changes:
        fake.requests.clear()
        backups = [{**backups[0], **change}, backups[1]]
        state = deploy.databases.update(database, state, arguments("127.0.0.1:1/x:16", backups=backups, description="x"))
        assert [path.split("/")[3] for method, path, _ in fake.requests if method != "GET"] == ["backups"], change


@pytest.mark.usefixtures("without_engine")
def test_a_server_that_deletes_unused_volumes_is_named(deploy: Deploy, fake: FakeCoolify) -> None:
    inputs = arguments("127.0.0.1:1/x:16")
    database, state = deploy.databases.create(inputs)
    assert not any("unused volumes" in line for line in deploy.log)
    fake.servers[0]["settings"]["delete_unused_volumes"] = True
    deploy.databases.update(database, state, {**inputs, "description": "x"})
    assert any("delete unused volumes" in line and f"postgres-data-{database}" in line for line in deploy.log)
    deploy.log.clear()
    deploy.databases.delete(database, state)
    assert any("delete unused volumes" in line and f"postgres-data-{database}" in line for line in deploy.log)


@pytest.mark.usefixtures("without_engine")
def test_fields_of_versions_to_come_stay_out_of_the_way(deploy: Deploy, fake: FakeCoolify) -> None:
    inputs = arguments("127.0.0.1:1/x:16")
    database, state = deploy.databases.create(inputs)
    assert not any("to_come" in key for key in state)
    read = deploy.databases.read(database, {}, {})
    assert read is not None
    assert not any("to_come" in key for key in {**read[0], **read[1]})


def test_the_image_survives_what_coolify_does_for_ssl(registry: Registry, tmp_path: Path) -> None:
    """Before each start it has the image's own chown give the mounted certificate to postgres, and then passes settings to it.

    The stand-in base image cannot speak SSL, so that this is where the test ends there; the settings are read all the same.
    """
    for name in ("server.crt", "server.key"):
        (tmp_path / name).write_text("x")
    certificates = "/var/lib/postgresql/certs"
    mounted = [word for name in ("crt", "key") for word in ("-v", f"{tmp_path}/server.{name}:{certificates}/server.{name}")]
    files = [f"{certificates}/server.key", f"{certificates}/server.crt"]
    docker("run", "--rm", "--user", "root", *mounted, "--entrypoint", "chown", registry.reference, "postgres:postgres", *files)
    postgres = docker("run", "--rm", "--entrypoint", "id", registry.reference, "-u", "postgres")
    assert {str(path.stat().st_uid) for path in tmp_path.iterdir()} == {postgres}
    settings = [f"ssl_cert_file={files[1]}", f"ssl_key_file={files[0]}"]
    command = ["postgres", *(word for setting in settings for word in ("-c", setting))]
    container = docker("run", "-d", *mounted, "-e", "POSTGRES_PASSWORD=x", registry.reference, *command)
    try:
        docker("exec", "-i", container, "schema-notifications-converge", stdin="x\n")
        assert docker("exec", container, "psql", "-U", "postgres", "-Atc", "SHOW ssl_key_file") == files[0]
    finally:
        docker("rm", "-fv", container)


@pytest.mark.usefixtures("without_engine")
def test_ssl_that_is_on_in_the_dashboard_is_in_the_url(deploy: Deploy, fake: FakeCoolify, monkeypatch: pytest.MonkeyPatch) -> None:
    show = fake._show
    monkeypatch.setattr(fake, "_show", lambda uuid: show(uuid) | {"enable_ssl": True, "ssl_mode": "require"})
    _, state = deploy.databases.create(arguments("127.0.0.1:1/x:16"))
    assert state["internalUrl"].endswith(":5432/postgres?sslmode=require")
