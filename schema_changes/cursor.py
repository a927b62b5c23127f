"""Where a listener stands, and where it keeps that.

The server's cursor holds a snapshot: the transactions whose changes were delivered.  Between two of the server's cursors the
listener appends what it delivered since:

    <server's cursor>[~<change>,<change>,…][@<place>…]

A change that was delivered straight from its notice is `<txid>.<id>.<digest>`, in hexadecimal: any user can forge a notice, and
the digest shows whether it told what the log tells.  What was delivered from an answer of the log is a place in that answer,
`<snapshot>.<id>.<txid>`: all changes of transactions that the snapshot shows, up to that id.  (There are two places when it was
asked again for less at a time.)  So at any moment: delivered = what the server's cursor shows + those changes + the answer up to
that place.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple, Protocol

from psycopg import sql

from .errors import NotPermitted
from .event import SchemaChange
from .feed import Session, transaction

_log = logging.getLogger("schema_changes")


class Snapshot:
    """PostgreSQL's pg_snapshot, as cursors have it: `xmin.xmax.xip_xip`.  Raises ValueError for anything else."""

    def __init__(self, text: str) -> None:
        xmin, xmax, running = text.split(".")
        self.text = text
        self.xmin, self.xmax = int(xmin), int(xmax)
        self.running = frozenset(map(int, filter(None, running.split("_"))))

    def shows(self, txid: int) -> bool:
        """Whether it shows the changes of this (committed) transaction: as PostgreSQL's pg_visible_in_snapshot()."""
        return txid < self.xmin or (txid < self.xmax and txid not in self.running)

    def covers(self, earlier: Snapshot) -> bool:
        """Whether it shows all that the other shows."""
        return self.xmax >= earlier.xmax and not any(earlier.shows(txid) for txid in self.running)


class Place(NamedTuple):
    """A place in an answer of the log, whose changes are delivered in the order of their commands."""

    snapshot: Snapshot
    id: int
    txid: int

    def passed(self, txid: int, number: int) -> bool:
        """Whether the change `number` of the transaction `txid` was delivered before."""
        return (number, txid) <= (self.id, self.txid) and self.snapshot.shows(txid)

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises ValueError."""
        snapshot, number, txid = text.rsplit(".", 2)
        return cls(Snapshot(snapshot), int(number), int(txid))

    def __str__(self) -> str:
        return f"{self.snapshot.text}.{self.id}.{self.txid}"


class Position:
    """A cursor taken apart.  Changed by `add` alone."""

    def __init__(self, server: str, direct: dict[tuple[int, int], str] | None = None, places: tuple[Place, ...] = ()) -> None:
        self.server = server
        """The server's part."""
        self.direct: dict[tuple[int, int], str] = {}
        """Digests of the changes delivered straight from notices, by txid and id."""
        self.places = places
        self.snapshot: Snapshot | None = None
        """None for a server's cursor that only the server can read."""
        # of formats that this version does not know, only that they go back to the server
        if server.startswith(("1-", "2-")):
            with contextlib.suppress(ValueError):
                self.snapshot = Snapshot(server.rpartition("-")[2])
        self._text = server
        for (txid, number), digest in (direct or {}).items():
            self.add(txid, number, digest)

    @classmethod
    def parse(cls, text: str) -> Position:
        """Any cursor that was ever given out; what is none goes to the server as it is, which answers with a reset."""
        rest, *places = text.split("@")
        server, _, changes = rest.partition("~")
        try:
            direct = {}
            for change in filter(None, changes.split(",")):
                txid, number, digest = change.split(".")
                direct[int(txid, 16), int(number, 16)] = digest
            return cls(server, direct, tuple(map(Place.parse, places)))
        except ValueError:
            # the additions of format 1 were of another kind; the server does not go on from it anyway
            return cls(server if server.startswith("1-") else text)

    def add(self, txid: int, number: int, digest: str) -> None:
        """Note that a change was delivered from its notice."""
        self._text += f"{',' if self.direct else '~'}{txid:x}.{number:x}.{digest}"
        self.direct[txid, number] = digest

    def at(self, place: Place) -> str:
        """The cursor for a place in the answer to this one."""
        return f"{self}@{place}"

    def passed(self, txid: int, number: int) -> bool:
        """Whether the change `number` of the transaction `txid` was delivered from an answer of the log."""
        return any(place.passed(txid, number) for place in self.places)

    def after(self, server: str, complete: bool, asked: int | None = None) -> Position:
        """The position after an answer of the log that ended with this server's cursor.

        complete: nothing was left for another answer; then what was told before the question is in it, or was never made.
        asked: how many changes had been told by then; None for all.
        """
        new = Position(server)
        if new.snapshot is None:
            return new
        told, places = list(self.direct.items()), self.places
        if complete:
            told, places = told[len(told) if asked is None else asked :], ()
        direct = {key: digest for key, digest in told if not new.snapshot.shows(key[0])}
        return Position(server, direct, tuple(place for place in places if not new.snapshot.covers(place.snapshot)))

    def __str__(self) -> str:
        return "@".join([self._text, *map(str, self.places)])


def digest(change: SchemaChange) -> str:
    """Of all that a notice says and the log says too."""
    objects = [(item.action, item.kind, item.schema, item.identity) for item in change.objects]
    said = (change.type, change.tag, change.timestamp.isoformat(timespec="milliseconds"), change.database, change.user, objects)
    return hashlib.blake2b(repr(said).encode(errors="replace"), digest_size=6).hexdigest()


class CursorStore(Protocol):
    """Keeps one cursor.  Called from a thread of its own, one call at a time.  What it raises ends the listener."""

    def load(self) -> str | None:
        """The cursor saved last, None when there was none."""

    def save(self, cursor: str) -> None:
        """Keep this cursor instead of the former."""


