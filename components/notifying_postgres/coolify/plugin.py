"""The plugin `notifying-postgres`: what the Pulumi engine starts to serve the component and the Coolify resources.

The SDK's own host serves components only (pulumi/provider/server.py). This one adds the calls that custom resources need:
check, diff, create, read, update and delete, so that `pulumi refresh` sees drift and `pulumi import` adopts a database.
"""

import argparse
import asyncio
import inspect
import json
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pulumi
from google.protobuf import any_pb2, empty_pb2, struct_pb2
from pulumi.provider.experimental.analyzer import Analyzer, ComponentDefinition, PropertyDefinition, PropertyType
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.experimental.property_value import Computed, PropertyValue
from pulumi.provider.experimental.schema import ComplexType, Property
from pulumi.provider.server import ProviderServicer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc, status_pb2
from pulumi.runtime.rpc import UNKNOWN

from .args import CoolifyArgs, CoolifyDatabaseArgs, CoolifyPasswordArgs
from .client import CoolifyError
from .handlers import HANDLERS, SECRETS, Handler, Incomplete, Refused, Settings, Task

PACKAGE = "notifying-postgres"
VERSION = "0.1.0"

_NOT_KNOWN = object()
_OUTPUTS: dict[str, dict[str, tuple[str, str]]] = {
    "CoolifyDatabase": {
        "status": ("string", "The status that Coolify reported last, such as `running:healthy`."),
        "internalUrl": ("string", "The database's URL by its name on the destination's network, which is its uuid."),
        "externalUrl": ("string", "The URL at the public port, when there is one and the token may read it."),
        "password": ("string", "The superuser's password in Coolify's record."),
        "volumeName": ("string", "The volume that holds the data, on the server."),
        "projectUuid": ("string", "The project's uuid."),
        "environmentUuid": ("string", "The environment's uuid."),
        "environmentId": ("integer", "The environment's number, by which Coolify's records name it."),
        "serverUuid": ("string", "The server's uuid."),
        "destinationUuid": ("string", "The destination's uuid."),
        "backupUuids": ("array", "The uuids of the scheduled backups, in the order of `backups`."),
        "backupStorages": ("array", "The numbers by which Coolify's records name the S3 storages of `backups`."),
        "started": ("boolean", "Whether it was ever started."),
        "starts": ("integer", "How often a deploy had Coolify start or restart it."),
        "ready": ("boolean", "Whether it runs with these arguments."),
    },
    "CoolifyPassword": {},
}


