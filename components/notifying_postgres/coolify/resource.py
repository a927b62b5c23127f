"""The Coolify resources as Pulumi programs in Python see them. What is annotated is an output: the schema, the plugin and the
attributes here are derived from it. The work is done by the plugin, in provided.py."""

import inspect
from collections.abc import Mapping

import pulumi

from ..errors import refuse_unknown
from ..names import SECRETS, camel_case, renamed
from .args import CoolifyDatabaseArgs, CoolifyPasswordArgs


class _CoolifyResource(pulumi.CustomResource):
    def __init__(self, name: str, args: Mapping[str, object], known: type, opts: pulumi.ResourceOptions | None) -> None:
        refuse_unknown("", args, [*known.__annotations__])
        outputs = {output: camel_case(output) for output in inspect.get_annotations(type(self))}
        properties = {
            argument: pulumi.Output.secret(value) if argument in SECRETS else value
            for argument, value in renamed(args, camel_case).items()
        }
        secret = pulumi.ResourceOptions(additional_secret_outputs=sorted(SECRETS & set(outputs.values())))
        super().__init__(
            f"notifying-postgres:index:{type(self).__name__}",
            name,
            {**dict.fromkeys(outputs.values()), **properties},
            pulumi.ResourceOptions.merge(opts, secret),
        )
        for output, property_name in outputs.items():
            setattr(self, output, pulumi.get(self, property_name))


class CoolifyDatabase(_CoolifyResource):
    """A PostgreSQL database that Coolify runs, shows in its dashboard and backs up.

    Its id is its uuid in Coolify, which is also the name of its container on the server. To adopt one that exists:
    ``pulumi import notifying-postgres:index:CoolifyDatabase NAME UUID``.
    """

    status: pulumi.Output[str]
    """The status that Coolify reported last, such as `running:healthy`."""
    internal_url: pulumi.Output[str]
    """The database's URL by its name on the destination's network, which is its uuid."""
    external_url: pulumi.Output[str | None]
    """The URL at the public port, when there is one and the token may read it."""
    password: pulumi.Output[str]
    """The superuser's password in Coolify's record."""
    volume_name: pulumi.Output[str]
    """The volume that holds the data, on the server."""
    project_uuid: pulumi.Output[str]
    """The project's uuid."""
    environment_uuid: pulumi.Output[str]
    """The environment's uuid."""
    environment_id: pulumi.Output[int]
    """The environment's number, by which Coolify's records name it."""
    server_uuid: pulumi.Output[str]
    """The server's uuid."""
    destination_uuid: pulumi.Output[str]
    """The destination's uuid."""
    backup_uuids: pulumi.Output[list[str]]
    """The uuids of the scheduled backups, in the order of `backups`."""
    backup_storages: pulumi.Output[list[str]]
    """The numbers by which Coolify's records name the S3 storages of `backups`."""
    started: pulumi.Output[bool]
    """Whether it was ever started."""
    starts: pulumi.Output[int]
    """How often a deploy had Coolify start or restart it. What must be done again after a restart depends on it."""
    queued: pulumi.Output[float | None]
    """When a start was sent that no deploy has seen the end of, in seconds since 1970."""
    ready: pulumi.Output[bool]
    """Whether it runs with these arguments."""

    def __init__(self, name: str, args: CoolifyDatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Makes the database and waits until Coolify reports it healthy.

        :param name: the resource's name, and the database's in Coolify unless the arguments give one.
        """
        super().__init__(name, args, CoolifyDatabaseArgs, opts)


class CoolifyPassword(_CoolifyResource):
    """The password in Coolify's record of a database. Make it depend on what changes the password inside PostgreSQL."""

    def __init__(self, name: str, args: CoolifyPasswordArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Writes the password into Coolify's record.

        :param name: the resource's name.
        """
        super().__init__(name, args, CoolifyPasswordArgs, opts)
