"""The Coolify resources as Pulumi programs in Python see them. The work is done by the plugin, in plugin.py."""

from collections.abc import Mapping
from typing import Any, cast

import pulumi

from ..errors import camel_case, refuse_unknown
from .args import CoolifyDatabaseArgs, CoolifyPasswordArgs


class CoolifyDatabase(pulumi.CustomResource):
    """A PostgreSQL database that Coolify runs, shows in its dashboard and backs up.

    Its id is its uuid in Coolify, which is also the name of its container on the server. To adopt one that exists:
    ``pulumi import notifying-postgres:index:CoolifyDatabase NAME UUID``.
    """

    def __init__(self, name: str, args: CoolifyDatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Makes the database and waits until Coolify reports it healthy.

        :param name: the resource's name, and the database's in Coolify unless the arguments give one.
        """
        refuse_unknown("", args, [*CoolifyDatabaseArgs.__annotations__])
        outputs = (
            "status",
            "internalUrl",
            "externalUrl",
            "password",
            "volumeName",
            "serverUuid",
            "environmentUuid",
            "backupUuids",
            "starts",
        )
        properties = {**dict.fromkeys(outputs), **_properties(args, "token", "postgres_password", "environment_variables")}
        secrets = pulumi.ResourceOptions(additional_secret_outputs=["internalUrl", "externalUrl", "password"])
        super().__init__("notifying-postgres:index:CoolifyDatabase", name, properties, pulumi.ResourceOptions.merge(opts, secrets))

    @property
    def status(self) -> pulumi.Output[str]:
        """What Coolify reported last, such as `running:healthy`."""
        return cast(pulumi.Output[str], pulumi.get(self, "status"))

    @property
    def internal_url(self) -> pulumi.Output[str]:
        """Its URL by the container's name, for applications on the same network (secret)."""
        return cast(pulumi.Output[str], pulumi.get(self, "internalUrl"))

    @property
    def external_url(self) -> pulumi.Output[str | None]:
        """Its URL at the public port (secret); absent without one, or when the token lacks read:sensitive."""
        return cast(pulumi.Output[str | None], pulumi.get(self, "externalUrl"))

    @property
    def password(self) -> pulumi.Output[str]:
        """The superuser's password in Coolify's record (secret)."""
        return cast(pulumi.Output[str], pulumi.get(self, "password"))

    @property
    def starts(self) -> pulumi.Output[int]:
        """How often a deploy had Coolify start or restart it. What must be done again after a restart depends on it."""
        return cast(pulumi.Output[int], pulumi.get(self, "starts"))

    @property
    def volume_name(self) -> pulumi.Output[str]:
        """The volume on the server that holds the data."""
        return cast(pulumi.Output[str], pulumi.get(self, "volumeName"))


class CoolifyPassword(pulumi.CustomResource):
    """The password in Coolify's record of a database. Make it depend on what changes the password inside PostgreSQL."""

    def __init__(self, name: str, args: CoolifyPasswordArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Writes the password into Coolify's record.

        :param name: the resource's name.
        """
        refuse_unknown("", args, [*CoolifyPasswordArgs.__annotations__])
        super().__init__("notifying-postgres:index:CoolifyPassword", name, _properties(args, "token", "password"), opts)


def _properties(args: Mapping[str, Any], *secrets: str) -> dict[str, Any]:
    """Arguments with the names that the plugin knows, and secrets marked as such."""
    properties = {}
    for name, value in args.items():
        if value is None:
            continue
        # The names of variables among the secrets stay as they are.
        properties[camel_case(name)] = pulumi.Output.secret(value) if name in secrets else _renamed(value)
    return properties


def _renamed(value: Any) -> Any:
    """Renames the keys of nested arguments."""
    if isinstance(value, pulumi.Output):
        return value.apply(_renamed)
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if isinstance(value, Mapping):
        return {camel_case(name): _renamed(item) for name, item in value.items() if item is not None}
    return value
