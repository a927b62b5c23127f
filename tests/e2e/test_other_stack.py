"""The component in a stack outside the checkout, installed from the wheel."""

import email
import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.support import REPOSITORY
from tests.support.docker import BASE_IMAGE, docker
from tests.support.sshd import Sshd
from tests.support.stack import Stack

# The versions that the tests run with, or a newer SDK could ask for a newer plugin than is here.
PINS = [f"{name}=={importlib.metadata.version(name)}" for name in ("pulumi", "pulumi-command", "pulumi-docker")]


def install(folder: Path) -> Path:
    """Makes the sdist, the wheel from it, and a virtual environment that has it and what it asks for. Returns its programs."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    backend = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
    subprocess.run([programs / "pip", "install", "-q", *backend], check=True)
    subprocess.run([programs / "hatchling", "build", "--target", "sdist", "--directory", folder], cwd=REPOSITORY, check=True)
    (sdist,) = folder.glob("*.tar.gz")
    subprocess.run([programs / "pip", "wheel", "-q", "--no-deps", "-w", folder, sdist], check=True)
    (wheel,) = folder.glob("*.whl")
    check_wheel(wheel)
    subprocess.run([programs / "pip", "install", "-q", f"{wheel}[pulumi]", *PINS], check=True)
    return programs


def check_wheel(wheel: Path) -> None:
    """It is typed, licensed, has the whole build context, and asks for psycopg alone unless asked for more."""
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        described = email.message_from_bytes(content.read(metadata))
    context = {f"notifying_postgres/build_context/{file.name}" for file in (REPOSITORY / "image").iterdir()}
    assert context | {"notifying_postgres/py.typed", "schema_changes/py.typed"} <= names
    assert {name.partition("/")[0] for name in names} == {"notifying_postgres", "schema_changes", metadata.partition("/")[0]}
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    needs = described.get_all("Requires-Dist", [])
    assert [need.partition("<")[0].partition(">")[0] for need in needs if "extra ==" not in need] == ["psycopg[binary]"]
    assert "pulumi" in described.get_all("Provides-Extra", [])


def test_another_stack_has_it_from_the_template_and_the_wheel(tmp_path: Path, sshd: Sshd) -> None:
    programs = install(tmp_path)
    stack = Stack(tmp_path / "stack", program=tmp_path / "shop", project="shop")
    template = str(REPOSITORY / "examples" / "other-stack")
    words = ["--dir", str(stack.program), "--name", "shop", "--generate-only", "--yes"]
    subprocess.run(["pulumi", "new", template, *words], env=stack.env, check=True)
    (stack.program / "venv").symlink_to(programs.parent)
    stack.config = {"image": f"{stack.name}:16", "baseImage": BASE_IMAGE}
    stack.config |= sshd.config
    stack.init()
    try:
        stack.up()
        outputs = stack.outputs()
        assert outputs["ordersUrl"].endswith(f"@{stack.name}-orders:5432/orders")
        assert outputs["databases"]["events"]["check"]["ok"] is True
        assert len(docker("ps", "-q", "--filter", f"name=^{stack.name}").split()) == 2
        stack.up_changes_nothing()
        stack.destroy()
    finally:
        stack.remove()
