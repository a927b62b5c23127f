"""Every argument and output of the component: its type, and for an argument the rule by which it is read."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NotRequired, TypedDict

import pulumi

from .coolify.args import CoolifyArgs
from .errors import InvalidArgument, checked, refuse_unknown
from .names import camel_case
from .relay.args import DEFAULT_RELAY_BASE_IMAGE, RelaySinkArgs, Sink, read_relay
from .schedule import Schedule, read_schedule
from .ssh import SshAddress, check_private_key, parse_address, parse_host_key

DEFAULT_IMAGE = "xooo-postgres-notifications:16"
DEFAULT_BASE_IMAGE = "postgres:16-alpine"
# With its full number, since the tag `2` moves.
DEFAULT_REGISTRY_IMAGE = "registry:2.8.3"


class BackupArgs(TypedDict):
    """When a database is copied to a folder on the host, when that is tried out, and what is kept. Times are UTC."""

    folder: pulumi.Input[str]
    """The folder on the host; each database has one of its own in it, with the name of its container."""
    schedule: NotRequired[pulumi.Input[str]]
    """When a backup is made, as a cron expression or `@daily`. Default: `0 3 * * *`."""
    verify: NotRequired[pulumi.Input[str]]
    """When the newest is restored into a scratch server and compared, as a cron expression. Default: `0 5 * * *`."""
    keep: NotRequired[pulumi.Input[str]]
    """How many are kept. Default: 7."""
    keep_days: NotRequired[pulumi.Input[str]]
    """After how many days one is removed, though never the newest. Default: none is for its age."""


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
    upgrade: NotRequired[bool]
    """Whether the data go on to the major version of a new `base_image`, in a volume of their own. Default: false, refused."""
    backup: NotRequired[BackupArgs]
    """Has the database copied to a folder on the host, by a schedule. Default: none is made."""
    restore_from: NotRequired[pulumi.Input[str]]
    """What a new volume begins with: a backup on the host, or a folder of them, of which the newest. Default: an empty database."""
    relay: NotRequired[list[RelaySinkArgs]]
    """Where each schema change is handed on to: webhooks, NATS subjects, Redis streams. Default: nowhere."""
    coolify: NotRequired[CoolifyArgs]
    """Has Coolify run the database, in its dashboard and with its backups. Default: a plain container."""


class NotifyingPostgresArgs(TypedDict):
    """Where the databases run, from which image, and which there are."""

    databases: dict[str, DatabaseArgs]
    """The databases by key. The key names the resources, and is the default of the database's name."""
    host: NotRequired[pulumi.Input[str]]
    """The Docker host, as `ssh://user@address:port`; ~/.ssh/config is not read. Default: this machine's Docker engine."""
    private_key_file: NotRequired[str]
    """The path of the private key for the host, on this machine (`~` is expanded). Default: the keys in ssh-agent."""
    host_key: NotRequired[pulumi.Input[str]]
    """The host's public key, such as the content of /etc/ssh/ssh_host_ed25519_key.pub. No other host is spoken to."""
    allow_unverified_host: NotRequired[bool]
    """Whether to go without a `host_key`, and so to trust whoever answers. Default: false."""
    jump_host: NotRequired[pulumi.Input[str]]
    """A host to go through, as `ssh://user@address:port`, for which the same private key or ssh-agent serves. Default: none."""
    jump_host_key: NotRequired[pulumi.Input[str]]
    """The public key of the `jump_host`; needed for it as the `host_key` is for the host."""
    image: NotRequired[pulumi.Input[str]]
    """The name and tag of the image to build on the host. Default: `xooo-postgres-notifications:16`."""
    base_image: NotRequired[pulumi.Input[str]]
    """The PostgreSQL image to build on. Default: `postgres:16-alpine`."""
    network: NotRequired[pulumi.Input[str]]
    """An existing Docker network for the containers, such as `coolify`. Default: Docker's own `bridge`."""
    verify_each_up: NotRequired[bool]
    """Whether each deploy sets the password, sees to the extension and checks every database, changed or not. Default: false."""
    registry_image: NotRequired[str]
    """The image of the registry from which Coolify pulls, if it runs a database. Default: the official one."""
    relay_base_image: NotRequired[pulumi.Input[str]]
    """The Python image on which relays are built, if a database has one. Default: `python:3.13-alpine`."""


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


