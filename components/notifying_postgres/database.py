"""One database: its password, volume, container, what every deploy brings up to date in it, and the proof that it notifies."""

import hmac
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, NotRequired, TypedDict, cast
from urllib.parse import quote

import pulumi
import pulumi_docker as docker
from pulumi_command import local

from .coolify import CoolifyArgs, CoolifyDatabase, CoolifyDatabaseArgs, CoolifyPassword
from .errors import InvalidArgument, camel_case, checked, refuse_unknown
from .host import Host

DATA_DIRECTORY = "/var/lib/postgresql/data"
PASSWORD_FILE = "/run/secrets/postgres_password"  # noqa: S105 (a path)


class DatabaseArgs(TypedDict):
    """One PostgreSQL server in a container of its own."""

    database_name: NotRequired[pulumi.Input[str]]
    """The database that is made at the first start. Default: the database's key in `databases`."""
    user: NotRequired[pulumi.Input[str]]
    """The superuser that is made at the first start. Default: `postgres`."""
    password: NotRequired[pulumi.Input[str]]
    """The superuser's password; it may be changed at any time. Default: one is generated, once."""
    port: NotRequired[pulumi.Input[str]]
    """The port to publish on the host, as `port` (on 127.0.0.1) or `address:port`. Default: none."""
    memory: NotRequired[pulumi.Input[str]]
    """The memory limit, such as `512m` or `2g`. Default: none."""
    shm_size: NotRequired[pulumi.Input[str]]
    """The size of /dev/shm, which parallel queries use. Default: `64m`, Docker's own."""
    container_name: NotRequired[pulumi.Input[str]]
    """The container's name, by which applications on the same network reach it. Default: `<instance>-<key>`."""
    volume_name: NotRequired[pulumi.Input[str]]
    """The volume that holds the data; one that exists is used as it is. Default: `<container>-data`."""
    retain_data: NotRequired[bool]
    """Whether the volume stays when the database is removed from the stack. Default: true."""
    coolify: NotRequired[CoolifyArgs]
    """Has Coolify run the database, in its dashboard and with its backups. Default: a plain container."""


class SchemaNotification(TypedDict):
    """A notice that the check received."""

    tag: str
    """The command tag, such as `CREATE TABLE`."""
    ms: float
    """Milliseconds from COMMIT to its arrival."""


class CheckResult(TypedDict):
    """What the check after the deploy saw."""

    ok: bool
    """Always true: a check that fails, fails the deploy."""
    database: str
    """The database in which a table was created, altered and dropped."""
    server_version: str
    """PostgreSQL's version."""
    extension_version: str
    """The version of the extension schema_notifications in that database."""
    notices: list[SchemaNotification]
    """The notices, in the order in which they came."""
    ms: float
    """Milliseconds that the check took."""


class DatabaseOutputs(TypedDict):
    """What a deploy tells about one database. Its URL is among the secret `urls`."""

    container_name: str
    """The container's name."""
    volume_name: str
    """The name of the volume that holds the data."""
    image_id: str
    """The id of the image that the container runs."""
    host: str | None
    """`ssh://user@address:port`, or absent for this machine."""
    published: str | None
    """`address:port` on the host, or absent when no port is published."""
    check: CheckResult
    """What the check after the deploy saw."""


