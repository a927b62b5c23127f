"""What is different between two pictures, as typed differences.

Of one database at two times, an object is the same by its oid, so that a rename is known, not guessed.  What has no
counterpart by oid, or is of another database, has one by kind and name: a view that was dropped and made again is different
in its definition, if at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .picture import Key, Object, Picture, order


@dataclass(frozen=True, slots=True)
class Difference:
    """One object that was added, removed, altered or renamed; a part of an object (a column, an index) counts by itself."""

    action: str
    """added, removed, altered, or renamed (which includes a move to another schema, and may come with alterations)."""
    kind: str
    """table, column, constraint, index, view, materialized view, sequence, function, trigger, policy, enum, schema, …"""
    schema: str | None
    """The schema, of a part its table's; None where there is none.  This and all names: as of after the change if it is still
    there, and quoted where needed."""
    table: str | None
    """The name of the table, view or type that it is a part of; None if it is no part."""
    table_kind: str | None
    """What that is: table, view, domain, …"""
    name: str
    """Its name, as of after the change."""
    before: Mapping[str, Any]
    """What it was made of: all of it if removed, what has changed if altered or renamed.  Empty if added."""
    after: Mapping[str, Any]
    """What it is made of: all of it if added, what has changed if altered or renamed.  Empty if removed."""
    before_key: Key | None = None
    """Catalog, oid and column number before; None if added."""
    after_key: Key | None = None
    """The same after; None if removed."""

    @property
    def identity(self) -> str:
        """Schema, table and name with dots between, ready for SQL where there is such a thing."""
        return ".".join(name for name in (self.schema, self.table, self.name) if name is not None)

    @property
    def changed(self) -> tuple[str, ...]:
        """The properties that differ (of what was altered or renamed)."""
        return tuple(dict.fromkeys([*self.before, *self.after])) if self.action in ("altered", "renamed") else ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what is only of use together with a picture."""
        fields = {
            "action": self.action,
            "kind": self.kind,
            "schema": self.schema,
            "table": self.table,
            "table_kind": self.table_kind,
            "name": self.name,
            "before": dict(self.before),
            "after": dict(self.after),
        }
        return {name: value for name, value in fields.items() if value is not None}

    def __str__(self) -> str:
        from .words import line

        return line(self)


def compare(before: Picture, after: Picture, around: Picture | None = None) -> list[Difference]:
    """The differences that make `after` of `before`, each object followed by its parts.

    around: the two are parts of this picture, to whose other objects they may belong.
    """
    outer: Mapping[Key, Object] = around.objects if around is not None else {}
    by_oid = around is not None or (before.origin is not None and before.origin == after.origin)
    counterparts = _counterparts(before.objects, after.objects, outer, by_oid)
    found: list[tuple[Any, Difference]] = []

    def note(action: str, old: Object | None, new: Object | None, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        item = new or old
        assert item is not None  # noqa: S101
        parent = None
        if item.parent is not None:
            current = item.parent if new is not None else counterparts.get(item.parent, item.parent)
            parent = after.objects.get(current) or before.objects.get(item.parent) or outer[item.parent]
        whole = item if parent is None else parent
        difference = Difference(
            action,
            item.kind,
            whole.schema,
            None if parent is None else parent.name,
            None if parent is None else parent.kind,
            item.name,
            was,
            now,
            None if old is None else old.key,
            None if new is None else new.key,
        )
        place = order(whole)[0], whole.identity, whole.key, parent is not None, order(item), action != "removed"
        found.append((place, difference))

    for key, old in before.objects.items():
        other = counterparts.get(key)
        if other is None:
            note("removed", old, None, old.properties, {})
            continue
        new = after.objects[other]
        was, now = _unequal(old, new)
        if "name" in was or "schema" in was:
            note("renamed", old, new, was, now)
        elif was or now:
            note("altered", old, new, was, now)
    for key in after.objects.keys() - set(counterparts.values()):
        note("added", None, after.objects[key], {}, after.objects[key].properties)
    found.sort(key=lambda pair: pair[0])
    return [difference for _, difference in found]


def _counterparts(
    before: Mapping[Key, Object], after: Mapping[Key, Object], outer: Mapping[Key, Object], by_oid: bool
) -> dict[Key, Key]:
    """The key that each object of `before` has in `after`, where it is there."""
    found = {key: key for key in before if by_oid and key in after}
    taken = set(found)
    # wholes first, as a part is found by its whole
    for parts in (False, True):
        by_name = {
            (item.kind, item.parent, item.schema, _name(item)): key
            for key, item in after.items()
            if (item.parent is not None) is parts and key not in taken
        }
        for key, item in before.items():
            if (item.parent is not None) is not parts or key in found:
                continue
            parent = item.parent
            if parent is not None:
                parent = found.get(parent) or (parent if by_oid and parent in outer and parent not in before else None)
                if parent is None:
                    continue  # its whole is gone
            other = by_name.get((item.kind, parent, item.schema, _name(item)))
            if other is not None:
                found[key] = other
    return found


def _name(item: Object) -> str:
    # servers of different versions quote different keywords
    return item.name.replace('"', "")


def _unequal(old: Object, new: Object) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of the one is not in the other, and the other way round."""
    was, now = dict(old.properties), dict(new.properties)
    for name in old.properties.keys() & new.properties.keys():
        if was[name] == now[name]:
            del was[name], now[name]
    for name in ("name", "schema"):
        one, other = getattr(old, name), getattr(new, name)
        if (one or "").replace('"', "") != (other or "").replace('"', ""):
            was[name], now[name] = one, other
    return was, now
