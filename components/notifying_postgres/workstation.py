"""What a deploy needs on the machine that runs `pulumi`: the folder ~/.notifying-postgres.

The commands that Pulumi records in a stack's state must read the same on every machine that deploys the stack, or each machine
would show a change. So they name files in this folder (`$HOME` is expanded when they run), and never the checkout or the virtual
environment that happens to hold this package.
"""

import hashlib
import importlib.metadata
import os
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pulumi

FOLDER = ".notifying-postgres"


def _home_folder() -> Path:
    folder = Path.home() / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise pulumi.RunError(f"{folder} cannot be made, and deploys keep their SSH sockets there: {error}") from error
    return folder


@dataclass(frozen=True)
class BuildContext:
    """The image's build context, copied to this machine's ~/.notifying-postgres.

    :param digest: 16 hexadecimal digits over the names, contents and modes of its files.
    :param path: the copy, with a trailing slash: pulumi-command then copies its contents, not the folder itself.
    :param shell_path: the same for a shell on any machine.
    """

    digest: str
    path: str
    shell_path: str


def build_context() -> BuildContext:
    """Copies the build context to a folder named after its digest, unless it is there already.

    It travels inside the wheel as ``notifying_postgres/build_context``; in a checkout it is the folder ``image``.
    """
    packaged = Path(__file__).parent / "build_context"
    source = packaged if packaged.is_dir() else Path(__file__).parents[2] / "image"
    files = sorted(file for file in source.rglob("*") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise pulumi.RunError(f"the image's build context is not at {source}: install notifying-postgres again")

    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(source)}\0{len(content)}\0".encode() + content)
    name = f"image-{digest.hexdigest()[:16]}"

    target = _home_folder() / name
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            copy = Path(scratch) / name
            for file in files:
                (copy / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy / file.relative_to(source))
            try:
                copy.rename(target)
            except OSError:  # another deploy on this machine was faster; its copy has the same digest
                if not target.is_dir():
                    raise
    return BuildContext(name.removeprefix("image-"), f"{target}/", f'"$HOME/{FOLDER}/{name}"')


def python() -> str:
    """A shell word that runs this Python, with this package's modules, on any machine that deploys the stack."""
    name = f"python-{importlib.metadata.version('notifying-postgres')}"
    launcher = _home_folder() / name
    text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n'
    if not launcher.is_file() or launcher.read_text() != text:
        with tempfile.NamedTemporaryFile("w", dir=launcher.parent, delete=False) as scratch:
            scratch.write(text)
        Path(scratch.name).chmod(0o700)
        os.replace(scratch.name, launcher)  # a deploy that runs at the same moment sees the old one or the new one, whole
    return f'"$HOME/{FOLDER}/{name}"'


def ssh_socket(*identity: str) -> str:
    """The path of an SSH control socket that serves exactly this identity (address, host key, private key), for `ssh` to expand.

    A hash keeps it inside the 104 bytes of a socket's path and makes sure that a connection opened for another host key is
    not taken over.
    """
    return f"${{HOME}}/{_home_folder().name}/ssh-{hashlib.sha256(chr(0).join(identity).encode()).hexdigest()[:12]}"
