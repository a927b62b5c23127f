"""Sessions with a database that has the feed, and every query that this package makes to it.

    status("postgresql://app@db/app")["healthy"]                # for programs, as `schema-changes status` for the shell
    history("postgresql://app@db/app", limit=10)                # as `schema-changes history`

    with transaction("postgresql://app@db/app") as session:     # one short transaction, which a pool of transactions carries too
        session.rows("SELECT count(*) FROM app.orders")
    with listening_session("postgresql://app@db/app") as session:     # a session that LISTEN needs: the check's
        session.facts.extension_version
    async with async_session("postgresql://app@db/app", hear=print) as session:     # the same with asyncio: the listener's
        await session.rows(CHANGES_SINCE, [None, None])

A database, a role and the environment can each bend a session: `ALTER ROLE … SET search_path`, `role`, `statement_timeout`,
PGCLIENTENCODING.  None of that is trusted here.  `SETTINGS` is the one list of what every session starts with.  It goes with
the connection request, which outranks ALTER ROLE and ALTER DATABASE, so that even the first query runs under it; and again
in a query that looks up no name, as a pool in between may not pass on what the request said.

What is set through a pool of transactions, others get.  So `transaction` sets for its one transaction only, and the two
sessions make sure that the server session is theirs alone before they set anything (`CannotListen` if it is not).
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn
from psycopg.pq.misc import PGnotify

from .errors import (
    CannotListen,
    NotInstalled,
    NotPermitted,
    Unhealthy,
    connection_error,
    describe,
    first_line,
    keywords,
    lost,
)
from .event import Reset, SchemaChange, from_log_row
from .filters import Filter

_Result = TypeVar("_Result")

# ----------------------------------------------------------------------------------------------------------------------
# What every session starts with
# ----------------------------------------------------------------------------------------------------------------------

SETTINGS = {
    # where names are looked up, and as whom
    "search_path": "pg_catalog,pg_temp",
    "role": "none",
    "row_security": "off",  # what a policy would hold back is an error then, and no gap
    # nothing ends a session of ours but a deadline of ours
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "tcp_user_timeout": "0",
    "tcp_keepalives_idle": "0",
    "tcp_keepalives_interval": "0",
    "tcp_keepalives_count": "0",
    "client_connection_check_interval": "0",
    "exit_on_error": "off",
    # transactions
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "local",  # on this server's disk, without waiting for a standby that may be away
    # how values are written and read
    "DateStyle": "ISO,YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "escape_string_warning": "off",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    # what a table of ours is made of
    "default_tablespace": "",
    "temp_tablespaces": "",
    "default_table_access_method": "heap",
    "default_toast_compression": "pglz",
    "work_mem": "4MB",
    # no code of somebody else's choice, no talk, no compiler
    "local_preload_libraries": "",
    "client_min_messages": "warning",
    "plpgsql.extra_warnings": "none",
    "plpgsql.extra_errors": "none",
    "jit": "off",
}
"""Known to PostgreSQL 14 and later.  Left alone: what says how fast or how loud the server is, and the feed's own settings."""

_SETTINGS_OF_SOME_VERSIONS = {"transaction_timeout": "0", "restrict_nonsystem_relation_kind": ""}

_TLS = {"require", "verify-ca", "verify-full"}

# Encodings that the server cannot convert to UTF8: names come as they are, and what is no UTF-8 in them is replaced here.
_UNCONVERTIBLE = {"SQL_ASCII", "MULE_INTERNAL"}


