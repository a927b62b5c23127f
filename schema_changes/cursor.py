"""Where a listener stands, and where it keeps that.

The server's cursor holds a snapshot: the transactions whose changes were delivered.  Between two of its cursors the
listener delivers changes straight from their notices, and appends their ids: `<server's cursor>~17-19,22`.  So at any
moment: delivered = what the snapshot shows + those ids.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import tempfile
from operator import itemgetter
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg import sql


class Position:
    """A cursor taken apart.  Immutable but for `add`."""

    def __init__(self, text: str) -> None:
        self.is_readable = False
        try:
            self.server, _, ids = text.partition("~")
            parts = (part.partition("-") for part in ids.split(",") if part)
            self._ranges = sorted([int(first), int(last or first)] for first, _, last in parts)
            # Format 1 ends in a pg_snapshot.  Of later formats it is only known that they go back to the server.
            if self.server.startswith("1-"):
                xmin, xmax, running = self.server.rpartition("-")[2].split(".")
                self._xmin, self._xmax = int(xmin), int(xmax)
                self._running = frozenset(map(int, filter(None, running.split("_"))))
                self.is_readable = True
        except ValueError:
            # the server will say what is wrong with it
            self.server, self._ranges = text, []

    def add(self, number: int) -> None:
        """Note that the change with this id was delivered."""
        index = bisect.bisect_right(self._ranges, number, key=itemgetter(0))
        before = self._ranges[index - 1] if index > 0 else None
        after = self._ranges[index] if index < len(self._ranges) else None
        if before is not None and number <= before[1]:
            return
        # a range of its own, then joined with its neighbours
        self._ranges.insert(index, [number, number])
        if after is not None and number + 1 == after[0]:
            self._ranges[index : index + 2] = [[number, after[1]]]
        if before is not None and before[1] + 1 == number:
            self._ranges[index - 1 : index + 1] = [[before[0], self._ranges[index][1]]]

    def shows(self, txid: int) -> bool:
        """Whether the snapshot shows the changes of this (committed) transaction: as PostgreSQL's pg_visible_in_snapshot()."""
        return txid < self._xmin or (txid < self._xmax and txid not in self._running)

    def shows_all_of(self, other: Position) -> bool:
        """Whether the snapshot shows all that the other's does, as far as xmin and xmax tell: False may mean "perhaps"."""
        return self._xmin >= other._xmax

    def __contains__(self, number: int) -> bool:
        index = bisect.bisect_right(self._ranges, number, key=itemgetter(0))
        return index > 0 and number <= self._ranges[index - 1][1]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self._ranges)

    def __str__(self) -> str:
        if not self._ranges:
            return self.server
        return self.server + "~" + ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in self._ranges)


class CursorStore(Protocol):
    """Keeps one cursor.  Called from a thread of its own, one call at a time.  What it raises ends the listener."""

    def load(self) -> str | None:
        """The cursor saved last, None when there was none."""

    def save(self, cursor: str) -> None:
        """Keep this cursor instead of the former."""


class FileCursorStore:
    """Keeps the cursor in a file, which is replaced as a whole: a reader never sees half of one.

    A process that is killed loses nothing.  After a power cut the file may hold an older cursor, and changes come
    again; should it hold none, the listener yields a `Reset`.  Both methods raise `OSError`; the folder has to be there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def load(self) -> str | None:
        """The cursor in the file; None when there is no file."""
        try:
            return self.path.read_text("ascii", errors="replace").strip()
        except FileNotFoundError:
            return None

    def save(self, cursor: str) -> None:
        """Write a new file beside the old one and put it in its place."""
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(cursor + "\n")
            os.replace(name, self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise


class TableCursorStore:
    """Keeps the cursor in a row of a table, in any database that `conninfo` leads to: `name` tells listeners apart.

    The table is created where it is missing.  An application that keeps its own state in that database does better to
    store `change.cursor` itself, in the transaction that handles the change: then each change counts exactly once.
    Both methods connect anew, and raise `psycopg.Error`.
    """

    def __init__(self, conninfo: str, name: str, table: str = "schema_changes_cursor", schema: str = "public") -> None:
        self.conninfo = conninfo
        self.name = name
        self._table = sql.Identifier(schema, table)

    def load(self) -> str | None:
        """The cursor in the row; None when there is no row."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            # asked first, because CREATE wants a privilege even where the table exists
            if connection.execute("SELECT to_regclass(%s)", [self._table.as_string()]).fetchone() == (None,):
                connection.execute(
                    sql.SQL(
                        "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, cursor text NOT NULL, saved_at timestamptz NOT NULL)"
                    ).format(self._table)
                )
            row = connection.execute(sql.SQL("SELECT cursor FROM {} WHERE name = %s").format(self._table), [self.name]).fetchone()
            return None if row is None else str(row[0])

    def save(self, cursor: str) -> None:
        """Insert or replace the row."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(
                sql.SQL(
                    "INSERT INTO {} AS kept VALUES (%s, %s, now()) "
                    "ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor, saved_at = excluded.saved_at"
                ).format(self._table),
                [self.name, cursor],
            )
