"""NotifyingPostgres with the arguments of the stack's configuration, in its Python form or through the plugin."""

from collections.abc import Callable
from typing import Any

import pulumi
from notifying_postgres import NotifyingPostgres
from notifying_postgres.names import camel_case
from pulumi_command import local

# What takes no Output, in either form.
PLAIN = (
    *("databases", "private_key_file", "allow_unverified_host", "verify_each_up", "registry_image"),
    *("retain_data", "upgrade", "differences"),
)
NESTED = ("coolify", "backup", "relay")

config = pulumi.Config()


def late(value: Any) -> Any:
    """The value, known only when a resource has been made."""
    made: local.Command = waited_for()
    return made.stdout.apply(lambda _: value)


def waited_for() -> local.Command:
    if not waiting:
        waiting.append(local.Command("late", create="echo"))
    return waiting[0]


waiting: list[local.Command] = []
GIVEN: dict[str, Callable[[Any], Any]] = {
    "plain": lambda value: value,
    "output": pulumi.Output.from_input,
    "secret": pulumi.Output.secret,
    "late": late,
    "outer": lambda value: value,  # instead, a database as a whole is an Output
}


def given(settings: Any) -> Any:
    """The settings, those that may be Outputs in the way that the configuration names."""
    if isinstance(settings, list):
        return [given(one) for one in settings]
    way = GIVEN[config.require("way")]
    return {key: given(value) if key in NESTED else value if key in PLAIN else way(value) for key, value in settings.items()}


def renamed(settings: Any) -> Any:
    """The arguments under the names of the schema."""
    if isinstance(settings, list):
        return [renamed(one) for one in settings]
    if not isinstance(settings, dict):
        return settings
    databases = {key: renamed(value) for key, value in settings.get("databases", {}).items()}
    named = {camel_case(key): renamed(value) if key in NESTED else value for key, value in settings.items()}
    return named | ({"databases": databases} if "databases" in settings else {})


args = given(config.require_object("args"))
args["databases"] = {key: given(settings) for key, settings in args["databases"].items()}

if config.require("form") == "native":
    postgres = NotifyingPostgres(pulumi.get_stack(), args)
    pulumi.export("databases", postgres.databases)
else:
    token = "notifying-postgres:index:NotifyingPostgres"
    packaged = renamed(args)
    if config.require("way") == "outer":
        packaged["databases"] = {key: late(database) for key, database in packaged["databases"].items()}
    pulumi.ComponentResource(token, pulumi.get_stack(), packaged, remote=True)
