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
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pulumi

import schema_changes

FOLDER = ".notifying-postgres"


def _home_folder() -> Path:
    folder = Path.home() / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise pulumi.RunError(f"{folder} cannot be made, and deploys keep their SSH sockets there: {error}") from error
    return folder


def files() -> str:
    """Copies what hosts need to ~/.notifying-postgres on this machine: the build contexts `image` and `relay`, and `on_host`.

    :returns: the name of the folder there, which is a digest over the names and contents of its files.
    """
    name = _digest()
    target = _home_folder() / name
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            copy = Path(scratch) / name
            for file, source in _sources():
                (copy / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy / file)
            try:
                copy.rename(target)
            except OSError:  # another deploy on this machine was faster; its copy has the same digest
                if not target.is_dir():
                    raise
    return name


@cache
def _digest() -> str:
    digest = hashlib.sha256()
    for name, source in _sources():
        content = source.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _sources() -> Iterator[tuple[str, Path]]:
    """The files by the name they get. The build context is in the wheel too; in a checkout it is the folder ``image``."""
    here = Path(__file__).parent
    packaged = here / "build_context"
    for name, folder in (
        ("image", packaged if packaged.is_dir() else here.parents[1] / "image"),
        ("on_host", here / "on_host"),
        ("relay", here / "relay" / "image"),
        ("relay/schema_changes", Path(schema_changes.__file__).parent),
    ):
        files = sorted(
            file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".") and file.suffix != ".pyc"
        )
        if not files:
            raise pulumi.RunError(f"there is nothing in {folder}: install notifying-postgres again")
        for file in files:
            yield f"{name}/{file.relative_to(folder)}", file


def python() -> str:
    """A shell word that runs this Python, with this package's modules, on any machine that deploys the stack."""
    name = f"python-{importlib.metadata.version('notifying-postgres')}"
    return _file(name, f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', 0o700)


def ssh_configuration(text: str) -> str:
    """A shell word for a configuration file of `ssh`, which keeps the commands in a stack's state short."""
    return _file(f"ssh-{hashlib.sha256(text.encode()).hexdigest()[:12]}.conf", text, 0o600)


def _file(name: str, text: str, mode: int) -> str:
    file = _home_folder() / name
    if not file.is_file() or file.read_text() != text:
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as scratch:
            scratch.write(text)
        Path(scratch.name).chmod(mode)
        os.replace(scratch.name, file)  # a deploy that runs at the same moment sees the old one or the new one, whole
    return f'"$HOME/{FOLDER}/{name}"'


def ssh_socket(*identity: str) -> str:
    """The path of an SSH control socket that serves exactly this identity (address, host key, private key), for `ssh` to expand.

    A hash keeps it inside the 104 bytes of a socket's path and makes sure that a connection opened for another host key is
    not taken over.
    """
    return f"${{HOME}}/{_home_folder().name}/ssh-{hashlib.sha256(chr(0).join(identity).encode()).hexdigest()[:12]}"
