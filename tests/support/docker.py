"""The real Docker engine of this machine."""

import contextlib
import os
import re
import shutil
import subprocess

BASE_IMAGE = os.environ.get("NOTIFYING_POSTGRES_BASE_IMAGE", "postgres:16-alpine")
# Whose it is: the process id of pytest (that of the first, which starts the workers), as a label or within the name.
LABEL = "notifying-postgres.tests"
OWNER = os.environ.setdefault("NOTIFYING_POSTGRES_TESTS", str(os.getpid()))
REMOVE = {"container": ("rm", "-fv"), "network": ("rm",), "volume": ("rm", "-f")}
STACK = re.compile(r"e2e-(\d+)-[0-9a-f]{8}")


def docker(*words: str, stdin: str = "", check: bool = True, errors: bool = False) -> str:
    """What `docker` prints, without the last line's end; of `docker logs`, and with `errors`, its standard error too.

    With `check`, a command that fails fails the test that asks, with what it said. What it makes bears LABEL. Where there is no
    `docker`, the test that asks is skipped.
    """
    if shutil.which("docker") is None:
        from tests.support.needs import need  # which asks this module for the image

        need("docker")
    verb = 2 if words[0] in ("container", "network", "volume") else 1
    if words[verb - 1] in ("create", "run"):
        words = (*words[:verb], "--label", f"{LABEL}={OWNER}", *words[verb:])
    stderr = subprocess.STDOUT if errors or words[0] == "logs" else subprocess.PIPE  # a container's own is part of its log
    done = subprocess.run(
        ["docker", *words], input=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=300, check=False
    )
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stdout}{done.stderr or ''}"
    return done.stdout.strip()


def remove_named(prefix: str) -> None:
    """Removes the containers, volumes and images whose names begin so."""
    for kind in ("container", "volume"):
        for name, _ in _things(kind):
            if name.startswith(prefix):
                docker(kind, *REMOVE[kind], name)
    # Also by the name under which Coolify pulls it, or it would keep the registry of later stacks.
    for image in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split():
        if image.rpartition("/")[2].startswith(prefix):
            docker("image", "rm", image, check=False)


def remove_leftovers() -> None:
    """Removes what test runs made that ended without cleaning up: killed, or with the machine."""
    if shutil.which("docker") is None or not docker("version", "--format", "{{.Server.Version}}", check=False):
        return
    for kind, remove in REMOVE.items():
        for name, owner in _things(kind):
            if owner and not _lives(owner):
                docker(kind, *remove, name, check=False)
            elif (stack := STACK.match(name)) and not _lives(stack[1]):
                remove_named(stack[0])


def _things(kind: str) -> list[tuple[str, str]]:
    """All containers, networks or volumes: their names, and whose they are."""
    words, name = (["--all"], "Names") if kind == "container" else ([], "Name")
    lines = docker(kind, "ls", *words, "--format", f'{{{{.{name}}}}}\t{{{{.Label "{LABEL}"}}}}').splitlines()
    return [(name, owner) for name, _, owner in (line.partition("\t") for line in lines)]


def _lives(pid: str) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
    return True
