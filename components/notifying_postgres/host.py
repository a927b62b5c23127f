"""The machine whose Docker engine builds the image and runs the databases: this one, or one reached over SSH.

What runs there is a file of on_host/, called with plain words, which every login shell reads alike. The two kinds of host differ in
how the files get there and in what stands before the call; the rest of the package only says what to run.
"""

import os
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_docker as docker
from pulumi_command import local

from . import workstation
from .args import Arguments, BackupState
from .errors import InvalidArgument
from .ssh import SshAddress, configuration, ssh_settings, words

Words = pulumi.Input[Sequence[pulumi.Input[str]]]

_CHECK = "-m schema_changes check"
_ANOTHER_ENGINE = """\
The host has another Docker engine than the one that holds these databases, and moving there would start them empty.
Nothing was changed. To move, deploy another stack for the new host that begins with a backup: docs/operations.md has the steps.
If the old host is lost: 'pulumi up --refresh --replace' with this resource's URN starts empty databases on the new one."""


@dataclass(frozen=True)
class Seen:
    """What look.sh saw on the host.

    :ivar engine: the id of the Docker engine.
    :ivar image: how often the image was lost there. A build that has another number is made again.
    :ivar attempts: by container, how often its making was cut off.
    :ivar backups: by container, how its backups are; of those alone whose backups have a container.
    :ivar unproven: of which containers no backup was restored for three times as long as it should take.
    """

    engine: str
    image: str
    attempts: dict[str, str]
    backups: dict[str, BackupState] = field(default_factory=dict)
    unproven: frozenset[str] = frozenset()


class Host(ABC):
    """A Docker engine, what it takes to run scripts beside it, and the proof that both can be reached.

    :ivar stack: the stack's full name, the mark of what it makes on the host.
    :ivar url: ``ssh://user@address:port``, or None for this machine.
    :ivar seen: what is there, seen anew in each preview and each deploy.
    :ivar provider: the docker provider for resources on this host.
    :ivar ready: what others depend on: it is the host that it was before, and the scripts are there.
    :ivar check: the shell command that checks a database on this host, but for the arguments that say which database.
    """

    url: pulumi.Output[str] | None
    seen: pulumi.Output[Seen]
    provider: docker.Provider
    ready: list[pulumi.Resource]
    docker: pulumi.Output[str]
    check: pulumi.Output[str]

    def __init__(self, parent: pulumi.Resource) -> None:
        self.stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
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
        logging: local.Logging = local.Logging.STDERR,
        depends_on: Sequence[pulumi.Resource] = (),
    ) -> local.Command:
        """Runs a script on the host, and again whenever its words or its standard input change.

        :param script: the file's name in on_host/.
        :param delete: the script and the words that undo it when the resource is removed.
        :param logging: what a person sees of what it says. On stdout is mostly an answer for this program.
        :raises ValueError: for a word that not every login shell would read as it is.
        """
        return local.Command(
            name,
            create=self._call(script, words),
            delete=None if delete is None else self._call(*delete),
            stdin=stdin,
            logging=logging,
            opts=pulumi.ResourceOptions(parent=self._parent, depends_on=[*self.ready, *depends_on]),
        )

    @abstractmethod
    def _call(self, script: str, words: Words) -> pulumi.Output[str]:
        """The command line that runs a script on the host, for a shell on this machine."""

    def _look(self, where: pulumi.Input[str], call: pulumi.Output[str]) -> pulumi.Output[Seen]:
        """Runs look.sh, which no state can stand in for.

        :raises pulumi.RunError: when it refuses the host; in a preview, a host that cannot be reached is only a warning.
        """
        answer = local.run_output(
            # What goes wrong is told in words of ours: a function that fails shows a traceback.
            command=call.apply(lambda known: f'{{ {known}; }} 2>&1; echo "status $?"'),
            logging=local.Logging.NONE,
            add_previous_output_in_env=False,
            opts=pulumi.InvokeOutputOptions(parent=self._parent),
        )
        return pulumi.Output.all(where, answer.stdout).apply(lambda both: read_look(both[0], both[1], self._parent))

    def _preflight(self, name: str) -> local.Command:
        """Remembers the engine in the state, and refuses another one."""
        engine = self.seen.apply(lambda seen: shlex.quote(seen.engine))
        return local.Command(
            f"{name}-preflight",
            create=engine.apply(lambda known: f"echo {known}"),
            # What was printed the last time is the id, and before it, by earlier versions, what a login shell had to say.
            update=engine.apply(
                lambda known: (
                    f'test "$(printf %s "$PULUMI_COMMAND_STDOUT" | tail -n 1)" = {known} || '
                    f"{{ echo {shlex.quote(_ANOTHER_ENGINE)} >&2; exit 1; }}; echo {known}"
                )
            ),
            logging=local.Logging.NONE,
            opts=pulumi.ResourceOptions(parent=self._parent),
        )


