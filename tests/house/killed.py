"""Not collected: test_leftovers.py runs it, and kills it."""

import time
from pathlib import Path

import pytest

from tests.support.docker import BASE_IMAGE, docker


def test_makes_and_waits(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = request.config.getoption("--basetemp")
    assert name
    name = Path(name).name
    try:
        docker("network", "create", name)
        docker("volume", "create", name)
        docker("run", "--detach", "--name", name, "--network", name, "--volume", f"{name}:/data", BASE_IMAGE, "sleep", "600")
        time.sleep(600)
    finally:
        docker("rm", "--force", "--volumes", name)
        docker("volume", "rm", name)
        docker("network", "rm", name)