def parse_size(key: str, size: str) -> int:
    """Reads a size with Docker's units.

    :returns: MiB.
    :raises InvalidArgument: when it is not a whole number of MiB.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})([mg])b?", size.strip().lower())
    if not match:
        raise InvalidArgument(key, size, "give a number with its unit, such as 512m or 2g")
    return int(match[1]) * {"m": 1, "g": 1024}[match[2]]


def parse_port(key: str, port: object) -> tuple[str, int]:
    """Reads ``port`` or ``address:port``, as `docker run --publish` takes it.

    :returns: the address to listen on, 127.0.0.1 unless given, and the port.
    :raises InvalidArgument: when there is no port from 1 to 65535.
    """
    address, _, number = str(port).strip().rpartition(":")
    # A number in a Pulumi stack file comes as an integer, in a packaged component as a float.
    number = number.removesuffix(".0")
    if not number.isascii() or not number.isdecimal() or not 1 <= int(number) <= 65535:
        raise InvalidArgument(key, port, "give a port from 1 to 65535, or address:port")
    return address.strip("[]") or "127.0.0.1", int(number)


def check_identifier(key: str, name: str) -> str:
    """Returns a database's or a user's name as it is.

    :raises InvalidArgument: when PostgreSQL, or the shell that makes it at the first start, would not take it.
    """
    if not 1 <= len(name.encode()) <= 63 or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise InvalidArgument(key, name, "give a name of 1 to 63 bytes without control characters")
    if name.startswith("pg_") or name in ("template0", "template1"):
        raise InvalidArgument(key, name, "PostgreSQL keeps that name for itself; give another")
    return name


def check_object_name(key: str, name: str) -> str:
    """Returns the name of a container or a volume as it is.

    :raises InvalidArgument: when Docker would not take it.
    """
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", name):
        raise InvalidArgument(key, name, "give 1 to 63 letters, digits, '_', '.' and '-', the first a letter or digit")
    return name


def check_password(key: str, password: str) -> str:
    """Returns a password as it is.

    :raises InvalidArgument: when it is empty or cannot be passed in a line; the sentence does not show it.
    """
    if not password or any(ord(c) < 32 for c in password):
        raise InvalidArgument(key, password, "give at least one character, and no control characters", secret=True)
    return password


@dataclass(frozen=True)
class Database:
    """One database's arguments, checked and with their defaults. Every value is known only as far as its argument is."""

    key: str
    database_name: pulumi.Output[str]
    user: pulumi.Output[str]
    password: pulumi.Output[str] | None
    port: pulumi.Output[tuple[str, int]] | None
    memory: pulumi.Output[int] | None
    shm_size: pulumi.Output[int] | None
    container_name: pulumi.Output[str] | None
    volume_name: pulumi.Output[str] | None
    retain_data: bool
    coolify: CoolifyArgs | None


def read_database(key: str, args: DatabaseArgs) -> Database:
    """Checks the arguments of one database.

    :raises InvalidArgument: when one is wrong.
    """
    where = f"databases.{key}"
    check_object_name("databases", key)
    if not isinstance(args, Mapping):
        raise InvalidArgument(where, args, "give its settings by name, or {} for the defaults")
    refuse_unknown(f"{where}.", args, DatabaseArgs.__annotations__)
    values: Mapping[str, Any] = args
    coolify = args.get("coolify")
    if coolify is not None:
        for name in {"port", "memory", "shm_size", "container_name", "volume_name"} & args.keys():
            raise InvalidArgument(
                f"{where}.{camel_case(name)}", "given beside coolify", "Coolify decides it; see the settings in coolify"
            )
        refuse_unknown(f"{where}.coolify.", coolify, CoolifyArgs.__annotations__)
        for name in {"project", "environment", "server"} - coolify.keys():
            raise InvalidArgument(f"{where}.coolify.{name}", None, f"give the {name} in Coolify, by uuid or by name")

    def argument(name: str, check: Callable[[str, Any], Any], default: str | None = None) -> Any:
        value = values.get(name, default)
        return None if value is None else checked(value, lambda known: check(f"{where}.{camel_case(name)}", known))

    password = argument("password", check_password)
    return Database(
        key=key,
        database_name=argument("database_name", check_identifier, default=key),
        user=argument("user", check_identifier, default="postgres"),
        password=None if password is None else pulumi.Output.secret(password),
        port=argument("port", parse_port),
        memory=argument("memory", parse_size),
        shm_size=argument("shm_size", parse_size),
        container_name=argument("container_name", check_object_name),
        volume_name=argument("volume_name", check_object_name),
        retain_data=values.get("retain_data", True),
        coolify=coolify,
    )


