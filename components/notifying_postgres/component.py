"""NotifyingPostgres: PostgreSQL databases that announce their schema changes, on one Docker host."""

import time
from collections.abc import Mapping
from typing import Any, cast

import pulumi

from .args import BackupState, Database, DatabaseOutputs, NotifyingPostgresArgs, read_arguments
from .container import provision_container
from .coolify.provision import provision_in_coolify
from .coolify.registry import push_to_loopback_registry
from .host import Host, connect
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
    backups: pulumi.Output[dict[str, BackupState]]
    """How the backups are of each database that has `backup`, by key, as the deploy found them when it began."""

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
        self.backups = _look_at_backups(self, host, given.databases, after=self.databases)
        self.register_outputs({"image_id": self.image_id, "databases": self.databases, "urls": self.urls, "backups": self.backups})


def _by_name(outputs: Mapping[str, pulumi.Output[Any]]) -> pulumi.Output[Any]:
    # Output.all of nothing is a list.
    return pulumi.Output.all(**outputs) if outputs else pulumi.Output.from_input({})


def _look_at_backups(
    parent: pulumi.Resource, host: Host, databases: list[Database], after: pulumi.Output[Any]
) -> pulumi.Output[dict[str, BackupState]]:
    """How the backups are. What is wrong with one is a warning; that none could be restored for long fails the deploy.

    :param after: what has been done before the deploy fails: all else.
    """
    kept = [database for database in databases if database.backup]
    containers = _by_name({database.key: database.container_name for database in kept})

    def read(both: list[Any]) -> dict[str, BackupState]:
        seen, names = both
        unknown: BackupState = {"newest": None, "verified": None, "problem": None}
        states = {key: seen.backups.get(name, unknown) for key, name in names.items()}
        for key, state in states.items():
            if state["problem"]:
                pulumi.log.warn(f"The backups of the database {key} need you: {state['problem']}", parent)
        return states

    states = pulumi.Output.all(host.seen, containers).apply(read)
    if pulumi.runtime.is_dry_run():  # the deploy may be what mends it
        return states

    def judge(all: list[Any]) -> dict[str, BackupState]:
        seen, names, states, _ = all
        for key, name in names.items():
            if name in seen.unproven:
                raise pulumi.RunError(
                    f"No backup of the database {key} could be restored for three times as long as its schedule allows: "
                    f"{states[key]['problem']}. All else of this deploy is done."
                )
        return cast(dict[str, BackupState], states)

    return pulumi.Output.all(host.seen, containers, states, after).apply(judge)
