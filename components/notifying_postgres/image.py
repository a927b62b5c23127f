"""The image on a host: built and verified there, by the script that builds it by hand."""

import pulumi

from .host import Host


def build_image(
    name: str, host: Host, tag: pulumi.Output[str], base_image: pulumi.Output[str]
) -> tuple[pulumi.Output[str], pulumi.Resource]:
    """Builds and verifies the image on the host.

    :returns: the image's id (``sha256:…``), by which containers name it, so that a rebuilt image reaches them; and the build.
    """
    build = host.run(f"{name}-image", "build-image.sh", [tag, base_image], delete=("remove-image.sh", [tag]))
    return build.stdout.apply(str.strip), build
