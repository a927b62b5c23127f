"""The way to a host over SSH: its address, the keys that are pinned, and the options that every `ssh` gets."""

import base64
import binascii
import itertools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from . import workstation
from .errors import InvalidArgument

HOST_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")


@dataclass(frozen=True)
class SshAddress:
    """Where sshd listens, and as whom to log in."""

    user: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user}@{host}:{self.port}"

    @property
    def words(self) -> list[str]:
        """What tells `ssh` where to go, after its options."""
        return ["-l", self.user, "-p", str(self.port), "--", self.host]


def parse_address(key: str, url: str) -> SshAddress:
    """Reads ``ssh://user@address[:port]``.

    :raises InvalidArgument: when it is anything else.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    extra = parts.password or parts.path.strip("/") or parts.query or parts.fragment
    # The names become words for a shell; a leading dash would reach `ssh` as an option.
    plain = re.fullmatch(r"[\w.][\w.@+-]* [\w.:][\w.:%-]*", f"{parts.username} {parts.hostname}", re.ASCII)
    if parts.scheme != "ssh" or not parts.hostname or not parts.username or not plain or extra:
        shown = "(a URL with a password)" if parts.password else url
        raise InvalidArgument(key, shown, "give ssh://user@address or ssh://user@address:port, or leave it out for this machine")
    return SshAddress(parts.username, parts.hostname, port or 22)


def parse_host_key(key: str, line: str) -> str:
    """Reads a host's public key, as in /etc/ssh/ssh_host_*.pub or as a line of `ssh-keyscan`.

    :returns: type and key, as known_hosts files take it.
    :raises InvalidArgument: when there is no such key.
    """
    for kind, public in itertools.pairwise(line.split()):
        if kind in HOST_KEY_TYPES:
            try:
                if kind.encode() in base64.b64decode(public, validate=True)[:32]:
                    return f"{kind} {public}"
            except binascii.Error:
                pass
    raise InvalidArgument(
        key,
        line,
        f"give one public key of the server, of type {', '.join(HOST_KEY_TYPES)}, "
        "such as the content of /etc/ssh/ssh_host_ed25519_key.pub",
    )


def check_private_key(key: str, path: str) -> str:
    """Returns the path of a private key file as it is.

    :raises InvalidArgument: when it cannot be read, is no private key, or is encrypted (an agent is the way then).
    """
    try:
        text = Path(path).expanduser().read_text()
    except (OSError, UnicodeDecodeError, ValueError, RuntimeError) as error:
        raise InvalidArgument(key, path, f"it cannot be read ({error}); give the path of a private key") from error
    if "PRIVATE KEY-----" not in text:
        raise InvalidArgument(key, path, "it holds no private key; give the file without .pub")
    if "ENCRYPTED" in text or b"aes" in _openssh_header(text):
        raise InvalidArgument(key, path, "it is encrypted; add it to ssh-agent and leave privateKeyFile out")
    return path


def _openssh_header(pem: str) -> bytes:
    """The first bytes of an OpenSSH private key, which name its cipher; empty for other formats."""
    lines = pem.strip().splitlines()
    return base64.b64decode(lines[1][:64]) if "OPENSSH" in lines[0] and len(lines) > 1 else b""


Jump = tuple[SshAddress, str | None]
"""The host on the way, as ProxyJump has it, and its key."""


def ssh_settings(address: SshAddress, host_key: str | None, private_key_file: str | None, jump: Jump | None) -> dict[str, str]:
    """The settings of every `ssh` this project starts itself or through the docker provider: one way for all that goes to a host.

    They do not read the user's ssh configuration, so that a stack goes the same way from every machine. A key is pinned with
    KnownHostsCommand (OpenSSH 8.5), so no known_hosts file is needed. One connection is shared by all, or 20 databases would trip
    sshd's MaxStartups; when nothing comes from it for a minute, it is given up.
    """
    settings = _login(host_key, private_key_file) | {
        "ControlMaster": "auto",
        "ControlPath": workstation.ssh_socket(str(address), host_key or "", private_key_file or "", str(jump)),
        "ControlPersist": "60",
    }
    if jump:
        # Not ProxyJump, which takes no settings for the host on the way. This `ssh` expands %h and %p, the other one its own.
        by, its_key = jump
        login = shlex.join(words(_login(its_key, private_key_file))).replace("%", "%%")
        settings["ProxyCommand"] = f"ssh {login} -W [%h]:%p {shlex.join(by.words)}"
    return settings


def _login(host_key: str | None, private_key_file: str | None) -> dict[str, str]:
    settings = {
        "BatchMode": "yes",
        "ConnectTimeout": "10",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "3",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
    }
    if private_key_file:
        settings |= {"IdentityFile": private_key_file, "IdentitiesOnly": "yes", "IdentityAgent": "none"}
    if host_key is None:
        return settings | {"StrictHostKeyChecking": "no", "LogLevel": "ERROR"}
    return settings | {
        "StrictHostKeyChecking": "yes",
        "KnownHostsCommand": f"/bin/echo %H {host_key}",
        "HostKeyAlgorithms": host_key.split()[0],
    }


def words(settings: dict[str, str]) -> list[str]:
    """The settings as options of `ssh`, for whoever has to find his way without a file."""
    options = (["-i", value] if key == "IdentityFile" else ["-o", f"{key}={value}"] for key, value in settings.items())
    return ["-F", "none", *itertools.chain.from_iterable(options)]


def configuration(settings: dict[str, str]) -> str:
    """The settings as a configuration file of `ssh`."""
    return "".join(f'{key} "{value}"\n' if key == "IdentityFile" else f"{key} {value}\n" for key, value in settings.items())
