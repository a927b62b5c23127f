"""The command line: schema-changes (listen, history, snapshot, diff, status, relay, check), or `python -m schema_changes`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from .diff.command import add_diff_arguments, add_snapshot_arguments
from .errors import SchemaChangesError
from .relay.arguments import add_arguments as add_relay_arguments
from .serve.arguments import add_arguments as add_serve_arguments

if TYPE_CHECKING:
    from .cursor import CursorStore
    from .event import Reset, SchemaChange
    from .route import Route

EXIT_CODES = """\
exit codes:
  0  done, or ended by Ctrl-C, SIGTERM or a closed pipe
  1  any other error, such as a command given to --exec that failed; with diff: there are differences
  2  wrong usage; with diff: a file that cannot be read
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
    # as Ctrl-C: everything is closed on the way out
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.password_stdin:
            options.password = sys.stdin.readline().rstrip("\r\n")
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        # all is closed: an impatient second one is not to change the exit code
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return 0
    except BrokenPipeError:
        # what is still buffered has nowhere to go, and Python would complain about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # the cursor file, or a full disk behind stdout
        _complain(f"{error}.")
        return SchemaChangesError.exit_code
    except SchemaChangesError as error:
        _complain(str(error))
        return error.exit_code


class _Parser(argparse.ArgumentParser):
    """One whose complaints quote no password of a misplaced URL."""

    def error(self, message: str) -> NoReturn:
        super().error(_printable(re.sub(r"://[^\s/]*:\S*@", "://…@", message)))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="schema-changes",
        description="Hear of schema changes in PostgreSQL databases that carry the schema_notifications extension.",
        epilog="examples:\n"
        "  schema-changes listen postgresql://app@db/app\n"
        "  schema-changes listen --cursor-file app.cursor --exec 'npm run generate-types' postgresql://app@db/app\n"
        "  schema-changes listen --stack prod --database app --json | jq .tag\n"
        "  schema-changes history --ssh ssh://deploy@203.0.113.7 --container app-db\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str,
        run: Callable[[argparse.Namespace], int],
        summary: str,
        more: str,
        add_first: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=summary, description=more, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add_first(added)
        _add_connection_options(added)
        added.set_defaults(run=run)
        return added

    listen = command(
        "listen",
        _listen,
        "print schema changes as they are committed, or run a command for them",
        "Print schema changes as they are committed, until Ctrl-C: readable on a terminal, one JSON object a line\n"
        "when piped.  Reconnects by itself, and misses nothing in between.  With --cursor-file nothing is missed\n"
        "between two runs either.  A line of type reset says that the server cannot tell what happened before.",
    )
    listen.add_argument("--json", action="store_true", help="one JSON object a line, on a terminal too")
    listen.add_argument("--cursor-file", metavar="FILE", help="go on where the last run ended, and keep the place in this file")
    listen.add_argument("--diff", action="store_true", help="tell with each burst of changes what is different in the schema")
    listen.add_argument(
        "--picture-file",
        metavar="FILE",
        help="--diff, and --cursor-file in one: keep place and picture here, so that the first burst has what is different "
        "since the last run",
    )
    listen.add_argument("--since", metavar="CURSOR", help="go on after this cursor, the field of that name in the JSON")
    _add_filters(listen)
    listen.add_argument(
        "--exec",
        metavar="COMMAND",
        help="run this shell command for each burst of changes, with their JSON lines on its stdin; "
        "when it fails, end with 1 and leave the cursor before the burst",
    )
    listen.add_argument(
        "--quiet-ms", type=_positive, default=200, metavar="N", help="a burst ends after N ms without a change (default: 200)"
    )
    listen.add_argument(
        "--metrics", metavar="ADDRESS:PORT", help="serve OpenMetrics at http://ADDRESS:PORT/metrics (needs the extra relay or web)"
    )
    listen.add_argument(
        "--ready-fd",
        type=int,
        metavar="N",
        help="once it listens, write the cursor from which on nothing is missed to this file descriptor, as a line, and close it",
    )
    listen.add_argument("--verify", action="store_true", help="believe the log only: a notice that a user forged does nothing")
    listen.add_argument(
        "--no-catch-up", action="store_true", help="notices only, for a role that may not read the log; changes can be missed"
    )

    history = command(
        "history",
        _history,
        "print the changes in the log",
        "Print the changes that the log holds, oldest first.",
    )
    history.add_argument("--json", action="store_true", help="one JSON object a line, on a terminal too")
    history.add_argument("--since", metavar="CURSOR", help="what came after this cursor (default: the last --limit changes)")
    history.add_argument("--limit", type=_positive, default=50, metavar="N", help="at most the last N changes (default: 50)")
    _add_filters(history)

    status = command(
        "status",
        _status,
        "tell whether all is well with the extension",
        "Print the state of the extension: versions, triggers, log, queue.  Ends with 6 when something is wrong.",
    )
    status.add_argument("--json", action="store_true", help="one JSON object")

    snapshot = command(
        "snapshot",
        _snapshot,
        "write down what is in the schema",
        "Write a picture of the schema: tables, columns, constraints, indexes, views, functions, types, grants and so on.\n"
        "Any role may, and the extension is not needed.",
    )
    add_snapshot_arguments(snapshot)

    command(
        "diff",
        _diff,
        "tell what is different between two schemas",
        "Print what makes the second schema of the first, each of a server or of a file that snapshot (or listen\n"
        "--picture-file) wrote.  Ends with 1 when there is something.  Of one database at two times, renames are known.",
        add_diff_arguments,
    )

    relay = command(
        "relay",
        _relay,
        "hand schema changes on to webhooks, NATS and Redis",
        "Hand each schema change on to all sinks as a CloudEvent, until Ctrl-C.  Each sink has a cursor of its own: one that\n"
        "is down misses nothing, and delays nobody.",
    )
    add_relay_arguments(relay)
    _add_filters(relay)

    serve = command(
        "serve",
        _serve,
        "show schema changes in a browser, live, and offer them as Server-Sent Events",
        "Serve a page with the changes, live and of the past, and the feed as Server-Sent Events whose ids are cursors:\n"
        "an EventSource goes on exactly where it was.  On this machine only, unless a token or a reverse proxy guards it.",
    )
    add_serve_arguments(serve)

    check = command(
        "check",
        _check,
        "change the schema and see that the notices come",
        "Create, alter and drop a table of its own in one transaction and expect the three notices.  Nothing is\n"
        "left behind.  The result is one JSON object on stdout.",
    )
    check.add_argument("--all-databases", action="store_true", help="check every database of the server")
    check.add_argument("--json", action="store_true", help="no words on stderr when all is well, only the JSON")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    for option, dest, what in (
        ("--schema", "schemas", "changes of an object in this schema"),
        ("--kind", "kinds", "changes of an object of this kind: table, index, …"),
        ("--tag", "tags", "this command: 'CREATE TABLE', 'ALTER *', …"),
    ):
        parser.add_argument(
            option, dest=dest, action="append", default=[], metavar="PATTERN", help=f"only {what}; '!' excludes; repeat for several"
        )
    parser.add_argument("--checks", action="store_true", help="also the changes that `schema-changes check` makes")


