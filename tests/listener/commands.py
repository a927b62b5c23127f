"""`schema-changes` run as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "schema_changes"]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def listening(
    *words: str | Path, command: Sequence[str | Path] = (*COMMAND, "listen"), stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """A `schema-changes listen` that listens."""
    process = subprocess.Popen([*command, *words], text=True, stdout=stdout, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert "Listening to" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def names(change: dict[str, Any]) -> list[str]:
    return [item["identity"] for item in change["objects"]]