def _requests(conninfo: str, timeout: float, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameters of our connection request: what the user gave wins, but for what must not bend.

    And of a second request, for a pool that refuses the first because of its options.
    """
    if keywords(conninfo).get("require_auth"):
        parameters = parameters | {"require_auth": keywords(conninfo)["require_auth"]}  # rather than a route's
    given = keywords(conninfo, parameters)
    defaults: dict[str, Any] = {
        # libpq waits at least 2 seconds
        "connect_timeout": max(2, round(timeout)),
        "fallback_application_name": name,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
    # Without TLS for certain, whoever answers must not be told the password in clear.
    sslmode = given.get("sslmode") or os.environ.get("PGSSLMODE")
    if psycopg.pq.version() >= 160000 and "PGREQUIREAUTH" not in os.environ and sslmode not in _TLS:
        defaults["require_auth"] = "!password"
    request = {keyword: value for keyword, value in defaults.items() if given.get(keyword) is None} | parameters
    # which never fails, as UTF8 does on some databases; _pin() knows better
    request["client_encoding"] = "SQL_ASCII"
    theirs = given.get("options") or os.environ.get("PGOPTIONS", "")
    ours = " ".join(f"-c {name}=" + value.replace(" ", "\\ ") for name, value in SETTINGS.items())
    return [request | {"options": f"{theirs} {ours}".strip()}, request | {"options": theirs}]


def _refuses_options(error: psycopg.OperationalError) -> bool:
    """Whether a pool refused the request because of its options, as pgbouncer does; then they are set by query alone."""
    return "startup parameter" in str(error) or "command-line options" in str(error)


def _pin(pgconn: PGconn, *, local: bool, as_it_is: bool = False) -> str:
    """The query that sets SETTINGS; every name in it is qualified, and there is no operator in it.

    as_it_is: have the server convert no text, because it cannot.
    """
    as_it_is = as_it_is or _parameter(pgconn, b"server_encoding") in _UNCONVERTIBLE
    settings = {**SETTINGS, "client_encoding": "SQL_ASCII" if as_it_is else "UTF8"}
    # of the connection request alone
    del settings["local_preload_libraries"]
    scope = "true" if local else "false"
    calls = [f"pg_catalog.set_config('{name}', '{value}', {scope})" for name, value in settings.items()]
    calls += [
        f"CASE WHEN pg_catalog.current_setting('{name}', true) IS NOT NULL "
        f"THEN pg_catalog.set_config('{name}', '{value}', {scope}) END"
        for name, value in _SETTINGS_OF_SOME_VERSIONS.items()
    ]
    return "SELECT " + ", ".join(calls)


# ----------------------------------------------------------------------------------------------------------------------
# How a session begins, whoever drives it
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """What a session's beginning tells of the database and of the role; from the catalogs, which every role may read."""

    database: str
    server_version: str
    """Such as 16.14."""
    extension_version: str | None
    """None: the extension is not installed."""
    is_standby: bool
    may_read: bool
    """Whether the role may call `changes_since()`."""
    may_see_status: bool
    disabled_triggers: list[str]
    """Event triggers of the extension that are disabled."""
    schema: str | None
    """A schema in which the role may create a table, quoted for SQL; `public` rather than another."""
    pid: int
    """Of the server process."""
    notify: str | None
    """The setting `schema_notifications.notify` that this session got, which is nobody's to pin."""


_FACTS = """
SELECT json_build_object(
    'database', current_database(),
    'server_version', current_setting('server_version'),
    'extension_version', (SELECT extversion FROM pg_extension WHERE extname = 'schema_notifications'),
    'is_standby', pg_is_in_recovery(),
    'may_read', coalesce(bool_or(may_use AND proname = 'changes_since'), false),
    'may_see_status', coalesce(bool_or(may_use AND proname = 'status'), false),
    'disabled_triggers', ARRAY(SELECT evtname FROM pg_event_trigger
                               WHERE evtname LIKE 'schema\\_notifications\\_%' AND evtenabled = 'D' ORDER BY 1),
    'schema', (SELECT quote_ident(nspname) FROM pg_namespace
               WHERE has_schema_privilege(oid, 'CREATE') AND nspname !~ '^pg_'
                 AND nspname NOT IN ('information_schema', 'schema_notifications')
                 AND (current_setting('client_encoding') = 'UTF8' OR nspname !~ '[^ -~]')
               ORDER BY nspname = 'public' DESC, nspname LIMIT 1),
    'pid', pg_backend_pid(),
    'notify', current_setting('schema_notifications.notify', true))::text
FROM (SELECT proname, has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE') AS may_use
      FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname = 'schema_notifications') AS functions
"""

_PID = "SELECT pg_catalog.pg_backend_pid()::pg_catalog.text"

# (ask the second session, the query); sent back is the first column of the answer's one row
_Steps = Generator[tuple[bool, str], str | None, _Result]


def _begin(pgconn: PGconn, where: str) -> _Steps[Facts]:
    """Make sure that the server session is ours alone, pin its settings, look around."""
    pid = yield False, _PID
    # A proxy invents process ids.  Does it give our server session to others?  A second client of it opens a transaction: when
    # transactions are pooled, it either gets the session that was ours, or our next query is answered by another.
    if pid != str(pgconn.backend_pid):
        yield True, "BEGIN"
        taken = yield True, _PID
        if taken == pid or pid != (yield False, _PID):
            raise CannotListen(
                f"Cannot listen to {where}: a proxy in between pools transactions, and LISTEN needs a session of its own; "
                "connect to PostgreSQL directly, or through a pool in session mode."
            )
    yield False, _pin(pgconn, local=False)
    facts = yield False, _FACTS
    return Facts(**json.loads(facts or ""))


def require(facts: Facts, where: str) -> None:
    """Raise `CannotListen` for a standby, and `NotInstalled` where the extension is missing."""
    if facts.is_standby:
        raise CannotListen(f"Cannot listen to {where}: it is a standby, which carries no notices; connect to the primary.")
    if facts.extension_version is None:
        raise not_installed(where)


def not_installed(where: str) -> NotInstalled:
    """The error, and what to do."""
    return NotInstalled(
        f"The extension schema_notifications is not installed in {where}: "
        "connect as a superuser and run CREATE EXTENSION schema_notifications."
    )


def may_not_read(role: str, where: str) -> NotPermitted:
    """The error, and the GRANTs that mend it."""
    role = sql.Identifier(role).as_string()
    return NotPermitted(
        f"Role {role} may not read the log of {where}: as the database's owner, run GRANT USAGE ON SCHEMA schema_notifications "
        f"TO {role} and GRANT EXECUTE ON FUNCTION schema_notifications.changes_since TO {role} "
        f"(for the history also GRANT SELECT ON schema_notifications.log TO {role}), or listen without catching up."
    )


@contextlib.contextmanager
def told(where: str, role: str) -> Iterator[None]:
    """What psycopg raises for a query to the feed, as an error of this package."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise may_not_read(role, where) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName) as error:
        raise not_installed(where) from error
    except psycopg.OperationalError as error:
        raise lost(error, where) from error
    except psycopg.Error as error:
        raise Unhealthy(f"The feed of {where} cannot be read: {first_line(error)}.") from error


# a character of the database that UTF8 does not have, or bytes that are no character
UNTRANSLATABLE = (psycopg.errors.UntranslatableCharacter, psycopg.errors.CharacterNotInRepertoire)


def _codec(pgconn: PGconn) -> str:
    """Python's for text that the server sends as it is."""
    encoding = _parameter(pgconn, b"server_encoding") or ""
    for name in (encoding, encoding.replace("WIN", "cp")):
        with contextlib.suppress(LookupError):
            return codecs.lookup(name).name
    return "utf-8"


def _parameter(pgconn: PGconn, name: bytes) -> str | None:
    value = pgconn.parameter_status(name)
    return None if value is None else value.decode(errors="replace")


# ----------------------------------------------------------------------------------------------------------------------
# Sessions without asyncio
# ----------------------------------------------------------------------------------------------------------------------


class Session:
    """A connection that has begun as above: in autocommit, or with one transaction."""

    facts: Facts
    """Of a `listening_session` only."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], where: str, *, local: bool) -> None:
        self.connection = connection
        self.where = where
        """The database in words."""
        self.role = connection.info.user
        self._local = local

    def pin(self, as_it_is: bool = False) -> None:
        """Set what every session starts with, in a new transaction if it is to hold for one."""
        pgconn = self.connection.pgconn
        if self._local:
            self.connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE NOT DEFERRABLE")
        self.connection.execute(_pin(pgconn, local=self._local, as_it_is=as_it_is).encode())
        self.expect_bytes()

    def expect_bytes(self) -> None:
        """Read text that comes as it is, where the server converts none, with replacement characters for what is none."""
        pgconn = self.connection.pgconn
        if _parameter(pgconn, b"client_encoding") != "UTF8":
            loader = _replacing(_codec(pgconn))
            for kind in ("text", "name", "varchar", "json", "jsonb", "xid8"):
                self.connection.adapters.register_loader(kind, loader)

    def rows(self, query: str, arguments: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """The answer's rows; raises `SchemaChangesError`s of `told`."""
        with told(self.where, self.role):
            try:
                cursor = self.connection.execute(query.encode(), arguments or None)
            except UNTRANSLATABLE:
                self.connection.execute("ROLLBACK")
                self.pin(as_it_is=True)
                cursor = self.connection.execute(query.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

    def hear(self, handler: Callable[[str, str, int], None]) -> None:
        """Call with channel, payload and process id for each notice that comes with an answer."""

        def handle(notice: PGnotify) -> None:
            handler(notice.relname.decode(errors="replace"), notice.extra.decode(errors="replace"), notice.be_pid)

        self.connection.pgconn.notify_handler = handle


def _replacing(codec: str) -> type[Loader]:
    """Reads text in which some of it may be none."""

    class Replacing(Loader):
        def load(self, data: Buffer) -> str:
            return bytes(data).decode(codec, "replace")

    return Replacing


def _connect(conninfo: str, requests: list[dict[str, Any]], where: str) -> psycopg.Connection[tuple[Any, ...]]:
    first, second = requests
    try:
        try:
            return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None, **first)
        except psycopg.OperationalError as error:
            if not _refuses_options(error):
                raise
            return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None, **second)
    except psycopg.OperationalError as error:
        raise connection_error(error, where) from error


