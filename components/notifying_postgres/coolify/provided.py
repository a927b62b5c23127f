"""The Coolify resources as the plugin provides them."""

from collections.abc import Iterable
from dataclasses import dataclass
from inspect import get_annotations
from typing import ClassVar

import pulumi

from ..names import SECRETS, camel_case
from ..provider import UNKNOWN, Call, Difference, Refusal, Resource, Values, has_unknown
from . import rules
from .args import CoolifyDatabaseArgs, CoolifyPasswordArgs
from .client import Coolify
from .database import Databases, Refused
from .resource import CoolifyDatabase, CoolifyPassword


@dataclass(frozen=True)
class Settings:
    """The provider's configuration: what resources fall back to that name no Coolify themselves."""

    url: str | None = None
    token: str | None = None

    def connect(self, inputs: Values) -> Coolify:
        """The Coolify that a resource names, or the provider's configuration.

        :raises Refused: when neither does, or it cannot be one.
        """
        known = {}
        for key, what, configured, words in (
            ("url", "URL", self.url, "notifying-postgres:coolifyUrl"),
            ("token", "API token", self.token, "--secret notifying-postgres:coolifyToken"),
        ):
            known[key] = str(inputs.get(key) or configured or "").strip()
            rule = rules.DATABASE[key].rule
            if rule and not rule[0](known[key]):
                wrong = f"cannot be one: {rule[1]}" if known[key] else "is missing"
                raise Refused(f"Coolify's {what} {wrong}. Run 'pulumi config set {words}'.")
        return Coolify(known["url"], known["token"])


class CoolifyResource(Resource):
    """A resource in a Coolify.

    :ivar settings: the provider's configuration.
    :ivar cancelled: whether the user has.
    """

    secrets = SECRETS
    seen: ClassVar[type[pulumi.CustomResource]]
    """What programs see of it, which says what its outputs are."""
    arguments: ClassVar[type]

    def __init__(self) -> None:
        self.settings = Settings()
        self.cancelled = False


class Database(CoolifyResource):
    """CoolifyDatabase."""

    seen = CoolifyDatabase
    arguments = CoolifyDatabaseArgs
    outputs = tuple(map(camel_case, get_annotations(CoolifyDatabase)))

    def check(self, name: str, old: Values, inputs: Values) -> Values:
        inputs = {"name": name, **inputs}
        image = inputs.get("image")
        if isinstance(image, str) and image != UNKNOWN and (mount := rules.data_mount(image)):
            inputs = {"mountPath": mount} | inputs
        known = _known(inputs)
        if problems := list(rules.database_problems(known, set(inputs) - set(known))):
            raise Refusal(*problems)
        return inputs

    def diff(self, old_inputs: Values, state: Values, inputs: Values) -> Difference:
        # The way to the server differs from machine to machine, and is no change.
        changed = _changed(rules.DATABASE, state, inputs) - {"docker"}
        # Found stopped, or left unfinished by a deploy that failed.
        return Difference(changed if state.get("ready", True) else changed | {"ready"})

    def preview(self, call: Call, identity: str | None, state: Values, inputs: Values) -> Values:
        known = _known(inputs)
        if {"project", "environment", "server"} <= set(known) and UNKNOWN not in (self.settings.url, self.settings.token):
            with self.settings.connect(known) as coolify:
                databases = Databases(coolify, call.log)
                if identity is None:
                    databases.place(known)
                else:
                    databases.refuse_another(identity, state, known)
        kept = {key: state[key] for key in self.outputs if key in state}
        return inputs | (super().preview(call, identity, state, inputs) if identity is None else kept)

    def create(self, call: Call, name: str, inputs: Values) -> tuple[str, Values]:
        with self.settings.connect(inputs) as coolify:
            return self._databases(call, coolify, inputs).create(inputs)

    def read(self, call: Call, identity: str, state: Values, inputs: Values) -> tuple[Values, Values] | None:
        with self.settings.connect(inputs or state) as coolify:
            return self._databases(call, coolify, inputs or state).read(identity, state, inputs)

    def update(self, call: Call, identity: str, state: Values, inputs: Values) -> Values:
        with self.settings.connect(inputs) as coolify:
            return self._databases(call, coolify, inputs).update(identity, state, inputs)

    def delete(self, call: Call, identity: str, state: Values) -> None:
        with self.settings.connect(state) as coolify:
            self._databases(call, coolify, state).delete(identity, state)

    def _databases(self, call: Call, coolify: Coolify, inputs: Values) -> Databases:
        return Databases(coolify, call.log, docker=inputs.get("docker"), cancelled=lambda: self.cancelled)


class Password(CoolifyResource):
    """CoolifyPassword: Coolify's record follows a password that PostgreSQL already has."""

    seen = CoolifyPassword
    arguments = CoolifyPasswordArgs

    def check(self, name: str, old: Values, inputs: Values) -> Values:
        known = _known(inputs)
        if problems := list(rules.password_problems(known, set(inputs) - set(known))):
            raise Refusal(*problems)
        return inputs

    def diff(self, old_inputs: Values, state: Values, inputs: Values) -> Difference:
        changed = _changed(rules.PASSWORD, state, inputs)
        return Difference(changed - {"database"}, changed & {"database"}, delete_before_replace=True)

    def create(self, call: Call, name: str, inputs: Values) -> tuple[str, Values]:
        uuid = str(inputs["database"])
        return uuid, self.update(call, uuid, {}, inputs)

    def read(self, call: Call, identity: str, state: Values, inputs: Values) -> tuple[Values, Values] | None:
        with self.settings.connect(inputs or state) as coolify:
            record = Databases(coolify, call.log).record(identity)
        if record is None:
            return None
        # Hidden unless the token has the ability read:sensitive: then it is taken to be what it was.
        password = record.get("postgres_password", inputs.get("password"))
        found = {**inputs, "database": identity} | ({} if password is None else {"password": password})
        return {**state, **found}, found

    def update(self, call: Call, identity: str, state: Values, inputs: Values) -> Values:
        with self.settings.connect(inputs) as coolify:
            coolify.update(f"/databases/{identity}", {"postgres_password": inputs["password"]})
        return dict(inputs)

    def delete(self, call: Call, identity: str, state: Values) -> None:
        pass  # a password cannot be taken out of a record; it goes with the database


def _known(inputs: Values) -> Values:
    return {key: value for key, value in inputs.items() if not has_unknown(value)}


def _changed(arguments: Iterable[str], state: Values, inputs: Values) -> set[str]:
    return {key for key in arguments if state.get(key) != inputs.get(key)}