def refuse_shared(name: str, databases: Mapping[str, DatabaseArgs]) -> None:
    """Refuses two databases of one instance that would have the same container or the same volume, as far as names are known.

    :param name: the instance's name, which is in the names that are not given.
    :raises InvalidArgument: naming the second of them.
    """
    first: dict[tuple[str, object], str] = {}
    for key, args in databases.items():
        container = args.get("container_name") or f"{name}-{key}"
        volume = args.get("volume_name") or (f"{container}-data" if isinstance(container, str) else None)
        for setting, value in {"containerName": container, "volumeName": volume}.items():
            if isinstance(value, str) and not args.get("coolify") and first.setdefault((setting, value), key) != key:
                other = first[setting, value]
                raise InvalidArgument(f"databases.{key}.{setting}", value, f"databases.{other} has it; give each its own")


@dataclass(frozen=True)
class Provisioned:
    """A database that a deploy has made and checked."""

    outputs: pulumi.Output[DatabaseOutputs]
    url: pulumi.Output[str]
    last: pulumi.Resource


def provision_container(
    name: str,
    database: Database,
    *,
    password: pulumi.Output[str],
    host: Host,
    image_id: pulumi.Output[str],
    build: pulumi.Resource,
    network: pulumi.Input[str] | None,
    after: list[pulumi.Resource],
    parent: pulumi.Resource,
) -> Provisioned:
    """Makes one database on a host, in a container of its own.

    :param name: the instance's name.
    :param password: the superuser's.
    :param after: what has to be done before.
    """
    resource = f"{name}-{database.key}"
    port = database.port
    container_name = database.container_name or pulumi.Output.from_input(resource)

    # Names that are not given stay what they were, whatever they are derived from: another volume would be an empty database.
    volume = docker.Volume(
        f"{resource}-data",
        name=database.volume_name or container_name.apply(lambda known: f"{known}-data"),
        opts=pulumi.ResourceOptions(
            parent=parent,
            provider=host.provider,
            depends_on=[host.ready, *after],
            retain_on_delete=database.retain_data,
            ignore_changes=[] if database.volume_name else ["name"],
        ),
    )

    adopted = []
    if database.volume_name:
        script = pulumi.Output.all(database.volume_name, container_name).apply(_volume_is_free_script)
        adopted = [host.command(f"{resource}-volume-is-free", create=script, depends_on=after)]

    container = docker.Container(
        resource,
        name=container_name,
        image=image_id,
        envs=pulumi.Output.all(database.user, database.database_name).apply(
            # PGDATA is the same for all major versions, which since 18 differ in their default.
            lambda both: [
                f"PGDATA={DATA_DIRECTORY}",
                f"POSTGRES_DB={both[1]}",
                f"POSTGRES_PASSWORD_FILE={PASSWORD_FILE}",
                f"POSTGRES_USER={both[0]}",
            ]
        ),
        uploads=[docker.ContainerUploadArgs(file=PASSWORD_FILE, content=password, permissions="0400")],
        volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path=DATA_DIRECTORY)],
        ports=None
        if port is None
        else [
            docker.ContainerPortArgs(
                internal=5432, external=port.apply(lambda both: both[1]), ip=port.apply(lambda both: both[0]), protocol="tcp"
            )
        ],
        network_mode=network or "bridge",
        memory=database.memory,
        # Docker's own default, spelled out: the provider reads it back and would take it for a change.
        memory_swap=None if database.memory is None else database.memory.apply(lambda mebibytes: 2 * mebibytes),
        shm_size=database.shm_size,
        restart="unless-stopped",
        # PostgreSQL ends its sessions and writes a checkpoint; the default of the provider is to kill it.
        destroy_grace_seconds=60,
        log_opts={"max-size": "10m", "max-file": "3"},
        # Containers inherit the image's label, which would let Coolify's cleanup take a stopped one for its own.
        labels=[docker.ContainerLabelArgs(label="coolify.managed", value="false")],
        opts=pulumi.ResourceOptions(
            parent=parent,
            provider=host.provider,
            depends_on=[host.ready, build, *adopted],
            delete_before_replace=True,  # two containers cannot have the name, nor two servers the data
            # The file is read at the first start only. Later `converge` sets the password, without a restart.
            ignore_changes=["uploads", *([] if database.container_name else ["name"])],
        ),
    )

    server = _Server(resource, database, password, host, parent, container=container.id, container_name=container.name)
    check = server.check(after=server.converge(after=container))
    return server.provisioned(volume.name, image_id, check)