class FileCursorStore:
    """Keeps the cursor in a file, on disk before `save` returns.

    The file is replaced as a whole, so that a reader never sees half of one, and keeps its mode; a link is followed.  A file that
    cannot be replaced (a single file that is mounted in a container, a folder that may not be written) is written in place, with a
    digest before the cursor, as a power cut may tear that in two.  What is no cursor any more gives a warning, and a `Reset`.

    Both methods raise `OSError`; the folder has to be there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def load(self) -> str | None:
        """The cursor in the file; None when there is no file; what no server takes for a cursor, when there is none in the file."""
        try:
            text = self.path.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise FileNotFoundError(
                    f"The folder of the cursor file {os.fspath(self.path)!r} is not there: make it first"
                ) from None
            return None
        cursor = text.strip()
        check, _, checked = cursor.removeprefix(_CHECKED).partition(" ")
        if cursor.startswith(_CHECKED):
            cursor = checked if check == _check(checked) else ""
        if cursor and cursor.isascii() and cursor.isprintable():
            return cursor
        _log.warning("The file %s holds no cursor any more: what came before now cannot be told.", self.path)
        return "unreadable"

    def save(self, cursor: str) -> None:
        """Write a new file beside the old one and put it in its place, or else write in place."""
        path = self.path.resolve()
        try:
            self._replace(path, f"{cursor}\n".encode())
        except OSError as error:
            if not path.exists():
                raise
            try:
                self._write_in_place(path, f"{_CHECKED}{_check(cursor)} {cursor}\n".encode())
            except OSError:
                raise error from None

    def _replace(self, path: Path, content: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(descriptor, "wb") as file:
                with contextlib.suppress(FileNotFoundError):
                    former = path.stat()
                    os.fchmod(descriptor, stat.S_IMODE(former.st_mode))
                    if (former.st_uid, former.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(descriptor, former.st_uid, former.st_gid)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write_in_place(self, path: Path, content: bytes) -> None:
        # in one write, and shortened after it: a kill in between leaves the new cursor with a tail that nobody reads
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# No cursor begins so, nor with a part of it.
_CHECKED = "checked "


def _check(cursor: str) -> str:
    return hashlib.blake2b(cursor.encode(errors="replace"), digest_size=8).hexdigest()


class TableCursorStore:
    """Keeps the cursor in a row of a table, in any database that `conninfo` leads to: `name` tells listeners apart.

    The table is created where it is missing.  It has to be this role's own, without triggers or rules: whoever made it otherwise
    could have code of theirs run with this role's rights.

    An application that keeps its own state in that database does better to store `change.cursor` itself, in the transaction that
    handles the change: then each change counts exactly once.

    Both methods connect anew, and raise `SchemaChangesError`s: `NotPermitted` for a table that is not to be trusted.
    """

    def __init__(self, conninfo: str, name: str, table: str = "schema_changes_cursor", schema: str = "public") -> None:
        self.conninfo = conninfo
        self.name = name
        self._table = sql.Identifier(schema, table).as_string()

    @property
    def place(self) -> str:
        """Table and row, written alike by all who keep the same cursor."""
        return f"{self._table} {self.name}"

    def load(self) -> str | None:
        """The cursor in the row; None when there is no row."""
        with transaction(self.conninfo) as session:
            create(session, self._table, "name text PRIMARY KEY, cursor text NOT NULL, saved_at timestamptz NOT NULL")
            hold(session, self._table, "ACCESS SHARE")
            query = f"SELECT cursor FROM {self._table} WHERE name = convert_from(%s, 'UTF8')"  # noqa: S608
            rows = session.rows(query, [self.name.encode()])
            return None if not rows else str(rows[0][0])

    def save(self, cursor: str) -> None:
        """Insert or replace the row."""
        with transaction(self.conninfo) as session:
            hold(session, self._table, "ROW EXCLUSIVE")
            session.rows(
                f"INSERT INTO {self._table} AS kept VALUES (convert_from(%s, 'UTF8'), %s, now()) "  # noqa: S608
                "ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor, saved_at = excluded.saved_at",
                [self.name.encode(), cursor],
            )


def create(session: Session, table: str, columns: str) -> None:
    """Create the table where it is missing; many may at once."""
    # asked first, because CREATE wants a privilege even where the table exists
    if session.rows("SELECT to_regclass(convert_from(%s, 'UTF8'))", [table.encode()]) == [(None,)]:
        # IF NOT EXISTS does not wait for another who is making it, and fails
        session.rows("SELECT pg_advisory_xact_lock(hashtext(convert_from(%s, 'UTF8')))", [table.encode()])
        session.rows(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")


def hold(session: Session, table: str, mode: str) -> None:
    """Hold the table as it is until the transaction ends, and see that nobody else has a hand in it."""
    session.rows(f"LOCK TABLE ONLY {table} IN {mode} MODE")
    ((own, plain, triggers, rules, owner),) = session.rows(
        "SELECT relowner = session_user::regrole, relkind = 'r', "
        "EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal), "
        "EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid), relowner::regrole::text "
        "FROM pg_class AS c WHERE oid = to_regclass(convert_from(%s, 'UTF8'))",
        [table.encode()],
    )
    reasons = {
        f"belongs to {owner}": not own,
        "is no plain table": not plain,
        "has triggers": triggers,
        "has rules": rules,
    }
    wrong = next((reason for reason, holds in reasons.items() if holds), None)
    if wrong is not None:
        raise NotPermitted(
            f"The table {table} in {session.where} {wrong}, so what is written to it may run another's code with "
            f"the rights of {session.role}: drop it, or keep the cursor in another table, which {session.role} owns."
        )