@contextlib.contextmanager
def transaction(conninfo: str = "", *, timeout: float = 10, name: str = "schema_changes", **parameters: Any) -> Iterator[Session]:
    """A new session with one transaction, which is committed at the end; for short work that needs no session of its own.

    conninfo and parameters: as for `psycopg.connect`; what they leave out comes from the PG* variables.
    timeout: seconds for connecting.  name: the application's, as the server shows it.

    Raises `Unreachable`, `LoginRefused` or, for a connection string that makes no sense, `SchemaChangesError`.
    """
    where = describe(conninfo, parameters)
    requests = _requests(conninfo, timeout, name, parameters)
    with contextlib.closing(_connect(conninfo, requests, where)) as connection:
        session = Session(connection, where, local=True)
        with told(where, session.role):
            session.pin()
        yield session
        with told(where, session.role):
            connection.execute("COMMIT")


@contextlib.contextmanager
def listening_session(
    conninfo: str = "", *, timeout: float = 10, name: str = "schema_changes", **parameters: Any
) -> Iterator[Session]:
    """A new session that can LISTEN, in autocommit; arguments as for `transaction`.

    Raises what `transaction` raises, and `CannotListen` for a pool of transactions.
    """
    where = describe(conninfo, parameters)
    requests = _requests(conninfo, timeout, name, parameters)
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(contextlib.closing(_connect(conninfo, requests, where)))
        other: psycopg.Connection[Any] | None = None
        steps = _begin(connection.pgconn, where)
        answer: str | None = None
        with told(where, connection.info.user):
            while True:
                try:
                    of_other, query = steps.send(answer)
                except StopIteration as end:
                    facts: Facts = end.value
                    break
                if of_other and other is None:
                    other = stack.enter_context(contextlib.closing(_connect(conninfo, requests, where)))
                cursor = (other if of_other and other is not None else connection).execute(query.encode())
                row = cursor.fetchone() if cursor.description else None
                answer = None if row is None else _text(row[0])
        if other is not None:
            other.close()
        session = Session(connection, where, local=False)
        session.expect_bytes()
        session.facts = facts
        yield session