def _add_connection_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "connection", "What is not given comes from PGHOST, PGUSER, PGPASSWORD, PGSERVICE and the like."
    )
    group.add_argument("url", nargs="?", default="", metavar="URL", help="postgresql://… or key=value words")
    group.add_argument("--stack", metavar="NAME", help="take URL, host and container from this Pulumi stack's outputs")
    group.add_argument(
        "--database",
        action="append",
        default=[],
        metavar="NAME",
        help="this database (with --stack: its key there); check takes several",
    )
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
def _connection(options: argparse.Namespace, name: str | None = None) -> Iterator[tuple[str, Route | None]]:
    """The connection string that the options stand for, and the way to the container if there is one.

    name: another database of the server.
    """
    from psycopg.conninfo import make_conninfo

    from .errors import keywords

    url, host, container = options.url, options.host, options.container
    keywords(url)  # a word that is no connection string is told before anything else
    if options.stack is not None:
        url, host, container = _from_stack(options)
    elif name is not None:
        url = make_conninfo(url, dbname=name)
    if options.password_stdin:
        url = make_conninfo(url, password=options.password)
    if container is None:
        if host is not None:
            raise SchemaChangesError("--ssh needs --container: the container whose address is asked for on that host.")
        yield url, None
        return
    from .route import Route

    port = str(keywords(url).get("port") or os.environ.get("PGPORT") or 5432)
    if not port.isdecimal():
        raise SchemaChangesError(f"A container has one port, a number, and {port!r} is none.")
    with Route(container, host, options.ssh_option, int(port), options.timeout) as route:
        try:
            yield url, route
        except SchemaChangesError as error:
            raise route.explain(error) from error