def provision_in_coolify(
    name: str,
    database: Database,
    *,
    password: pulumi.Output[str],
    host: Host,
    image_id: pulumi.Output[str],
    reference: pulumi.Output[str],
    pushed: pulumi.Resource,
    after: list[pulumi.Resource],
    parent: pulumi.Resource,
) -> Provisioned:
    """Makes one database in Coolify, on the same host.

    :param name: the instance's name.
    :param reference: the name by which Coolify pulls the image.
    :param pushed: what made that possible.
    :param password: the superuser's.
    :param after: what has to be done before.
    """
    resource = f"{name}-{database.key}"
    settings: dict[str, Any] = {**(database.coolify or {})}

    made = CoolifyDatabase(
        resource,
        cast(
            CoolifyDatabaseArgs,
            {
                "delete_volumes": not database.retain_data,
                **settings,
                "image": reference,
                "postgres_user": database.user,
                "postgres_password": password,
                "postgres_db": database.database_name,
            },
        ),
        # Coolify's record of the password follows when PostgreSQL has the new one.
        pulumi.ResourceOptions(parent=parent, depends_on=[pushed, *after], ignore_changes=["postgresPassword"]),
    )

    # The container keeps its name, which is the database's uuid; a new image or a restart makes all this run again.
    container = pulumi.Output.all(made.id, reference).apply(lambda both: both[0])
    why = pulumi.Output.all(reference, made.starts).apply(lambda both: f"{both[0]}, start {both[1]}")
    server = _Server(resource, database, password, host, parent, container=container, container_name=made.id, why=why)
    converge = server.converge(after=made)
    access: dict[str, Any] = {key: value for key, value in settings.items() if key in ("url", "token")}
    recorded = CoolifyPassword(
        f"{resource}-recorded-password",
        {"database": made.id, "password": password, **access},  # type: ignore[typeddict-item]
        pulumi.ResourceOptions(parent=parent, depends_on=[converge]),
    )
    return server.provisioned(made.volume_name, image_id, server.check(after=recorded))


@dataclass(frozen=True)
class _Server:
    """A database whose container is there, whoever made it."""

    resource: str
    database: Database
    password: pulumi.Output[str]
    host: Host
    parent: pulumi.Resource
    _: KW_ONLY
    container: pulumi.Output[str]
    container_name: pulumi.Output[str]
    why: pulumi.Output[str] | None = None
    """What else, if it changes, has converge and check run again."""

    def converge(self, after: pulumi.Resource) -> pulumi.Resource:
        """Brings the extension in every database of the server up to date, and the superuser's password."""
        limited = not self.host.is_local
        script = pulumi.Output.all(self.container, self.why).apply(lambda both: _converge_script(both[0], both[1], limit=limited))
        return self.host.command(f"{self.resource}-converge", create=script, stdin=self.password.apply(_line), depends_on=[after])

    def check(self, after: pulumi.Resource) -> local.Command:
        """Proves, from this machine, that a schema change in the database is announced."""
        database = self.database
        return local.Command(
            f"{self.resource}-check",
            create=pulumi.Output.all(
                self.host.check, self.container, self.container_name, database.user, database.database_name, self.why
            ).apply(_check_command),
            stdin=self.password.apply(_line),
            logging=local.Logging.STDERR,
            opts=pulumi.ResourceOptions(parent=self.parent, depends_on=[after]),
        )

    def provisioned(self, volume_name: pulumi.Output[str], image_id: pulumi.Output[str], check: local.Command) -> Provisioned:
        """What a deploy tells about it."""
        database = self.database
        outputs = pulumi.Output.all(
            self.container_name, volume_name, image_id, self.host.url, database.port, pulumi.Output.unsecret(check.stdout)
        ).apply(_outputs)
        url = pulumi.Output.all(database.user, self.password, database.database_name, self.container_name).apply(_url)
        return Provisioned(outputs, pulumi.Output.secret(url), check)