def _text(value: object) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else None if value is None else str(value)


# ----------------------------------------------------------------------------------------------------------------------
# Sessions with asyncio
# ----------------------------------------------------------------------------------------------------------------------


class AsyncSession:
    """A connection whose socket is read as soon as something comes, so that no notice waits, whatever else is going on.

    The deadline is on progress: an answer may take as long as it likes while bytes of it come.
    """

    facts: Facts

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        where: str,
        timeout: float,
        hear: Callable[[str, str, int], None] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.where = where
        self.role = connection.info.user
        self.last_heard = asyncio.get_running_loop().time()
        """When bytes came last, by the loop's clock."""
        self._connection = connection
        self._pgconn = connection.pgconn
        self._timeout = timeout
        self._hear = hear
        self._ended = ended
        self._codec: str | None = None
        # what to call with the answer to `pulse`, and what gives up waiting for it
        self._pulse: tuple[Callable[[str, str], None], asyncio.TimerHandle] | None = None
        self._arrived = asyncio.Event()
        self._error: psycopg.Error | None = None
        self._loop = asyncio.get_running_loop()
        self._socket = self._pgconn.socket
        self._loop.add_reader(self._socket, self._read)

    async def rows(self, query: str, arguments: Sequence[str | None] = ()) -> list[tuple[bytes | None, ...]]:
        """The answer's rows in PostgreSQL's text format, in UTF-8; arguments for $1, $2, …

        Raises `psycopg.Error`, and `psycopg.OperationalError` when nothing comes for `timeout` seconds.
        """
        await self.idle()
        try:
            return await self._rows(query, arguments)
        except UNTRANSLATABLE:
            await self._rows(_pin(self._pgconn, local=False, as_it_is=True))
            self._codec = _codec(self._pgconn)
            return await self._rows(query, arguments)

    @property
    def is_asked(self) -> bool:
        """Whether a `pulse` is not answered yet."""
        return self._pulse is not None

    async def idle(self) -> None:
        """Wait until a `pulse` is answered."""
        while self.is_asked:
            await self._progress()

    def pulse(self, query: str, arguments: Sequence[str | None], answer: Callable[[str, str], None]) -> None:
        """Ask without a task that waits: `answer` is called with the first two columns of an answer that has one row, and with
        empty ones of another.  What a listener does every few seconds for ever should cost nothing.
        """
        self.check()
        self._pgconn.send_query_params(query.encode(), [None if one is None else one.encode() for one in arguments])
        if self._pgconn.flush():
            raise psycopg.OperationalError("the server takes no bytes")
        self._pulse = answer, self._loop.call_later(self._timeout, self._end, psycopg.OperationalError(self._silence))

    def _answer_pulse(self) -> None:
        if self._pulse is None or self._pgconn.is_busy():
            return
        rows = []
        while (result := self._pgconn.get_result()) is not None:
            rows += [(result.get_value(row, 0), result.get_value(row, 1)) for row in range(result.ntuples)]
        (answer, timer), self._pulse = self._pulse, None
        timer.cancel()
        first, second = rows[0] if len(rows) == 1 else (None, None)
        answer((first or b"").decode(), (second or b"").decode())

    def _end(self, error: psycopg.Error) -> None:
        self._error = error
        self._loop.remove_reader(self._socket)
        self._arrived.set()
        if self._ended is not None:
            self._ended()

    @property
    def _silence(self) -> str:
        return f"nothing came from the server for {self._timeout:g} s"

    async def _rows(self, query: str, arguments: Sequence[str | None] = ()) -> list[tuple[bytes | None, ...]]:
        pgconn = self._pgconn
        self.check()
        pgconn.send_query_params(query.encode(), [None if one is None else one.encode() for one in arguments])
        while pgconn.flush():
            await self._progress(write=True)
        rows: list[tuple[bytes | None, ...]] = []
        failed: psycopg.Error | None = None
        while True:
            while pgconn.is_busy():
                await self._progress()
            result = pgconn.get_result()
            if result is None:
                break
            if result.status == ExecStatus.FATAL_ERROR:
                failed = psycopg.errors.error_from_result(result)
            columns = range(result.nfields)
            get = result.get_value
            rows += [tuple([get(row, column) for column in columns]) for row in range(result.ntuples)]
        self._tell()
        if failed is not None:
            raise failed
        if self._codec is not None:
            rows = [tuple(one and one.decode(self._codec, "replace").encode() for one in row) for row in rows]
        return rows

    def check(self) -> None:
        """Raise what ended the connection, if anything did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Close the connection, once more or not."""
        if self._pulse is not None:
            self._pulse[1].cancel()
        if self._pgconn.status != ConnStatus.BAD or self._error is None:
            self._loop.remove_reader(self._socket)
        self._pgconn.finish()

    async def _progress(self, write: bool = False) -> None:
        """Wait until bytes came (or may go)."""
        self._arrived.clear()
        if write:
            self._loop.add_writer(self._socket, self._arrived.set)
        try:
            async with asyncio.timeout(self._timeout):
                await self._arrived.wait()
        except TimeoutError:
            raise psycopg.OperationalError(self._silence) from None
        finally:
            if write:
                self._loop.remove_writer(self._socket)
        self.check()

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            self._end(error)
        self.last_heard = self._loop.time()
        self._arrived.set()
        self._tell()
        self._answer_pulse()

    def _tell(self) -> None:
        while notice := self._pgconn.notifies():
            if self._hear is not None:
                payload = notice.extra.decode(self._codec or "utf-8", errors="replace")
                self._hear(notice.relname.decode(errors="replace"), payload, notice.be_pid)


