"""Tests that need more than Python packages say what they lack, and are skipped; under `make test` what is lacking is an error."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

NEEDS = {
    "consumers": ("docker", "pulumi", "pulumi-language-yaml"),
    "coolify": ("docker", "pulumi"),
    "e2e": ("docker", "pulumi", "sshd"),
    "image": ("docker",),
    "toolchain": ("docker", "pulumi", "sshd"),
}


@functools.cache
def is_here(program: str) -> bool:
    """Whether a program can be run; for docker, whether its engine answers."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path and program == "docker":
        return subprocess.run([path, "info"], capture_output=True, check=False).returncode == 0
    return path is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        folder = Path(item.path).relative_to(Path(__file__).parent).parts[0]
        missing = [program for program in NEEDS.get(folder, ()) if not is_here(program)]
        if missing and os.environ.get("NOTHING_SKIPPED"):
            raise pytest.UsageError(f"tests/{folder} needs {' and '.join(missing)}: `make test` sets up all that the tests need")
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"needs {' and '.join(missing)}"))
