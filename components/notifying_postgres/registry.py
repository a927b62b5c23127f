"""A registry on the host's loopback, so that Coolify, which pulls before each start, can pull what was built on the host.

It is the official `registry` image in a container that listens on 127.0.0.1 alone. An image gets there under a tag that names the
build, so that Coolify's record says which build a database runs, and an older one stays pullable until nothing uses it.
"""

import re
import shlex

import pulumi

from .coolify.rules import major_version
from .errors import InvalidArgument
from .host import Host

# With its full number, since the tag `2` moves.
DEFAULT_REGISTRY_IMAGE = "registry:2.8.3"

# Starts the registry unless it runs, pushes the image, and proves with a pull that Coolify will get it.
#
# The registry has the host's network, so that it listens on 127.0.0.1 and nowhere else: published from a bridge, other containers
# could reach it and push what they like. It is shared by all stacks that use the port, hence made only where it is not there.
_PUSH = """\
set -e
name=%(container)s image=%(image_id)s reference=%(reference)s registry=%(registry_image)s
if test "$(docker inspect --format '{{.State.Status}} {{.Config.Image}}' "$name" 2>/dev/null)" != "running $registry"; then
  docker image inspect "$registry" >/dev/null 2>&1 || docker pull "$registry" >&2
  docker rm -f "$name" >/dev/null 2>&1 || true
  docker run -d --name "$name" --restart unless-stopped --network host --label coolify.managed=false \\
    --log-opt max-size=10m --log-opt max-file=3 -e REGISTRY_HTTP_ADDR=127.0.0.1:%(port)d -v "$name:/var/lib/registry" \\
    "$registry" >/dev/null
  tries=0
  until docker logs "$name" 2>&1 | grep -q 'listening on 127[.]0[.]0[.]1:%(port)d'; do
    tries=$((tries + 1))
    if test $tries -ge 25; then
      { echo "The registry $name does not start. The last lines of its log:"; docker logs --tail 3 "$name"; } >&2
      exit 1
    fi
    sleep 0.2
  done
fi

docker tag "$image" "$reference"
docker push -q "$reference" >/dev/null
docker pull -q "$reference" >/dev/null

# Builds that no container uses any more; the engine refuses to remove the others.
docker images --format '{{.Repository}}:{{.Tag}}' %(repository)s | grep -vxF "$reference" | while read -r old; do
  docker image rm "$old" >/dev/null 2>&1 || true
done
echo "$reference"
"""

# Databases that are kept, and those of other stacks, must be able to restart.
_REMOVE = """\
name=%(container)s
if docker ps -a --format '{{.Image}}' | grep -q %(prefix)s; then
  echo "The registry $name stays: containers on this host use its images." >&2
  exit 0
fi
docker image rm %(reference)s >/dev/null 2>&1 || true
# Coolify removes the container of a database that it stops: the image is all that tells of it.
if docker images --format '{{.Repository}}' | grep -q %(prefix)s; then
  echo "The registry $name stays: stopped databases may need what 'docker images' lists as 127.0.0.1:%(port)d/…" >&2
  echo "Where none does: docker rm -f $name && docker volume rm $name" >&2
  exit 0
fi
docker rm -f "$name" >/dev/null 2>&1 || true
docker volume rm "$name" >/dev/null 2>&1 || true
"""


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


def registry_scripts(image: str, image_id: str, port: int | None, registry_image: str) -> tuple[str, str]:
    """The shell scripts for the host: one that pushes and prints the name to pull, one that removes the registry again."""
    number = port or registry_port(image)
    reference = pullable_name(image, image_id, number)
    words: dict[str, object] = {
        "container": f"notifying-postgres-registry-{number}",
        "port": number,
        "image_id": shlex.quote(image_id),
        "reference": shlex.quote(reference),
        "repository": shlex.quote(reference.rpartition(":")[0]),
        "prefix": shlex.quote(f"^127[.]0[.]0[.]1:{number}/"),
        "registry_image": shlex.quote(registry_image),
    }
    return _PUSH % words, _REMOVE % words


def push_to_loopback_registry(
    name: str,
    host: Host,
    *,
    image: pulumi.Input[str],
    image_id: pulumi.Input[str],
    build: pulumi.Resource,
    port: int | None = None,
    registry_image: str = DEFAULT_REGISTRY_IMAGE,
) -> tuple[pulumi.Output[str], pulumi.Resource]:
    """Makes a built image pullable on its host.

    :param name: the component's name, the prefix of the resource's.
    :param image: the name and tag of the build.
    :param image_id: the build's id.
    :param build: what built it.
    :param port: the registry's port on 127.0.0.1. Default: PostgreSQL's major version, see `registry_port`.
    :param registry_image: the image of the registry; it is pulled where the host has not got it.
    :returns: the name to give to Coolify, proven by a pull; and what to depend on.
    :raises InvalidArgument: when the port is none.
    """
    if port is not None and not 1 <= port <= 65535:
        raise InvalidArgument("registryPort", port, "give a port from 1 to 65535")

    scripts = pulumi.Output.all(image, image_id).apply(lambda both: registry_scripts(both[0], both[1], port, registry_image))
    push = host.command(
        f"{name}-registry",
        create=scripts.apply(lambda both: both[0]),
        delete=scripts.apply(lambda both: both[1]),
        depends_on=[build],
    )
    return pulumi.Output.unsecret(push.stdout).apply(str.strip), push
