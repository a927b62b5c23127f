"""What `make down` removes, and what it leaves alone; whose dev database there is."""

import io
import runpy
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tests.support.docker import BASE_IMAGE, docker

pytestmark = pytest.mark.needs("docker")

DEV = runpy.run_path(str(REPOSITORY / "toolchain" / "dev.py"))
remove_without_name, another_clones = DEV["remove_without_name"], DEV["another_clones"]


def small_image(*name: str) -> str:
    """Makes an image unlike any other, and returns its id."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(uuid.uuid4().hex))
    imported = subprocess.run(["docker", "import", "-", *name], input=content.getvalue(), stdout=subprocess.PIPE, check=True)
    return imported.stdout.decode().strip()


def test_an_image_goes_only_when_nobody_has_a_name_for_it(unique_name: str) -> None:
    name = f"{unique_name}:16"
    image = small_image(name)
    remove_without_name(image)
    assert image in docker("image", "ls", "--quiet", "--no-trunc", name)

    small_image(name)  # now another build has the name
    remove_without_name(image)
    assert image not in docker("image", "ls", "--all", "--quiet", "--no-trunc")
    docker("image", "rm", name)


def test_the_dev_database_of_another_clone_is_told_from_one_whose_making_was_cut_off(
    unique_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".notifying-postgres" / "known").mkdir(parents=True)
    note = tmp_path / ".notifying-postgres" / "known" / f"{unique_name}-app"
    note.write_text("0123 0 volume\n")
    assert another_clones(unique_name) is None
    container = docker("create", "--name", f"{unique_name}-app", BASE_IMAGE)
    try:
        assert another_clones(unique_name) is None
        note.write_text(f"{container} 0 volume\n")
        assert another_clones(unique_name) == f"{unique_name}-app"
    finally:
        docker("rm", "-f", container)
