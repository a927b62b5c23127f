"""One database on a host, in a container of its own: the volume that keeps its data, and the container."""

from dataclasses import replace

import pulumi
import pulumi_docker as docker

from .args import Backup, Database
from .errors import InvalidArgument
from .host import answer
from .relay.provision import provision_relay
from .server import LOG_OPTS, Instance, Provisioned, Server, confined

DATA_DIRECTORY = "/var/lib/postgresql/data"
SOCKET_DIRECTORY = "/var/run/postgresql"
PASSWORD_FILE = "/run/secrets/postgres_password"  # noqa: S105 (a path)
# What root in the container may: what docker-entrypoint.sh needs to hand the data to the user postgres and to become it, and
# schema-notifications-converge to have the server read its files again.
CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]
CONFINED = confined(*CAPABILITIES)


def provision_container(
    instance: Instance,
    database: Database,
    *,
    password: pulumi.Output[str],
    network: pulumi.Input[str] | None,
    relay_image: pulumi.Output[str] | None,
    after: list[pulumi.Resource],
) -> Provisioned:
    """Makes one database on the host.

    :param password: the superuser's.
    :param relay_image: the id of the image of its relay, if it has one.
    :param after: what has to be done before.
    """
    host, parent = instance.host, instance.parent
    resource = f"{instance.name}-{database.key}"
    port = database.port

    volume = docker.Volume(
        f"{resource}-data",
        name=database.volume_name,
        opts=pulumi.ResourceOptions(
            parent=parent,
            provider=host.provider,
            depends_on=[*host.ready, *after],
            retain_on_delete=database.retain_data,
            # A volume that exists is used as it is: any difference would replace it, with its data.
            ignore_changes=["driver", "driverOpts", "labels", "name"],
        ),
    )
    volume_name = volume.name
    if "volume_name" in database.named:
        volume_name = pulumi.Output.all(database.key, volume.name, database.volume_name).apply(_same_volume)

    # Where both names are derived, they stay what they were together: when the instance is renamed, the container is the old one.
    there = volume_name.apply(lambda name: name.removesuffix("-data")) if not database.named else database.container_name
    # Of which version are the data? Asked, and where the database says so mended, while the old container is still there.
    fitting = host.run(
        f"{resource}-volume",
        "volume.sh",
        [
            there,
            volume_name,
            instance.image_id,
            "upgrade" if database.upgrade else "keep",
            database.restore_from or "-",
        ],
        delete=None if database.retain_data else ("remove-copies.sh", [volume_name]),
        depends_on=[*after, volume],
    )
    data = answer(fitting)

    # Another number makes the container anew, where an earlier deploy was cut off while it made it.
    attempt = pulumi.Output.all(host.seen, database.container_name).apply(lambda both: both[0].attempts.get(both[1], "0"))

    # Backups and relays go over the server's own socket, so they need neither network nor a password that is anywhere to be seen.
    socket = bool(database.backup or database.relay) and docker.Volume(
        f"{resource}-socket",
        name=database.container_name.apply(lambda container: f"{container}-socket"),
        opts=pulumi.ResourceOptions(
            parent=parent,
            provider=host.provider,
            depends_on=[*host.ready, *after],
            ignore_changes=["driver", "driverOpts", "labels"],
        ),
    )
    sockets = [docker.ContainerVolumeArgs(volume_name=socket.name, container_path=SOCKET_DIRECTORY)] if socket else []

    container = docker.Container(
        resource,
        name=database.container_name,
        image=instance.image_id,
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
        volumes=[docker.ContainerVolumeArgs(volume_name=data, container_path=DATA_DIRECTORY), *sockets],
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
        **CONFINED,
        # PostgreSQL ends its sessions and writes a checkpoint; the default of the provider is to kill it.
        destroy_grace_seconds=60,
        log_opts=LOG_OPTS,
        # Containers inherit the image's label, which would let Coolify's cleanup take a stopped one for its own.
        labels=[
            docker.ContainerLabelArgs(label="coolify.managed", value="false"),
            docker.ContainerLabelArgs(label="notifying-postgres.attempt", value=attempt),
            docker.ContainerLabelArgs(label="notifying-postgres.stack", value=host.stack),
        ],
        opts=pulumi.ResourceOptions(
            parent=parent,
            provider=host.provider,
            depends_on=[*host.ready, fitting],
            delete_before_replace=True,  # two containers cannot have the name, nor two servers the data
            # The file is read at the first start only. Later `converge` sets the password, without a restart.
            ignore_changes=["uploads", *([] if "container_name" in database.named else ["name"])],
        ),
    )

    server = Server(instance, database, password, container=container.id, container_name=container.name)
    converged = server.converge(after=container, note=[data, attempt])
    made = _provision_backups(server, database.backup, sockets, after=converged) if database.backup else converged
    provisioned = server.provisioned(data, server.check(after=made))
    if database.relay and relay_image:
        relayed = provision_relay(
            server, database.relay, image_id=relay_image, sockets=sockets, network=network, after=provisioned.last
        )
        provisioned = replace(provisioned, last=relayed)
    return provisioned


def _same_volume(values: list[str]) -> str:
    """The volume's name, unless another is given than the one that has the data.

    :raises InvalidArgument: for another one.
    """
    key, has, given = values
    if given != has:
        raise InvalidArgument(
            f"databases.{key}.volumeName",
            given,
            f"the data are on the volume {has}, which is never replaced. Give that name, or none. To go on with another volume, "
            "set retainData to true and deploy; take the database out of the stack and deploy; put it back with the other name",
        )
    return has


def _provision_backups(
    server: Server, backup: Backup, sockets: list[docker.ContainerVolumeArgs], *, after: pulumi.Resource
) -> pulumi.Resource:
    """A container from the same image that makes the backups, restores them on trial, and removes the old ones."""
    instance, database = server.instance, server.database
    folder = pulumi.Output.all(backup.folder, database.container_name).apply("/".join)
    return docker.Container(
        f"{instance.name}-{database.key}-backup",
        image=instance.image_id,
        command=["schema-notifications-backup", "schedule"],
        envs=pulumi.Output.all(database.user, backup.schedule, backup.verify, backup.keep, backup.keep_days or "0").apply(
            lambda all: [
                "BACKUP_FOLDER=/backups",
                f"BACKUP_KEEP={all[3]}",
                f"BACKUP_KEEP_DAYS={all[4]}",
                f"BACKUP_PAUSE={all[1].longest_pause}",
                f"BACKUP_SCHEDULE={all[1].expression}",
                f"BACKUP_VERIFY={all[2].expression}",
                f"BACKUP_VERIFY_PAUSE={all[2].longest_pause}",
                f"PGHOST={SOCKET_DIRECTORY}",
                f"PGPASSFILE={PASSWORD_FILE}",
                f"PGUSER={all[0]}",
            ]
        ),
        # A cluster may ask for a password on its socket too. In this file : and \\ are escaped.
        uploads=[
            docker.ContainerUploadArgs(
                file=PASSWORD_FILE,
                content=server.password.apply(lambda known: "*:*:*:*:" + known.replace("\\", "\\\\").replace(":", "\\:") + "\n"),
                permissions="0400",
            )
        ],
        volumes=[*sockets, docker.ContainerVolumeArgs(host_path=folder, container_path="/backups")],
        network_mode="none",
        init=True,  # or the schedule would not end when it is told to
        **CONFINED,
        **server.beside("backup", after),
    )
