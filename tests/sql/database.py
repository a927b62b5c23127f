"""A database as the tests of the extension use it: sessions, notices, the log."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.support.postgres import Cluster


class Database:
    """One database: sessions in it, and what a listener hears."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def connect(self, user: str = "postgres", **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(host="127.0.0.1", port=self.cluster.port, dbname=self.name, user=user, autocommit=True, **options)

    def execute(self, statements: str, *values: object) -> list[tuple[Any, ...]]:
        """Runs statements in a session of their own, in autocommit; returns the rows of the last, if it has any."""
        with self.connect() as connection:
            cursor = connection.execute(statements, values or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *values: object) -> Any:
        """The one value that a query returns."""
        ((value,),) = self.execute(query, *values)
        return value

    @contextmanager
    def listening(self) -> Iterator[list[dict[str, Any]]]:
        """A list that, after the block, has every notice that was sent within it."""
        notices: list[dict[str, Any]] = []
        with self.connect() as listener:
            listener.execute("LISTEN schema_changed")
            yield notices
            # Notices come in order of commit, so all that were sent before this one are before it.
            end = str(uuid.uuid4())
            self.execute("SELECT pg_notify('schema_changed', %s)", end)
            for notice in listener.notifies(timeout=30):
                if notice.payload == end:
                    return
                notices.append(json.loads(notice.payload))
            raise AssertionError("the notices did not end within 30 s")

    def notices_of(self, *commands: str, user: str = "postgres") -> list[dict[str, Any]]:
        """The notices that these commands send, run one by one in autocommit."""
        with self.connect(user) as session, self.listening() as notices:
            for command in commands:
                session.execute(command)
        return notices

    def log(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Tag and objects of each log row, in order."""
        return [(tag, objects) for tag, objects in self.execute("SELECT tag, objects FROM schema_notifications.log ORDER BY id")]

    def status(self) -> dict[str, Any]:
        (status,) = self.value("SELECT array_agg(to_jsonb(s)) FROM schema_notifications.status() AS s")
        return dict(status)

    def changes_since(self, cursor: str | None, max_rows: int | None = None) -> tuple[list[str], str, str]:
        """The tags of the changes, the kind of the last row, and the new cursor."""
        rows = self.execute("SELECT kind, cursor, tag FROM schema_notifications.changes_since(%s, %s)", cursor, max_rows)
        assert [row[0] for row in rows[:-1]] == ["change"] * (len(rows) - 1)
        return [row[2] for row in rows[:-1]], rows[-1][0], rows[-1][1]


def described(notice: dict[str, Any]) -> set[str]:
    """The objects of a notice as "action kind identity"."""
    return {f"{o['action']} {o['kind']} {o['identity']}" for o in notice["objects"]}