class BackupState(TypedDict):
    """How the backups of a database are, as a deploy finds them when it begins. Backups are named after their time."""

    newest: str | None
    """The newest backup, such as `20261125T030000Z`; absent when there is none."""
    verified: str | None
    """The newest that was restored on trial and had what it should; absent when none was."""
    problem: str | None
    """What is wrong, in a sentence; absent when nothing is."""


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


# The rules. Each takes the argument's key, for the sentence that refuses it, and its value, and returns what the rest works with.


def text(key: str, value: object) -> str:
    """A text. Numbers are refused: a stack file's `0123` would arrive as another one."""
    if not isinstance(value, str):
        raise InvalidArgument(key, value, "give a text; in a stack file, put a number or a truth value in quotes")
    return value


def truth(key: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise InvalidArgument(key, value, "give true or false, without quotes")
    return value


def size(key: str, value: object) -> int:
    """A size with Docker's units.

    :returns: MiB.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})([mg])b?", str(value).strip().lower())
    if not isinstance(value, str) or not match:
        raise InvalidArgument(key, value, "give a number with its unit, such as 512m or 2g")
    return int(match[1]) * {"m": 1, "g": 1024}[match[2]]


def port(key: str, value: object) -> tuple[str, int]:
    """``port`` or ``address:port``, as `docker run --publish` takes it.

    :returns: the address to listen on, 127.0.0.1 unless given, and the port.
    """
    address, _, number = str(value).strip().rpartition(":")
    # A number in a Pulumi stack file comes as an integer, in a packaged component as a float.
    number = number.removesuffix(".0")
    if isinstance(value, bool) or not number.isascii() or not number.isdecimal() or not 1 <= int(number[:6]) <= 65535:
        raise InvalidArgument(key, value, "give a port from 1 to 65535, or address:port")
    return address.strip("[]") or "127.0.0.1", int(number)


def identifier(key: str, value: object) -> str:
    """The name of a database or a user that PostgreSQL, and the entrypoint that makes it at the first start, take."""
    name = text(key, value)
    if not 1 <= len(name.encode()) <= 63 or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise InvalidArgument(key, name, "give a name of 1 to 63 bytes without control characters")
    if name.startswith("pg_") or name in ("template0", "template1"):
        raise InvalidArgument(key, name, "PostgreSQL keeps that name for itself; give another")
    return name


def user_name(key: str, value: object) -> str:
    """The name of the superuser that initdb makes. It dies of these characters, after it has begun."""
    if re.search(r"[\"'\\$]", identifier(key, value)):
        raise InvalidArgument(key, value, "initdb takes no quote, backslash or dollar sign in it; give another")
    return identifier(key, value)


def object_name(key: str, value: object) -> str:
    """The name of a container or a volume. A longer one Docker would take, and no resolver would find."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", text(key, value)):
        raise InvalidArgument(key, value, "give 1 to 63 letters, digits, '_', '.' and '-', the first a letter or digit")
    return text(key, value)


def folder(key: str, value: object) -> str:
    """A folder on the host, in letters that every shell and `docker` read as they are."""
    if not re.fullmatch(r"(/[\w@+:.-]+)+", text(key, value), re.ASCII) or ".." in str(value).split("/") or ":" in str(value):
        raise InvalidArgument(key, value, "give the whole path of a folder on the host, in letters, digits and @ + . _ -")
    return text(key, value)


def count(key: str, value: object) -> str:
    """A whole number from 1. In a packaged component it comes as a float."""
    number = str(value).removesuffix(".0")
    if isinstance(value, bool) or not re.fullmatch("[1-9][0-9]{0,4}", number, re.ASCII):
        raise InvalidArgument(key, value, "give a whole number from 1")
    return number


def password(key: str, value: object) -> str:
    """A password that can be passed in a line. The sentence that refuses it does not show it."""
    if not isinstance(value, str) or not value or any(ord(c) < 32 for c in value):
        raise InvalidArgument(
            key, value, "give at least one character, and no control characters; a number goes in quotes", secret=True
        )
    return value


# docker/distribution's reference grammar.
_NAME = r"(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
_TAG = r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"


def built_image(key: str, value: object) -> str:
    """The name of the image that is built. With its tag: one name, one tag, is what Coolify's cleanup leaves alone."""
    if not re.fullmatch(_NAME + _TAG, text(key, value)):
        raise InvalidArgument(key, value, f"give a name and a tag in lower case, such as {DEFAULT_IMAGE}")
    return text(key, value)


