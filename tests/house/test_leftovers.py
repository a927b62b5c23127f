"""What tests make on the Docker engine goes with them, however they end."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.support import REPOSITORY, postgres
from tests.support.docker import docker

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def made(name: str) -> set[str]:
    """The kinds of thing that bear a name."""
    kinds = {"container": ["--all"], "network": [], "volume": []}
    return {kind for kind, all_ in kinds.items() if docker(kind, "ls", *all_, "--quiet", "--filter", f"name={name}")}


@pytest.mark.needs("docker")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_pytest_its_containers_go(tmp_path: Path, end: signal.Signals) -> None:
    name = f"killed-{uuid.uuid4().hex[:8]}"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "NOTIFYING_POSTGRES_TESTS"))}
    command = [*PYTEST, "--basetemp", str(tmp_path / name), "tests/house/killed.py"]
    with subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.DEVNULL) as tests:
        deadline = time.monotonic() + 30
        while made(name) != {"container", "network", "volume"}:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        tests.send_signal(end)
    if end == signal.SIGKILL:
        assert made(name)
        subprocess.run([*PYTEST, "--collect-only", "tests/house"], cwd=REPOSITORY, env=env, check=True, capture_output=True)
    assert not made(name)


def test_a_folder_of_somebody_else_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"notifying-postgres-tests-{os.getuid()}"
    folder.symlink_to("theirs")
    with pytest.raises(RuntimeError, match="not a folder that only this user can write to"):
        postgres.install()
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(RuntimeError, match="not a folder that only this user can write to"):
        postgres.install()
