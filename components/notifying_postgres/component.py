"""NotifyingPostgres: PostgreSQL databases that announce their schema changes, on one Docker host."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import pulumi

from .database import (
    DatabaseArgs,
    DatabaseOutputs,
    GeneratedPasswords,
    Provisioned,
    provision_container,
    provision_in_coolify,
    read_database,
    refuse_shared,
)
from .errors import InvalidArgument, checked, refuse_unknown
from .host import Host
from .image import DEFAULT_BASE_IMAGE, DEFAULT_IMAGE, build_image, check_image_name
from .registry import DEFAULT_REGISTRY_IMAGE, push_to_loopback_registry

# How many databases are provisioned at once over SSH: sshd drops connections when 10 are logging in (MaxStartups, by default).
LANES = 8


class NotifyingPostgresArgs(TypedDict):
    """Where the databases run, from which image, and which there are."""

    databases: dict[str, DatabaseArgs]
    """The databases by key. The key names the resources, and is the default of the database's name."""
    host: NotRequired[pulumi.Input[str]]
    """The Docker host, as `ssh://user@address:port`. Default: this machine's Docker engine."""
    private_key_file: NotRequired[str]
    """The path of the private key for the host, on this machine (`~` is expanded). Default: the keys in ssh-agent."""
    host_key: NotRequired[pulumi.Input[str]]
    """The host's public key, such as the content of /etc/ssh/ssh_host_ed25519_key.pub. No other host is spoken to."""
    allow_unverified_host: NotRequired[bool]
    """Whether to go without a `host_key`, and so to trust whoever answers. Default: false."""
    image: NotRequired[pulumi.Input[str]]
    """The name and tag of the image to build on the host. Default: `xooo-postgres-notifications:16`."""
    base_image: NotRequired[pulumi.Input[str]]
    """The PostgreSQL image to build on. Default: `postgres:16-alpine`."""
    network: NotRequired[pulumi.Input[str]]
    """An existing Docker network for the containers, such as `coolify`. Default: Docker's own `bridge`."""
    registry_image: NotRequired[str]
    """The image of the registry from which Coolify pulls, if it runs a database. Default: the official one."""


class NotifyingPostgres(pulumi.ComponentResource):
    """PostgreSQL databases in which every schema change is announced on the channel `schema_changed`.

    Builds the image on the host, provisions a container for each database from it, and checks that a schema change is announced.
    """

    image_id: pulumi.Output[str]
    """The id of the image on the host (`sha256:…`)."""
    databases: pulumi.Output[dict[str, DatabaseOutputs]]
    """What the deploy tells about each database, by key."""
    urls: pulumi.Output[dict[str, str]]
    """The URL of each database by key (secret): by container name, for applications on the same Docker network."""

    def __init__(self, name: str, args: NotifyingPostgresArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Makes the databases.

        :param name: the instance's name, the prefix of all names it makes.
        :raises InvalidArgument: when an argument is missing or wrong, before anything is created.
        """
        super().__init__("notifying-postgres:index:NotifyingPostgres", name, None, opts)
        refuse_unknown("", args, NotifyingPostgresArgs.__annotations__)
        if not isinstance(args.get("databases"), Mapping):
            raise InvalidArgument("databases", args.get("databases"), "give the databases by key")

        databases = [read_database(key, database) for key, database in args["databases"].items()]
        refuse_shared(name, args["databases"])
        registry = args.get("registry_image") or DEFAULT_REGISTRY_IMAGE
        tag = checked(args.get("image") or DEFAULT_IMAGE, check_image_name)

        host = Host(
            name,
            url=args.get("host"),
            private_key_file=args.get("private_key_file"),
            host_key=args.get("host_key"),
            allow_unverified_host=args.get("allow_unverified_host", False),
            network=args.get("network"),
            parent=self,
        )
        image_id, build = build_image(name, host, tag, args.get("base_image") or DEFAULT_BASE_IMAGE)
        in_coolify = any(database.coolify for database in databases)
        pullable = None
        if in_coolify:
            pullable = push_to_loopback_registry(name, host, image=tag, image_id=image_id, build=build, registry_image=registry)

        generated = GeneratedPasswords(name, parent=self)
        provisioned: dict[str, Provisioned] = {}
        for database in databases:
            # Each begins when the one LANES before it is done, however parallel the deploy is.
            before = list(provisioned.values())
            after = [before[-LANES].last] if len(before) >= LANES and not host.is_local else []
            password = database.password or generated.for_database(database.key)
            if database.coolify and pullable:
                reference, pushed = pullable
                provisioned[database.key] = provision_in_coolify(
                    name,
                    database,
                    password=password,
                    host=host,
                    image_id=image_id,
                    reference=reference,
                    pushed=pushed,
                    after=after,
                    parent=self,
                )
            else:
                provisioned[database.key] = provision_container(
                    name,
                    database,
                    password=password,
                    host=host,
                    image_id=image_id,
                    build=build,
                    network=args.get("network"),
                    after=after,
                    parent=self,
                )

        self.image_id = image_id
        self.databases = _by_name({key: one.outputs for key, one in provisioned.items()})
        self.urls = pulumi.Output.secret(_by_name({key: one.url for key, one in provisioned.items()}))
        self.register_outputs({"image_id": self.image_id, "databases": self.databases, "urls": self.urls})


def _by_name(outputs: Mapping[str, pulumi.Output[Any]]) -> pulumi.Output[Any]:
    # Output.all of nothing is a list.
    return pulumi.Output.all(**outputs) if outputs else pulumi.Output.from_input({})
