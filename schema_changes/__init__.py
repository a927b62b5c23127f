"""Hear of every schema change in a PostgreSQL database that carries the `schema_notifications` extension.

    from schema_changes import Reset, listen

    async for change in listen("postgresql://app@db/app", cursor=FileCursor("app.cursor")):
        ...

Needs psycopg 3 and nothing else.  `python -m schema_changes --help` shows the command line.
"""

from typing import TYPE_CHECKING

# Names are imported when first used: the check runs after every deploy and must not pay for the listener.
_HOME = {
    "ChangedObject": "event",
    "Reset": "event",
    "SchemaChange": "event",
    "CheckResult": "check",
    "check": "check",
    "SchemaChangesError": "errors",
}

if TYPE_CHECKING:
    from .check import CheckResult as CheckResult
    from .check import check as check
    from .errors import SchemaChangesError as SchemaChangesError
    from .event import ChangedObject as ChangedObject
    from .event import Reset as Reset
    from .event import SchemaChange as SchemaChange

__all__ = ["ChangedObject", "CheckResult", "Reset", "SchemaChange", "SchemaChangesError", "check"]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
