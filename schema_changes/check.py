"""The check after a deploy: change the schema and see that the notices come.

One transaction creates, alters and drops a table under a random name, so that nothing is left behind even when the
check is killed half way; its three notices come with the COMMIT, in order, and carry this session's process id.  Consumers
know them by the name, `schema_changes_check_` and 12 hexadecimal digits: `listen` leaves them out unless asked.

It runs once per database on small machines: it makes few round trips and imports little.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import psycopg

from .errors import CannotListen, NoNotices, NotPermitted, Unhealthy, lost
from .event import CHANNEL, MalformedNotice, parse_notice
from .feed import Session, listening_session, require

_TAGS = ["CREATE TABLE", "ALTER TABLE", "DROP TABLE"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the check saw in one database."""

    ok: bool
    """Always True: what is not well is raised."""
    database: str
    server_version: str
    """Such as 16.14."""
    extension_version: str
    """Such as 1.0."""
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
    with listening_session(conninfo, timeout=timeout, name="schema_changes check", **parameters) as session:
        facts, where = session.facts, session.where
        require(facts, where)
        if facts.schema is None:
            raise NotPermitted(
                f"Role {session.role!r} may create a table in no schema of {where}: "
                "grant it CREATE on one, or check as another role."
            )
        notices = _change_and_listen(session, facts.schema, timeout)
        problem = None
        if facts.may_see_status:
            ((problem,),) = session.rows("SELECT problem FROM schema_notifications.status()")
    if [notice["tag"] for notice in notices] == _TAGS and problem is None:
        elapsed = _milliseconds(started)
        return CheckResult(True, facts.database, facts.server_version, facts.extension_version or "", notices, elapsed)
    if problem is None and facts.disabled_triggers:
        name = facts.disabled_triggers[0]
        problem = f"the event trigger {name} is disabled; run ALTER EVENT TRIGGER {name} ENABLE ALWAYS"
    if problem is None and facts.notify is not None and facts.notify.lower() in {"off", "false", "no", "0"}:
        problem = "the setting schema_notifications.notify is off for this role or database; reset it"
    if problem is not None:
        raise Unhealthy(f"Schema changes are not announced as they should in {where}: {problem.rstrip('.')}.")
    came = ", ".join(notice["tag"] for notice in notices) or "none"
    raise NoNotices(
        f"A table was created, altered and dropped in {where} and its three notices did not come (came: {came}): "
        "see the server's log, and connect to PostgreSQL directly if a proxy stands in between."
    )


def _change_and_listen(session: Session, schema: str, timeout: float) -> list[dict[str, Any]]:
    connection, where = session.connection, session.where
    notices: list[dict[str, Any]] = []
    started = 0.0

    def note(channel: str, payload: str, pid: int) -> None:
        # another session's change, or a forged notice, carries another process id
        if channel == CHANNEL and pid == session.facts.pid:
            with contextlib.suppress(MalformedNotice):
                notices.append({"tag": parse_notice(payload).tag, "ms": _milliseconds(started)})

    session.hear(note)
    table = f"{schema}.schema_changes_check_{secrets.token_hex(6)}"
    limit = f"'{round(timeout * 1000)}ms'"
    statements = (
        f"BEGIN; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}; "
        f"CREATE TABLE {table} (); ALTER TABLE {table} ADD COLUMN checked boolean; DROP TABLE {table}; COMMIT"
    )
    try:
        connection.execute(f"LISTEN {CHANNEL}".encode())
        started = time.perf_counter()
        connection.execute(statements.encode())
        # PostgreSQL sends a session its own notices before it says that the COMMIT is done: no need to wait
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotPermitted(f"The check may not change the schema of {where}: {error.diag.message_primary}.") from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise CannotListen(f"Cannot change the schema of {where}: it is read-only; connect to the primary.") from error
    except psycopg.errors.QueryCanceled as error:
        raise NoNotices(f"The check could not change the schema of {where}: {error}.".replace("\n", " ")) from error
    except psycopg.OperationalError as error:
        raise lost(error, where) from error
    except psycopg.Error as error:
        raise NoNotices(f"The check could not change the schema of {where}: {error}.".replace("\n", " ")) from error
    finally:
        # a pool may give the session to another client
        with contextlib.suppress(psycopg.Error):
            connection.execute(f"ROLLBACK; UNLISTEN {CHANNEL}".encode())
    return notices


def _milliseconds(since: float) -> float:
    return round((time.perf_counter() - since) * 1000, 2)


class _Module(ModuleType):
    """`from schema_changes import check` gives the function, or this module once it was imported: either can be called."""

    __call__ = staticmethod(check)


sys.modules[__name__].__class__ = _Module
