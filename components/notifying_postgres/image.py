"""The image on a host: the digest of the build context, a copy of it there, the build, the image's id."""

import re
import shlex

import pulumi

from . import workstation
from .errors import InvalidArgument
from .host import Host

DEFAULT_IMAGE = "xooo-postgres-notifications:16"
DEFAULT_BASE_IMAGE = "postgres:16-alpine"

# docker/distribution's reference grammar, with the tag required: one name, one tag, is what Coolify's cleanup leaves alone.
_REFERENCE = re.compile(r"(?:[a-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def check_image_name(name: str) -> str:
    """Returns an image's name as it is.

    :raises InvalidArgument: when it is not ``name:tag``.
    """
    if not _REFERENCE.fullmatch(name):
        raise InvalidArgument("image", name, f"give a name and a tag in lower case, such as {DEFAULT_IMAGE}")
    return name


def build_image(
    name: str, host: Host, tag: pulumi.Output[str], base_image: pulumi.Input[str]
) -> tuple[pulumi.Output[str], pulumi.Resource]:
    """Builds and verifies the image on the host, with the same script that builds it by hand.

    :returns: the image's id (``sha256:…``), by which containers name it, so that a rebuilt image reaches them; and the build.
    """
    context = workstation.build_context()
    if host.is_local:
        folder, copied = context.shell_path, list[pulumi.Resource]()
    else:
        folder, copied = host.send(f"{name}-context", context.path, context.digest)

    def build_script(values: list[str]) -> str:
        image, base = map(shlex.quote, values)
        # Half an hour is for pulling the base image over a slow line; without a limit a hung build would hang the deploy.
        limit = "" if host.is_local else "timeout 1800 "
        return f"{limit}bash {folder}/build-postgres-image.sh --yes --image {image} --base-image {base}"

    def delete_script(image: str) -> str:
        image = shlex.quote(image)
        return (
            f"docker image inspect {image} >/dev/null 2>&1 || exit 0\n"
            f"docker image rm {image} >&2 || echo 'It stays for the containers that still use it.' >&2"
        )

    build = host.command(
        f"{name}-image",
        create=pulumi.Output.all(tag, base_image).apply(build_script),
        delete=tag.apply(delete_script),
        depends_on=copied,
    )
    # A remote command's outputs are secret because its connection is; an image's id is not.
    return pulumi.Output.unsecret(build.stdout).apply(str.strip), build
