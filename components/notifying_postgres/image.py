"""The image on a host: built and verified there, by the script that builds it by hand."""

import pulumi

from .host import Host, answer


def build_image(
    name: str, host: Host, tag: pulumi.Output[str], base_image: pulumi.Output[str]
) -> tuple[pulumi.Output[str], pulumi.Resource]:
    """Builds and verifies the image on the host, and again when it was lost there.

    :returns: the image's id (``sha256:…``), by which containers name it, so that a rebuilt image reaches them; and the build.
    """
    lost = host.seen.apply(lambda seen: seen.image)
    build = host.run(
        f"{name}-image", "build-image.sh", [tag, base_image, host.stack, lost], delete=("remove-image.sh", [tag, host.stack])
    )
    return answer(build), build
