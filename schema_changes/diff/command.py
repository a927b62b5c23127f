"""What the command line does with pictures: `snapshot`, `diff`, and what `listen --diff` prints."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from ..errors import SchemaChangesError, keywords

if TYPE_CHECKING:
    from ..route import Route
    from . import Difference, Picture

IGNORABLE = ("owner", "grants", "comment")


class CannotCompare(SchemaChangesError):
    """Something other than a server is in the way of a comparison: 1 says that there are differences."""

    exit_code = 2


def add_snapshot_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `schema-changes snapshot`, besides those for the connection."""
    parser.add_argument("--output", metavar="FILE", help="write to this file, which is replaced as a whole")
    parser.add_argument(
        "--text", action="store_true", help="for people (and line diffs), rather than JSON for `schema-changes diff`"
    )


def add_diff_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `schema-changes diff`, before those for the connection."""
    parser.add_argument("before", metavar="BEFORE", help="a URL, key=value words, or a file that `schema-changes snapshot` wrote")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--schema", dest="schemas", action="append", default=[], metavar="PATTERN", help="only objects in this schema"
    )
    parser.add_argument(
        "--ignore", action="append", default=[], choices=IGNORABLE, help="leave these differences out; repeat for several"
    )


def snapshot(options: argparse.Namespace, url: str, route: Route | None) -> int:
    """Write the picture of a database."""
    from . import listing

    picture = _of_server(options, url, route)
    text = listing(picture) if options.text else picture.dumps()
    if options.output is None:
        sys.stdout.write(text)
    else:
        _replace(Path(options.output), text)
    return 0


def diff(options: argparse.Namespace, url: str, route: Route | None) -> int:
    """Print what is different; 1 if anything is."""
    from . import compare, text
    from .follow import of_schemas

    try:
        before = _picture(options, options.before, None)
        after = _picture(options, url, route)
    except SchemaChangesError as error:
        raise (CannotCompare(str(error)) if error.exit_code == 1 else error) from error
    except OSError as error:
        raise CannotCompare(f"{error}.") from error
    # of two servers nobody knows that one is the other's past, even where the data of one is a copy of the other's
    if not is_file(options.before) and not is_file(url):
        before.origin = before.origin if before.origin == after.origin and options.before == url else None
    differences = of_schemas(without(compare(before, after), options.ignore), options.schemas)
    if options.json:
        fields = [difference.as_dict() for difference in differences]
        print(json.dumps({"differs": bool(differences), "differences": fields}))
    else:
        sys.stdout.write(text(differences, colour=in_colour()))
    return 1 if differences else 0


def in_colour() -> bool:
    """Whether a person looks, and wants it."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def json_line(differences: Iterable[Difference], cursor: str | None) -> str:
    """The differences of a batch as `listen --diff` prints them for programs."""
    fields: dict[str, Any] = {"type": "differences", "differences": [difference.as_dict() for difference in differences]}
    return json.dumps(fields if cursor is None else {**fields, "cursor": cursor})


def readable(differences: Iterable[Difference]) -> str:
    """The same for people: under the lines of the commands."""
    from . import text

    return indent(text(differences, colour=in_colour()), " " * 14).rstrip("\n")


def without(differences: Iterable[Difference], ignored: Collection[str]) -> list[Difference]:
    """What is left when nobody cares for these properties."""
    found = []
    for difference in differences:
        before, after = (
            {name: value for name, value in of.items() if name not in ignored} for of in (difference.before, difference.after)
        )
        if before or after or difference.action in ("added", "removed"):
            found.append(replace(difference, before=before, after=after))
    return found


def is_file(name: str) -> bool:
    """Whether the name of a picture is that of a file, and no connection string."""
    return bool(name) and "://" not in name and "=" not in name


def _picture(options: argparse.Namespace, name: str, route: Route | None) -> Picture:
    if not is_file(name):
        return _of_server(options, name, route)
    from . import FilePictureStore, Picture

    if name == "-":
        return Picture.loads(sys.stdin.read(), "stdin")
    store = FilePictureStore(name)  # reads what a snapshot wrote, and what a listener keeps
    store.load()
    if store.picture is None:
        raise CannotCompare(f"{name!r} is neither a file nor a connection string, which has :// or = in it.")
    return store.picture


def _of_server(options: argparse.Namespace, url: str, route: Route | None) -> Picture:
    from . import snapshot

    keywords(url)
    return snapshot(url, timeout=options.timeout, **(route.parameters if route else {}))


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o644)
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