def _from_stack(options: argparse.Namespace) -> tuple[str, str | None, str]:
    """URL, host and container of one database of a Pulumi stack, from its outputs `databases` and `urls`."""
    import subprocess

    command = ["pulumi", "stack", "output", "--json", "--show-secrets", "--stack", options.stack]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SchemaChangesError("--stack needs the pulumi program, which is not on the PATH.") from error
    if done.returncode != 0:
        raise SchemaChangesError(f"Cannot read the outputs of stack {options.stack!r}: {' '.join(done.stderr.split())}")
    outputs = json.loads(done.stdout)
    databases = outputs.get("databases") or {}
    keys = options.database or list(databases)
    if len(keys) != 1 or keys[0] not in databases:
        known = ", ".join(databases) or "none"
        raise SchemaChangesError(f"Stack {options.stack!r} has these databases: {known}; choose one with --database.")
    database = databases[keys[0]]
    return outputs["urls"][keys[0]], options.host or database.get("host"), database["container_name"]


def _only_database(options: argparse.Namespace) -> str | None:
    if len(options.database) > 1:
        raise SchemaChangesError("One --database at a time: only check takes several.")
    return options.database[0] if options.database else None


def _listen(options: argparse.Namespace) -> int:
    import logging

    from .listener import ListenOptions, listen_batches_sync, listen_sync

    class Printable(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return _printable(super().format(record))

    handler = logging.StreamHandler()
    handler.setFormatter(Printable("schema-changes: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if options.no_catch_up and (options.since or options.cursor_file or options.picture_file):
        raise SchemaChangesError("--no-catch-up has no cursor: leave out --since, --cursor-file and --picture-file.")
    if options.cursor_file and options.picture_file:
        raise SchemaChangesError("--picture-file keeps the cursor too: leave out --cursor-file.")
    write = _json_line if options.json or options.exec or not sys.stdout.isatty() else _readable
    with contextlib.ExitStack() as stack:
        url, route = stack.enter_context(_connection(options, _only_database(options)))
        wanted: ListenOptions = {
            "cursor": options.since,
            "store": _store(options),
            "schemas": options.schemas,
            "kinds": options.kinds,
            "tags": options.tags,
            "checks": options.checks,
            "verify": options.verify,
            "catch_up": not options.no_catch_up,
            "route": route,
        }
        ready = _ready(options.ready_fd)
        diff = options.diff or options.picture_file is not None
        numbers = None
        if options.metrics:
            from .metrics import ListenerNumbers, serving

            numbers = ListenerNumbers(ready)
            ready = numbers.ready
            stack.enter_context(serving(options.metrics, numbers.samples, numbers.status))
        wanted["on_ready"] = ready
        if options.exec is None and not diff:
            with contextlib.closing(listen_sync(url, **wanted)) as events:
                for event in events:
                    if numbers is not None:
                        numbers.heard(event)
                    print(write(event), flush=True)
        else:
            with contextlib.closing(listen_batches_sync(url, quiet=options.quiet_ms / 1000, diff=diff, **wanted)) as batches:
                for batch in batches:
                    if numbers is not None:
                        for event in batch.events:
                            numbers.heard(event)
                    lines = [write(event) for event in batch.events]
                    if diff:
                        from .diff.command import json_line, readable

                        told = json_line(batch.differences, batch.cursor) if write is _json_line else readable(batch.differences)
                        lines += told.splitlines()
                    if options.exec is None:
                        print(*lines, sep="\n", flush=True)
                    else:
                        _run(options.exec, "".join(f"{line}\n" for line in lines))
    return 0


def _ready(descriptor: int | None) -> Callable[[str | None], None]:
    """Tells whoever waits for it, once, that the listener listens: a descriptor, and systemd where that started us."""

    def tell(cursor: str | None) -> None:
        nonlocal descriptor
        if descriptor is not None:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(f"{cursor or ''}\n")
            descriptor = None
        if address := os.environ.pop("NOTIFY_SOCKET", None):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.sendto(b"READY=1", address.replace("@", "\0", 1) if address.startswith("@") else address)

    return tell


def _store(options: argparse.Namespace) -> CursorStore | None:
    if options.picture_file:
        from .diff import FilePictureStore

        return FilePictureStore(options.picture_file)
    from .cursor import FileCursorStore

    return FileCursorStore(options.cursor_file) if options.cursor_file else None


def _run(command: str, lines: str) -> None:
    import subprocess

    # by the shell, as the user wrote it; nothing from the database is in the command line
    done = subprocess.run(["sh", "-c", command], input=lines, text=True, check=False)
    if done.returncode != 0:
        raise SchemaChangesError(f"The command {command!r} failed with {done.returncode}; the cursor stays before its changes.")


def _history(options: argparse.Namespace) -> int:
    from .feed import history

    write = _json_line if options.json or not sys.stdout.isatty() else _readable
    with _connection(options, _only_database(options)) as (url, route):
        events = history(
            url,
            since=options.since,
            limit=options.limit,
            schemas=options.schemas,
            kinds=options.kinds,
            tags=options.tags,
            checks=options.checks,
            timeout=options.timeout,
            **(route.parameters if route else {}),
        )
    for event in events:
        print(write(event))
    return 0


def _status(options: argparse.Namespace) -> int:
    from .errors import Unhealthy
    from .feed import status

    with _connection(options, _only_database(options)) as (url, route):
        state = status(url, timeout=options.timeout, **(route.parameters if route else {}))
    if options.json:
        print(json.dumps(state, default=str))
    else:
        for name, value in state.items():
            print(_printable(f"{name.replace('_', ' '):20} {'–' if value is None else value}"))
    return 0 if state["healthy"] else Unhealthy.exit_code


def _json_line(event: SchemaChange | Reset) -> str:
    from .event import Reset

    if isinstance(event, Reset):
        return json.dumps({"type": "reset", "reason": event.reason, "cursor": event.cursor})
    fields = json.loads(event.raw)
    if event.cursor is not None:
        fields["cursor"] = event.cursor
    try:
        # in ASCII: a name may hold what a terminal takes for a command, or shows in another order
        return json.dumps(fields, allow_nan=False)
    except (ValueError, RecursionError):
        # what a forged notice holds besides: only what is known, then
        known = {"type", "tag", "timestamp", "id", "database", "user", "txid", "cursor", "truncated"}
        return json.dumps({key: value for key, value in fields.items() if key in known})


def _readable(event: SchemaChange | Reset) -> str:
    from .event import Reset

    if isinstance(event, Reset):
        return _coloured(f"RESET: {event.reason}; read the schema again", "31;1")
    signs = {"created": ("+", "32"), "altered": ("~", "33"), "dropped": ("-", "31")}
    shown = [
        _coloured(f"{signs.get(item.action, ('?', '0'))[0]} {item.kind} {item.identity}", signs.get(item.action, ("?", "0"))[1])
        for item in event.objects[:8]
    ]
    if len(event.objects) > 8:
        shown.append(f"… {len(event.objects) - 8} more")
    timestamp = event.timestamp
    with contextlib.suppress(OverflowError):  # the first and last day that Python knows
        timestamp = timestamp.astimezone()
    time_of_day = timestamp.strftime("%H:%M:%S.%f")[:-3]
    who = _coloured(f"  by {event.user}", "2") if event.user else ""
    return f"{_coloured(time_of_day, '2')}  {_coloured(f'{event.tag:<16}', '1')}  {'  '.join(shown)}{who}"


def _complain(sentence: str) -> None:
    print(f"schema-changes: {_printable(sentence)}", file=sys.stderr)


def _coloured(text: str, code: str) -> str:
    text = _printable(text)
    return text if os.environ.get("NO_COLOR") else f"\033[{code}m{text}\033[0m"


def _snapshot(options: argparse.Namespace) -> int:
    from .diff import command

    with _connection(options, _only_database(options)) as (url, route):
        return command.snapshot(options, url, route)


def _diff(options: argparse.Namespace) -> int:
    from .diff import command

    if command.is_file(options.url):
        return command.diff(options, options.url, None)
    with _connection(options, _only_database(options)) as (url, route):
        return command.diff(options, url, route)


def _relay(options: argparse.Namespace) -> int:
    from .relay import state

    if options.status is not None:
        return state.print_status(options.status)
    with _connection(options, _only_database(options)) as (url, route):
        if options.check is not None:
            return state.check(options.check, url, timeout=options.timeout, **(route.parameters if route else {}))
        from .relay import command

        return command.run(options, url, route)


def _printable(text: str) -> str:
    """Names are chosen by users: no control sequence of theirs may reach the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _serve(options: argparse.Namespace) -> int:
    from .serve import command

    with _connection(options, _only_database(options)) as (url, route):
        return command.run(options, url, route)


def _check(options: argparse.Namespace) -> int:
    from .check import check
    from .feed import databases

    started = time.perf_counter()
    code = 0
    results: list[dict[str, Any]] = []

    def failed(error: SchemaChangesError, name: str | None) -> None:
        nonlocal code
        # the others are checked all the same; the first failure gives the exit code
        code = code or error.exit_code
        _complain(str(error))
        results.append({"ok": False, "database": name, "error": str(error), "exit_code": error.exit_code})

    try:
        with _connection(options) as (url, route):
            parameters: dict[str, Any] = {**(route.parameters if route else {}), "timeout": options.timeout}
            names: list[str | None] = [None]
            if options.stack is None and (options.all_databases or options.database):
                names = [*(databases(url, **parameters) if options.all_databases else options.database)]
            for name in names:
                try:
                    result = check(url, **parameters if name is None else {**parameters, "dbname": name})
                except SchemaChangesError as error:
                    if len(names) == 1:
                        raise
                    failed(error, name)
                    continue
                results.append(result.as_dict())
                if not options.json:
                    came = ", ".join(f"{notice['tag']} ({notice['ms']:g} ms)" for notice in result.notices)
                    print(f"{result.database}: heard {came}", file=sys.stderr)
    except SchemaChangesError as error:
        failed(error, None)
    if options.all_databases or len(options.database) > 1:
        elapsed = round((time.perf_counter() - started) * 1000, 2)
        print(json.dumps({"ok": code == 0, "ms": elapsed, "databases": results}))
    else:
        print(json.dumps(results[0]))
    return code


if __name__ == "__main__":
    sys.exit(main())
