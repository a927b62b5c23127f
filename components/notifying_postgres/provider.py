"""Pulumi's provider protocol: what the Coolify resources and, by path, the stand-in plugins of toolchain/ are made with.

A plugin is a program that the engine starts with its own address as the argument, that prints the port it serves gRPC on, and
that answers the calls of a `ResourceProvider`: Check, Diff, Create, Read, Update, Delete for each resource. `Plugin` does the
translation; a `Resource` holds what one type of resource means. Values travel as protobuf structs in which secrets, and values
not yet known in a preview, are marked. Resources see plain Python values; `Plugin` sees to it that what was secret stays so.

The SDK's own provider classes (3.272) add tracebacks to errors, have no way to keep what was made by half, cannot marshal what is
not known yet, and drop an archive's hash. Of the SDK only the messages are imported here: so stand-ins start in 0.1 s.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar

import grpc
from google.protobuf import any_pb2, empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

SIGNATURE = "4dabf18193072939515e22adb298388d"  # the key that tells a marked value from an ordinary object
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105
ASSET = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE = "0def7320c3a5731c473e5ecbe6d01bc7"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_UNKNOWNS = {  # one for each type of value: string, bool, number, array, asset, archive, object
    UNKNOWN,
    "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
    "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
    "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
    "030794c1-ac77-496b-92df-f27374a8bd58",
    "e48ece36-62e2-4504-bad9-02848725956a",
    "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
}
MESSAGE_LIMIT = 400 * 1024 * 1024  # the engine's own
PARALLEL_CALLS = 64

Values = dict[str, Any]
"""Inputs or state, as JSON has them."""


def plain(value: Any) -> Any:
    """`value`, part of a struct as JSON, without the marks of secrets; unknown values become `UNKNOWN`, whole floats ints."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return plain(value["value"])
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value in _UNKNOWNS:
        return UNKNOWN
    return value


def has_unknown(value: object) -> bool:
    """Whether a part of `value` is not yet known."""
    if isinstance(value, dict):
        return any(map(has_unknown, value.values()))
    if isinstance(value, list):
        return any(map(has_unknown, value))
    return bool(value == UNKNOWN)


def comparable(value: object) -> object:
    """`value` for `==`: assets and archives are equal when their content is, wherever it lies."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) in (ASSET, ARCHIVE):
            return value[SIGNATURE], value.get("hash")
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return value


def _raw(struct: struct_pb2.Struct) -> Values:
    """As JSON, without what the SDKs add for themselves."""
    raw: Values = json_format.MessageToDict(struct)
    raw.pop("__defaults", None)
    return raw


def _values(struct: struct_pb2.Struct) -> Values:
    """In plain Python."""
    values: Values = plain(_raw(struct))
    return values


def _struct(values: Values) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(values)
    return struct


def _has_secret(raw: object) -> bool:
    if isinstance(raw, dict):
        return raw.get(SIGNATURE) == SECRET or any(map(_has_secret, raw.values()))
    return isinstance(raw, list) and any(map(_has_secret, raw))


def _overlay(raw: Values, values: Values, secret: Collection[str] = ()) -> struct_pb2.Struct:
    """`values` as a struct, with the marks of `raw`, the values as they came; what was partly secret and differs is all secret.

    :param secret: what is secret however it came.
    """
    out: Values = {}
    for key, value in values.items():
        if key in raw and plain(raw[key]) == value and (key not in secret or _has_secret(raw[key])):
            out[key] = raw[key]
        elif (key in secret and value != UNKNOWN) or _has_secret(raw.get(key)):
            out[key] = {SIGNATURE: SECRET, "value": value}
        else:
            out[key] = value
    return _struct(out)


Problem = tuple[str, str]
"""An input, and what is wrong with it."""


class Refusal(Exception):
    """Inputs that the resource does not allow.

    :ivar problems: what is wrong with which.
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{key}: {reason}" for key, reason in problems))
        self.problems = problems


class HalfDone(Exception):
    """The resource exists, and something after that failed: the engine keeps the state, and the next `up` goes on from there.

    :ivar id: what it exists under.
    :ivar state: what is known of it.
    """

    def __init__(self, identity: str, state: Values, reason: str) -> None:
        super().__init__(reason)
        self.id, self.state = identity, state


@dataclass
class Call:
    """What a resource may want to know about the call it answers."""

    urn: str
    log: Callable[[str], None]
    """Tells the user something."""
    show: Callable[[str], None]
    """Shows a line in the engine's progress display, until the next."""


@dataclass
class Difference:
    """Which inputs changed, by what has to be done about it."""

    update: set[str] = field(default_factory=set)
    replace: set[str] = field(default_factory=set)
    delete_before_replace: bool = False


