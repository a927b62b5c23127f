"""The tests with the official plugins, where a folder has them: OFFICIAL_PLUGINS=FOLDER pytest tests/e2e tests/consumers"""

import os
import shutil
from pathlib import Path

import pytest

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