def serve(components: list[type[pulumi.ComponentResource]]) -> None:
    """Serves the components and the Coolify resources until the engine ends the process."""
    parser = argparse.ArgumentParser(description=f"The Pulumi plugin {PACKAGE}; the Pulumi engine starts it.")
    parser.add_argument("engine", help="the engine's address")
    engine: str = parser.parse_known_args()[0].engine

    async def run() -> None:
        server = grpc.aio.server(options=_GRPC_CHANNEL_OPTIONS)
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(Plugin(components, engine), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(port, flush=True)  # the handshake: the engine reads it from standard output
        await server.wait_for_termination()

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        sys.exit(130)


class Components(ComponentProvider):
    """The SDK's provider of components, strict with arguments, and with the outputs as the schema names them (SDK 3.272)."""

    def map_input_properties(
        self,
        inputs: Any,
        properties: dict[str, PropertyDefinition],
        mapping: dict[str, str],
        component_name: str,
        property_path: str,
    ) -> Any:
        # The SDK would take either for no settings at all, and make a database with the defaults.
        prefix = f"{property_path}." if property_path else ""
        if not isinstance(inputs, Mapping):
            raise pulumi.InputPropertyError(property_path, "give the settings by name; only a single setting may be an output")
        for key in sorted(inputs.keys() - properties.keys()):
            raise pulumi.InputPropertyError(prefix + key, f"not an argument; there are {', '.join(sorted(properties))}")
        # The SDK makes integers of the wire's floats, but not of one that is an output.
        integers = {key for key, one in properties.items() if one.type == PropertyType.INTEGER}
        late = {key for key in integers & inputs.keys() if isinstance(inputs[key], pulumi.Output)}
        known = {key: value for key, value in inputs.items() if key not in late}
        mapped = super().map_input_properties(known, properties, mapping, component_name, property_path)
        return {**mapped, **{mapping[key]: inputs[key].apply(int) for key in late}}

    def get_state(self, instance: pulumi.ComponentResource, component_def: ComponentDefinition) -> dict[str, Any]:
        state = super().get_state(instance, component_def)
        for key, output in component_def.outputs.items():
            kind = output.additional_properties and output.additional_properties.ref
            if kind:  # the SDK names the keys of a type, but not those of a type's values in a map
                definition = self._type_defs[kind.rpartition(":")[2]]
                state[key] = state[key].apply(
                    lambda values, definition=definition: {
                        name: self.map_complex_output(value, definition) for name, value in values.items()
                    }
                )
        return state


class Plugin(ProviderServicer):
    """The SDK's servicer for components, with the calls for custom resources beside them."""

    def __init__(self, components: list[type[pulumi.ComponentResource]], engine: str) -> None:
        provider = Components(components, PACKAGE, version=VERSION)
        super().__init__(provider, [], engine)
        provider.schema = schema(provider.schema or "{}")
        self._settings = Settings()
        self._cancelled = threading.Event()
        self._engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(engine))
        # One thread for each database that is being waited for.
        self._threads = ThreadPoolExecutor(max_workers=32)

    # The engine's calls. gRPC names them, hence the capitals.

    async def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    async def DiffConfig(self, request: Any, context: Any) -> Any:
        # Another token, or another name of the same Coolify, replaces nothing.
        same = request.olds == request.news
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_NONE if same else provider_pb2.DiffResponse.DIFF_SOME
        )

    async def Configure(self, request: Any, context: Any) -> Any:
        settings = {key.rpartition(":")[2]: value for key, value in request.variables.items()}
        self._settings = Settings(settings.get("coolifyUrl"), settings.get("coolifyToken"))
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True, acceptResources=True, acceptOutputs=True)

    async def Check(self, request: Any, context: Any) -> Any:
        handler, name = _handler(request.urn)
        given, unknown = _from_engine(request.news)
        inputs, problems = handler.check(name, given, unknown)
        return provider_pb2.CheckResponse(
            inputs=_to_engine(inputs, unknown),
            failures=[provider_pb2.CheckFailure(property=key, reason=reason) for key, reason in problems],
        )

    async def Diff(self, request: Any, context: Any) -> Any:
        handler, _ = _handler(request.urn)
        state, _ = _from_engine(request.olds)
        inputs, unknown = _from_engine(request.news)
        ignored = set(request.ignoreChanges)
        changed, replaces = handler.differences(state, inputs)
        changed = [key for key in dict.fromkeys([*changed, *sorted(unknown)]) if key not in ignored]
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=changed,
            replaces=[key for key in changed if key in replaces],
            deleteBeforeReplace=True,
        )

    async def Create(self, request: Any, context: Any) -> Any:
        handler, _ = _handler(request.urn)
        inputs, unknown = _from_engine(request.properties)
        if request.preview:
            await self._do(context, request.urn, lambda task: handler.preview(task, None, {}, inputs))
            return provider_pb2.CreateResponse(properties=_to_engine(inputs, {*_OUTPUTS[_type(request.urn)], *unknown}))
        uuid, state = await self._do(context, request.urn, lambda task: handler.create(task, inputs), inputs=inputs)
        return provider_pb2.CreateResponse(id=uuid, properties=_to_engine(state))

    async def Read(self, request: Any, context: Any) -> Any:
        handler, _ = _handler(request.urn)
        state, _ = _from_engine(request.properties)
        inputs, _ = _from_engine(request.inputs)
        found = await self._do(context, request.urn, lambda task: handler.read(task, request.id, state, inputs))
        if found is None:
            return provider_pb2.ReadResponse()  # without an id: it is gone
        return provider_pb2.ReadResponse(id=request.id, properties=_to_engine(found[0]), inputs=_to_engine(found[1]))

    async def Update(self, request: Any, context: Any) -> Any:
        handler, _ = _handler(request.urn)
        state, _ = _from_engine(request.olds)
        inputs, unknown = _from_engine(request.news)
        if request.preview:
            await self._do(context, request.urn, lambda task: handler.preview(task, request.id, state, inputs))
            outputs = {key: state[key] for key in _OUTPUTS[_type(request.urn)] if key in state}
            return provider_pb2.UpdateResponse(properties=_to_engine(outputs | inputs, unknown))
        new = await self._do(context, request.urn, lambda task: handler.update(task, request.id, state, inputs), inputs=inputs)
        return provider_pb2.UpdateResponse(properties=_to_engine(new))

    async def Delete(self, request: Any, context: Any) -> Any:
        handler, _ = _handler(request.urn)
        state, _ = _from_engine(request.properties)
        await self._do(context, request.urn, lambda task: handler.delete(task, request.id, state))
        return empty_pb2.Empty()

    async def Cancel(self, request: Any, context: Any) -> Any:
        self._cancelled.set()
        return empty_pb2.Empty()

    async def _do(self, context: Any, urn: str, work: Callable[[Task], Any], inputs: dict[str, Any] | None = None) -> Any:
        """Works in a thread of its own; what is refused or fails reaches the user as its sentence, without a traceback."""

        def log(message: str) -> None:
            request = engine_pb2.LogRequest(severity=engine_pb2.INFO, message=message, urn=urn)
            self._engine.Log(request)

        task = Task(self._settings, log, self._cancelled.is_set)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, task)
        except Incomplete as error:
            await context.abort_with_status(_incomplete(error, inputs or {}))
        except (Refused, CoolifyError) as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))


class _Status(grpc.Status):
    def __init__(self, details: str, metadata: tuple[tuple[str, bytes], ...]) -> None:
        self.code = grpc.StatusCode.UNKNOWN
        self.details = details
        self.trailing_metadata = metadata


