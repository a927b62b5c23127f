"""A database's container, as it is now. Coolify's record tells of it with a delay of up to a minute, and says `running:healthy` of
one that is gone; so whoever has to know asks for the container itself: the Docker engine where there is a way to it, else through
Coolify, which fetches a log from the server when it is asked, and has none of a container that does not run."""

import json
import re
import shlex
import socket
import struct
import subprocess
from dataclasses import dataclass, field

from .client import Coolify, CoolifyError

LOG_LINES = 10000  # as many as Coolify gives
_DEFAULT_REGISTRY = re.compile(r"^(?:index\.)?docker\.io/(?:library/)?")


@dataclass(frozen=True)
class Container:
    """A container that runs.

    :ivar id: the engine's id, or None when only its log is known.
    :ivar image: the name of the image that it was made from, when the engine was asked.
    :ivar health: `healthy`, `starting`, `unhealthy`, or `unknown` without a health check; None when only its log is known.
    :ivar log: its log so far, when Coolify was asked.
    """

    id: str | None = None
    image: str | None = None
    health: str | None = None
    log: list[str] = field(default_factory=list)

    def has_replaced(self, other: "Container") -> bool:
        """Whether it is surely another one than that which ran before."""
        if self.id and other.id:
            return self.id != other.id
        # A container's log only grows, and its lines have the time in them. Beyond what Coolify gives nothing can be told.
        return len(self.log) < LOG_LINES and self.log[: len(other.log)] != other.log

    def runs(self, image: str) -> bool:
        """Whether it was made from an image of that name, as far as that is known."""
        return self.image is None or _DEFAULT_REGISTRY.sub("", self.image) == _DEFAULT_REGISTRY.sub("", image)


def running_container(uuid: str, coolify: Coolify, docker: str | None) -> Container | None:
    """The container of a database, or None when it does not run.

    :param docker: the command line that reaches the server's Docker engine. Where it does not, Coolify is asked.
    :raises CoolifyError: when Coolify cannot be asked.
    """
    done = _inspect(uuid, docker) if docker else None
    if done and done.returncode == 0:
        # A login shell of the server's may have printed something first.
        [seen] = json.loads(re.sub(r'^.*?(?=\[\s*\{\s*"Id":)', "", done.stdout, count=1, flags=re.DOTALL))
        state = seen["State"]
        if not state["Running"] or state.get("Restarting"):
            return None
        return Container(seen["Id"], seen["Config"]["Image"], (state.get("Health") or {}).get("Status", "unknown"))
    if done and "no such container" in done.stderr.lower():
        return None
    try:
        text = coolify.get(f"/databases/{uuid}/logs", lines=LOG_LINES, show_timestamps="true")["logs"]
    except CoolifyError as error:
        if error.status != 400:
            raise
        return None  # "Database is not running."
    return Container(log=str(text).splitlines())


def _inspect(uuid: str, docker: str) -> subprocess.CompletedProcess[str] | None:
    # No format: a login shell of the server's would have to read it.
    words = [*shlex.split(docker), "inspect", "--type", "container", uuid]
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def who_answers(host: str, port: int) -> str:
    """Who is at a port: `postgres`, `other`, `nobody` when the connection is refused, `unknown` when there is no way there."""
    try:
        connection = socket.create_connection((host, port), timeout=5)
    except ConnectionRefusedError:
        return "nobody"
    except OSError:
        return "unknown"
    with connection:
        try:
            connection.sendall(struct.pack("!ii", 8, 80877103))  # SSLRequest, which is answered before anybody logs in
            return "postgres" if connection.recv(1) in (b"S", b"N") else "other"
        except OSError:
            return "other"