def image_reference(key: str, value: object) -> str:
    """The name of an image to pull, with a tag, a digest or both."""
    if not re.fullmatch(rf"{_NAME}(?:{_TAG})?(?:@sha256:[0-9a-f]{{64}})?", text(key, value)):
        raise InvalidArgument(key, value, f"give an image's name, such as {DEFAULT_BASE_IMAGE} or NAME:TAG@sha256:DIGEST")
    return text(key, value)


def network(key: str, value: object) -> str:
    """An existing network that gives the container an address of its own."""
    if value in ("host", "none") or str(value).startswith("container:"):
        raise InvalidArgument(
            key,
            value,
            "the database would have no address of its own there, and on the host's loopback PostgreSQL trusts every local user; "
            "name a network of 'docker network ls' whose driver is bridge or overlay",
        )
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", text(key, value)):
        raise InvalidArgument(key, value, "give the name of a network, as 'docker network ls' shows it")
    return text(key, value)


Rule = Callable[[str, Any], Any]

INSTANCE_RULES: dict[str, Rule] = {
    "host": lambda key, value: parse_address(key, text(key, value)),
    "private_key_file": lambda key, value: check_private_key(key, text(key, value)),
    "host_key": lambda key, value: parse_host_key(key, text(key, value)),
    "allow_unverified_host": truth,
    "jump_host": lambda key, value: parse_address(key, text(key, value)),
    "jump_host_key": lambda key, value: parse_host_key(key, text(key, value)),
    "image": built_image,
    "base_image": image_reference,
    "network": network,
    "verify_each_up": truth,
    "registry_image": image_reference,
    "relay_base_image": image_reference,
}
DATABASE_RULES: dict[str, Rule] = {
    "database_name": identifier,
    "user": user_name,
    "password": password,
    "port": port,
    "memory": size,
    "shm_size": size,
    "container_name": object_name,
    "volume_name": object_name,
    "retain_data": truth,
    "upgrade": truth,
    "restore_from": folder,
}
BACKUP_RULES: dict[str, Rule] = {
    "folder": folder,
    "schedule": read_schedule,
    "verify": read_schedule,
    "keep": count,
    "keep_days": count,
}
_BACKUP_DEFAULTS = {"schedule": "0 3 * * *", "verify": "0 5 * * *", "keep": "7"}
# What the program itself must know, and so cannot be an output.
_PLAIN = {"private_key_file", "allow_unverified_host", "verify_each_up", "registry_image", "retain_data", "upgrade"}
_COOLIFY_DECIDES = {"port", "memory", "shm_size", "container_name", "volume_name", "upgrade", "backup", "restore_from"}


@dataclass(frozen=True)
class Backup:
    """A database's arguments for its backups, checked and with their defaults."""

    folder: pulumi.Output[str]
    schedule: pulumi.Output[Schedule]
    verify: pulumi.Output[Schedule]
    keep: pulumi.Output[str]
    keep_days: pulumi.Output[str] | None


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
    container_name: pulumi.Output[str]
    volume_name: pulumi.Output[str]
    named: frozenset[str]
    """Which of `container_name` and `volume_name` were given; the other is derived."""
    retain_data: bool
    upgrade: bool
    backup: Backup | None
    restore_from: pulumi.Output[str] | None
    relay: list[Sink]
    coolify: CoolifyArgs | None


@dataclass(frozen=True)
class Arguments:
    """The component's arguments, checked and with their defaults."""

    databases: list[Database]
    host: pulumi.Output[SshAddress] | None
    private_key_file: str | None
    host_key: pulumi.Output[str] | None
    allow_unverified_host: bool
    jump_host: pulumi.Output[SshAddress] | None
    jump_host_key: pulumi.Output[str] | None
    image: pulumi.Output[str]
    base_image: pulumi.Output[str]
    network: pulumi.Output[str] | None
    verify_each_up: bool
    registry_image: str
    relay_base_image: pulumi.Output[str]


