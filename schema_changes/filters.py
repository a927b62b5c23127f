"""Which changes a consumer wants: by schema, kind and tag, and whether a check's own are among them."""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatchcase

from .event import ChangedObject, SchemaChange

# The name of the table that a check creates, alters and drops: see check.py.
_CHECK_TAGS = {"CREATE TABLE", "ALTER TABLE", "DROP TABLE"}
_CHECK_TABLE = re.compile(r'(?:(?:[^".]+|"(?:[^"]|"")+")\.)?schema_changes_check_[0-9a-f]{12}(?:\.checked|\[\])?')

# What PostgreSQL's object identities look like where they do not begin with the schema: "p on s.t", "for s.t.c",
# "s in publication p", "for role r in schema s on tables".
_NAME = r'((?:[^\s".,()]|"(?:[^"]|"")*")+)'
_SCHEMA_IN_IDENTITY = {
    "schema": re.compile(rf"^{_NAME}$"),
    "policy": re.compile(rf" on {_NAME}\.{_NAME}$"),
    "trigger": re.compile(rf" on {_NAME}\.{_NAME}$"),
    "rule": re.compile(rf" on {_NAME}\.{_NAME}$"),
    "table constraint": re.compile(rf" on {_NAME}\.{_NAME}$"),
    "domain constraint": re.compile(rf" on {_NAME}\.{_NAME}$"),
    "default value": re.compile(rf"^for {_NAME}\.{_NAME}\.{_NAME}$"),
    "publication relation": re.compile(rf"^{_NAME}\.{_NAME} in publication "),
    "publication namespace": re.compile(rf"^{_NAME} in publication "),
    "default acl": re.compile(rf" in schema {_NAME} on "),
}


def is_of_check(change: SchemaChange) -> bool:
    """Whether a check made this change: all its objects are the check's table, `schema_changes_check_` and 12 hex digits."""
    return (
        change.tag in _CHECK_TAGS and bool(change.objects) and all(_CHECK_TABLE.fullmatch(item.identity) for item in change.objects)
    )


def schema_of(item: ChangedObject) -> str | None:
    """The schema that an object belongs to, be it by way of its table, or that it is; None where there is none."""
    pattern = _SCHEMA_IN_IDENTITY.get(item.kind)
    if item.schema is not None or pattern is None:
        return item.schema
    found = pattern.search(item.identity)
    if found is None:
        return None
    name = found[1]
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


class Filter:
    """Called with a change, tells whether it passes.

    Patterns are those of Python's fnmatchcase(); one that begins with `!` excludes.  A value passes a list when one of its patterns
    without `!` matches, or there is none, and none with `!` does.  Schema and kind are those of the same object.

    What cannot be judged passes: by schema what has no identity (GRANT), by schema and kind a change whose objects are not known.
    """

    def __init__(
        self, schemas: Collection[str] = (), kinds: Collection[str] = (), tags: Collection[str] = (), checks: bool = False
    ) -> None:
        self._schemas, self._kinds = Patterns(schemas), Patterns(kinds)
        self._tags = Patterns([tag.upper() for tag in tags])
        self._by_object, self._by_tag = bool(schemas or kinds), bool(tags)
        self._checks = checks

    def __call__(self, change: SchemaChange) -> bool:
        if not self._checks and is_of_check(change):
            return False
        if self._by_tag and not self._tags.match(change.tag.upper()):
            return False
        if not self._by_object or change.truncated or not change.objects:
            return True
        return any(
            self._kinds.match(item.kind) and (not item.identity or self._schemas.match(schema_of(item) or ""))
            for item in change.objects
        )


class Patterns:
    """A list of them, as above."""

    def __init__(self, patterns: Collection[str]) -> None:
        self._wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
        self._unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]

    def match(self, value: str) -> bool:
        return (not self._wanted or any(fnmatchcase(value, pattern) for pattern in self._wanted)) and not any(
            fnmatchcase(value, pattern) for pattern in self._unwanted
        )