class Resource:
    """One type of resource. Values are plain Python; state is the inputs and the outputs in one dict."""

    outputs: ClassVar[Iterable[str]] = ()
    """The outputs that are no inputs: not known before they are made."""
    secrets: ClassVar[Collection[str]] = ()
    """The inputs and outputs that are secret, whatever they are made of."""

    def check(self, name: str, old: Values, inputs: Values) -> Values:
        """`inputs` completed; raises Refusal."""
        return inputs

    def diff(self, old_inputs: Values, state: Values, inputs: Values) -> Difference:
        raise NotImplementedError

    def preview(self, call: Call, identity: str | None, state: Values, inputs: Values) -> Values:
        """The state that `create`, or `update` of what has an identity, would lead to, as far as it is known; may refuse it."""
        return inputs | dict.fromkeys(set(self.outputs) - set(inputs), UNKNOWN)

    def create(self, call: Call, name: str, inputs: Values) -> tuple[str, Values]:
        """The new resource's id and state."""
        raise NotImplementedError

    def read(self, call: Call, identity: str, state: Values, inputs: Values) -> tuple[Values, Values] | None:
        """State and inputs as they really are; None when the resource is gone. Without inputs it is an import."""
        return state, inputs

    def update(self, call: Call, identity: str, state: Values, inputs: Values) -> Values:
        raise NotImplementedError

    def delete(self, call: Call, identity: str, state: Values) -> None:
        raise NotImplementedError


def changed(old: Values, new: Values) -> set[str]:
    """The keys whose values differ."""
    missing = object()
    return {key for key in old.keys() | new.keys() if comparable(old.get(key, missing)) != comparable(new.get(key, missing))}