def read_arguments(name: str, args: NotifyingPostgresArgs) -> Arguments:
    """Checks all arguments.

    :param name: the instance's name, which is in the names that are not given.
    :raises InvalidArgument: when one is missing or wrong.
    """
    refuse_unknown("", args, NotifyingPostgresArgs.__annotations__)
    databases: object = args.get("databases")
    if not isinstance(databases, Mapping):
        raise InvalidArgument("databases", databases, "give the databases by key")
    defaults = {
        "allow_unverified_host": False,
        "image": DEFAULT_IMAGE,
        "base_image": DEFAULT_BASE_IMAGE,
        "verify_each_up": False,
        "registry_image": DEFAULT_REGISTRY_IMAGE,
        "relay_base_image": DEFAULT_RELAY_BASE_IMAGE,
    }
    read = _read("", args, INSTANCE_RULES, defaults)
    listed = [read_database(name, key, database) for key, database in databases.items()]
    _refuse_shared(name, databases)
    return Arguments(databases=listed, **read)


def read_database(name: str, key: str, args: DatabaseArgs) -> Database:
    """Checks the arguments of one database.

    :raises InvalidArgument: when one is wrong.
    """
    where = f"databases.{key}"
    object_name("databases", key)
    if not isinstance(args, Mapping):
        raise InvalidArgument(where, args, "give its settings by name, or {} for the defaults")
    refuse_unknown(f"{where}.", args, DatabaseArgs.__annotations__)
    coolify = args.get("coolify")
    if coolify is not None:
        for setting in sorted(_COOLIFY_DECIDES & args.keys()):
            raise InvalidArgument(
                f"{where}.{camel_case(setting)}",
                None,
                "Coolify decides it; see the settings in coolify",
                because="is given beside coolify",
            )
        if args.get("relay") is not None:
            raise InvalidArgument(
                f"{where}.relay",
                None,
                "run 'schema-changes relay' beside it, with the URL in `urls` (docs/relay.md); a relay of the stack's own goes "
                "through the database's socket, which Coolify does not share",
                because="is given beside coolify",
            )
        if not isinstance(coolify, Mapping):
            raise InvalidArgument(f"{where}.coolify", coolify, "give its settings by name")
        refuse_unknown(f"{where}.coolify.", coolify, CoolifyArgs.__annotations__)
        for setting in sorted({"project", "environment", "server"} - coolify.keys()):
            raise InvalidArgument(f"{where}.coolify.{setting}", None, f"give the {setting} in Coolify, by uuid or by name")

    named = frozenset(setting for setting in ("container_name", "volume_name") if args.get(setting) is not None)
    read = _read(
        f"{where}.", args, DATABASE_RULES, {"database_name": key, "user": "postgres", "retain_data": True, "upgrade": False}
    )
    if read["password"] is not None:
        read["password"] = pulumi.Output.secret(read["password"])
    if "container_name" not in named:
        read["container_name"] = pulumi.Output.from_input(f"{name}-{key}")
        if coolify is None and len(f"{name}-{key}") > 63:
            raise InvalidArgument(
                f"{where}.containerName", f"{name}-{key}", "no resolver takes a name of more than 63 characters; give a shorter one"
            )
    if "volume_name" not in named:
        read["volume_name"] = read["container_name"].apply(lambda container: f"{container}-data")
    backup, relay = _read_backup(f"{where}.backup", args.get("backup")), read_relay(f"{where}.relay", args.get("relay"))
    return Database(key=key, named=named, coolify=coolify, backup=backup, relay=relay, **read)


def _read_backup(where: str, args: object) -> Backup | None:
    if args is None:
        return None
    if not isinstance(args, Mapping):
        raise InvalidArgument(where, args, "give its settings by name")
    refuse_unknown(f"{where}.", args, BackupArgs.__annotations__)
    if args.get("folder") is None:
        raise InvalidArgument(f"{where}.folder", None, "give a folder on the host, such as /var/backups/postgres")
    return Backup(**_read(f"{where}.", args, BACKUP_RULES, _BACKUP_DEFAULTS))


def _read(prefix: str, args: Mapping[str, Any], rules: Mapping[str, Rule], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Reads each argument by its rule; what is not given has its default, or is None."""
    read: dict[str, Any] = {}
    for name, rule in rules.items():
        value = args.get(name) if args.get(name) is not None else defaults.get(name)
        check = partial(rule, prefix + camel_case(name))
        read[name] = None if value is None else check(value) if name in _PLAIN else checked(value, check)
    return read


def _refuse_shared(name: str, databases: Mapping[str, DatabaseArgs]) -> None:
    """Refuses two databases of one instance that would have the same container or the same volume, as far as names are known.

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
