"""What the plugin does for each of its custom resources, on plain dictionaries. The gRPC around it is in plugin.py."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from . import rules
from .client import Coolify
from .database import Databases, Incomplete, Log, Refused, State

SECRETS = frozenset({"token", "postgresPassword", "environmentVariables", "password", "internalUrl", "externalUrl"})


@dataclass(frozen=True)
class Settings:
    """The provider's configuration: what resources fall back to that name no Coolify themselves."""

    url: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class Task:
    """One call of the engine: how to tell of progress, and whether the user has cancelled."""

    settings: Settings
    log: Log
    cancelled: Callable[[], bool]

    def connect(self, inputs: Mapping[str, Any]) -> Coolify:
        """The Coolify that a resource names, or the provider's configuration.

        :raises Refused: when neither does.
        """
        url = inputs.get("url") or self.settings.url
        token = inputs.get("token") or self.settings.token
        for what, value, key in (("URL", url, "coolifyUrl"), ("API token", token, "coolifyToken")):
            if not value:
                secret = "--secret " if key == "coolifyToken" else ""
                raise Refused(f"Coolify's {what} is missing: run 'pulumi config set {secret}notifying-postgres:{key}'.")
        return Coolify(str(url), str(token))


class Handler(Protocol):
    """One type of resource. `inputs` lack what is not known yet, which happens in previews only."""

    def check(self, name: str, inputs: State, unknown: set[str]) -> tuple[State, list[rules.Problem]]:
        """Completes and checks the arguments."""

    def differences(self, state: State, inputs: State) -> tuple[list[str], list[str]]:
        """The arguments that differ, and those of them that need another resource."""

    def preview(self, task: Task, uuid: str | None, state: State, inputs: State) -> None:
        """Refuses now what would be refused later."""

    def create(self, task: Task, inputs: State) -> tuple[str, State]:
        """Creates it."""

    def read(self, task: Task, uuid: str, state: State, inputs: State) -> tuple[State, State] | None:
        """Reads its state and arguments, None when it is gone."""

    def update(self, task: Task, uuid: str, state: State, inputs: State) -> State:
        """Changes it."""

    def delete(self, task: Task, uuid: str, state: State) -> None:
        """Deletes it."""


class DatabaseHandler:
    """CoolifyDatabase."""

    def check(self, name: str, inputs: State, unknown: set[str]) -> tuple[State, list[rules.Problem]]:
        inputs = {"name": name, **inputs}
        image = inputs.get("image")
        if isinstance(image, str) and "mountPath" not in unknown:
            mount = rules.data_mount(image)
            inputs = ({} if mount is None else {"mountPath": mount}) | inputs
        return inputs, list(rules.database_problems(inputs, unknown))

    def differences(self, state: State, inputs: State) -> tuple[list[str], list[str]]:
        # The way to the server differs from machine to machine, and is no change.
        changed = [key for key in _changed(rules.DATABASE, state, inputs) if key != "docker"]
        # Found stopped, or left unfinished by a deploy that failed.
        return (changed if state.get("ready", True) else [*changed, "ready"]), []

    def preview(self, task: Task, uuid: str | None, state: State, inputs: State) -> None:
        if {"project", "environment", "server"} <= set(inputs):
            with task.connect(inputs) as coolify:
                databases = Databases(coolify, task.log)
                if uuid is None:
                    databases.place(inputs)
                else:
                    databases.refuse_another(uuid, state, inputs)

    def create(self, task: Task, inputs: State) -> tuple[str, State]:
        with task.connect(inputs) as coolify:
            return self._databases(task, coolify, inputs).create(inputs)

    def read(self, task: Task, uuid: str, state: State, inputs: State) -> tuple[State, State] | None:
        with task.connect(inputs or state) as coolify:
            return self._databases(task, coolify, inputs or state).read(uuid, state, inputs)

    def update(self, task: Task, uuid: str, state: State, inputs: State) -> State:
        with task.connect(inputs) as coolify:
            return self._databases(task, coolify, inputs).update(uuid, state, inputs)

    def delete(self, task: Task, uuid: str, state: State) -> None:
        with task.connect(state) as coolify:
            self._databases(task, coolify, state).delete(uuid, state)

    def _databases(self, task: Task, coolify: Coolify, inputs: State) -> Databases:
        return Databases(coolify, task.log, docker=inputs.get("docker"), cancelled=task.cancelled)


class PasswordHandler:
    """CoolifyPassword: Coolify's record follows a password that PostgreSQL already has."""

    def check(self, name: str, inputs: State, unknown: set[str]) -> tuple[State, list[rules.Problem]]:
        del name
        return inputs, list(rules.password_problems(inputs, unknown))

    def differences(self, state: State, inputs: State) -> tuple[list[str], list[str]]:
        changed = _changed(rules.PASSWORD, state, inputs)
        return changed, [key for key in changed if key == "database"]

    def preview(self, task: Task, uuid: str | None, state: State, inputs: State) -> None:
        pass

    def create(self, task: Task, inputs: State) -> tuple[str, State]:
        uuid = str(inputs["database"])
        return uuid, self.update(task, uuid, {}, inputs)

    def read(self, task: Task, uuid: str, state: State, inputs: State) -> tuple[State, State] | None:
        with task.connect(inputs or state) as coolify:
            record = Databases(coolify, task.log).record(uuid)
        if record is None:
            return None
        # Hidden unless the token has the ability read:sensitive: then it is taken to be what it was.
        password = record.get("postgres_password", inputs.get("password"))
        found = {**inputs, "database": uuid} | ({} if password is None else {"password": password})
        return {**state, **found}, found

    def update(self, task: Task, uuid: str, state: State, inputs: State) -> State:
        del state
        with task.connect(inputs) as coolify:
            coolify.update(f"/databases/{uuid}", {"postgres_password": inputs["password"]})
        return dict(inputs)

    def delete(self, task: Task, uuid: str, state: State) -> None:
        pass  # a password cannot be taken out of a record; it goes with the database


def _changed(arguments: Iterable[str], state: State, inputs: State) -> list[str]:
    return [key for key in arguments if state.get(key) != inputs.get(key)]


HANDLERS: dict[str, Handler] = {"CoolifyDatabase": DatabaseHandler(), "CoolifyPassword": PasswordHandler()}

__all__ = ["HANDLERS", "SECRETS", "Handler", "Incomplete", "Refused", "Settings", "Task"]
