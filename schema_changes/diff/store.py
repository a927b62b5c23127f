"""Where a listener keeps its cursor and its picture together, so that it can say after a downtime what is different.

Both are `CursorStore`s: the listener gives them the picture that goes with the next cursor, and saves both as one.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from psycopg import sql

from ..cursor import create, hold
from ..errors import SchemaChangesError
from ..feed import transaction
from .picture import Key, Object, Picture, from_json, to_json


class PictureStore:
    """What the two have in common; keep yours in another place by writing `_load` and `_write`."""

    picture: Picture | None = None
    """The picture that was loaded; None when there was none."""

    def __init__(self) -> None:
        self._saved: dict[Key, Object] = {}
        self._staged: Picture | None = None
        self._is_new = True

    def load(self) -> str | None:
        """The cursor; None when there was none.  The picture is in `picture` then."""
        cursor, self.picture = self._load()
        self._saved = {} if self.picture is None else dict(self.picture.objects)
        self._is_new, self._staged = True, None
        return cursor

    def stage(self, picture: Picture) -> None:
        """Save this picture with the next cursor; it is not to be changed any more."""
        self._staged = picture

    def save(self, cursor: str) -> None:
        """Keep this cursor, and the picture that was staged last, instead of the former."""
        picture, before = self._staged, self._saved
        if picture is None:
            picture = self.picture or Picture()
        after = picture.objects
        removed = [key for key in before if key not in after]
        written = [item for key, item in after.items() if before.get(key) is not item and before.get(key) != item]
        self._write(cursor, picture, removed, written, self._is_new)
        self.picture, self._saved, self._is_new = picture, after, False

    def _load(self) -> tuple[str | None, Picture | None]:
        raise NotImplementedError

    def _write(self, cursor: str, picture: Picture, removed: list[Key], written: list[Object], is_new: bool) -> None:
        """Write it all, or from `removed` and `written` on, what is other than last time; `is_new`: there was no last time."""
        raise NotImplementedError


class FilePictureStore(PictureStore):
    """Keeps both in one file: the picture, as `schema-changes snapshot` writes it, and a line for each cursor after it.

    The file is replaced as a whole when the lines have become more than the picture, and on disk before `save` returns.  A
    process that is killed loses nothing; a line that was not written to its end comes again.  Methods raise
    `OSError`, and `SchemaChangesError` for a file that holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        self._room = 0

    def _load(self) -> tuple[str | None, Picture | None]:
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return None, None
        except UnicodeDecodeError as error:
            raise SchemaChangesError(f"There is no picture in {self.path}.") from error
        end = text.find("\n]}\n") + 4
        picture = Picture.loads(text[:end] if end > 3 else text, str(self.path))
        cursor = json.loads(text[:end]).get("cursor")
        for line in _whole_lines(text[end:]):
            for key in line.get("removed", ()):
                picture.objects.pop((key[0], key[1], key[2]), None)
            for fields in line.get("written", ()):
                item = from_json(fields)
                picture.objects[item.key] = item
            picture.origin = line.get("origin", picture.origin)
            cursor = line["cursor"]
        return cursor, picture

    def _write(self, cursor: str, picture: Picture, removed: list[Key], written: list[Object], is_new: bool) -> None:
        if not is_new:
            line: dict[str, Any] = {"cursor": cursor, "origin": picture.origin}
            if removed:
                line["removed"] = removed
            if written:
                line["written"] = [to_json(item) for item in written]
            text = json.dumps(line, ensure_ascii=False) + "\n"
            self._room -= len(text)
            if self._room > 0:
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                return
        whole = picture.dumps(cursor=cursor)
        self._room = max(len(whole), 100_000)
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(whole)
                file.flush()
                os.fsync(descriptor)
            os.replace(name, self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise


def _whole_lines(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.splitlines(keepends=True):
        # one that was not written to its end was not saved
        if line.endswith("\n"):
            with contextlib.suppress(ValueError):
                yield json.loads(line)


class TablePictureStore(PictureStore):
    """Keeps both in rows of a table, in any database that `conninfo` leads to: `name` tells listeners apart.

    A row for each object, so that the picture can be asked with SQL, and one with an empty key for the cursor; what was
    staged and the cursor are written in one transaction.  As with `TableCursorStore`, the table is created where it is missing
    and has to be this role's own, and methods connect anew and raise `SchemaChangesError`s.
    """

    def __init__(self, conninfo: str, name: str, table: str = "schema_changes_picture", schema: str = "public") -> None:
        super().__init__()
        self.conninfo = conninfo
        self.name = name
        self._table = sql.Identifier(schema, table).as_string()

    def _load(self) -> tuple[str | None, Picture | None]:
        with transaction(self.conninfo) as session:
            create(session, self._table, "name text, key text, object text NOT NULL, PRIMARY KEY (name, key)")
            hold(session, self._table, "ACCESS SHARE")
            query = f"SELECT key, object FROM {self._table} WHERE name = convert_from(%s, 'UTF8')"  # noqa: S608
            rows = session.rows(query, [self.name.encode()])
        found = {key: json.loads(text) for key, text in rows}
        if "" not in found:
            return None, None
        head = found.pop("")
        objects = [from_json(fields) for fields in found.values()]
        return head["cursor"], Picture({item.key: item for item in objects}, head["origin"], head["version"], head["database"])

    def _write(self, cursor: str, picture: Picture, removed: list[Key], written: list[Object], is_new: bool) -> None:
        head = {"cursor": cursor, "origin": picture.origin, "version": picture.version, "database": picture.database}
        rows = [["", json.dumps(head)], *([_text(item.key), json.dumps(to_json(item))] for item in written)]
        name = self.name.encode()
        with transaction(self.conninfo) as session:
            hold(session, self._table, "ROW EXCLUSIVE")
            session.rows(
                f"DELETE FROM {self._table} WHERE name = convert_from(%s, 'UTF8') "  # noqa: S608
                "AND key IN (SELECT json_array_elements_text(%s::json))",
                [name, json.dumps([_text(key) for key in removed])],
            )
            # as JSON in ASCII, which every database takes
            session.rows(
                f"INSERT INTO {self._table} AS kept SELECT convert_from(%s, 'UTF8'), row ->> 0, row ->> 1 "  # noqa: S608
                "FROM json_array_elements(%s::json) AS row "
                "ON CONFLICT (name, key) DO UPDATE SET object = excluded.object",
                [name, json.dumps(rows)],
            )


def _text(key: Key) -> str:
    return ".".join(map(str, key))
