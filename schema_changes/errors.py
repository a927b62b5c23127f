"""What can go wrong, each with its own exit code on the command line.

Every message is one sentence that says what happened, to which server or database, and what to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import psycopg
from psycopg.conninfo import conninfo_to_dict


class SchemaChangesError(Exception):
    """Base of all errors raised here, and itself raised for options that make no sense.

    str() of it is the sentence, without secrets.
    """

    exit_code: ClassVar[int] = 1
    """What the command line ends with."""


class Unreachable(SchemaChangesError):
    """No route, connection refused, name unknown, SSH failed, container not running, time out."""

    exit_code = 3


class LoginRefused(SchemaChangesError):
    """The server answered and refused: wrong password, unknown role or database, pg_hba.conf."""

    exit_code = 4


class NotInstalled(SchemaChangesError):
    """The database does not have the schema_notifications extension."""

    exit_code = 5


class Unhealthy(SchemaChangesError):
    """The extension is there but disabled, altered, switched off or outdated."""

    exit_code = 6


class NoNotices(SchemaChangesError):
    """A schema change was committed and its notices did not come."""

    exit_code = 7


class NotPermitted(SchemaChangesError):
    """The role lacks a privilege that the command needs."""

    exit_code = 8


class CannotListen(SchemaChangesError):
    """The session cannot carry LISTEN: a standby, or a transaction-pooling proxy in between."""

    exit_code = 9


# libpq gives no SQLSTATE for a failed connection, only what the server (auth.c, miscinit.c, postinit.c) or libpq itself says.
_LOGIN = re.compile(
    r"authentication failed|no password supplied|does not exist|pg_hba\.conf|is not permitted to log in"
    r"|permission denied for database|not currently accepting connections|authentication method|valid client certificate"
)


def connection_error(error: psycopg.Error, where: str) -> SchemaChangesError:
    """The error of this module for a failed connection attempt to `where` (a phrase such as 'database "app" on db')."""
    # libpq reports one attempt a line and repeats the address; the last line is the one that says why, but for two hints
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith(("\t", "DETAIL:", "HINT:"))]
    lines = lines or [type(error).__name__]
    reason = re.sub(r"^.* failed: ", "", re.sub(r"^.*?(?:FATAL|ERROR):\s+", "", lines[-1])).rstrip(".")
    text = str(error)
    if "password authentication failed" in text:
        return LoginRefused(f"Cannot log in to {where}: the password is wrong or the role does not exist ({reason}).")
    if "no password supplied" in text:
        return LoginRefused(f"Cannot log in to {where}: it wants a password; set PGPASSWORD, a password file or the URL.")
    if "server requested a cleartext password" in text:
        return LoginRefused(
            f"Cannot log in to {where}: the server asks for the password in clear, and the connection has no TLS for certain; have "
            "it use scram-sha-256, connect with sslmode=require, or allow it with require_auth=password."
        )
    if "server requested a hashed password" in text:
        return LoginRefused(
            f"Cannot log in to {where}: the server asks for an MD5 password; set the role's password anew with "
            "password_encryption = 'scram-sha-256', or allow it with require_auth=md5."
        )
    if _LOGIN.search(text):
        return LoginRefused(f"Cannot log in to {where}: {reason}.")
    return Unreachable(f"Cannot reach {where}: {reason}; see that it runs and that the address and port are right.")


def lost(error: psycopg.Error, where: str) -> Unreachable:
    """The error of this module for a connection to `where` that was open and failed."""
    return Unreachable(f"Lost {where}: {first_line(error)}.")


def first_line(error: psycopg.Error) -> str:
    """What went wrong, without the full stop, and without the details that follow in lines of their own."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def keywords(conninfo: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The connection string taken apart, `parameters` first; `SchemaChangesError` when it is none."""
    if conninfo.startswith(("postgresql://", "postgres://")):
        authority, _, path = conninfo.partition("://")[2].partition("?")[0].partition("/")
        # A password with an @ or a / of its own: libpq takes the rest of it for the host, and would say so.
        if authority.count("@") > 1 or "@" in path:
            raise SchemaChangesError(
                "The connection string has an @ too many: in a user, password or database write %40 for @ and %2F for /."
            )
    try:
        given = conninfo_to_dict(conninfo, **(parameters or {}))
    except psycopg.ProgrammingError:
        given = {"port": "?"}  # what libpq says of it may quote the password
    port = str(given.get("port") or "")
    if not re.fullmatch(r"[0-9,]*", port) or "@" in str(given.get("host") or "")[1:]:
        raise SchemaChangesError(
            "The connection string cannot be read: write postgresql://user@host:port/database, with %XX for special characters "
            "(%40 for @), or words such as host=db dbname=app."
        )
    return given


def describe(conninfo: str, parameters: Mapping[str, Any] | None = None) -> str:
    """The server and database in words, without secrets; of a service by its name, as its file is libpq's to read."""
    given = keywords(conninfo, parameters)

    def value(keyword: str) -> str:
        if given.get(keyword) is not None:
            return str(given[keyword])
        return os.environ.get({"dbname": "PGDATABASE"}.get(keyword, "PG" + keyword.upper()), "")

    service = value("service")
    if service and not given.get("host"):
        name = given.get("dbname")
        return f"{f'database {name!r}' if name else 'the database'} of service {service!r}"
    user = value("user")
    database = value("dbname") or user
    host = value("host") or value("hostaddr") or "the local socket"
    port = "" if host.startswith("/") or not value("port") else ":" + value("port")
    return f"{f'database {database!r}' if database else 'the default database'} on {host}{port} as {user or 'you'}"
