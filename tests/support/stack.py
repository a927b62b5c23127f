"""Stacks of the real Pulumi CLI, with what they make on the real Docker engine of this machine."""

import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support import REPOSITORY
from tests.support.docker import OWNER, docker, remove_named
from tests.support.needs import need


class Stack:
    """A stack of a program, by default the project's own, with a backend, a home folder and a name of its own.

    :param folder: where the state and the configuration file go.
    """

    def __init__(self, folder: Path, program: Path = REPOSITORY, project: str = "notifying-postgres") -> None:
        need("docker", "pulumi")
        self.name = f"e2e-{OWNER}-{uuid.uuid4().hex[:8]}"
        self.program = program
        self.project = project
        self.config_file = folder / f"Pulumi.{self.name}.yaml"
        self.config: dict[str, Any] = {"image": f"{self.name}:16", "databases": {"app": {}}}
        # Not below pytest's folder: the path of an SSH control socket may have 104 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="np-"))
        (folder / "state").mkdir(parents=True)
        self.env = {
            **os.environ,
            "HOME": str(self.home),
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        self.env.pop("SSH_AUTH_SOCK", None)
        self.stdout = self.stderr = ""  # what the last command said

    def run(self, *words: str, fails: bool = False) -> str:
        """Runs `pulumi` on the stack, and returns all that it prints."""
        settings = {f"{self.project}:{key}": value for key, value in self.config.items()}
        salt = (
            [line for line in self.config_file.read_text().splitlines() if "encryptionsalt" in line]
            if self.config_file.exists()
            else []
        )
        self.config_file.write_text("\n".join([*salt, "config: " + json.dumps(settings)]) + "\n")
        done = subprocess.run(
            ["pulumi", *words, "--stack", self.name, "--non-interactive", "--color=never"],
            cwd=self.program,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )
        self.stdout, self.stderr = done.stdout, done.stderr
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _change(self, *words: str, fails: bool = False) -> str:
        return self.run(*words, "--config-file", str(self.config_file), fails=fails)

    def init(self) -> None:
        self.run("stack", "init", "--secrets-provider=passphrase")
        # `stack init` writes the salt beside the program; it belongs to this stack's own file.
        written = self.program / f"Pulumi.{self.name}.yaml"
        if written.exists():
            self.config_file.write_text(written.read_text())
            written.unlink()

    def set_secret(self, key: str, value: str) -> None:
        """A setting that the configuration file has encrypted."""
        self._change("config", "set", "--secret", key, value)
        (encrypted,) = re.findall(rf"{key}['\"]?: *{{?\s*secure: '?([^'}}\s]+)", self.config_file.read_text())
        self.config[key] = {"secure": encrypted}

    def preview(self, *words: str, fails: bool = False) -> str:
        return self._change("preview", *words, fails=fails)

    def up(self, *words: str, fails: bool = False) -> str:
        return self._change("up", "--yes", "--skip-preview", *words, fails=fails)

    def up_changes_nothing(self) -> None:
        self._change("preview", "--expect-no-changes")
        self._change("up", "--yes", "--skip-preview", "--expect-no-changes")

    def refresh(self, *words: str) -> str:
        return self._change("refresh", "--yes", "--skip-preview", *words)

    def destroy(self) -> str:
        return self._change("destroy", "--yes", "--skip-preview")

    def outputs(self) -> dict[str, Any]:
        self.run("stack", "output", "--json", "--show-secrets")
        return dict(json.loads(self.stdout))

    def state(self) -> str:
        """The stack's state as it is stored."""
        return self.run("stack", "export")

    def container(self, key: str = "app") -> dict[str, Any]:
        """What `docker inspect` says of a database's container."""
        inspected: dict[str, Any] = json.loads(docker("inspect", f"{self.name}-{key}"))[0]
        return inspected

    def connect(self, key: str = "app") -> "psycopg.Connection[tuple[Any, ...]]":
        """Connects with the URL of the outputs, at the container's address."""
        container = self.container(key)
        address = next(network["IPAddress"] for network in container["NetworkSettings"]["Networks"].values())
        url = self.outputs()["urls"][key]
        return psycopg.connect(url, hostaddr=address, autocommit=True, connect_timeout=5)

    def sql(self, query: str, key: str = "app") -> list[tuple[Any, ...]]:
        with self.connect(key) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def remove(self) -> None:
        """Ends what the stack made, whatever state it is in; only what bears its name."""
        remove_named(self.name)
        # What scripts noted of them on the host, which is this machine, over SSH in the home folder that sshd gives.
        for home in (self.home, Path(pwd.getpwuid(os.getuid()).pw_dir)):
            for note in home.glob(f".notifying-postgres/known/**/{self.name}*"):
                shutil.rmtree(note) if note.is_dir() else note.unlink()
        shutil.rmtree(self.home)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    made.init()
    yield made
    made.remove()
