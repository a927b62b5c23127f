"""The options of `schema-changes relay`, apart from what does it: every command builds them, and few need that."""

from __future__ import annotations

import argparse

_EPILOG = """\
sinks:
  https://host/path         a webhook, signed after the Standard Webhooks specification
  nats://host/SUBJECT       NATS JetStream; tls:// with TLS
  redis://host/STREAM       a Redis stream, ?maxlen=N entries long (100000); rediss:// with TLS
  NAME=URL gives a sink a name, which its cursor, its secret and its metrics go by.

secrets: of a webhook the signing secret (whsec_…), of the others the password or token; from --secret-file, or from the
variable SCHEMA_CHANGES_SECRET_NAME (the sink's name in capitals, other letters as _), or SCHEMA_CHANGES_SECRET for all.

"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command, but for connection and filters."""
    parser.epilog = _EPILOG + (parser.epilog or "")
    parser.add_argument(
        "--to", action="append", default=[], metavar="[NAME=]URL", help="hand the changes on to this sink; repeat for several"
    )
    parser.add_argument(
        "--sinks",
        metavar="FILE",
        help="and to those in this file, a JSON list: url, and if need be name, secret, and differences (true or false)",
    )
    parser.add_argument(
        "--secret-file", action="append", default=[], metavar="[NAME=]FILE", help="the secret of the sink of that name, or of all"
    )
    parser.add_argument(
        "--cursors",
        metavar="FOLDER",
        help="keep each sink's cursor in a file in this folder "
        "(default: in the table public.schema_changes_cursor of the database)",
    )
    parser.add_argument("--diff", action="store_true", help="tell with each burst of changes exactly what is different, too")
    parser.add_argument(
        "--metrics", metavar="ADDRESS:PORT", help="serve OpenMetrics at http://ADDRESS:PORT/metrics and the state at /status"
    )
    parser.add_argument(
        "--stuck-after",
        type=float,
        default=300,
        metavar="SECONDS",
        help="the state is unhealthy when a sink takes nothing, or the database is away, for so long (default: 300)",
    )
    parser.add_argument(
        "--status", metavar="ADDRESS:PORT", help="print the state of the relay that has --metrics there; end with 6 if unhealthy"
    )
    parser.add_argument(
        "--check",
        metavar="ADDRESS:PORT",
        help="change the schema as `check` does, and see that each sink of the relay there, which has --checks, takes it",
    )
