"""A picture of a schema: its objects, each with what it is made of, in a form that two pictures can be compared in.

A picture is a value: it goes to a file and back, and two pictures are equal when the schemas are, oids included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ..errors import SchemaChangesError

Key: TypeAlias = tuple[str, int, int]
"""Catalog, oid, and the column's number or 0: what an object keeps when it is renamed."""

_FORMAT = 1


class Object(NamedTuple):
    """An object of the schema, or a part of one."""

    key: Key
    parent: Key | None
    """The table (or domain, or composite type) that it is a part of."""
    kind: str
    """table, column, constraint, index, view, …"""
    schema: str | None
    """Quoted where needed; None for a part, and for what belongs to no schema."""
    name: str
    """Quoted where needed; a function's has its argument types."""
    properties: Mapping[str, Any]
    """What it is made of, in words or in SQL: JSON values.  What is as by default is left out."""

    @property
    def identity(self) -> str:
        """The name with the schema's, ready for SQL."""
        return self.name if self.schema is None else f"{self.schema}.{self.name}"


@dataclass(slots=True)
class Picture:
    """The objects of one database at one moment."""

    objects: dict[Key, Object] = field(default_factory=dict)
    origin: str | None = None
    """The database in its cluster on its timeline.  Two pictures with one origin are of one database at two times."""
    version: int = 0
    """The server's, such as 160014."""
    database: str = ""
    """Its name."""

    def children(self) -> dict[Key | None, list[Object]]:
        """The parts of each object, and under None what is no part; sorted by kind and name, columns as in the table."""
        found: dict[Key | None, list[Object]] = {}
        for item in self.objects.values():
            found.setdefault(item.parent, []).append(item)
        for items in found.values():
            items.sort(key=order)
        return found

    def __iter__(self) -> Iterator[Object]:
        """The objects in an order that depends on names only, each followed by its parts."""
        children = self.children()
        for item in children.get(None, ()):
            yield item
            yield from children.get(item.key, ())

    def copy(self) -> Picture:
        """Another one, which stays as it is when this is changed."""
        return Picture(dict(self.objects), self.origin, self.version, self.database)

    def dumps(self, **more: Any) -> str:
        """As JSON, an object a line, so that a diff of two such files can be read."""
        head = {"picture": _FORMAT, "origin": self.origin, "version": self.version, "database": self.database, **more}
        lines = ",\n".join(json.dumps(to_json(item), ensure_ascii=False, sort_keys=True) for item in self)
        return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "objects": [\n{lines}\n]}}\n'

    @classmethod
    def loads(cls, text: str, name: str = "the file") -> Picture:
        """Read what `dumps` wrote; raises `SchemaChangesError` for anything else, calling it `name`."""
        try:
            fields = json.loads(text)
            if fields["picture"] != _FORMAT:
                raise SchemaChangesError(f"The picture in {name} is of format {fields['picture']!r}; this version reads {_FORMAT}.")
            objects = [from_json(item) for item in fields["objects"]]
            return cls({item.key: item for item in objects}, fields["origin"], fields["version"], fields["database"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SchemaChangesError(f"There is no picture in {name}: make one with schema-changes snapshot.") from error


def to_json(item: Object) -> dict[str, Any]:
    """An object as JSON."""
    fields = {**item._asdict(), "key": list(item.key), "parent": None if item.parent is None else list(item.parent)}
    return {name: value for name, value in fields.items() if value is not None}


def from_json(fields: Mapping[str, Any]) -> Object:
    """The object that `to_json` wrote."""
    catalog, oid, sub = fields["key"]
    parent = fields.get("parent")
    return Object(
        (str(catalog), int(oid), int(sub)),
        None if parent is None else (str(parent[0]), int(parent[1]), int(parent[2])),
        str(fields["kind"]),
        fields.get("schema"),
        str(fields["name"]),
        dict(fields["properties"]),
    )


_KINDS = (
    "extension",
    "schema",
    "default privileges",
    "enum",
    "domain",
    "range",
    "composite type",
    "type",
    "sequence",
    "table",
    "foreign table",
    "view",
    "materialized view",
    "column",
    "constraint",
    "index",
    "trigger",
    "rule",
    "policy",
    "statistics",
)
_RANK = {kind: number for number, kind in enumerate(_KINDS)}


def order(item: Object) -> tuple[Any, ...]:
    """Where an object comes among its like: the kinds as one would create them, columns as in the table, the rest by name."""
    return _RANK.get(item.kind, len(_KINDS)), item.key[2], item.schema or "", item.name


def from_row(catalog: str, row: tuple[Any, ...]) -> Object:
    """The object that a row of a section's query tells of."""
    oid, sub, parent_catalog, parent, kind, schema, name, owner, acl, comment, properties = row
    if isinstance(properties, str):  # of a session without a character set
        properties = json.loads(properties)
    made_of = {key: value for key, value in properties.items() if value is not None}
    if owner is not None:
        made_of["owner"] = owner
    if comment is not None:
        made_of["comment"] = comment
    if acl is not None or kind in _OPEN_TO_ALL:
        made_of |= _grants(kind, owner, acl)
    return Object((catalog, oid, sub), None if parent is None else (parent_catalog, parent, 0), kind, schema, name, made_of)


_PRIVILEGES = {
    "a": "INSERT",
    "r": "SELECT",
    "w": "UPDATE",
    "d": "DELETE",
    "D": "TRUNCATE",
    "x": "REFERENCES",
    "t": "TRIGGER",
    "X": "EXECUTE",
    "U": "USAGE",
    "C": "CREATE",
    "m": "MAINTAIN",
}
_FUNCTIONS = ("function", "procedure", "aggregate")
_TYPES = ("enum", "domain", "range", "composite type", "type")
# What everybody may do unless it was revoked.
_OPEN_TO_ALL = {kind: ["EXECUTE"] for kind in _FUNCTIONS} | {kind: ["USAGE"] for kind in _TYPES}
# What an owner may do unless it was revoked; MAINTAIN came with PostgreSQL 17.
_OWNERS = {
    **dict.fromkeys(_FUNCTIONS, "X"),
    **dict.fromkeys(_TYPES, "U"),
    "schema": "UC",
    "sequence": "rwU",
    "server": "U",
    "foreign-data wrapper": "U",
}
_ACL_ITEM = re.compile(r'((?:"(?:[^"]|"")*"|[^="])*)=((?:[a-zA-Z]\*?)*)/')


def _grants(kind: str, owner: str | None, acl: list[str] | None) -> dict[str, Any]:
    """Who may do what besides the owner, as {"grants": {role: [privileges, a * where with grant option]}}.

    The owner is in it only where something was revoked from it.
    """
    if acl is None:
        return {"grants": {"PUBLIC": _OPEN_TO_ALL[kind]}}
    granted: dict[str, set[str]] = {}
    for item in acl:
        match = _ACL_ITEM.match(item)
        if match is None:
            raise ValueError(f"an access privilege that cannot be read: {item!r}")
        role = _unquoted(match[1])
        # the owner apart, as ""; one role can have the same from several
        who = "" if role == owner else _quoted(role) if role else "PUBLIC"
        granted.setdefault(who, set()).update(re.findall(r"[a-zA-Z]\*?", match[2]))
    of_owner = granted.pop("", set())
    if owner is not None and not of_owner.issuperset(_OWNERS.get(kind, "arwdDxt")):
        granted[_quoted(owner)] = of_owner
    grants = {
        who: sorted(_PRIVILEGES.get(p[0], p[0]) + p[1:] for p in privileges if not (len(p) == 1 and p + "*" in privileges))
        for who, privileges in sorted(granted.items())
    }
    return {"grants": grants} if grants else {}


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _quoted(name: str) -> str:
    """A role's name; apart from PUBLIC, which is none."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) else '"' + name.replace('"', '""') + '"'
