"""What the tests of the image call: docker, the build script, a container."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CONTEXT = Path(__file__).parents[2] / "image"
BASE_IMAGE = os.environ.get("NOTIFYING_POSTGRES_BASE_IMAGE", "postgres:16-alpine")
BASE_IMAGE_18 = BASE_IMAGE.replace("16", "18")


def docker(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """What a docker command prints; its errors too unless it must succeed."""
    result = subprocess.run(["docker", *arguments], check=False, input=stdin or "", text=True, capture_output=True)
    if check:
        assert result.returncode == 0, f"docker {' '.join(arguments)}: {result.stdout}{result.stderr}"
        return result.stdout
    return result.stdout + result.stderr


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
        return docker("exec", self.name, "psql", "-XqAt", "-U", user, "-d", database, *commands).strip()

    def converge(self, password: str = "", check: bool = True) -> str:
        return docker("exec", "-i", self.name, "schema-notifications-converge", stdin=f"{password}\n", check=check)

    def logs(self) -> str:
        return docker("logs", self.name, check=False)
