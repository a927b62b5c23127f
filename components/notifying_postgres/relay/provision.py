"""The relay's image on a host, and the container that runs it beside a database."""

from collections.abc import Sequence

import pulumi
import pulumi_docker as docker

from ..host import answer
from ..server import Instance, Server, confined
from .args import Sink, as_file

_SINKS_FILE = "/run/secrets/sinks"
_PASSWORD_FILE = "/run/secrets/postgres_password"  # noqa: S105 (a path)


def build_relay_image(instance: Instance, image: pulumi.Output[str], base_image: pulumi.Output[str]) -> pulumi.Output[str]:
    """Builds the relay's image on the host, under the name of the databases' image with `-relay` at its end.

    :returns: its id.
    """
    host = instance.host
    tag = image.apply(lambda known: "-relay:".join(known.rsplit(":", 1)))
    build = host.run(
        f"{instance.name}-relay-image",
        "relay-image.sh",
        [tag, base_image, host.stack],
        delete=("remove-image.sh", [tag, host.stack]),
    )
    return answer(build)


def provision_relay(
    server: Server,
    sinks: Sequence[Sink],
    *,
    image_id: pulumi.Output[str],
    sockets: Sequence[docker.ContainerVolumeArgs],
    network: pulumi.Input[str] | None,
    after: pulumi.Resource,
) -> pulumi.Resource:
    """A container that hands the database's changes on. It reaches the database by its socket, and the sinks by the network.

    :param sockets: the volume with the database's socket.
    :returns: the check that a change arrives at each sink.
    """
    instance, database = server.instance, server.database
    resource = f"{instance.name}-{database.key}-relay"
    container = docker.Container(
        resource,
        image=image_id,
        envs=pulumi.Output.all(database.user, database.database_name).apply(
            lambda both: [f"PGDATABASE={both[1]}", f"PGUSER={both[0]}"]
        ),
        # Nobody else is in the container, and whom it runs as is not root.
        uploads=[
            docker.ContainerUploadArgs(file=_SINKS_FILE, content=as_file(sinks), permissions="0444"),
            docker.ContainerUploadArgs(
                file=_PASSWORD_FILE, content=server.password.apply(lambda known: f"{known}\n"), permissions="0444"
            ),
        ],
        volumes=[*sockets],
        network_mode=network or "bridge",
        destroy_grace_seconds=10,  # what a sink is about to answer is waited for
        **confined(),
        **server.beside("relay", after),
    )
    return instance.host.run(f"{resource}-check", "relay-check.sh", [container.id, server.container], depends_on=[container])
