"""What some tests need and Python packages do not bring: programs, and a Docker engine with an image to build on."""

import functools
import os
import shutil
import subprocess

import pytest

BASE_IMAGE = os.environ.get("NOTIFYING_POSTGRES_BASE_IMAGE", "postgres:16-alpine")


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


def lack(*programs: str) -> str | None:
    """Why a test cannot run, or None.  Under `make test` what is missing is an error: `pytest.UsageError`."""
    lacking = [words for program in programs if (words := missing(program))]
    if lacking and os.environ.get("NOTHING_SKIPPED"):
        raise pytest.UsageError(f"the tests need {' and '.join(lacking)}: `make test` sets up all that they need")
    return f"needs {' and '.join(lacking)}" if lacking else None


def program(name: str) -> str:
    """The path of a program; without it the test that asks is skipped."""
    if reason := lack(name):
        pytest.skip(reason)
    return _path(name) or name
