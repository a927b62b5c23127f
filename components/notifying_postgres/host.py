"""The machine whose Docker engine builds the image and runs the databases: this one, or one reached over SSH.

All that differs between the two is in this module; image.py and database.py only say what to run.
"""

import base64
import binascii
import itertools
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_docker as docker
from pulumi_command import local, remote

from . import workstation
from .errors import InvalidArgument, checked

# pulumi-command offers a pinned key's type as the only signature algorithm, and servers no longer sign with "ssh-rsa" (SHA-1).
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


def parse_address(url: str) -> SshAddress:
    """Reads ``ssh://user@address[:port]``.

    :raises InvalidArgument: when it is anything else.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    extra = parts.password or parts.path.strip("/") or parts.query or parts.fragment
    # A leading dash would reach `ssh` as an option.
    if parts.scheme != "ssh" or not parts.hostname or not parts.username or extra or "-" in (url[6:7], parts.hostname[:1]):
        shown = "(a URL with a password)" if parts.password else url
        raise InvalidArgument("host", shown, "give ssh://user@address or ssh://user@address:port, or leave it out for this machine")
    return SshAddress(parts.username, parts.hostname, port or 22)


def parse_host_key(line: str) -> str:
    """Reads a host's public key, as in /etc/ssh/ssh_host_*.pub or as a line of `ssh-keyscan`.

    :returns: ``type base64``, as pulumi-command and known_hosts files take it.
    :raises InvalidArgument: when there is no such key, or one of a type that cannot be pinned for both.
    """
    words = line.split()
    for kind, key in itertools.pairwise(words):
        if kind in HOST_KEY_TYPES:
            try:
                if kind.encode() in base64.b64decode(key, validate=True)[:32]:
                    return f"{kind} {key}"
            except binascii.Error:
                pass
    raise InvalidArgument(
        "hostKey",
        line,
        f"give one public key of the server, of type {', '.join(HOST_KEY_TYPES)}, "
        "such as the content of /etc/ssh/ssh_host_ed25519_key.pub",
    )


def read_private_key(path: str) -> str:
    """The PEM text of a private key file.

    :raises InvalidArgument: when it cannot be read, is no private key, or is encrypted (an agent is the way then).
    """
    try:
        text = Path(path).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument("privateKeyFile", path, f"it cannot be read ({error}); give the path of a private key") from error
    if "PRIVATE KEY-----" not in text:
        raise InvalidArgument("privateKeyFile", path, "it holds no private key; give the file without .pub")
    if "ENCRYPTED" in text or b"aes" in _openssh_header(text):
        raise InvalidArgument("privateKeyFile", path, "it is encrypted; add it to ssh-agent and leave privateKeyFile out")
    return text


def _openssh_header(pem: str) -> bytes:
    """The first bytes of an OpenSSH private key, which name its cipher; empty for other formats."""
    lines = pem.strip().splitlines()
    return base64.b64decode(lines[1][:64]) if "OPENSSH" in lines[0] and len(lines) > 1 else b""


def ssh_options(address: SshAddress, host_key: str | None, private_key_file: str | None) -> list[str]:
    """The options for every `ssh` this project starts itself or through the docker provider.

    They do not read the user's ssh configuration, since pulumi-command does not either: both must go the same way. The key
    is pinned with KnownHostsCommand (OpenSSH 8.5), so no known_hosts file is needed. One connection is shared by all, or 20
    databases would trip sshd's MaxStartups.
    """
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "10",
        "ServerAliveInterval": "15",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "ControlMaster": "auto",
        "ControlPath": workstation.ssh_socket(str(address), host_key or "", private_key_file or ""),
        "ControlPersist": "60",
    }
    if host_key is None:
        options |= {"StrictHostKeyChecking": "no", "LogLevel": "ERROR"}
    else:
        options |= {
            "StrictHostKeyChecking": "yes",
            "KnownHostsCommand": f"/bin/echo %H {host_key}",
            "HostKeyAlgorithms": host_key.split()[0],
        }
    identity = ["-o", "IdentitiesOnly=yes", "-i", private_key_file] if private_key_file else []
    return ["-F", "none", *identity, *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]


# Runs on the host before anything else. It prints the identity of the Docker engine, which is remembered in the state; when
# a later deploy finds another engine there, the databases' data is not on it, and starting them empty is not what anyone wants.
_PREFLIGHT = """\
where=%(where)s network=%(network)s known=%(known)s
# Stops the deploy, with the steps that move the data, when that is another engine than the one that holds these databases.
engine=$(docker info --format '{{.ID}}' 2>&1) || { echo "Docker cannot be used on $where: $engine" >&2; exit 1; }
test -z "$network" || docker network inspect "$network" >/dev/null 2>&1 || {
  echo "There is no Docker network '$network' on $where: make it with 'docker network create', or name another." >&2; exit 1; }