async def _connect_async(conninfo: str, requests: list[dict[str, Any]], where: str) -> psycopg.AsyncConnection[Any]:
    first, second = requests
    try:
        try:
            return await psycopg.AsyncConnection.connect(conninfo, autocommit=True, **first)
        except psycopg.OperationalError as error:
            if not _refuses_options(error):
                raise
            return await psycopg.AsyncConnection.connect(conninfo, autocommit=True, **second)
    except psycopg.OperationalError as error:
        raise connection_error(error, where) from error


@contextlib.asynccontextmanager
async def async_session(
    conninfo: str = "",
    *,
    hear: Callable[[str, str, int], None] | None = None,
    ended: Callable[[], None] | None = None,
    timeout: float = 10,  # noqa: ASYNC109 (it is no deadline for the whole)
    name: str = "schema_changes",
    **parameters: Any,
) -> AsyncIterator[AsyncSession]:
    """`listening_session` with asyncio.

    hear: called with channel, payload and process id for each notice, from the event loop, the moment that it is there.
    ended: called when the connection ends; then `check` raises why.
    timeout: seconds for connecting, and for each sign of progress of an answer.
    """
    where = describe(conninfo, parameters)
    requests = _requests(conninfo, timeout, name, parameters)
    async with contextlib.AsyncExitStack() as stack:
        session = AsyncSession(await _connect_async(conninfo, requests, where), where, timeout, hear, ended)
        stack.callback(session.close)
        other: AsyncSession | None = None
        steps = _begin(session._pgconn, where)
        answer: str | None = None
        with told(where, session.role):
            while True:
                try:
                    of_other, query = steps.send(answer)
                except StopIteration as end:
                    session.facts = end.value
                    break
                if of_other and other is None:
                    other = AsyncSession(await _connect_async(conninfo, requests, where), where, timeout)
                    stack.callback(other.close)
                rows = await (other if of_other and other is not None else session).rows(query)
                answer = _text(rows[0][0]) if rows else None
        if other is not None:
            other.close()
        yield session


