"""Reads the picture of a database, and keeps it true at the cost of what has changed.

    reader = Reader(connection)
    reader.refresh()                   # the first time, reads everything into reader.picture
    ...
    differences = reader.refresh()     # what has become different since

The first reading of a session takes in everything; each later one what was written to the catalogs since (see `catalog`).
That holds for as long as the session lives: across a crash of the server transaction ids can come back, so a new session
reads everything again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

from ..errors import SchemaChangesError, first_line
from . import catalog
from .differences import Difference, compare
from .picture import Key, Object, Picture, from_row

_log = logging.getLogger("schema_changes")

# What PostgreSQL says when an object is locked, or goes away while its definition is printed.
_PASSING = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.InternalError_,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
)
# Further apart than this, an xid of 32 bits may mean another transaction.
_FAR = 2**30

_Target = tuple[str, int]  # a catalog and an oid
_Change = Callable[[], list[Difference]]  # makes the picture what was read, and returns the differences


class Locked(SchemaChangesError):
    """A transaction of somebody else holds locks on the schema, for longer than the reader waits."""


class _Everything(Exception):
    """What was written may be named anywhere: read everything again."""


class Reader:
    """Holds the picture of the database that a connection leads to.

    connection: in autocommit; no pool of transactions in between.  What it raises, `refresh` raises.
    picture: of an earlier session, which the first `refresh` then tells the differences from.
    patience: seconds that a reading may wait for locks that others hold.
    """

    def __init__(self, connection: psycopg.Connection[Any], picture: Picture | None = None, patience: float = 30) -> None:
        self.picture = picture or Picture()
        """As of the last `refresh`, which changes it in place."""
        # what the first refresh compares with; None without a picture, and afterwards
        self._earlier = picture
        self.connection = connection
        self._patience = patience
        self._version = connection.info.server_version
        self._is_whole = False
        # all transactions below this xid8 were over when the picture was read; None before
        self._since: str | None = None
        self._roles: list[str] = []
        # the rows of each catalog that is counted
        self._known: dict[str, set[str]] = {}
        # the columns of each relation
        self._columns: dict[int, set[int]] = {}

    def refresh(self) -> list[Difference]:
        """Read what was written since.  Returns what is different in the picture, which is then as the schema is.

        Raises `psycopg.Error`, and `Locked` when locks of others are in the way for longer than `patience`.
        """
        if self._since is None:
            self._in_one_snapshot(self._read_all)
            self._is_whole = False
        if self._is_whole:
            return self._in_one_snapshot(self._read_changed)
        # A definition is printed as of now, not of the snapshot: what was committed in between is read again.
        for _ in range(10):
            if not self._in_one_snapshot(self._read_changed):
                break
        earlier, self._earlier, self._is_whole = self._earlier, None, True
        return [] if earlier is None else compare(earlier, self.picture)

    def _in_one_snapshot(self, read: Callable[[], _Change]) -> list[Difference]:
        """Read in a transaction with one snapshot, again while locks or changes of others are in the way."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                with self.connection.transaction():
                    for statement in catalog.BEGIN:
                        self.connection.execute(statement)
                    try:
                        change = read()
                    except _Everything:
                        change = self._read_all()
                # only now: whatever failed before, the next reading begins where this one did
                return change()
            except _PASSING as error:
                if time.monotonic() > deadline:
                    raise Locked(
                        f"The schema could not be read for {self._patience:g} s ({first_line(error)}): find the transaction that "
                        "holds locks on it in pg_locks, and end it or wait for its end."
                    ) from error
                _log.debug("The schema is read again: %s.", first_line(error))
            time.sleep(0.1)

    def _read_all(self) -> _Change:
        found = {name: keys for name, _, keys in self._ask(catalog.scan_sql(self._version), {"since": "0"})}
        known = {name: set(keys) for name, keys in self._ask(catalog.lists_sql(self._version))}
        ((origin, version, database),) = self._ask(catalog.ORIGIN)
        picture = Picture({}, origin, version, database)
        for section in catalog.sections(self._version):
            for row in self._ask(section.query):
                item = from_row(section.catalog, row)
                # the parts of what belongs to an extension belong to it too
                if item.parent is None or item.parent in picture.objects:
                    picture.objects[item.key] = item

        def change() -> list[Difference]:
            before, self.picture, self._columns = self.picture, picture, {}
            for _, oid, sub in picture.objects:
                if sub:
                    self._columns.setdefault(oid, set()).add(sub)
            self._known, self._since, self._roles = known, found["snapshot"][0], found["roles"]
            return compare(before, picture)

        return change

    def _read_changed(self) -> _Change:
        scanned = {name: (count, keys) for name, count, keys in self._ask(catalog.scan_sql(self._version), {"since": self._since})}
        since, newest = scanned["snapshot"][1]
        if int(newest) - int(self._since or 0) > _FAR or scanned["roles"][1] != self._roles:
            raise _Everything

        written: set[_Target] = set()
        gone: set[_Target] = set()
        added: dict[str, set[str]] = {}
        present: dict[str, set[str]] = {}
        for scan in catalog.scans(self._version):
            count, keys = scanned[scan.name]
            new = set(filter(None, keys or ()))
            removed: set[str] = set()
            if scan.counted:
                known = self._known[scan.name]
                added[scan.name] = new - known
                if count != len(known) + len(added[scan.name]):
                    ((_, all_keys),) = self._ask(scan.list_sql())
                    present[scan.name] = set(all_keys)
                    removed = (known | new) - present[scan.name]
            if scan.target is None:
                if removed or (added[scan.name] if scan.name == "members" else new):
                    raise _Everything
                continue
            written.update(scan.target_of(key) for key in new | removed)
            if scan.catalog == scan.target:
                gone.update(scan.target_of(key) for key in removed)
        if written:
            oids = _by_catalog(written)
            of = {name: oids.get(name, []) for name in ("pg_class", "pg_constraint", "pg_rewrite", "pg_type")}
            written.update(self._ask(catalog.RELATED, of))

        before = self._of(written)
        after = self._look_up(written - gone)
        if names := self._renamed(written - gone, before, after):
            dependents = {
                (name, oid)
                for name, oid in self._ask(catalog.DEPENDENTS, [[name for name, _ in names], [oid for _, oid in names]])
                if name in added
            } - written
            before |= self._of(dependents)
            after |= self._look_up(dependents)

        after = {key: item for key, item in after.items() if item.parent is None or self._stays(item.parent, before, after)}
        differences = compare(Picture(before), Picture(after), self.picture)

        def change() -> list[Difference]:
            for key in before.keys() - after.keys():
                del self.picture.objects[key]
                if key[2]:
                    self._columns[key[1]].discard(key[2])
            for key, item in after.items():
                self.picture.objects[key] = item
                if key[2]:
                    self._columns.setdefault(key[1], set()).add(key[2])
            for name, keys in added.items():
                self._known[name] |= keys
            self._known |= present
            self._since = since
            return differences

        return change

    def _stays(self, key: Key, before: dict[Key, Object], after: dict[Key, Object]) -> bool:
        return key in after or (key in self.picture.objects and key not in before)

    def _of(self, targets: Iterable[_Target]) -> dict[Key, Object]:
        """What the picture has of these, columns included."""
        keys = [
            (name, oid, sub) for name, oid in targets for sub in (0, *(self._columns.get(oid, ()) if name == "pg_class" else ()))
        ]
        return {key: self.picture.objects[key] for key in keys if key in self.picture.objects}

    def _look_up(self, targets: Iterable[_Target]) -> dict[Key, Object]:
        """What the database has of these, columns included."""
        oids = _by_catalog(targets)
        rows = (
            from_row(section.catalog, row)
            for section in catalog.sections(self._version)
            if section.catalog in oids
            for row in self._ask(f"{section.query} AND {section.selector} = ANY(%s::oid[])", [oids[section.catalog]])
        )
        return {item.key: item for item in rows}

    def _renamed(self, targets: set[_Target], before: dict[Key, Object], after: dict[Key, Object]) -> list[_Target]:
        """Those that were there before, and whose names, which others can have in their definitions, may have changed."""
        names_before, names_after = _names(before), _names(after)
        renamed = []
        for target in targets:
            name, oid = target
            if str(oid) not in self._known.get(name, ()):
                continue
            old = names_before.get(target)
            # what is not in the picture (an array type), or without its schema (an index), is seldom written but to be renamed
            if old is None or not (old <= names_after.get(target, set()) if name == "pg_type" else old == names_after.get(target)):
                if name == "pg_namespace":
                    raise _Everything
                renamed.append(target)
        return renamed

    def _ask(self, query: str, arguments: Any = None) -> list[Any]:
        return self.connection.execute(query, arguments, prepare=True).fetchall()


def _by_catalog(targets: Iterable[_Target]) -> dict[str, list[int]]:
    oids: dict[str, list[int]] = {}
    for name, oid in targets:
        oids.setdefault(name, []).append(oid)
    return oids


def _names(objects: dict[Key, Object]) -> dict[_Target, set[Any]]:
    """What definitions of others can have in them: names, columns, an enum's labels."""
    found: dict[_Target, set[Any]] = {}
    for key, item in objects.items():
        if item.kind == "index":
            continue
        parts = found.setdefault(key[:2], set())
        parts.add((key[2], item.identity, item.properties.get("type") if key[2] else None))
        if item.kind == "enum":
            parts.update(item.properties["labels"] or ())
    return found
