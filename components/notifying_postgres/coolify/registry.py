"""A registry on the host's loopback, so that Coolify, which pulls before each start, can pull what was built on the host.

It is the official `registry` image in a container that listens on 127.0.0.1 alone. An image gets there under a tag that names the
build, so that Coolify's record says which build a database runs, and an older one stays pullable until nothing uses it. Coolify
gets it with its digest: whatever another user of the host pushes under that tag, it is not what Coolify pulls.
"""

import hashlib
import re

import pulumi

from ..errors import InvalidArgument
from ..host import answer
from ..server import Instance
from .rules import major_version


def registry_port(image: str) -> int:
    """The port for an image's registry: PostgreSQL's major version.

    Coolify mounts a new database's volume by the first number after a colon in the image's name, which is the registry's port. As
    the major version it leads to the right mount, also for those who make databases with their own calls of Coolify's API.
    """
    return major_version(image) or 16


def pullable_name(image: str, image_id: str, port: int) -> str:
    """The name by which the host can pull an image.

    :param image: the name and tag of the build, such as ``xooo-postgres-notifications:16``.
    :param image_id: the build's id, ``sha256:…``.
    :returns: such as ``127.0.0.1:16/xooo-postgres-notifications:16-0123456789ab``.
    """
    repository, _, tag = image.rpartition(":")
    first, slash, rest = repository.partition("/")
    if slash and re.search(r"[.:]|^localhost$", first):
        repository = rest  # the name of another registry
    return f"127.0.0.1:{port}/{repository}:{tag}-{image_id.removeprefix('sha256:')[:12]}"


def registry_calls(
    image: str, image_id: str, port: int | None, registry_image: str, *, keeper: str, base_image: str
) -> dict[str, list[str]]:
    """The scripts of on_host/, each with its words: one that pushes and prints the name to pull, one that removes the registry.

    :param keeper: the container that says which images are this stack's, and keeps the base image.
    """
    number = port or registry_port(image)
    reference = pullable_name(image, image_id, number)
    container = f"notifying-postgres-registry-{number}"
    return {
        "registry-push.sh": [container, str(number), registry_image, image_id, reference, keeper, base_image],
        "registry-remove.sh": [container, str(number), keeper],
    }


def push_to_loopback_registry(
    instance: Instance,
    image: pulumi.Output[str],
    base_image: pulumi.Output[str],
    build: pulumi.Resource,
    *,
    port: int | None = None,
    registry_image: str,
) -> tuple[pulumi.Output[str], pulumi.Resource]:
    """Makes a built image pullable on its host.

    :param image: the name and tag of the build.
    :param base_image: what it is built on.
    :param build: what built it.
    :param port: the registry's port on 127.0.0.1. Default: PostgreSQL's major version, see `registry_port`.
    :param registry_image: the image of the registry; it is pulled where the host has not got it.
    :returns: the name and digest to give to Coolify, proven by a pull; and what to depend on.
    :raises InvalidArgument: when the port is none.
    """
    if port is not None and not 1 <= port <= 65535:
        raise InvalidArgument("registryPort", port, "give a port from 1 to 65535")

    stack = hashlib.sha256(f"{pulumi.get_project()}/{pulumi.get_stack()}".encode()).hexdigest()[:8]
    keeper = f"{instance.name}-images-{stack}"
    calls = pulumi.Output.all(image, instance.image_id, base_image).apply(
        lambda all: registry_calls(all[0], all[1], port, registry_image, keeper=keeper, base_image=all[2])
    )
    push = instance.host.run(
        f"{instance.name}-registry",
        "registry-push.sh",
        calls.apply(lambda known: known["registry-push.sh"]),
        delete=("registry-remove.sh", calls.apply(lambda known: known["registry-remove.sh"])),
        depends_on=[build],
    )
    return answer(push), push
