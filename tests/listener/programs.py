"""Programs that some tests need and Python packages do not bring."""

import os
import shutil

import pytest


def program(name: str) -> str:
    """Its path; without it the test is skipped, and under `make test` that is an error."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None and os.environ.get("NOTHING_SKIPPED"):
        raise pytest.UsageError(f"{name} is missing: `make test` sets up all that the tests need")
    if path is None:
        pytest.skip(f"needs {name}")
    return path
