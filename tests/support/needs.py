"""What some tests need and Python packages do not bring: programs, and a Docker engine with an image to build on.

A fixture or a test that needs one asks for it, `need("docker")` or `program("pgbouncer")`; a module says what all its tests need:

    pytestmark = pytest.mark.needs("docker", "pulumi")

What is lacking skips the test, one line of pytest's summary for each reason; under `make test` it is an error.

    OFFICIAL_PLUGINS=FOLDER pytest tests/e2e tests/consumers

has the plugins of that folder in place of what PATH has.
"""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.docker import BASE_IMAGE


def _path(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin")


@functools.cache
def missing(program: str) -> str | None:
    """What a test lacks that needs a program, in words; for docker, an engine that has the base image."""
    path = _path(program)
    if path is None:
        return program
    if program == "docker" and subprocess.run([path, "image", "inspect", BASE_IMAGE], capture_output=True, check=False).returncode:
        return f"a Docker engine with {BASE_IMAGE} (docker pull {BASE_IMAGE})"
    return None


def need(*programs: str) -> None:
    """Skips the test that asks unless all is there.  Under `make test` what is missing is an error: `pytest.UsageError`."""
    lacking = [words for program in programs if (words := missing(program))]
    if lacking and os.environ.get("NOTHING_SKIPPED"):
        raise pytest.UsageError(f"the tests need {' and '.join(lacking)}: `make test` sets up all that they need")
    if lacking:
        pytest.skip(f"needs {' and '.join(lacking)}")


def program(name: str) -> str:
    """The path of a program; without it the test that asks is skipped."""
    need(name)
    return _path(name) or name


def use_official_plugins() -> None:
    """Has Pulumi find the plugins of the folder that OFFICIAL_PLUGINS names, if it does, before all others.

    :raises pytest.UsageError: when one is not there.
    """
    if not os.environ.get("OFFICIAL_PLUGINS"):
        return
    folder = Path(os.environ["OFFICIAL_PLUGINS"]).resolve()
    for name in ("pulumi-resource-command", "pulumi-resource-docker"):
        if not os.access(folder / name, os.X_OK):
            raise pytest.UsageError(f"OFFICIAL_PLUGINS: there is no program {name} in {folder}")
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