def _incomplete(error: Incomplete, inputs: dict[str, Any]) -> _Status:
    """The engine's way to say that a resource exists but is not done: it keeps the state, and the next `up` goes on from there."""
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=error.uuid,
            properties=_to_engine(error.state),
            reasons=[str(error)],
            inputs=_to_engine(inputs),
        )
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error), details=[detail])
    return _Status(str(error), (("grpc-status-details-bin", status.SerializeToString()),))


def _type(urn: str) -> str:
    return urn.split("::")[2].rpartition(":")[2]


def _handler(urn: str) -> tuple[Handler, str]:
    """The handler for a resource, and the resource's name."""
    return HANDLERS[_type(urn)], urn.split("::", 3)[3]


def _from_engine(properties: Any) -> tuple[dict[str, Any], set[str]]:
    """Reads the engine's values.

    :returns: those that are known, and the names of those that are not, wholly or in part.
    """
    values = {key: _plain(value) for key, value in PropertyValue.unmarshal_map(properties).items()}
    unknown = {key for key, value in values.items() if _has_unknown(value)}
    known = {key: value for key, value in values.items() if key not in unknown and value is not None}
    known.pop("__defaults", None)  # the SDKs' own
    return known, unknown


def _plain(value: PropertyValue) -> Any:
    content = value.value
    # PropertyValue reads only one of the two ways in which the engine says that it does not know yet (SDK 3.272).
    if isinstance(content, Computed) or content == UNKNOWN:
        return _NOT_KNOWN
    if isinstance(content, float) and content.is_integer():
        return int(content)  # the protocol knows no integers
    if isinstance(content, tuple):
        return [_plain(item) for item in content]
    if isinstance(content, Mapping):
        return {key: _plain(item) for key, item in content.items()}
    return content


def _has_unknown(value: Any) -> bool:
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else []
    return value is _NOT_KNOWN or any(_has_unknown(item) for item in items)


def _to_engine(values: dict[str, Any], unknown: Iterable[str] = ()) -> struct_pb2.Struct:
    """The values as the engine takes them, secrets marked as such, with those that are not known yet."""
    result = PropertyValue.marshal_map(
        {key: _value(value).with_secret(key in SECRETS) for key, value in values.items() if value is not None}
    )
    for key in unknown:
        result[key] = UNKNOWN  # PropertyValue cannot marshal its own Computed (SDK 3.272)
    return result


def _value(value: Any) -> PropertyValue:
    if isinstance(value, list):
        return PropertyValue([_value(item) for item in value])
    if isinstance(value, dict):
        return PropertyValue({key: _value(item) for key, item in value.items() if item is not None})
    return PropertyValue(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def schema(components: str) -> str:
    """Adds the Coolify resources and the provider's configuration to the schema of the components, and marks the secrets.

    :param components: the schema that the SDK derived from the components, as JSON.
    """
    package: dict[str, Any] = json.loads(components)
    analyzer = Analyzer(PACKAGE)
    # The SDK finds no descriptions of what a TypedDict inherits.
    inherited = _properties(analyzer.analyze_type(CoolifyArgs, is_component_output=False)[0])
    for name, args in {"CoolifyDatabase": CoolifyDatabaseArgs, "CoolifyPassword": CoolifyPasswordArgs}.items():
        definitions, _ = analyzer.analyze_type(args, is_component_output=False)
        inputs = {key: inherited.get(key, {}) | one for key, one in _properties(definitions).items()}
        outputs = {key: _output(kind, text) for key, (kind, text) in _OUTPUTS[name].items()}
        required = sorted(key for key, one in definitions.items() if not one.optional)
        package["resources"][f"{PACKAGE}:index:{name}"] = {
            "description": args.__doc__,
            "type": "object",
            "inputProperties": inputs,
            "requiredInputs": required,
            "properties": inputs | outputs,
            "required": required,
        }
    for name, definition in analyzer.type_definitions.items():
        package["types"][f"{PACKAGE}:index:{name}"] = _without_nulls(ComplexType.from_definition(definition).to_json())
    config = {
        "coolifyUrl": {"type": "string", "description": "Coolify's URL, such as https://coolify.example.com."},
        "coolifyToken": {"type": "string", "secret": True, "description": "An API token that may read, write and deploy."},
    }
    package["config"] = {"variables": config}
    package["provider"] = {"type": "object", "inputProperties": config}
    for described in (*package["resources"].values(), *package["types"].values()):
        described["description"] = inspect.cleandoc(described["description"])
        for properties in (described["properties"], described.get("inputProperties", {})):
            for key in properties.keys() & (SECRETS | {"urls"}):
                properties[key]["secret"] = True
    return json.dumps(package)


def _properties(definitions: Mapping[str, PropertyDefinition]) -> dict[str, dict[str, Any]]:
    return {key: _without_nulls(Property.from_definition(one).to_json()) for key, one in definitions.items()}


def _output(kind: str, description: str) -> dict[str, Any]:
    return {"type": kind, "description": description} | ({"items": {"type": "string"}} if kind == "array" else {})


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def main() -> None:
    """Serves NotifyingPostgres and the Coolify resources."""
    from ..component import NotifyingPostgres

    serve([NotifyingPostgres])
