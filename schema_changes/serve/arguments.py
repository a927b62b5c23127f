"""The options of `schema-changes serve`, apart from what does it: every command builds them, and few need that."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command, but for the connection."""
    parser.add_argument("--bind", default="127.0.0.1:8420", metavar="ADDRESS:PORT", help="where to serve (default: 127.0.0.1:8420)")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="ask for the token in this file, as a bearer token or once in the page (or the variable SCHEMA_CHANGES_TOKEN)",
    )
    parser.add_argument(
        "--proxy-header",
        metavar="NAME",
        help="let in whom a reverse proxy has let in, which says so with this header, such as Remote-User",
    )
    parser.add_argument(
        "--proxy-from",
        action="append",
        default=[],
        metavar="NETWORK",
        help="believe that header from these addresses only; repeat for several (default: loopback)",
    )
    parser.add_argument(
        "--relay", action="append", default=[], metavar="ADDRESS:PORT", help="show the state of the relay that has --metrics there"
    )
    parser.add_argument("--diff", action="store_true", help="show with each burst of changes exactly what is different, too")
    parser.add_argument("--metrics", metavar="ADDRESS:PORT", help="serve OpenMetrics at http://ADDRESS:PORT/metrics")
