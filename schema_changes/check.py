"""The check after a deploy: change the schema and see that the notices come.

One transaction creates, alters and drops a table under a random name, so that nothing is left behind even when the
check is killed half way; its three notices come with the COMMIT, in order, and carry this session's process id.

It runs once per database on small machines: it makes four round trips and imports little.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg import sql

from .errors import (
    CannotListen,
    NoNotices,
    NotInstalled,
    NotPermitted,
    Unhealthy,
    connection_error,
    describe,
    lost,
)
from .event import CHANNEL, MalformedNotice, parse_notice

_TAGS = ["CREATE TABLE", "ALTER TABLE", "DROP TABLE"]

# Only catalogs, which every role may read, whatever the extension's version.
_FACTS = """
SELECT current_database(), current_setting('server_version'), pg_is_in_recovery(), pg_backend_pid(),
    (SELECT extversion FROM pg_extension WHERE extname = 'schema_notifications'),
    (SELECT has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')
     FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace
     WHERE nspname = 'schema_notifications' AND proname = 'status'),
    ARRAY(SELECT evtname::text FROM pg_event_trigger
          WHERE evtname LIKE 'schema\\_notifications\\_%' AND evtenabled = 'D' ORDER BY 1),
    (SELECT nspname::text FROM pg_namespace
     WHERE has_schema_privilege(oid, 'CREATE') AND nspname !~ '^pg_'
       AND nspname NOT IN ('information_schema', 'schema_notifications')
     ORDER BY nspname = current_schema() DESC NULLS LAST, nspname = 'public' DESC, nspname LIMIT 1),
    current_setting('schema_notifications.notify', true)
"""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the check saw in one database."""

    ok: bool
    """Always True: what is not well is raised."""
    database: str
    server_version: str
    """Such as 16.14."""
    extension_version: str
    """Such as 1.1."""
    notices: list[dict[str, Any]]
    """One `{"tag": …, "ms": …}` for each notice; ms from sending the statements to the notice's arrival."""
    ms: float
    """Milliseconds for all of it, connecting included."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check(conninfo: str = "", *, timeout: float = 10, **parameters: Any) -> CheckResult:
    """Change the schema of one database and wait for the notices.

    conninfo and parameters: as for `psycopg.connect`; what they leave out comes from the PG* variables.
    timeout: seconds for connecting and for each statement, locks included.

    Raises `Unreachable`, `LoginRefused`, `NotInstalled`, `CannotListen`, `NotPermitted`, `Unhealthy` or `NoNotices`.
    """
    started = time.perf_counter()
    where = describe(conninfo, parameters)
    parameters.setdefault("connect_timeout", max(2, round(timeout)))
    parameters.setdefault("fallback_application_name", "schema_changes check")
    try:
        connection = psycopg.connect(conninfo, autocommit=True, **parameters)
    except psycopg.OperationalError as error:
        raise connection_error(error, where) from error
    with contextlib.closing(connection):
        try:
            (facts,) = connection.execute(_FACTS)
            database, server_version, standby, pid, version, may_see_status, disabled, schema, notify = facts
            if version is None:
                raise NotInstalled(
                    f"The extension schema_notifications is not installed in {where}: "
                    "connect as a superuser and run CREATE EXTENSION schema_notifications."
                )
            if standby:
                raise CannotListen(f"Cannot listen to {where}: it is a standby, which carries no notices; use the primary.")
            if schema is None:
                raise NotPermitted(
                    f"Role {connection.info.user!r} may create a table in no schema of {where}: "
                    "grant it CREATE on one, or check as another role."
                )
            notices = _change_and_listen(connection, schema, pid, timeout, where)
            problem = None
            if may_see_status:
                ((problem,),) = connection.execute("SELECT problem FROM schema_notifications.status()")
        except psycopg.OperationalError as error:
            raise lost(error, where) from error
    if [notice["tag"] for notice in notices] == _TAGS and problem is None:
        elapsed = _milliseconds(started)
        return CheckResult(True, database, server_version, version, notices, elapsed)
    if problem is None and disabled:
        problem = f"the event trigger {disabled[0]} is disabled; run ALTER EVENT TRIGGER {disabled[0]} ENABLE ALWAYS"
    if problem is None and notify is not None and notify.lower() in {"off", "false", "no", "0"}:
        problem = "the setting schema_notifications.notify is off for this role or database; reset it"
    if problem is not None:
        raise Unhealthy(f"Schema changes are not announced as they should in {where}: {problem.rstrip('.')}.")
    came = ", ".join(notice["tag"] for notice in notices) or "none"
    raise NoNotices(
        f"A table was created, altered and dropped in {where} and its three notices did not come (came: {came}): "
        "see the server's log, and connect to PostgreSQL directly if a proxy stands in between."
    )


def databases(conninfo: str = "", *, timeout: float = 10, **parameters: Any) -> list[str]:
    """Every database of the server that takes connections, templates excepted.

    Arguments as for `check`.  Raises `Unreachable` or `LoginRefused`.
    """
    parameters.setdefault("connect_timeout", max(2, round(timeout)))
    try:
        with psycopg.connect(conninfo, autocommit=True, **parameters) as connection:
            return [
                name
                for (name,) in connection.execute(
                    "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
                )
            ]
    except psycopg.OperationalError as error:
        raise connection_error(error, describe(conninfo, parameters)) from error


def _change_and_listen(connection: psycopg.Connection, schema: str, pid: int, timeout: float, where: str) -> list[dict[str, Any]]:
    notices: list[dict[str, Any]] = []
    started = 0.0

    def note(notice: psycopg.Notify) -> None:
        # another session's change, or a forged notice, carries another process id
        if notice.pid == pid:
            with contextlib.suppress(MalformedNotice):
                notices.append({"tag": parse_notice(notice.payload).tag, "ms": _milliseconds(started)})

    connection.add_notify_handler(note)
    table = sql.Identifier(schema, f"schema_changes_check_{secrets.token_hex(6)}")
    limit = sql.Literal(f"{round(timeout * 1000)}ms")
    statements = sql.SQL(
        "BEGIN; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}; "
        "CREATE TABLE {table} (); ALTER TABLE {table} ADD COLUMN checked boolean; DROP TABLE {table}; COMMIT"
    ).format(limit=limit, table=table)
    try:
        connection.execute(f"LISTEN {CHANNEL}")
        started = time.perf_counter()
        connection.execute(statements)
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotPermitted(f"The check may not change the schema of {where}: {error.diag.message_primary}.") from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise CannotListen(
            f"Cannot change the schema of {where}: it is read-only; use the primary, or reset default_transaction_read_only."
        ) from error
    except psycopg.Error as error:
        raise NoNotices(f"The check could not change the schema of {where}: {error}.".replace("\n", " ")) from error
    # PostgreSQL sends a session its own notices before it says that the COMMIT is done: no need to wait
    return notices


def _milliseconds(since: float) -> float:
    return round((time.perf_counter() - since) * 1000, 2)
