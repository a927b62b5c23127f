"""The messages of Pulumi's plugin protocol, from its SDK but without the rest of it.

To load the whole SDK would make the start of a plugin half as long again. A process that loads this module has nothing
else of `pulumi`.
"""

from __future__ import annotations

import importlib.util
import sys
import types

_sdk = importlib.util.find_spec("pulumi")
if _sdk is None or not _sdk.submodule_search_locations:
    raise ImportError("Pulumi's SDK is not installed: run 'make setup'")
for _package, _folder in (("pulumi", ""), ("pulumi.runtime", "/runtime")):
    _module = sys.modules[_package] = types.ModuleType(_package)
    _module.__path__ = [folder + _folder for folder in _sdk.submodule_search_locations]

from pulumi.runtime.proto import (  # noqa: E402
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

__all__ = ["engine_pb2", "engine_pb2_grpc", "plugin_pb2", "provider_pb2", "provider_pb2_grpc", "status_pb2"]
