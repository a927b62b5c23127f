"""The command line: schema-changes (listen, history, check, status), the same as `python -m schema_changes`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from .errors import SchemaChangesError

EXIT_CODES = """\
exit codes:
  0  done, or ended by Ctrl-C, SIGTERM or a closed pipe
  1  any other error, such as a command given to --exec that failed
  2  wrong usage
  3  the server, host or container cannot be reached
  4  the server refused the login: password, role, database
  5  the extension schema_notifications is not installed
  6  the extension is disabled, altered, switched off or outdated
  7  a schema change was committed and its notices did not come
  8  the role lacks a privilege
  9  the session cannot carry LISTEN: a standby, or a transaction-pooling proxy
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except SchemaChangesError as error:
        print(f"schema-changes: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="schema-changes",
        description="Hear of schema changes in PostgreSQL databases that carry the schema_notifications extension.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="change the schema and see that the notices come",
        description="Create, alter and drop a table of its own in one transaction and expect the three notices.  "
        "Nothing is left behind.  The result is one JSON object on stdout.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_connection_options(check)
    check.add_argument("--database", action="append", default=[], metavar="NAME", help="check this database; repeat for several")
    check.add_argument("--all-databases", action="store_true", help="check every database of the server")
    check.add_argument("--json", action="store_true", help="no words on stderr when all is well, only the JSON")
    check.set_defaults(run=_check)
    return parser


def _add_connection_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "connection", "What is not given comes from PGHOST, PGUSER, PGPASSWORD, PGSERVICE and the like."
    )
    group.add_argument("url", nargs="?", default="", metavar="URL", help="postgresql://… or key=value words")
    group.add_argument("--container", metavar="NAME", help="go to this Docker container's own address")
    group.add_argument(
        "--ssh",
        "--host",
        dest="host",
        metavar="ssh://USER@ADDRESS[:PORT]",
        help="the host of the container, reached with the ssh program; no port needs to be published",
    )
    group.add_argument(
        "--ssh-option",
        action="append",
        default=[],
        metavar="WORD",
        help="a word for the ssh command line, as it is: --ssh-option=-i --ssh-option=key; repeat for several",
    )
    group.add_argument("--password-stdin", action="store_true", help="read the password from the first line of stdin")
    group.add_argument("--timeout", type=float, default=10, metavar="SECONDS", help="for each step (default: 10)")


@contextlib.contextmanager
def _connection(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The connection parameters that the options stand for, `conninfo` among them."""
    parameters: dict[str, Any] = {"conninfo": options.url}
    if options.password_stdin:
        parameters["password"] = sys.stdin.readline().rstrip("\r\n")
    if options.container is None:
        if options.host is not None:
            raise SchemaChangesError("--ssh needs --container: the container whose address is asked for on that host.")
        yield parameters
        return
    from psycopg.conninfo import conninfo_to_dict

    from .route import Route

    port = int(conninfo_to_dict(options.url).get("port") or os.environ.get("PGPORT") or 5432)
    with Route(options.container, options.host, options.ssh_option, port, options.timeout) as route:
        try:
            yield {**parameters, **route.parameters}
        except SchemaChangesError as error:
            reason = route.why()
            raise type(error)(f"{error} ({route.name}: {reason})" if reason else f"{error} ({route.name})") from error


def _check(options: argparse.Namespace) -> int:
    from .check import check, databases

    started = time.perf_counter()
    code = 0
    results: list[dict[str, Any]] = []
    try:
        with _connection(options) as parameters:
            names = options.database
            if options.all_databases:
                names = databases(timeout=options.timeout, **parameters)
            for name in names or [None]:
                if name is not None:
                    parameters["dbname"] = name
                try:
                    result = check(timeout=options.timeout, **parameters)
                except SchemaChangesError as error:
                    # the others are checked all the same; the first failure gives the exit code
                    code = code or error.exit_code
                    print(f"schema-changes: {error}", file=sys.stderr)
                    results.append({"ok": False, "database": name, "error": str(error), "exit_code": error.exit_code})
                    continue
                results.append(result.as_dict())
                if not options.json:
                    came = ", ".join(f"{notice['tag']} ({notice['ms']:g} ms)" for notice in result.notices)
                    print(f"{result.database}: heard {came}", file=sys.stderr)
    except SchemaChangesError as error:
        code = error.exit_code
        print(f"schema-changes: {error}", file=sys.stderr)
        results.append({"ok": False, "database": None, "error": str(error), "exit_code": code})
    if options.all_databases or len(options.database) > 1:
        elapsed = round((time.perf_counter() - started) * 1000, 2)
        print(json.dumps({"ok": code == 0, "ms": elapsed, "databases": results}))
    else:
        print(json.dumps(results[0]))
    return code


if __name__ == "__main__":
    sys.exit(main())
