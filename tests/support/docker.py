"""The real Docker engine of this machine."""

import os
import subprocess

BASE_IMAGE = os.environ.get("NOTIFYING_POSTGRES_BASE_IMAGE", "postgres:16-alpine")


def docker(*words: str, stdin: str = "", check: bool = True, errors: bool = False) -> str:
    """What `docker` prints, without the last line's end; of `docker logs`, and with `errors`, its standard error too.

    With `check`, a command that fails fails the test that asks, with what it said.
    """
    stderr = subprocess.STDOUT if errors or words[0] == "logs" else subprocess.PIPE  # a container's own is part of its log
    done = subprocess.run(
        ["docker", *words], input=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=300, check=False
    )
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stdout}{done.stderr or ''}"
    return done.stdout.strip()
