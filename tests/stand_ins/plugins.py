"""The stand-in plugins as the engine sees them: processes spoken to in the plugin protocol; a private sshd; the Docker engine."""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import engine_pb2_grpc, provider_pb2, provider_pb2_grpc

from tests.support import REPOSITORY
from tests.support.docker import docker
from tests.support.needs import need
from tests.support.sshd import Sshd, start_sshd, stop_sshd

TOKENS = {
    "Local": "command:local:Command",
    "Container": "docker:index/container:Container",
    "Volume": "docker:index/volume:Volume",
}
SIGNATURE = "4dabf18193072939515e22adb298388d"


def secret(value: Any) -> dict[str, Any]:
    return {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270", "value": value}


def struct(values: dict[str, Any]) -> struct_pb2.Struct:
    out = struct_pb2.Struct()
    out.update(values)
    return out


class Engine(engine_pb2_grpc.EngineServicer):
    """Hears what a plugin logs."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []

    def Log(self, request: Any, context: Any) -> Any:
        self.lines.append((time.monotonic(), request.message))
        return empty_pb2.Empty()


@dataclass
class Made:
    """A resource that a plugin made."""

    type: str
    id: str
    inputs: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)


class Plugin:
    """One running plugin. Its methods are the engine's steps, with inputs and outputs as dicts."""

    def __init__(self, name: str, engine: Engine, engine_address: str, env: dict[str, str]) -> None:
        program = REPOSITORY / "toolchain/plugins/bin" / f"pulumi-resource-{name}"
        self.process = subprocess.Popen([program, engine_address], stdout=subprocess.PIPE, text=True, env=os.environ | env)
        assert self.process.stdout is not None
        self.stub = provider_pb2_grpc.ResourceProviderStub(
            grpc.insecure_channel(f"127.0.0.1:{int(self.process.stdout.readline())}")
        )
        self.engine = engine

    def configure(self, config: dict[str, Any]) -> None:
        self.stub.Configure(provider_pb2.ConfigureRequest(args=struct(config), acceptSecrets=True))

    def urn(self, kind: str) -> str:
        return f"urn:pulumi:stack::project::{TOKENS[kind]}::it"

    def check(self, kind: str, inputs: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
        """The inputs as they will be used; fails the test when they are refused."""
        answer = self.stub.Check(provider_pb2.CheckRequest(urn=self.urn(kind), olds=struct(old or {}), news=struct(inputs)))
        assert not answer.failures, answer.failures
        return json_format.MessageToDict(answer.inputs)

    def refusal(self, kind: str, inputs: dict[str, Any]) -> str:
        answer = self.stub.Check(provider_pb2.CheckRequest(urn=self.urn(kind), news=struct(inputs)))
        assert len(answer.failures) == 1
        return f"{answer.failures[0].property}: {answer.failures[0].reason}"

    def preview(self, kind: str, inputs: dict[str, Any]) -> dict[str, Any]:
        request = provider_pb2.CreateRequest(urn=self.urn(kind), properties=struct(self.check(kind, inputs)), preview=True)
        return json_format.MessageToDict(self.stub.Create(request).properties)

    def create(self, kind: str, inputs: dict[str, Any]) -> Made:
        inputs = self.check(kind, inputs)
        answer = self.stub.Create(provider_pb2.CreateRequest(urn=self.urn(kind), properties=struct(inputs)))
        return Made(kind, answer.id, inputs, json_format.MessageToDict(answer.properties))

    def diff(self, made: Made, inputs: dict[str, Any], ignore: Sequence[str] = ()) -> provider_pb2.DiffResponse:
        inputs = self.check(made.type, inputs, made.inputs)
        request = provider_pb2.DiffRequest(
            id=made.id, urn=self.urn(made.type), olds=struct(made.state), news=struct(inputs), old_inputs=struct(made.inputs)
        )
        request.ignoreChanges.extend(ignore)
        answer: provider_pb2.DiffResponse = self.stub.Diff(request)
        return answer

    def update(self, made: Made, inputs: dict[str, Any]) -> Made:
        inputs = self.check(made.type, inputs, made.inputs)
        request = provider_pb2.UpdateRequest(
            id=made.id, urn=self.urn(made.type), olds=struct(made.state), news=struct(inputs), old_inputs=struct(made.inputs)
        )
        return Made(made.type, made.id, inputs, json_format.MessageToDict(self.stub.Update(request).properties))

    def read(self, made: Made) -> Made:
        request = provider_pb2.ReadRequest(
            id=made.id, urn=self.urn(made.type), properties=struct(made.state), inputs=struct(made.inputs)
        )
        answer = self.stub.Read(request)
        return Made(made.type, answer.id, json_format.MessageToDict(answer.inputs), json_format.MessageToDict(answer.properties))

    def invoke(self, function: str, args: dict[str, Any]) -> dict[str, Any]:
        answer = self.stub.Invoke(provider_pb2.InvokeRequest(tok=function, args=struct(args)))
        return json_format.MessageToDict(getattr(answer, "return"))

    def delete(self, made: Made) -> None:
        self.stub.Delete(provider_pb2.DeleteRequest(id=made.id, urn=self.urn(made.type), properties=struct(made.state)))

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


@pytest.fixture(scope="session")
def start_plugin() -> Iterator[Any]:
    """Starts a plugin by name, with further environment variables."""
    started: list[Plugin] = []
    servers = []

    def start(name: str, **env: str) -> Plugin:
        engine, server = Engine(), grpc.server(futures.ThreadPoolExecutor(4))
        engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        started.append(Plugin(name, engine, f"127.0.0.1:{port}", env))
        return started[-1]

    yield start
    for plugin in started:
        plugin.stop()
    for server in servers:
        server.stop(0)


@pytest.fixture(scope="session")
def command(start_plugin: Any) -> Plugin:
    plugin: Plugin = start_plugin("command")
    return plugin


@pytest.fixture(scope="session")
def docker_plugin(start_plugin: Any) -> Plugin:
    plugin: Plugin = start_plugin("docker")
    plugin.configure({})
    return plugin


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One that gives what it runs this process's PATH, and beside its keys one of a stranger."""
    folder = tmp_path_factory.mktemp("sshd")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "stranger"], check=True)
    server = start_sshd(folder, SetEnv=f"PATH={os.environ['PATH']}")
    yield server
    stop_sshd(server)


@pytest.fixture
def unique_name() -> Iterator[str]:
    """A name for what a test makes on the Docker engine; whatever bears it is removed afterwards."""
    need("docker")
    name = f"toolchain-{uuid.uuid4().hex[:8]}"
    yield name
    for kind, remove in (("container", ["rm", "-f", "-v"]), ("network", ["rm"]), ("volume", ["rm"])):
        found = docker(kind, "ls", *(["-a"] if kind == "container" else []), "-q", "--filter", f"name={name}").split()
        if found:
            docker(kind, *remove, *found)


def in_parallel(count: int, work: Any) -> list[Any]:
    """The results of `work(0)` … `work(count - 1)`, all begun at once."""
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        barrier.wait()
        return work(number)

    with futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
