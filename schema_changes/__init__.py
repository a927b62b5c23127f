"""Hear of every schema change in a PostgreSQL database that carries the `schema_notifications` extension.

    from schema_changes import FileCursorStore, listen

    async for change in listen("postgresql://app@db/app", store=FileCursorStore("app.cursor")):
        ...

Needs psycopg 3 and nothing else.  `python -m schema_changes --help` shows the command line.
"""

from typing import TYPE_CHECKING

# Names are imported when first used: the check runs after every deploy and must not pay for the listener.
_HOME = {
    "Batch": "listener",
    "FileCursorStore": "cursor",
    "ListenOptions": "listener",
    "TableCursorStore": "cursor",
    "listen": "listener",
    "listen_batches": "listener",
    "listen_batches_sync": "listener",
    "listen_sync": "listener",
    "ChangedObject": "event",
    "Reset": "event",
    "SchemaChange": "event",
    "CheckResult": "check",
    "check": "check",
    "history": "feed",
    "status": "feed",
    "SchemaChangesError": "errors",
}

if TYPE_CHECKING:
    from .check import CheckResult as CheckResult
    from .check import check as check
    from .cursor import FileCursorStore as FileCursorStore
    from .cursor import TableCursorStore as TableCursorStore
    from .errors import SchemaChangesError as SchemaChangesError
    from .event import ChangedObject as ChangedObject
    from .event import Reset as Reset
    from .event import SchemaChange as SchemaChange
    from .feed import history as history
    from .feed import status as status
    from .listener import Batch as Batch
    from .listener import ListenOptions as ListenOptions
    from .listener import listen as listen
    from .listener import listen_batches as listen_batches
    from .listener import listen_batches_sync as listen_batches_sync
    from .listener import listen_sync as listen_sync

__all__ = [
    "Batch",
    "ChangedObject",
    "CheckResult",
    "FileCursorStore",
    "ListenOptions",
    "Reset",
    "SchemaChange",
    "SchemaChangesError",
    "TableCursorStore",
    "check",
    "history",
    "listen",
    "listen_batches",
    "listen_batches_sync",
    "listen_sync",
    "status",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
