"""One database of the component that Coolify makes and runs, on the same host."""

from typing import Any, cast

import pulumi

from ..args import Database
from ..server import Instance, Provisioned, Server
from .args import CoolifyDatabaseArgs
from .resource import CoolifyDatabase, CoolifyPassword


def provision_in_coolify(
    instance: Instance,
    database: Database,
    *,
    password: pulumi.Output[str],
    reference: pulumi.Output[str],
    base_image: pulumi.Output[str],
    pushed: pulumi.Resource,
    after: list[pulumi.Resource],
) -> Provisioned:
    """Makes one database in Coolify.

    :param password: the superuser's.
    :param reference: the name by which Coolify pulls the image.
    :param base_image: what it is built on.
    :param pushed: what made that possible.
    :param after: what has to be done before.
    """
    resource = f"{instance.name}-{database.key}"
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
                "docker": instance.host.docker,
            },
        ),
        # Coolify's record of the password follows when PostgreSQL has the new one.
        pulumi.ResourceOptions(parent=instance.parent, depends_on=[pushed, *after], ignore_changes=["postgresPassword"]),
    )

    instance.host.run(
        f"{resource}-volume-kept",
        "volume-keep.sh",
        [made.volume_name, base_image],
        delete=None if database.retain_data else ("volume-release.sh", [made.volume_name]),
        depends_on=[made],
    )

    # The container keeps its name, which is the database's uuid; a new image or a restart makes all this run again.
    container = pulumi.Output.all(made.id, reference).apply(lambda both: both[0])
    why = pulumi.Output.all(reference, made.starts).apply(lambda both: f"{both[0]}, start {both[1]}")
    server = Server(instance, database, password, container=container, container_name=made.id, why=why)
    converge = server.converge(after=made)
    access: dict[str, Any] = {key: value for key, value in settings.items() if key in ("url", "token")}
    recorded = CoolifyPassword(
        f"{resource}-recorded-password",
        {"database": made.id, "password": password, **access},  # type: ignore[typeddict-item]
        pulumi.ResourceOptions(parent=instance.parent, depends_on=[converge]),
    )
    return server.provisioned(made.volume_name, server.check(after=recorded))