class LocalHost(Host):
    """This machine."""

    url = None

    def __init__(self, name: str, look: Words, parent: pulumi.Resource) -> None:
        super().__init__(parent)
        self.docker = pulumi.Output.from_input("docker")
        self.check = pulumi.Output.from_input(f"{workstation.python()} {_CHECK}")
        self.seen = self._look("this machine", self._call("look.sh", look))
        preflight = self._preflight(name)
        self.ready = [preflight]
        self.provider = docker.Provider(f"{name}-docker", opts=pulumi.ResourceOptions(parent=parent, depends_on=[preflight]))

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
        self, name: str, arguments: Arguments, address: pulumi.Output[SshAddress], look: Words, parent: pulumi.Resource
    ) -> None:
        super().__init__(parent)
        settings = pulumi.Output.all(address, arguments.host_key, arguments.jump_host, arguments.jump_host_key).apply(
            lambda known: ssh_settings(known[0], known[1], arguments.private_key_file, (known[2], known[3]) if known[2] else None)
        )
        url = self.url = address.apply(str)
        self._ssh = pulumi.Output.all(settings, address).apply(
            lambda both: f"ssh -F {workstation.ssh_configuration(configuration(both[0]))} {shlex.join(both[1].words)}"
        )

        self.docker = pulumi.Output.all(settings, address).apply(
            lambda both: shlex.join(["ssh", *words(both[0]), *both[1].words, "docker"])
        )

        def check(values: list[Any]) -> str:
            settings, url = values
            file = workstation.ssh_configuration(configuration(settings))
            shared = shlex.quote(f"--ssh-option=-oControlPath={settings['ControlPath']}")
            return f"{workstation.python()} {_CHECK} --ssh {shlex.quote(url)} --ssh-option=-F --ssh-option={file} {shared}"

        self.check = pulumi.Output.all(settings, url).apply(check)
        self.seen = self._look(url, pulumi.Output.all(self._ssh, look, arguments.jump_host).apply(self._piped))
        preflight = self._preflight(name)
        # The provider's inputs come out of the preflight, so that a refused deploy leaves the state as it was: with the host on
        # which the databases are.
        accepted = pulumi.Output.all(preflight.stdout, url, settings)
        self.provider = docker.Provider(
            f"{name}-docker",
            host=accepted.apply(lambda known: str(known[1])),
            ssh_opts=accepted.apply(lambda known: words(known[2])),
            opts=pulumi.ResourceOptions(parent=parent),
        )
        files = local.Command(
            f"{name}-context",
            create=self._ssh.apply(self._send),
            opts=pulumi.ResourceOptions(parent=parent, depends_on=[preflight]),
        )
        self.ready = [preflight, files]

    def _piped(self, values: list[Any]) -> str:
        # Before the files are on the host.
        ssh, look, jump = values
        script = f'"$HOME/{workstation.FOLDER}/{self._files}/on_host/look.sh"'
        call = f"{ssh} {shlex.quote(f'sh -s -- {remote_words(look)}')} <{script}"
        # The connection that is shared keeps to itself what stopped the one to the host on the way.
        return call if jump is None else f"{call} || {ssh.replace('ssh', 'ssh -oControlPath=none -oControlPersist=no', 1)} true"

    def _send(self, ssh: str) -> str:
        there = f"{workstation.FOLDER}/{self._files}"
        return f'on() {{ {ssh} "$@"; }}; on mkdir -p {there} && tar -cf - -C "$HOME/{there}" . | on tar -xof - -C {there}'

    def _call(self, script: str, words: Words) -> pulumi.Output[str]:
        folder = f"{workstation.FOLDER}/{self._files}/on_host"

        def text(values: list[Any]) -> str:
            ssh, known = values
            call = shlex.quote(f"sh {folder}/{script} {remote_words(known)}")
            return f'{ssh} {call} || sh "$HOME/{folder}/failed.sh" $?'

        return pulumi.Output.all(self._ssh, words).apply(text)


