"""What the tests of the image call: the build script, a container."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support import REPOSITORY
from tests.support.docker import BASE_IMAGE, docker

CONTEXT = REPOSITORY / "image"
VERSION = re.search(r"default_version = '(.+)'", (CONTEXT / "schema_notifications.control").read_text())[1]  # type: ignore[index]
BASE_IMAGE_18 = BASE_IMAGE.replace("16", "18")


def build(*options: str, context: Path = CONTEXT) -> subprocess.CompletedProcess[str]:
    """Runs the build script as a program would: no terminal. However it ends, it must leave no container."""
    command = ["bash", str(context / "build-postgres-image.sh"), *options]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as script:
        stdout, stderr = script.communicate()
    assert docker("ps", "--all", "--quiet", "--filter", f"name=schema-notifications-verify-{script.pid}-") == ""
    return subprocess.CompletedProcess(command, script.returncode, stdout, stderr)


class Server:
    """A container of the image."""

    def __init__(self, name: str) -> None:
        self.name = name

    def psql(self, *statements: str, database: str = "postgres", user: str = "postgres") -> str:
        commands = [word for statement in statements for word in ("-c", statement)]
        return docker("exec", self.name, "psql", "-XqAt", "-U", user, "-d", database, *commands)

    def converge(self, password: str = "", check: bool = True) -> str:
        """Its lines, each with its end; what it says of a failure too unless it must succeed."""
        command = ("exec", "-i", self.name, "schema-notifications-converge")
        return docker(*command, stdin=f"{password}\n", check=check, errors=not check) + "\n"

    def logs(self) -> str:
        return docker("logs", self.name, check=False)
