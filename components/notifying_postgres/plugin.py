"""The plugin `notifying-postgres`: what the Pulumi engine starts to serve the component and the Coolify resources.

The SDK's own host serves components only (pulumi/provider/server.py). This one adds the calls that custom resources need:
check, diff, create, read, update and delete, so that `pulumi refresh` sees drift and `pulumi import` adopts a database.
"""

import argparse
import asyncio
import inspect
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc.aio
import pulumi
from grpc import ServicerContext
from pulumi.provider.experimental.analyzer import Analyzer, ComponentDefinition, PropertyDefinition, PropertyType
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.experimental.schema import ComplexType, Property
from pulumi.provider.server import ProviderServicer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import provider_pb2_grpc
from pulumi.runtime.proto.provider_pb2 import (
    CallRequest,
    CallResponse,
    ConfigureRequest,
    ConfigureResponse,
    ConstructRequest,
    ConstructResponse,
)

from . import provider
from .coolify.args import CoolifyArgs
from .coolify.provided import CoolifyResource, Database, Password, Settings
from .names import SECRETS
from .provider import Values

PACKAGE = "notifying-postgres"
VERSION = "0.1.0"

RESOURCES: dict[str, type[CoolifyResource]] = {one.seen.__name__: one for one in (Database, Password)}


def serve(components: list[type[pulumi.ComponentResource]]) -> None:
    """Serves the components and the Coolify resources until the engine ends the process."""
    parser = argparse.ArgumentParser(description=f"The Pulumi plugin {PACKAGE}; the Pulumi engine starts it.")
    parser.add_argument("engine", help="the engine's address")
    engine: str = parser.parse_known_args()[0].engine

    async def run() -> None:
        # The component is made on the loop; each call of a resource has a thread, since it may wait for a database.
        threads = ThreadPoolExecutor(provider.PARALLEL_CALLS)
        server = grpc.aio.server(migration_thread_pool=threads, options=_GRPC_CHANNEL_OPTIONS)
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

    def get_state(self, instance: pulumi.ComponentResource, component_def: ComponentDefinition) -> Values:
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


class Plugin(provider.Plugin):
    """The Coolify resources, and beside them the components, which the SDK's servicer makes."""

    def __init__(self, components: list[type[pulumi.ComponentResource]], engine: str) -> None:
        self._coolify = {name: resource() for name, resource in RESOURCES.items()}
        super().__init__(PACKAGE, VERSION, {f"{PACKAGE}:index:{name}": one for name, one in self._coolify.items()})
        self.connect(engine)
        served = Components(components, PACKAGE, version=VERSION)
        self.schema = schema(served.schema or "{}")
        self._components = ProviderServicer(served, [], engine)

    def check_config(self, config: provider.Values) -> None:
        pass  # another token, or another name of the same Coolify, replaces nothing

    def configure(self, config: provider.Values) -> None:
        for resource in self._coolify.values():
            resource.settings = Settings(config.get("coolifyUrl"), config.get("coolifyToken"))

    def cancel(self) -> None:
        for resource in self._coolify.values():
            resource.cancelled = True

    # gRPC names them, hence the capitals.

    def Configure(self, request: ConfigureRequest, context: ServicerContext) -> ConfigureResponse:
        answer = super().Configure(request, context)
        answer.acceptResources = answer.acceptOutputs = True  # of the components
        return answer

    async def Construct(self, request: ConstructRequest, context: ServicerContext) -> ConstructResponse:
        return await self._components.Construct(request, context)

    async def Call(self, request: CallRequest, context: ServicerContext) -> CallResponse:
        response: CallResponse = await self._components.Call(request, context)
        return response


def schema(components: str) -> str:
    """Adds the Coolify resources and the provider's configuration to the schema of the components, and marks the secrets.

    :param components: the schema that the SDK derived from the components, as JSON.
    """
    package: Values = json.loads(components)
    analyzer = Analyzer(PACKAGE)
    # The SDK finds no descriptions of what a TypedDict inherits.
    inherited = _properties(analyzer.analyze_type(CoolifyArgs, is_component_output=False)[0])
    for name, resource in RESOURCES.items():
        definitions, _ = analyzer.analyze_type(resource.arguments, is_component_output=False)
        inputs = {key: inherited.get(key, {}) | one for key, one in _properties(definitions).items()}
        outputs = _properties(analyzer.analyze_type(resource.seen, is_component_output=True)[0])
        required = sorted(key for key, one in definitions.items() if not one.optional)
        package["resources"][f"{PACKAGE}:index:{name}"] = {
            "description": resource.arguments.__doc__,
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
            for key in properties.keys() & SECRETS:
                properties[key]["secret"] = True
    return json.dumps(package)


def _properties(definitions: Mapping[str, PropertyDefinition]) -> dict[str, Values]:
    return {key: _without_nulls(Property.from_definition(one).to_json()) for key, one in definitions.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def main() -> None:
    """Serves NotifyingPostgres and the Coolify resources."""
    from .component import NotifyingPostgres

    serve([NotifyingPostgres])
