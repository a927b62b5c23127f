"""Runs the component against mocks that record every resource, with all that ordinary mocks leave out."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks, rpc
from pulumi.runtime.stack import run_pulumi_func
from pulumi.runtime.sync_await import _sync_await

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVxhN0aWcGcRKD4xrK1mPGs5lYvW0pJ7dEmTfYkkXyL"
CHECK_RESULT = '{"ok": true, "database": "app", "server_version": "16.14", "extension_version": "1.0", "notices": []}\n'


@dataclass
class Registered:
    """One resource, as the engine would see it registered."""

    type: str
    name: str
    inputs: dict[str, Any]
    secrets: set[str]
    parent: str
    provider: str
    depends_on: set[str]
    request: Any


@dataclass
class Deployment:
    """What one run of a program registered and returned."""

    resources: dict[str, Registered] = field(default_factory=dict)
    result: Any = None

    def of_type(self, suffix: str) -> list[str]:
        return sorted(r.name for r in self.resources.values() if r.type.endswith(suffix))


class _Mocks(pulumi.runtime.Mocks):
    """Answers for the resources that the component uses; anything else is an error."""

    def __init__(self, preview: bool) -> None:
        self.preview = preview

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        outputs = dict(args.inputs)
        if args.typ in ("command:local:Command",):
            if not self.preview:
                suffix = args.name.rpartition("-")[2]
                outputs["stdout"] = {
                    "image": "sha256:1234\n",
                    "check": CHECK_RESULT,
                    "seed": "f00d",
                    "volume": args.inputs["create"].rpartition("volume.sh")[2].split()[1] + "\n"
                    if args.name.endswith("-volume")
                    else "",
                    "registry": "127.0.0.1:16/x:16-1\n",
                }.get(suffix, "ENGINE\n")
        elif args.typ == "notifying-postgres:index:CoolifyDatabase":
            outputs["volumeName"] = f"postgres-data-{args.name}-id"
        elif args.typ not in (
            "notifying-postgres:index:NotifyingPostgres",
            "pulumi:providers:docker",
            "docker:index/volume:Volume",
            "docker:index/container:Container",
            "notifying-postgres:index:CoolifyPassword",
        ):
            raise AssertionError(f"no mock for {args.typ}")
        return "" if self.preview else f"{args.name}-id", outputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        if args.token == "command:local:run":  # the look at the host
            told = ("attempt pg-app 0", "image 0", "engine ENGINE", "done")
            return {"stdout": "".join(f"notifying-postgres: {line}\n" for line in told) + "status 0\n"}
        raise AssertionError(f"no mock for the function {args.token}")


class _Monitor(mocks.MockMonitor):
    def __init__(self, preview: bool, deployment: Deployment) -> None:
        super().__init__(_Mocks(preview))
        self.deployment = deployment

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        inputs = rpc.deserialize_properties(request.object, keep_unknowns=True)
        self.deployment.resources[request.name] = Registered(
            type=request.type,
            name=request.name,
            inputs={key: rpc.unwrap_rpc_secret(value) for key, value in inputs.items()},
            secrets={key for key, value in inputs.items() if rpc.is_rpc_secret(value)},
            parent=request.parent.rpartition("::")[2],
            provider=request.provider,
            depends_on={urn.rpartition("::")[2] for urn in request.dependencies},
            request=request,
        )
        return response


@pytest.fixture(autouse=True)
def workstation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder of the test's own, and none of the developer's SSH or Docker settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("SSH_AUTH_SOCK", "DOCKER_HOST", "DOCKER_CONTEXT", "NOTIFYING_POSTGRES_BASE_IMAGE"):
        monkeypatch.delenv(variable, raising=False)
    key = tmp_path / "id_ed25519"
    key.write_text("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----\n")
    yield tmp_path


@pytest.fixture
def deploy() -> Callable[..., Deployment]:
    """Runs a program against the mocks: ``deploy(program, preview=False)``. The program's outputs are awaited."""

    def run(program: Callable[[], Any], *, preview: bool = False) -> Deployment:
        deployment = Deployment()
        # Pulumi runs on the thread's loop, and tests of asyncio before this one take theirs with them.
        asyncio.set_event_loop(asyncio.new_event_loop())
        mocks.set_mocks(_Mocks(preview), project="project", stack="test", preview=preview, monitor=_Monitor(preview, deployment))

        async def main() -> None:
            def body() -> None:
                deployment.result = pulumi.Output.from_input(program())

            await run_pulumi_func(body)
            output = deployment.result
            deployment.result = {
                "value": await output.future(with_unknowns=True),
                "known": await output.is_known(),
                "secret": await output.is_secret(),
            }

        _sync_await(main())
        return deployment

    return run
