"""The program that `pulumi up` runs: reads the stack's configuration, makes one NotifyingPostgres, exports what it made."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, cast

import pulumi
from notifying_postgres import NotifyingPostgres, NotifyingPostgresArgs
from notifying_postgres.args import DEFAULT_BASE_IMAGE
from notifying_postgres.names import camel_case, renamed, snake_case
from notifying_postgres.relay.args import DEFAULT_RELAY_BASE_IMAGE
from pulumi.runtime.proto.engine_pb2 import ERROR, LogRequest
from pulumi.runtime.settings import get_engine

# All but the registry's image, which toolchain/setup chooses.
SETTINGS = [camel_case(name) for name in NotifyingPostgresArgs.__annotations__ if name != "registry_image"]


def read_args(config: pulumi.Config) -> NotifyingPostgresArgs:
    """Reads the component's arguments from the stack's configuration. The component checks them."""
    # The empty string stands for a setting that is not given: Pulumi asks for every setting that has no default.
    args: dict[str, Any] = {snake_case(key): config.get(key) for key in SETTINGS if config.get(key)}
    for name in {"allow_unverified_host", "verify_each_up"} & args.keys():
        args[name] = config.get_bool(camel_case(name))
    if "databases" in args:
        databases = config.get_object("databases")
        if isinstance(databases, dict):
            databases = {key: read_database(value) for key, value in databases.items()}
        args["databases"] = databases
    # Set by toolchain/setup where the official images cannot be pulled. No other machine has the stand-ins.
    if re.search(r"^(.*@)?(127\.0\.0\.1|localhost|\[::1\])(:|$)", args.get("host", "localhost")):
        if "NOTIFYING_POSTGRES_REGISTRY_IMAGE" in os.environ:
            args["registry_image"] = os.environ["NOTIFYING_POSTGRES_REGISTRY_IMAGE"]
        if args.get("base_image", DEFAULT_BASE_IMAGE) == DEFAULT_BASE_IMAGE:
            args["base_image"] = os.environ.get("NOTIFYING_POSTGRES_BASE_IMAGE", DEFAULT_BASE_IMAGE)
        if args.get("relay_base_image", DEFAULT_RELAY_BASE_IMAGE) == DEFAULT_RELAY_BASE_IMAGE:
            args["relay_base_image"] = os.environ.get("NOTIFYING_POSTGRES_RELAY_BASE_IMAGE", DEFAULT_RELAY_BASE_IMAGE)
    return cast(NotifyingPostgresArgs, args)


def read_database(settings: Any) -> Any:
    """Reads the arguments of one database; a key without settings has none."""
    if not isinstance(settings, dict):
        return {} if settings is None else settings
    args = renamed(settings, snake_case)
    if "password" in args:
        args["password"] = pulumi.Output.secret(args["password"])
    for sink in args["relay"] if isinstance(args.get("relay"), list) else ():
        if isinstance(sink, dict) and sink.get("secret") is not None:
            sink["secret"] = pulumi.Output.secret(sink["secret"])
    return args


async def program() -> dict[str, pulumi.Output[Any]]:
    """Makes the databases, and returns the stack's outputs when they are known.

    They are awaited here, so that what is refused while they are found out ends in `refuse`.
    """
    try:
        postgres = NotifyingPostgres(pulumi.get_stack(), read_args(pulumi.Config()))
        # The resources begin to register here. If none had begun when the outputs are awaited, the SDK would go through all there
        # are each time that one becomes known, which takes as long as the rest for 20 databases.
        await asyncio.sleep(0)
        outputs = {
            "databases": postgres.databases.apply(summary),
            "urls": postgres.urls,
            "imageId": postgres.image_id,
            "backups": postgres.backups.apply(present),
        }
        await pulumi.Output.all(**outputs).future()
    except pulumi.RunError as refusal:
        refuse(str(refusal))
    return outputs


def summary(databases: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """What a person wants to know of each database, in a line for each thing."""
    return {key: dict(_lines(database)) for key, database in databases.items()}


def present(backups: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """How the backups are, without what is not there."""
    return {key: {name: said for name, said in state.items() if said is not None} for key, state in backups.items()}


def _lines(database: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("container_name", "volume_name", "host", "published"):
        if database.get(name) is not None:
            yield name, database[name]
    if check := database.get("check"):
        heard = ", ".join(notice["tag"] for notice in check["notices"])
        yield "check", f"PostgreSQL {check['server_version']}, schema_notifications {check['extension_version']}, heard {heard}"


def refuse(reason: str) -> NoReturn:
    """Ends the program with a reason, which stands alone: no traceback, no "unhandled error" after it."""
    engine = cast(Any, get_engine())
    engine.Log(LogRequest(severity=ERROR, message=reason))
    end()


def end(*_: Any) -> NoReturn:
    """Ends the program at once. The status tells Pulumi that the reason has been shown."""
    os._exit(32)


if __name__ == "__main__":
    # How the engine ends a program when a resource has failed, which it has shown.
    signal.signal(signal.SIGINT, end)
    pulumi.run(program)