def connect(name: str, arguments: Arguments, parent: pulumi.Resource) -> Host:
    """The host that the arguments name, and what is there.

    :raises InvalidArgument: when one is missing, or belongs to another kind of host.
    """
    stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    doing = "preview" if pulumi.runtime.is_dry_run() else "up"
    where = "this machine" if arguments.host is None else arguments.host.apply(str)
    containers = [
        word for database in arguments.databases if not database.coolify for word in (database.container_name, database.volume_name)
    ]
    look: Words = [doing, where, stack, arguments.network or "-", arguments.image, *containers]

    if arguments.host is None:
        for key, value in {
            "privateKeyFile": arguments.private_key_file,
            "hostKey": arguments.host_key,
            "jumpHost": arguments.jump_host,
            "jumpHostKey": arguments.jump_host_key,
        }.items():
            if value is not None:
                raise InvalidArgument("host", None, f"{key} belongs to a host; give ssh://user@address:port")
        return LocalHost(name, look, parent)
    for of, key, value in (("", "hostKey", arguments.host_key), ("jump ", "jumpHostKey", arguments.jump_host_key)):
        if value is None and not arguments.allow_unverified_host and not (of and arguments.jump_host is None):
            raise InvalidArgument(
                key,
                None,
                f"give the {of}server's public key (on the server: cat /etc/ssh/ssh_host_ed25519_key.pub), "
                "or set allowUnverifiedHost to true and trust whoever answers at that address",
            )
    if arguments.private_key_file is None and not os.environ.get("SSH_AUTH_SOCK"):
        raise InvalidArgument("privateKeyFile", None, "give the path of a private key, or start ssh-agent and add one")
    if os.environ.get("DOCKER_CONTEXT"):
        raise pulumi.RunError("DOCKER_CONTEXT is set, and the docker provider would go there instead of to the host: unset it")
    return SshHost(name, arguments, arguments.host, look, parent)


def read_look(where: str, answer: str, parent: pulumi.Resource | None = None) -> Seen:
    """Reads what look.sh printed, and before it perhaps a login shell.

    :raises pulumi.RunError: when it refused, or was not reached.
    """
    if "notifying-postgres: refused\n" in answer:
        refusal = answer.partition("notifying-postgres: refused\n")[2].rpartition("status ")[0]
        raise pulumi.RunError(refusal.strip())
    lines = [line.removeprefix("notifying-postgres: ") for line in answer.splitlines() if line.startswith("notifying-postgres: ")]
    if "done" in lines:
        seen = dict(line.rpartition(" ")[::2] for line in lines)
        attempts = {key.removeprefix("attempt "): number for key, number in seen.items() if key.startswith("attempt ")}
        return Seen(seen["engine"], seen["image"], attempts, *_read_backups(lines))

    said = " ".join(answer.rpartition("status ")[0].split())
    reason = f"{where} cannot be reached: {said or 'it said nothing'}"
    if "Host key verification failed" in answer:
        offered = re.search(r"fingerprint for the (\S+) key sent by the remote host is\s+(SHA256:[\w+/=]+)", answer)
        reason = (
            f"Host key verification failed: {where} has another key than hostKey (or its jump host another than jumpHostKey)"
            + (f": {offered[1]} {offered[2]}" if offered else "")
            + ". Nothing was sent. If it was reinstalled, set the new one; if not, find out who answers."
        )
    elif "no matching host key type found" in answer:
        reason = f"{where} has no key of the type that hostKey (or jumpHostKey) has. Give the public key that it has: {said}"
    elif "Permission denied" in answer:
        reason += " Give privateKeyFile, or add to ssh-agent, a key that is in ~/.ssh/authorized_keys of that user there."
    if not pulumi.runtime.is_dry_run():
        raise pulumi.RunError(reason)
    pulumi.log.warn(f"{reason} The preview goes on without having seen it.", parent)
    return Seen("not seen", "0", {})


def _read_backups(lines: list[str]) -> tuple[dict[str, BackupState], frozenset[str]]:
    """Reads the lines of `schema-notifications-backup status`, each after `backup CONTAINER`."""
    states: dict[str, BackupState] = {}
    unproven = set()
    for line in lines:
        if not line.startswith("backup "):
            continue
        _, container, kind, what = [*line.split(" ", 3), ""][:4]
        state = states.setdefault(container, {"newest": None, "verified": None, "problem": None})
        if kind == "unproven":
            unproven.add(container)
        elif kind == "wrong":
            state["problem"] = "; ".join(filter(None, [state["problem"], what]))
        elif kind == "newest" and not what.startswith("none"):
            state["newest"] = what.split(" ")[0]
        elif kind == "verified" and what != "none":
            state["verified"] = what
    return states, frozenset(unproven)


def answer(command: local.Command) -> pulumi.Output[str]:
    """What a script answered: its last line. Before it may stand what the login shell prints at its start."""
    return command.stdout.apply(lambda stdout: (stdout.strip().splitlines() or [""])[-1])


def remote_words(words: Sequence[str]) -> str:
    """Words as part of a command line that sshd gives to any user's login shell, be it sh, bash, zsh, fish or csh.

    :raises ValueError: for a word that not all of them would read as it is.
    """
    for word in words:
        if re.search(r"['\\!\n\r\0]", word):
            raise ValueError(f"{word!r} cannot be a word for every login shell")
    return " ".join(word if re.fullmatch(r"[\w@+:,./-]+", word, re.ASCII) else f"'{word}'" for word in words)
