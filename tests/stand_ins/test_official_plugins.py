"""The tests with the official plugins, where a folder has them: OFFICIAL_PLUGINS=FOLDER pytest tests/e2e tests/consumers"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from notifying_postgres.names import snake_case

from tests.support import REPOSITORY
from tests.support.needs import use_official_plugins

PROGRAMS = ("pulumi-resource-command", "pulumi-resource-docker")


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])


def test_the_folders_plugins_are_those_that_the_engine_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in PROGRAMS:
        shutil.copy("/bin/true", tmp_path / program)
    monkeypatch.setenv("OFFICIAL_PLUGINS", os.path.relpath(tmp_path))
    use_official_plugins()
    monkeypatch.chdir("/")
    assert [shutil.which(program) for program in PROGRAMS] == [str(tmp_path / program) for program in PROGRAMS]


def test_a_folder_without_one_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy("/bin/true", tmp_path / PROGRAMS[0])
    monkeypatch.setenv("OFFICIAL_PLUGINS", str(tmp_path))
    with pytest.raises(pytest.UsageError, match="pulumi-resource-docker"):
        use_official_plugins()


def test_without_a_folder_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFICIAL_PLUGINS", raising=False)
    before = os.environ["PATH"]
    use_official_plugins()
    assert os.environ["PATH"] == before


def test_a_stand_in_has_no_input_that_nothing_uses() -> None:
    """Whoever needs another one has it refused by name, and adds it."""
    words = [sys.executable, "-c", "import docker_plugin; print(*docker_plugin.Container.shape, *docker_plugin.Volume.shape)"]
    folder = REPOSITORY / "toolchain" / "plugins"
    inputs = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    assert len(inputs) > 15
    source = "".join(path.read_text() for path in (REPOSITORY / "components").rglob("*.py"))
    read_back = {"driver", "driver_opts"}  # of volumes that others made: a difference must be seen, to be ignored
    unused = {name for name in map(snake_case, inputs) if f"{name}=" not in source and f'"{name}":' not in source}
    assert unused - read_back == set()
