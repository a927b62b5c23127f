"""The component in a stack outside the checkout, installed from the wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness import REPOSITORY, Sshd, Stack, docker


def install(folder: Path) -> Path:
    """Makes the wheel, and a virtual environment that has it and what it asks for. Returns the environment's programs."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, REPOSITORY], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    # The versions that the tests run with, or a newer SDK could ask for a newer plugin than is here.
    pins = ["pulumi==3.272.0", "pulumi-command==1.2.1", "pulumi-docker==5.1.0"]
    subprocess.run([programs / "pip", "install", "-q", f"{wheel}[pulumi]", *pins], check=True)
    return programs


def test_another_stack_has_it_from_the_wheel(tmp_path: Path, sshd: Sshd) -> None:
    programs = install(tmp_path)
    project = tmp_path / "project"
    shutil.copytree(REPOSITORY / "examples" / "other-stack", project)

    stack = Stack(tmp_path / "stack", program=project, project="other-stack")
    stack.env["PATH"] = f"{programs}:{os.environ['PATH']}"
    stack.config = {"image": f"{stack.name}:16", "baseImage": os.environ.get("NOTIFYING_POSTGRES_BASE_IMAGE", "postgres:16-alpine")}
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
