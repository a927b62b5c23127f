"""What `make down` removes, and what it leaves alone."""

import io
import runpy
import subprocess
import tarfile
import uuid

import pytest

from tests.support import REPOSITORY
from tests.support.docker import docker

pytestmark = pytest.mark.needs("docker")

remove_without_name = runpy.run_path(str(REPOSITORY / "toolchain" / "dev.py"))["remove_without_name"]


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
