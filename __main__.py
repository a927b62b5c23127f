"""The program that `pulumi up` runs: reads the stack's configuration, makes one NotifyingPostgres, exports what it made."""

import asyncio
import os
import re
import signal
from typing import Any, cast

import pulumi
from notifying_postgres import NotifyingPostgres, NotifyingPostgresArgs
from notifying_postgres.args import DEFAULT_BASE_IMAGE
from notifying_postgres.errors import camel_case

# All but the registry's image, which toolchain/setup chooses.
SETTINGS = [camel_case(name) for name in NotifyingPostgresArgs.__annotations__ if name != "registry_image"]


def snake_case(name: str) -> str:
    """Turns the name of a setting, as a stack file has it, into the name of an argument."""
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def read_args(config: pulumi.Config) -> NotifyingPostgresArgs:
    """Reads the component's arguments from the stack's configuration. The component checks them."""
    # The empty string stands for a setting that is not given: Pulumi asks for every setting that has no default.
    args: dict[str, Any] = {snake_case(key): config.get(key) for key in SETTINGS if config.get(key)}
    if "allow_unverified_host" in args:
        args["allow_unverified_host"] = config.get_bool("allowUnverifiedHost")
    if "databases" in args:
        databases = config.get_object("databases")
        if isinstance(databases, dict):
            databases = {key: read_database(value) for key, value in databases.items()}
        args["databases"] = databases
    # Set by toolchain/setup where the official images cannot be pulled.
    if "NOTIFYING_POSTGRES_REGISTRY_IMAGE" in os.environ:
        args["registry_image"] = os.environ["NOTIFYING_POSTGRES_REGISTRY_IMAGE"]
    if args.get("base_image", DEFAULT_BASE_IMAGE) == DEFAULT_BASE_IMAGE:
        args["base_image"] = os.environ.get("NOTIFYING_POSTGRES_BASE_IMAGE", DEFAULT_BASE_IMAGE)
    return cast(NotifyingPostgresArgs, args)


def read_database(settings: Any) -> Any:
    """Reads the arguments of one database; a key without settings has none."""
    if not isinstance(settings, dict):
        return {} if settings is None else settings
    args = {snake_case(key): value for key, value in settings.items()}
    if "password" in args:
        args["password"] = pulumi.Output.secret(args["password"])
    for nested in ("coolify", "backup"):
        if isinstance(args.get(nested), dict):
            args[nested] = renamed(args[nested])
    return args


def renamed(settings: Any) -> Any:
    """Turns the names of settings within settings into those of arguments."""
    if isinstance(settings, list):
        return [renamed(item) for item in settings]
    if isinstance(settings, dict):
        return {snake_case(key): value if key == "environmentVariables" else renamed(value) for key, value in settings.items()}
    return settings


async def program() -> dict[str, pulumi.Output[Any]]:
    """Makes the databases, and returns the stack's outputs."""
    postgres = NotifyingPostgres(pulumi.get_stack(), read_args(pulumi.Config()))
    # The resources begin to register here. If none had begun when the program ends, the SDK would go through all outputs there
    # are each time that one becomes known (wait_for_rpcs), which takes as long as the rest for 20 databases.
    await asyncio.sleep(0)
    return {"databases": postgres.databases, "urls": postgres.urls, "imageId": postgres.image_id}


if __name__ == "__main__":
    # How the engine ends a program when a resource has failed: the reason stands alone then, without a traceback of this.
    signal.signal(signal.SIGINT, lambda *_: os._exit(1))
    pulumi.run(program)
