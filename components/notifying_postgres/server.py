"""A PostgreSQL server whose container is there, whoever made it: its password, converge, the check, its URL."""

import hmac
import json
import shlex
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, cast
from urllib.parse import quote

import pulumi
import pulumi_docker as docker
from pulumi_command import local

from .args import Database, DatabaseOutputs
from .host import Host

LOG_OPTS = {"max-size": "10m", "max-file": "3"}


def confined(*capabilities: str) -> dict[str, Any]:
    """Arguments of `docker.Container` by which its processes gain no rights.

    :param capabilities: what root in it may, as Docker spells it, or the provider would see a change.
    """
    return {
        "capabilities": docker.ContainerCapabilitiesArgs(adds=list(capabilities) or None, drops=["ALL"]),
        "security_opts": ["no-new-privileges:true"],
    }


@dataclass(frozen=True)
class Instance:
    """What the databases of one component have in common.

    :ivar image_id: the id of the image that they run.
    :ivar parent: the component.
    :ivar moment: another one at each deploy where every database is to be verified each time, else empty.
    """

    name: str
    host: Host
    image_id: pulumi.Output[str]
    parent: pulumi.Resource
    moment: str = ""


@dataclass(frozen=True)
class Provisioned:
    """A database that a deploy has made and checked."""

    outputs: pulumi.Output[DatabaseOutputs]
    url: pulumi.Output[str]
    last: pulumi.Resource


@dataclass(frozen=True)
class Server:
    """A database whose container is there.

    :ivar container: what `docker` finds it by; when it changes, all that is done in the container is done again.
    :ivar container_name: the name by which applications reach it.
    """

    instance: Instance
    database: Database
    password: pulumi.Output[str]
    _: KW_ONLY
    container: pulumi.Output[str]
    container_name: pulumi.Output[str]
    why: pulumi.Output[str] | None = None
    """What else, if it changes, has converge and check run again."""

    def converge(self, after: pulumi.Resource, note: Sequence[pulumi.Input[str]] = ()) -> pulumi.Resource:
        """Brings the extension in every database of the server up to date, and the superuser's password.

        :param note: what the host is to remember of the database: its volume, and the number of its making. It forgets a database
            whose data goes with it.
        """
        forget = ("forget.sh", [self.container_name]) if note and not self.database.retain_data else None
        return self.instance.host.run(
            f"{self.instance.name}-{self.database.key}-converge",
            "converge.sh",
            [self.container, self._why, *note],
            delete=forget,
            stdin=self.password.apply(_line),
            logging=local.Logging.STDOUT_AND_STDERR,
            depends_on=[after],
        )

    def check(self, after: pulumi.Resource) -> local.Command:
        """Proves, from this machine, that a schema change in the database is announced."""
        database = self.database
        return local.Command(
            f"{self.instance.name}-{database.key}-check",
            create=pulumi.Output.all(
                self.instance.host.check, self.container, self.container_name, database.user, database.database_name, self._why
            ).apply(_check_command),
            stdin=self.password.apply(_line),
            logging=local.Logging.NONE,  # what it says is in the outputs, or in the error
            opts=pulumi.ResourceOptions(parent=self.instance.parent, depends_on=[after]),
        )

    @property
    def _why(self) -> pulumi.Output[str]:
        return pulumi.Output.concat(self.why or "", self.instance.moment).apply(lambda why: why or "-")

    def beside(self, kind: str, after: pulumi.Resource) -> dict[str, Any]:
        """What the containers beside the database's have in common, as arguments of `docker.Container`.

        :param kind: what they are for: the end of the container's name, and the label that has the name of the database's.
        """
        instance, name = self.instance, self.database.container_name
        return {
            "name": name.apply(lambda known: f"{known}-{kind}"),
            "restart": "unless-stopped",
            "log_opts": LOG_OPTS,
            "labels": [
                docker.ContainerLabelArgs(label="coolify.managed", value="false"),
                docker.ContainerLabelArgs(label=f"notifying-postgres.{kind}", value=name),
            ],
            "opts": pulumi.ResourceOptions(
                parent=instance.parent,
                provider=instance.host.provider,
                depends_on=[*instance.host.ready, after],
                delete_before_replace=True,  # two cannot have the name, and would do everything twice
            ),
        }

    def provisioned(self, volume_name: pulumi.Output[str], check: local.Command) -> Provisioned:
        """What a deploy tells about it."""
        database, instance = self.database, self.instance
        outputs = pulumi.Output.all(
            self.container_name,
            volume_name,
            instance.image_id,
            instance.host.url,
            database.port,
            pulumi.Output.unsecret(check.stdout),
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


def _check_command(values: list[Any]) -> str:
    check, container, container_name, user, database_name, why = values
    # The name in the URL is for whoever reads a failure; the way goes by the id, so that a new container is checked again.
    words = [_url([user, None, database_name, container_name]), "--container", container, "--password-stdin"]
    return f"{check} {shlex.join(words)}" + ("" if why == "-" else f" # {why}")


def _line(password: str) -> str:
    return f"{password}\n"


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


def _url(values: Sequence[Any]) -> str:
    user, password, database_name, container_name = values
    login = quote(user, safe="") + ("" if password is None else ":" + quote(password, safe=""))
    return f"postgresql://{login}@{container_name}:5432/{quote(database_name, safe='')}"


def _address(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