class GeneratedPasswords:
    """The passwords of the databases that are given none: derived from one random seed, which is made once and kept in the state.

    One resource for all keeps a deploy of many databases quick.
    """

    def __init__(self, name: str, parent: pulumi.Resource) -> None:
        self._name, self._parent = name, parent
        self._seed: pulumi.Output[str] | None = None

    def for_database(self, key: str) -> pulumi.Output[str]:
        """The password of one database: 32 hexadecimal digits, secret."""
        if self._seed is None:
            command = local.Command(
                f"{self._name}-password-seed",
                create="od -An -N32 -tx1 /dev/urandom | tr -d ' \\n'",
                logging=local.Logging.NONE,
                opts=pulumi.ResourceOptions(
                    parent=self._parent, additional_secret_outputs=["stdout", "stderr"], ignore_changes=["create"]
                ),
            )
            self._seed = pulumi.Output.secret(command.stdout)
        return self._seed.apply(lambda seed: hmac.digest(seed.encode(), key.encode(), "sha256").hex()[:32])


def _volume_is_free_script(values: list[str]) -> str:
    """Fails when another container runs on the volume: PostgreSQL does not notice a second server in another container."""
    volume, container = map(shlex.quote, values)
    return (
        f"users=$(docker ps --filter volume={volume} --format '{{{{.Names}}}}') || exit\n"
        f'others=$(echo "$users" | grep -vxF {container})\n'
        'test -z "$others" || { cat >&2 <<END\n'
        f"The volume {volume} is in use by the container $others, and two servers on one volume destroy its data.\n"
        "Stop that container first ('docker stop -t 60 NAME' on the host), then deploy again. Nothing was changed.\n"
        "END\n"
        "exit 1; }"
    )


def _converge_script(container: str, why: str | None, *, limit: bool) -> str:
    container = shlex.quote(container)
    return (
        # A container that was made and could not start, for its port was taken, say, is started by nobody else.
        f"docker start {container} >/dev/null && "
        f"{'timeout 300 ' if limit else ''}docker exec -i {container} schema-notifications-converge || {{\n"
        f"  echo 'The database did not come up. The last lines of its log:' >&2; docker logs --tail 20 {container} >&2; exit 1; }}"
        f"{_comment(why)}"
    )


def _check_command(values: list[Any]) -> str:
    check, container, container_name, user, database_name, why = values
    # The name in the URL is for whoever reads a failure; the way goes by the id, so that a new container is checked again.
    words = [_url([user, None, database_name, container_name]), "--container", container, "--password-stdin"]
    return f"{check} {shlex.join(words)}{_comment(why)}"


def _line(password: str) -> str:
    return f"{password}\n"


def _comment(why: str | None) -> str:
    return "" if why is None else f" # {why}"


def _outputs(values: list[Any]) -> DatabaseOutputs:
    container_name, volume_name, image_id, url, port, check = values
    outputs: dict[str, Any] = {
        "container_name": container_name,
        "volume_name": volume_name,
        "image_id": image_id,
        "host": url,
        "published": None if port is None else _address(*port),
        "check": json.loads(check.strip().splitlines()[-1]),
    }
    return cast(DatabaseOutputs, outputs)


def _url(values: list[Any]) -> str:
    user, password, database_name, container_name = values
    login = quote(user, safe="") + ("" if password is None else ":" + quote(password, safe=""))
    return f"postgresql://{login}@{container_name}:5432/{quote(database_name, safe='')}"


def _address(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