# ----------------------------------------------------------------------------------------------------------------------
# What is asked
# ----------------------------------------------------------------------------------------------------------------------

LOG_COLUMNS = "id::text, txid::text, changed_at::text, user_name::text, tag, objects::text"
"""Of a row of the log or of `changes_since()`, as `event.from_log_row` reads them."""

CHANGES_SINCE = f"SELECT kind, cursor, {LOG_COLUMNS} FROM schema_notifications.changes_since($1, $2)"  # noqa: S608


def databases(conninfo: str = "", *, timeout: float = 10, **parameters: Any) -> list[str]:
    """Every database of the server that takes connections, templates excepted; arguments as for `transaction`."""
    with transaction(conninfo, timeout=timeout, **parameters) as session:
        names = session.rows("SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname")
    return [name for (name,) in names]


def status(conninfo: str = "", *, timeout: float = 10, **parameters: Any) -> dict[str, Any]:
    """The columns of `schema_notifications.status()` by name, `healthy` and `problem` among them.

    Arguments as for `transaction`.  Raises besides `NotInstalled`, and `NotPermitted` for a role that may not ask.
    """
    with transaction(conninfo, timeout=timeout, **parameters) as session:
        try:
            cursor = session.connection.execute("SELECT * FROM schema_notifications.status()")
            (row,) = cursor.fetchall()
        except psycopg.errors.InsufficientPrivilege as error:
            role = sql.Identifier(session.role).as_string()
            raise NotPermitted(
                f"Role {role} may not see the status of {session.where}: GRANT pg_monitor TO {role}, or ask as the owner."
            ) from error
        except psycopg.Error as error:
            with told(session.where, session.role):
                raise error
    return dict(zip((column.name for column in cursor.description or ()), row, strict=True))