test -z "$known" || test "$known" = "$engine" || { cat >&2 <<END
$where has another Docker engine than the one that holds these databases, and moving there would start them empty.
Nothing was changed. To move: pg_dumpall on the old host, deploy another stack for the new host, restore there, destroy this one.
If the old host is lost: 'pulumi up --refresh --replace' with this resource's URN starts empty databases on the new one.
END
exit 1; }
echo "$engine"
"""


class Host:
    """A Docker engine, what it takes to run commands beside it, and the proof that both can be reached.

    :ivar url: ``ssh://user@address:port``, or None for this machine.
    :ivar provider: the docker provider for resources on this host.
    :ivar ready: the command that others depend on: it ran on the host and found Docker there.
    :ivar ssh_options: the options to give to `ssh` before the address, as shell words, or None for this machine. (Not as a list:
        each Output.all would make an output of each of its elements.)
    :ivar check: the shell command that checks a database on this host, but for the arguments that say which database.
    """

    def __init__(
        self,
        name: str,
        *,
        url: pulumi.Input[str] | None,
        private_key_file: str | None,
        host_key: pulumi.Input[str] | None,
        allow_unverified_host: bool,
        network: pulumi.Input[str] | None,
        parent: pulumi.Resource,
    ) -> None:
        self._parent = parent
        self._connection: remote.ConnectionArgs | None = None
        self.url: pulumi.Output[str] | None = None
        self.ssh_options: pulumi.Output[str] | None = None

        if url is None:
            for key, value in {"privateKeyFile": private_key_file, "hostKey": host_key}.items():
                if value is not None:
                    raise InvalidArgument("host", None, f"{key} belongs to a host; give ssh://user@address:port")
            way = pulumi.Output.from_input("")
            self.provider = docker.Provider(f"{name}-docker", opts=pulumi.ResourceOptions(parent=parent))
        else:
            address = checked(url, parse_address)
            pin = None if host_key is None else checked(host_key, parse_host_key)
            if host_key is None and not allow_unverified_host:
                raise InvalidArgument(
                    "hostKey",
                    None,
                    "give the server's public key (on the server: cat /etc/ssh/ssh_host_ed25519_key.pub), "
                    "or set allowUnverifiedHost to true and trust whoever answers at that address",
                )
            if private_key_file is None and not os.environ.get("SSH_AUTH_SOCK"):
                raise InvalidArgument("privateKeyFile", None, "give the path of a private key, or start ssh-agent and add one")
            if os.environ.get("DOCKER_CONTEXT"):
                raise pulumi.RunError(
                    "DOCKER_CONTEXT is set, and the docker provider would go there instead of to the host: unset it"
                )
            self.url = address.apply(str)
            options = pulumi.Output.all(address, pin).apply(lambda both: ssh_options(both[0], both[1], private_key_file))
            self.ssh_options = options.apply(shlex.join)
            way = pulumi.Output.all(self.url, options).apply(
                lambda both: " " + shlex.join(["--ssh", both[0], *(f"--ssh-option={option}" for option in both[1])])
            )
            self._connection = remote.ConnectionArgs(
                user=address.apply(lambda a: a.user),
                host=address.apply(lambda a: a.host),
                port=address.apply(lambda a: a.port),
                private_key=pulumi.Output.secret(read_private_key(private_key_file)) if private_key_file else None,
                host_key=pin,
            )
            self.provider = docker.Provider(
                f"{name}-docker", host=self.url, ssh_opts=options, opts=pulumi.ResourceOptions(parent=parent)
            )

        check = f"{workstation.python()} -m schema_changes check"
        self.check = way.apply(lambda words: check + words)

        # Local even for a remote host: it goes the way the docker provider will go, by `ssh`, and opens the connection they share.
        # It is the same resource for both kinds of host, so that going from one to the other is noticed as well.
        self.ready = local.Command(
            f"{name}-preflight",
            create=self._preflight(network, known="''"),
            update=self._preflight(network, known='"$PULUMI_COMMAND_STDOUT"'),
            opts=pulumi.ResourceOptions(parent=parent),
        )

    def _preflight(self, network: pulumi.Input[str] | None, known: str) -> pulumi.Output[str]:
        def script(values: list[Any]) -> str:
            url, options, network = values
            where = shlex.quote(url or "this machine")
            known_there = "$1" if options else known
            text = _PREFLIGHT % {"where": where, "network": shlex.quote(network or ""), "known": known_there}
            if not options:
                return text
            return (
                f"ssh {options} {shlex.join(ssh_target(parse_address(url)))} sh -s -- {known} <<'SCRIPT'\n{text}SCRIPT\n"
                "status=$?; test $status -ne 255 ||"
                f" echo For the reason above, the host cannot be reached: {where}. Nothing was changed. >&2; exit $status\n"
            )

        return pulumi.Output.all(self.url, self.ssh_options, network).apply(script)

    def send(self, name: str, folder: str, digest: str) -> tuple[str, list[pulumi.Resource]]:
        """Puts a folder of this machine on the host, in a folder of its own named after the digest.

        :returns: the folder there, as a shell word, and what to depend on.
        """
        if self._connection is None:
            raise ValueError("a folder is on this machine already")
        copy = remote.CopyToRemote(
            name,
            connection=self._connection,
            source=pulumi.FileArchive(folder),
            remote_path=f"{workstation.FOLDER}/image-{digest}",
            # A copy is not repeated when only the connection changes, and a changed trigger alone is no replacement.
            triggers=[self.ready.stdout],
            opts=pulumi.ResourceOptions(parent=self._parent, depends_on=[self.ready], replace_on_changes=["triggers"]),
        )
        return f"{workstation.FOLDER}/image-{digest}", [copy]

    def command(
        self,
        name: str,
        create: pulumi.Input[str],
        *,
        delete: pulumi.Input[str] | None = None,
        stdin: pulumi.Input[str] | None = None,
        depends_on: list[pulumi.Resource],
    ) -> local.Command | remote.Command:
        """Runs a shell command on the host, and again whenever its text or its standard input changes."""
        opts = pulumi.ResourceOptions(parent=self._parent, depends_on=[self.ready, *depends_on])
        if self._connection is None:
            return local.Command(name, create=create, delete=delete, stdin=stdin, opts=opts)
        return remote.Command(
            name,
            connection=self._connection,
            create=create,
            delete=delete,
            stdin=stdin,
            add_previous_output_in_env=False,  # sshd refuses the variables unless its AcceptEnv names them
            opts=opts,
        )

    @property
    def is_local(self) -> bool:
        """Whether the host is this machine."""
        return self._connection is None


def ssh_target(address: SshAddress) -> list[str]:
    """The words after the options that tell `ssh` where to go."""
    return ["-l", address.user, "-p", str(address.port), "--", address.host]
