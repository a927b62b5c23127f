"""The machine whose Docker engine builds the image and runs the databases: this one, or one reached over SSH.

What runs there is a file of on_host/, called with plain words, which every login shell reads alike. The two kinds of host differ in
how the files get there and in what stands before the call; the rest of the package only says what to run.
"""

import os
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import pulumi
import pulumi_docker as docker
from pulumi_command import local

from . import workstation
from .errors import InvalidArgument
from .ssh import SshAddress, ssh_options

Words = pulumi.Input[Sequence[pulumi.Input[str]]]

_CHECK = "-m schema_changes check"


class Host(ABC):
    """A Docker engine, what it takes to run scripts beside it, and the proof that both can be reached.

    :ivar url: ``ssh://user@address:port``, or None for this machine.
    :ivar provider: the docker provider for resources on this host.
    :ivar ready: what others depend on: the preflight ran on the host and found Docker there, and the scripts are there.
    :ivar docker: the command line of `docker` there, for a program on this machine.
    :ivar check: the shell command that checks a database on this host, but for the arguments that say which database.
    """

    url: pulumi.Output[str] | None
    provider: docker.Provider
    ready: list[pulumi.Resource]
    docker: pulumi.Output[str]
    check: pulumi.Output[str]

    def __init__(self, parent: pulumi.Resource) -> None:
        self._parent = parent
        self._files = workstation.files()

    def run(
        self,
        name: str,
        script: str,
        words: Words,
        *,
        delete: tuple[str, Words] | None = None,
        stdin: pulumi.Input[str] | None = None,
        depends_on: Sequence[pulumi.Resource] = (),
    ) -> local.Command:
        """Runs a script on the host, and again whenever its words or its standard input change.

        :param script: the file's name in on_host/.
        :param delete: the script and the words that undo it when the resource is removed.
        :raises ValueError: for a word that not every login shell would read as it is.
        """
        return local.Command(
            name,
            create=self._call(script, words),
            delete=None if delete is None else self._call(*delete),
            stdin=stdin,
            opts=pulumi.ResourceOptions(parent=self._parent, depends_on=[*self.ready, *depends_on]),
        )

    @abstractmethod
    def _call(self, script: str, words: Words) -> pulumi.Output[str]:
        """The command line that runs a script on the host, for a shell on this machine."""


class LocalHost(Host):
    """This machine."""

    url = None

    def __init__(self, name: str, network: pulumi.Input[str] | None, parent: pulumi.Resource) -> None:
        super().__init__(parent)
        self.docker = pulumi.Output.from_input("docker")
        self.check = pulumi.Output.from_input(f"{workstation.python()} {_CHECK}")
        self.provider = docker.Provider(f"{name}-docker", opts=pulumi.ResourceOptions(parent=parent))
        where = pulumi.Output.from_input("this machine")
        self.ready = [
            local.Command(
                f"{name}-preflight",
                create=self._preflight(where, network, "-"),
                update=self._preflight(where, network, _KNOWN),
                opts=pulumi.ResourceOptions(parent=parent),
            )
        ]

    def _preflight(self, where: pulumi.Output[str], network: pulumi.Input[str] | None, known: str) -> pulumi.Output[str]:
        return self._call("preflight.sh", [where, network or "-"]).apply(lambda call: f"{call} {known}")

    def _call(self, script: str, words: Words) -> pulumi.Output[str]:
        file = f'"$HOME/{workstation.FOLDER}/{self._files}/on_host/{script}"'

        def text(known: Any) -> str:
            return f"sh {file} {shlex.join(known)}"

        return pulumi.Output.from_input(words).apply(text)


