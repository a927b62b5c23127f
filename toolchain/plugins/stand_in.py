"""What the stand-in plugins share: the provider protocol, without the rest of the SDK, and a refusal of what is not implemented.

To load the whole SDK would make the start of a plugin half as long again. A process that loads this module has nothing else of
`pulumi`, and of this project's package nothing but provider.py.
"""

from __future__ import annotations

import importlib.util
import secrets
import sys
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

_sdk = importlib.util.find_spec("pulumi")
if _sdk is None or not _sdk.submodule_search_locations:
    raise ImportError("Pulumi's SDK is not installed: run 'make setup'")
_package = str(Path(__file__).resolve().parents[2] / "components" / "notifying_postgres")
for _name, _folders in (
    ("pulumi", list(_sdk.submodule_search_locations)),
    ("pulumi.runtime", [f"{folder}/runtime" for folder in _sdk.submodule_search_locations]),
    ("notifying_postgres", [_package]),
):
    _module = sys.modules[_name] = types.ModuleType(_name)
    _module.__path__ = _folders

from notifying_postgres import provider  # noqa: E402
from notifying_postgres.provider import (  # noqa: E402
    ARCHIVE,
    ASSET,
    SIGNATURE,
    UNKNOWN,
    Call,
    Difference,
    HalfDone,
    Values,
    changed,
    has_unknown,
)

__all__ = [
    "ARCHIVE",
    "ASSET",
    "SIGNATURE",
    "UNKNOWN",
    "Call",
    "Difference",
    "HalfDone",
    "Lines",
    "Plugin",
    "Refusal",
    "Resource",
    "Values",
    "changed",
    "has_unknown",
    "refuse_unknown_inputs",
    "unique",
]


class Refusal(provider.Refusal):
    """An input that is not implemented or not allowed, and the reason."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__((key, reason))


class Resource(provider.Resource):
    """One type of resource, as far as it is implemented."""

    shape: ClassVar[Mapping[str, Any]] = {}
    """Every implemented input; a mapping as the value describes an object's or a list's items."""
    required: ClassVar[Iterable[str]] = ()


class Plugin(provider.Plugin):
    """Refuses what is not implemented before a resource sees it."""

    def check(self, resource: provider.Resource, name: str, old: Values, inputs: Values) -> Values:
        if isinstance(resource, Resource):
            refuse_unknown_inputs(inputs, resource.shape)
            for key in resource.required:
                if inputs.get(key) is None:
                    raise Refusal(key, f"the input {key} is required")
        return resource.check(name, old, inputs)

    def unimplemented(self, token: str) -> str:
        return f"the stand-in plugin {self.name} does not implement {token}; install the official plugin"


def refuse_unknown_inputs(values: Any, shape: Mapping[str, Any], path: str = "") -> None:
    """Raises Refusal for the first input in `values` that `shape` has not."""
    for item in values if isinstance(values, list) else [values]:
        if not isinstance(item, dict):
            continue
        for key, value in item.items():
            if key not in shape:
                raise Refusal(
                    path + key,
                    f"the stand-in plugin does not implement the input {path + key}; install the official plugin to use it",
                )
            if isinstance(shape[key], Mapping):
                refuse_unknown_inputs(value, shape[key], f"{path}{key}.")


def unique(name: str, digits: int) -> str:
    """`name` with as many random hexadecimal digits after it."""
    return name + secrets.token_hex((digits + 1) // 2)[:digits]


class Lines:
    """Collects a process's output from its pipe, and passes it on line by line while it comes."""

    def __init__(self, pipe: Any, both: list[bytes], show: Callable[[str], None] | None) -> None:
        self.chunks: list[bytes] = []
        self._thread = threading.Thread(target=self._collect, args=(pipe, both, show))
        self._thread.start()

    def _collect(self, pipe: Any, both: list[bytes], show: Callable[[str], None] | None) -> None:
        for line in pipe:
            self.chunks.append(line)
            both.append(line)
            if show:
                show(line.decode(errors="replace").rstrip("\n"))

    def text(self) -> str:
        self._thread.join()
        return b"".join(self.chunks).decode(errors="replace").removesuffix("\n")
