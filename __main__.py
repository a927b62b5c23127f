"""The program that `pulumi up` runs: reads the stack's configuration, makes one NotifyingPostgres, exports what it made."""

import asyncio
import os
import signal
from typing import Any, cast

import pulumi
from notifying_postgres import NotifyingPostgres, NotifyingPostgresArgs
from notifying_postgres.args import DEFAULT_BASE_IMAGE
from notifying_postgres.names import camel_case, renamed, snake_case

# All but the registry's image, which toolchain/setup chooses.
SETTINGS = [camel_case(name) for name in NotifyingPostgresArgs.__annotations__ if name != "registry_image"]


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
    args = renamed(settings, snake_case)
    if "password" in args:
        args["password"] = pulumi.Output.secret(args["password"])
    return args


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