def history(
    conninfo: str = "",
    *,
    since: str | None = None,
    limit: int = 50,
    schemas: Collection[str] = (),
    kinds: Collection[str] = (),
    tags: Collection[str] = (),
    checks: bool = False,
    timeout: float = 10,
    **parameters: Any,
) -> list[SchemaChange | Reset]:
    """The last `limit` changes in the log that the filters let pass, oldest first.

    since: only what came after this cursor; when the server cannot tell what that was, the first event is a `Reset`.
    schemas, kinds, tags, checks: as for `listen`.  The rest as for `transaction`.

    Raises besides `NotInstalled`, and `NotPermitted` for a role that may not read the log.
    """
    wanted = Filter(schemas, kinds, tags, checks)
    reset: list[SchemaChange | Reset] = []
    with transaction(conninfo, timeout=timeout, **parameters) as session:
        ((database,),) = session.rows("SELECT current_database()::text")
        if since is None:
            # the last that the filters let pass may be any
            newest = f"SELECT {LOG_COLUMNS} FROM schema_notifications.log AS l ORDER BY l.txid DESC, l.id DESC LIMIT %s"  # noqa: S608
            for number in (limit, 10 * limit, None):
                rows = session.rows(newest, [number])
                if len(rows) < (number or 0) or sum(wanted(from_log_row(row, database=database)) for row in rows) >= limit:
                    break
            rows.sort(key=lambda row: int(row[0]))
        else:
            *found, (kind, cursor, *_, reason, _) = session.rows(
                CHANGES_SINCE.replace("$1, $2", "%s"), [since.replace("\0", "\N{REPLACEMENT CHARACTER}")]
            )
            rows = [row[2:] for row in found]
            if kind == "reset":
                reset.append(Reset(reason, cursor))
    changes = (from_log_row(row, database=database) for row in rows)
    shown: list[SchemaChange | Reset] = [change for change in changes if wanted(change)]
    return reset + shown[-limit:]