class SshHost(Host):
    """A machine that is reached over SSH, with the program `ssh`: also by the docker provider, and by the check.

    pulumi-command's own connection is not used: it has no keep-alive, so that a lost network hangs a deploy for ever, keeps the
    private key in the stack's state, and fails on an agent that is gone also where a key file is given.
    """

    url: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        address: pulumi.Output[SshAddress],
        host_key: pulumi.Output[str] | None,
        private_key_file: str | None,
        jump: pulumi.Output[tuple[SshAddress, str | None]] | None,
        network: pulumi.Input[str] | None,
        parent: pulumi.Resource,
    ) -> None:
        super().__init__(parent)
        self.url = address.apply(str)
        options = pulumi.Output.all(address, host_key, jump).apply(
            lambda all: ssh_options(all[0], all[1], private_key_file, all[2])
        )
        # As one text: each Output.all would make an output of each element of a list.
        self._ssh = pulumi.Output.all(options, address).apply(lambda both: shlex.join(["ssh", *both[0], *both[1].words]))
        self.docker = self._ssh.apply(lambda ssh: f"{ssh} docker")
        way = pulumi.Output.all(self.url, options).apply(
            lambda both: shlex.join(["--ssh", both[0], *(f"--ssh-option={option}" for option in both[1])])
        )
        self.check = way.apply(lambda words: f"{workstation.python()} {_CHECK} {words}")
        self.provider = docker.Provider(
            f"{name}-docker", host=self.url, ssh_opts=options, opts=pulumi.ResourceOptions(parent=parent)
        )

        # It opens the connection that the others share.
        preflight = local.Command(
            f"{name}-preflight",
            create=self._preflight(network, "-"),
            update=self._preflight(network, _KNOWN),
            opts=pulumi.ResourceOptions(parent=parent),
        )
        files = local.Command(
            f"{name}-context",
            create=self._ssh.apply(self._send),
            opts=pulumi.ResourceOptions(parent=parent, depends_on=[preflight]),
        )
        self.ready = [preflight, files]

    def _preflight(self, network: pulumi.Input[str] | None, known: str) -> pulumi.Output[str]:
        def text(values: list[Any]) -> str:
            ssh, url, network = values
            script = f'"$HOME/{workstation.FOLDER}/{self._files}/on_host/preflight.sh"'
            words = shlex.quote(f"sh -s -- {remote_words([url, network])} ")
            return f'answer=$({ssh} {words}{known} <{script}){_explained(url)}\necho "$answer" | tail -n 1'

        return pulumi.Output.all(self._ssh, self.url, network or "-").apply(text)

    def _send(self, ssh: str) -> str:
        there = f"{workstation.FOLDER}/{self._files}"
        return f'{ssh} mkdir -p {there} && tar -cf - -C "$HOME/{there}" . | {ssh} tar -xof - -C {there}'

    def _call(self, script: str, words: Words) -> pulumi.Output[str]:
        file = f"{workstation.FOLDER}/{self._files}/on_host/{script}"

        def text(values: list[Any]) -> str:
            ssh, url, known = values
            return f"{ssh} {shlex.quote(f'sh {file} {remote_words(known)}')}{_explained(url)}"

        return pulumi.Output.all(self._ssh, self.url, words).apply(text)


# What the preflight printed the last time: an id, and before it, from earlier versions, what a login shell had to say.
_KNOWN = '"$(echo "${PULUMI_COMMAND_STDOUT:--}" | tail -n 1 | tr -cd \'A-Za-z0-9:_-\')"'


def _explained(url: str) -> str:
    """Shell text that says what an exit status of `ssh` itself means."""
    reason = f"{url} could not be reached, or the connection was lost, for the reason above. Deploying again goes on from here."
    return f" || {{ status=$?; test $status -ne 255 || echo {shlex.quote(reason)} >&2; exit $status; }}"


def remote_words(words: Sequence[str]) -> str:
    """Words as part of a command line that sshd gives to any user's login shell, be it sh, bash, zsh, fish or csh.

    :raises ValueError: for a word that not all of them would read as it is.
    """
    for word in words:
        if re.search(r"['\\!\n\r\0]", word):
            raise ValueError(f"{word!r} cannot be a word for every login shell")
    return " ".join(word if re.fullmatch(r"[\w@+:,./-]+", word, re.ASCII) else f"'{word}'" for word in words)


def connect(
    name: str,
    *,
    address: pulumi.Output[SshAddress] | None,
    host_key: pulumi.Output[str] | None,
    private_key_file: str | None,
    allow_unverified_host: bool,
    network: pulumi.Input[str] | None,
    parent: pulumi.Resource,
) -> Host:
    """The host that the arguments name.

    :raises InvalidArgument: when one is missing, or belongs to another kind of host.
    """
    if address is None:
        for key, value in {"privateKeyFile": private_key_file, "hostKey": host_key}.items():
            if value is not None:
                raise InvalidArgument("host", None, f"{key} belongs to a host; give ssh://user@address:port")
        return LocalHost(name, network, parent)
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
        raise pulumi.RunError("DOCKER_CONTEXT is set, and the docker provider would go there instead of to the host: unset it")
    return SshHost(
        name,
        address=address,
        host_key=host_key,
        private_key_file=private_key_file,
        jump=None,
        network=network,
        parent=parent,
    )
