"""A private sshd on loopback."""

import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import program


@dataclass
class Sshd:
    """A private sshd with sshd's own limits, and the key that it lets this user in with."""

    port: int
    host_key: str
    private_key_file: Path
    pid: int
    log: Path
    user: str

    @property
    def address(self) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}"

    @property
    def config(self) -> dict[str, Any]:
        return {"host": self.address, "hostKey": self.host_key, "privateKeyFile": str(self.private_key_file)}

    def connection(self, **more: Any) -> dict[str, Any]:
        """What pulumi-command calls a connection."""
        settings = {"host": "127.0.0.1", "port": self.port, "user": self.user, "hostKey": self.host_key}
        return {**settings, "privateKey": self.private_key_file.read_text(), **more}

    def logins(self) -> int:
        return self.log.read_text().count("Accepted publickey")


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def start_sshd(folder: Path, user: str | None = None, **settings: str) -> Sshd:
    """Starts an sshd with the default limits of sshd, for this user or another; `settings` go into its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = folder / "home"
    home.mkdir(exist_ok=True)
    lines = {
        "Port": str(port),
        "ListenAddress": "127.0.0.1",
        "HostKey": str(folder / "host"),
        "AuthorizedKeysFile": str(folder / "user.pub"),
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
        "Subsystem": "sftp internal-sftp",
        **settings,
    }
    config = folder / "sshd_config"
    config.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, when root, goes to be without rights
    log = folder / "sshd.log"
    process = subprocess.Popen([program("sshd"), "-D", "-f", config, "-E", log], start_new_session=True)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        if process.poll() is not None:
            raise AssertionError(f"sshd ended: {log.read_text()}")
        time.sleep(0.05)
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    return Sshd(port, host_key, folder / "user", process.pid, log, user or _user())


def stop_sshd(sshd: Sshd) -> None:
    os.killpg(sshd.pid, signal.SIGTERM)
    os.waitpid(sshd.pid, 0)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    stop_sshd(server)