class Plugin(provider_pb2_grpc.ResourceProviderServicer):
    """Answers the engine for the resources of one package."""

    def __init__(self, name: str, version: str, resources: Mapping[str, Resource]) -> None:
        self.name, self.version, self.resources = name, version, resources
        self.schema = f'{{"name": "{name}", "version": "{version}"}}'
        self.engine: engine_pb2_grpc.EngineStub | None = None

    # What the subclasses fill in.

    def check_config(self, config: Values) -> None:
        """Raises Refusal for a provider configuration that is not implemented."""
        if config:
            raise Refusal((next(iter(config)), "the provider takes no configuration"))

    def configure(self, config: Values) -> None:
        """Takes the provider's configuration, which `check_config` has let through; parts of it may be unknown in a preview."""

    def check(self, resource: Resource, name: str, old: Values, inputs: Values) -> Values:
        """The resource's inputs completed; raises Refusal."""
        return resource.check(name, old, inputs)

    def call(self, function: str, args: Values) -> Values:
        """What a function, such as ``command:local:run``, returns for its arguments."""
        raise NotImplementedError(self.unimplemented(function))

    def cancel(self) -> None:
        """Ends what is going on, for an impatient user."""

    # The protocol.

    def serve(self) -> None:
        """Serves the engine whose address is the program's argument, until the engine ends this process."""
        options = [("grpc.max_receive_message_length", MESSAGE_LIMIT), ("grpc.max_send_message_length", MESSAGE_LIMIT)]
        if len(sys.argv) > 1:
            self.connect(sys.argv[1])
        server = grpc.server(ThreadPoolExecutor(PARALLEL_CALLS), options=options)
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(self, server)
        print(server.add_insecure_port("127.0.0.1:0"), flush=True)
        for kind in (signal.SIGINT, signal.SIGTERM):  # how the engine says goodbye
            signal.signal(kind, lambda *_: sys.exit(0))
        server.start()
        server.wait_for_termination()

    def connect(self, address: str) -> None:
        """Learns where the engine is, which shows what is logged."""
        self.engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address))

    def Attach(self, request: plugin_pb2.PluginAttach, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self.connect(request.address)
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=self.version)

    def GetSchema(self, request: provider_pb2.GetSchemaRequest, context: grpc.ServicerContext) -> provider_pb2.GetSchemaResponse:
        return provider_pb2.GetSchemaResponse(schema=self.schema)

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self.cancel()
        return empty_pb2.Empty()

    def CheckConfig(self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:
        try:
            self.check_config(_settings(_values(request.news)))
        except Refusal as refusal:
            return provider_pb2.CheckResponse(inputs=request.news, failures=_failures(refusal))
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        old = _settings(_values(request.olds))
        return _diff_response(Difference(update=changed(old, _settings(_values(request.news)))), set(old))

    def Configure(self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext) -> provider_pb2.ConfigureResponse:
        with _errors_to(context, "configure"):
            self.configure(_settings(_values(request.args)))
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Check(self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:
        resource, _, name = self._resource(request.urn, context)
        raw = _raw(request.news)
        try:
            inputs = self.check(resource, name, _values(request.olds), plain(raw))
        except Refusal as refusal:
            return provider_pb2.CheckResponse(inputs=_struct(raw), failures=_failures(refusal))
        return provider_pb2.CheckResponse(inputs=_overlay(raw, inputs, resource.secrets))

    def Diff(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        resource, _, _ = self._resource(request.urn, context)
        old_inputs, inputs = _values(request.old_inputs), _values(request.news)
        difference = resource.diff(old_inputs, _values(request.olds), inputs)
        difference.update -= set(request.ignoreChanges)
        difference.replace -= set(request.ignoreChanges)
        return _diff_response(difference, set(old_inputs))

    def Invoke(self, request: provider_pb2.InvokeRequest, context: grpc.ServicerContext) -> provider_pb2.InvokeResponse:
        with _errors_to(context, "invoke"):
            returned = self.call(request.tok, _values(request.args))
        response = provider_pb2.InvokeResponse()
        getattr(response, "return").CopyFrom(_struct(returned))
        return response

    def Create(self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext) -> provider_pb2.CreateResponse:
        resource, call, name = self._resource(request.urn, context)
        raw = _raw(request.properties)
        with _errors_to(context, "create", raw, resource.secrets):
            if request.preview:
                state = resource.preview(call, None, {}, plain(raw))
                return provider_pb2.CreateResponse(properties=_overlay(raw, state, resource.secrets))
            identity, state = resource.create(call, name, plain(raw))
        return provider_pb2.CreateResponse(id=identity, properties=_overlay(raw, state, resource.secrets))

    def Read(self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext) -> provider_pb2.ReadResponse:
        resource, call, _ = self._resource(request.urn, context)
        raw_state, raw_inputs = _raw(request.properties), _raw(request.inputs)
        with _errors_to(context, "read"):
            found = resource.read(call, request.id, plain(raw_state), plain(raw_inputs))
        if found is None:
            return provider_pb2.ReadResponse()  # without an id: it is gone
        return provider_pb2.ReadResponse(
            id=request.id,
            properties=_overlay(raw_state, found[0], resource.secrets),
            inputs=_overlay(raw_inputs, found[1], resource.secrets),
        )

    def Update(self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext) -> provider_pb2.UpdateResponse:
        resource, call, _ = self._resource(request.urn, context)
        raw = _raw(request.news)
        inputs, state = plain(raw), _values(request.olds)
        with _errors_to(context, "update", raw, resource.secrets):
            step = resource.preview if request.preview else resource.update
            state = step(call, request.id, state, inputs)
        return provider_pb2.UpdateResponse(properties=_overlay(raw, state, resource.secrets))

    def Delete(self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        resource, call, _ = self._resource(request.urn, context)
        with _errors_to(context, "delete"):
            resource.delete(call, request.id, _values(request.properties))
        return empty_pb2.Empty()

    def _resource(self, urn: str, context: grpc.ServicerContext) -> tuple[Resource, Call, str]:
        token, name = urn.split("::", 3)[2:]
        token = token.rsplit("$", 1)[-1]
        if token not in self.resources:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, self.unimplemented(token))
        return self.resources[token], Call(urn, lambda line: self._log(urn, line), lambda line: self._log(urn, line, True)), name

    def unimplemented(self, token: str) -> str:
        """What is said of a type of resource that is not among the resources."""
        return f"the plugin {self.name} has no {token}"

    def _log(self, urn: str, line: str, ephemeral: bool = False) -> None:
        if self.engine is not None:
            self.engine.Log(engine_pb2.LogRequest(severity=engine_pb2.INFO, message=line, urn=urn, ephemeral=ephemeral))


def _failures(refusal: Refusal) -> list[provider_pb2.CheckFailure]:
    return [provider_pb2.CheckFailure(property=key, reason=reason) for key, reason in refusal.problems]


def _settings(config: Values) -> Values:
    """The provider's own configuration, without what the engine adds to it."""
    return {key: value for key, value in config.items() if key not in ("version", "pluginDownloadURL") and not key.startswith("__")}


def _diff_response(difference: Difference, had: set[str]) -> provider_pb2.DiffResponse:
    kinds = provider_pb2.PropertyDiff
    details = {key: kinds(kind=kinds.UPDATE if key in had else kinds.ADD, inputDiff=True) for key in difference.update}
    details |= {
        key: kinds(kind=kinds.UPDATE_REPLACE if key in had else kinds.ADD_REPLACE, inputDiff=True) for key in difference.replace
    }
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if details else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=sorted(details),
        replaces=sorted(difference.replace),
        deleteBeforeReplace=bool(difference.replace) and difference.delete_before_replace,
        detailedDiff=details,
        hasDetailedDiff=True,
    )


class _errors_to:
    """Turns what goes wrong inside into the status of a call, with what exists already when the work is half done."""

    def __init__(self, context: grpc.ServicerContext, what: str, raw: Values | None = None, secrets: Collection[str] = ()) -> None:
        self.context, self.what, self.raw, self.secrets = context, what, raw or {}, secrets

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or not isinstance(error, Exception):
            return
        if isinstance(error, HalfDone):
            detail = any_pb2.Any()
            state = _overlay(self.raw, error.state, self.secrets)
            detail.Pack(
                provider_pb2.ErrorResourceInitFailed(id=error.id, properties=state, reasons=[str(error)], inputs=_struct(self.raw))
            )
            status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error), details=[detail])
            self.context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        if isinstance(error, LookupError | TypeError | AttributeError | AssertionError):
            traceback.print_exception(error)  # a fault of the plugin, whose text alone tells nothing
        self.context.abort(grpc.StatusCode.UNKNOWN, str(error) or f"{self.what}: {type(error).__name__}")
