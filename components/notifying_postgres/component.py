"""NotifyingPostgres: PostgreSQL databases that announce their schema changes, on one Docker host."""

import time
from collections.abc import Mapping
from typing import Any

import pulumi

from .args import DatabaseOutputs, NotifyingPostgresArgs, read_arguments
from .container import provision_container
from .coolify.provision import provision_in_coolify
from .coolify.registry import push_to_loopback_registry
from .host import connect
from .image import build_image
from .relay.provision import build_relay_image
from .server import GeneratedPasswords, Instance, Provisioned

# How many databases are provisioned at once over SSH: sshd drops connections when 10 are logging in (MaxStartups, by default).
LANES = 8


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
        given = read_arguments(name, args)

        host = connect(name, given, parent=self)
        image_id, build = build_image(name, host, given.image, given.base_image)
        instance = Instance(name, host, image_id, parent=self, moment=str(time.time_ns()) if given.verify_each_up else "")
        pullable = None
        if any(database.coolify for database in given.databases):
            pullable = push_to_loopback_registry(
                instance, given.image, given.base_image, build, registry_image=given.registry_image
            )

        relay_image = None
        if any(database.relay for database in given.databases):
            relay_image = build_relay_image(instance, given.image, given.relay_base_image)

        generated = GeneratedPasswords(name, parent=self)
        provisioned: dict[str, Provisioned] = {}
        for database in given.databases:
            # Each begins when the one LANES before it is done, however parallel the deploy is.
            before = list(provisioned.values())
            after = [before[-LANES].last] if len(before) >= LANES and host.url is not None else []
            password = database.password or generated.for_database(database.key)
            if database.coolify and pullable:
                reference, pushed = pullable
                provisioned[database.key] = provision_in_coolify(
                    instance,
                    database,
                    password=password,
                    reference=reference,
                    base_image=given.base_image,
                    pushed=pushed,
                    after=after,
                )
            else:
                provisioned[database.key] = provision_container(
                    instance, database, password=password, network=given.network, relay_image=relay_image, after=[build, *after]
                )

        self.image_id = image_id
        self.databases = _by_name({key: one.outputs for key, one in provisioned.items()})
        self.urls = pulumi.Output.secret(_by_name({key: one.url for key, one in provisioned.items()}))
        self.register_outputs({"image_id": self.image_id, "databases": self.databases, "urls": self.urls})


def _by_name(outputs: Mapping[str, pulumi.Output[Any]]) -> pulumi.Output[Any]:
    # Output.all of nothing is a list.
    return pulumi.Output.all(**outputs) if outputs else pulumi.Output.from_input({})
