"""Differences as a person would write them.

    ~ table public.orders
        + qty integer not null default 0
        ~ price numeric(10,2) → numeric(12,2)
    - view public.old_orders

Names and definitions are chosen by users of the database: what a terminal could take for a command is written as \\u001b.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .differences import Difference
from .picture import Picture

_SIGNS = {"added": "+", "removed": "-", "altered": "~", "renamed": "~"}
_COLOURS = {"+": "32", "-": "31", "~": "33"}
_INDENT = "    "


def text(differences: Iterable[Difference], colour: bool = False) -> str:
    """All of them, each a line or more, parts under what they are a part of; ends in a newline unless empty."""
    found: list[str] = []
    whole: tuple[str | None, str | None] | None = None
    leaves_out_parts = False

    def write(sign: str, words: str, depth: int) -> None:
        line = f"{_INDENT * depth}{sign} {printable(words)}"
        found.append(f"\033[{_COLOURS[sign]}m{line}\033[0m" if colour and sign in _COLOURS else line)

    for difference in differences:
        depth = 0
        if difference.table is None:
            whole = difference.schema, difference.name
            leaves_out_parts = difference.action == "removed"
        else:
            depth = 1
            if whole != (difference.schema, difference.table):
                whole = difference.schema, difference.table
                leaves_out_parts = False
                write("~", f"{difference.table_kind} {'.'.join(name for name in whole if name)}", 0)
            if leaves_out_parts and difference.action == "removed":
                continue
        sign = _SIGNS[difference.action]
        write(sign, _summary(difference, full=False), depth)
        for before, after in _long(difference):
            for changed in difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm=""):
                if not changed.startswith(("---", "+++", "@@")):
                    write(changed[0], changed[1:], depth + 1)
    return "".join(line + "\n" for line in found)


def line(difference: Difference) -> str:
    """One difference in one line."""
    return printable(f"{_SIGNS[difference.action]} {_summary(difference, full=True)}")


def listing(picture: Picture) -> str:
    """The whole picture as text that a person can read, and of which a line diff says what is different."""
    found: list[str] = []
    for item in picture:
        depth = 0 if item.parent is None else 1
        kind = "" if item.kind == "column" else f"{item.kind} "
        found.append(f"{_INDENT * depth}{printable(f'{kind}{item.identity} {_made_of(item.kind, item.properties)}'.rstrip())}")
        definition = str(item.properties.get("definition", ""))
        if _is_long(item.kind):
            found.extend(f"{_INDENT * (depth + 1)}{printable(words)}".rstrip() for words in definition.strip("\n").splitlines())
        found.extend(
            f"{_INDENT * (depth + 1)}{printable(words)}" for name in _ASIDE for words in _news(name, item.properties.get(name))
        )
    return "".join(words + "\n" for words in found)


def printable(words: str) -> str:
    """What a terminal shows as it is: control characters, and those that turn the direction of writing, as \\u001b."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] if ord(c) < 0xA0 else f"\\u{ord(c):04x}" for c in words)


def _is_long(kind: str) -> bool:
    """Whether its definition is a text of many lines."""
    return kind in ("view", "materialized view", "function", "procedure")


# Told in a line or a clause of their own.
_ASIDE = ("owner", "grants", "comment")


def _summary(difference: Difference, full: bool) -> str:
    name = difference.identity if full or difference.table is None else difference.name
    kind = "" if difference.kind == "column" and not full else f"{difference.kind} "
    if difference.action in ("added", "removed"):
        of = difference.after if difference.action == "added" else difference.before
        words = [_made_of(difference.kind, of)]
        if difference.action == "added":
            words += [f"({phrase})" for name_ in ("grants", "comment") for phrase in _news(name_, of.get(name_))]
        return " ".join([f"{kind}{name}", *filter(None, words)])
    before, after = dict(difference.before), dict(difference.after)
    phrases = []
    if difference.action == "renamed":
        was = ".".join(filter(None, (before.pop("schema", difference.schema), before.pop("name", difference.name))))
        now = ".".join(filter(None, (after.pop("schema", difference.schema), after.pop("name", difference.name))))
        if difference.table is not None:
            was, now = was.removeprefix(f"{difference.schema}."), now.removeprefix(f"{difference.schema}.")
        name = f"{was} renamed to {now}"
    for prop in dict.fromkeys([*before, *after]):
        if not (prop == "definition" and _is_long(difference.kind)):
            phrases += _phrases(prop, before.get(prop), after.get(prop))
    if difference.action == "renamed" and phrases:
        return f"{kind}{name}: {'; '.join(phrases)}"
    return " ".join(filter(None, [f"{kind}{name}", "; ".join(phrases)]))


def _news(name: str, value: Any) -> list[str]:
    # what everybody may do anyway is no news
    if name == "grants" and value in ({"PUBLIC": ["EXECUTE"]}, {"PUBLIC": ["USAGE"]}):
        return []
    return _phrases(name, None, value)


def _long(difference: Difference) -> Iterator[tuple[str, str]]:
    if difference.action in ("altered", "renamed") and _is_long(difference.kind) and "definition" in difference.after:
        yield difference.before.get("definition", ""), difference.after["definition"]


def _made_of(kind: str, properties: Mapping[str, Any]) -> str:
    """What it is made of, in a few words, as in CREATE TABLE."""
    of = {name: value for name, value in properties.items() if name not in _ASIDE}
    words: list[str] = []
    if _is_long(kind):
        of.pop("definition", None)
    if "definition" in of:
        words.append(str(of.pop("definition")).removeprefix("CREATE "))
    if "labels" in of:
        words.append("(" + ", ".join(_literal(label) for label in of.pop("labels") or ()) + ")")
    if kind in ("column", "domain", "sequence") and "type" in of:
        words.append(str(of.pop("type")))
    if "collation" in of:
        words.append(f"collate {of.pop('collation')}")
    if of.pop("not_null", False):
        words.append("not null")
    if "default" in of:
        words.append(f"default {of.pop('default')}")
    if "expression" in of:
        words.append(f"generated always as ({of.pop('expression')}) {of.pop('generated', '')}".rstrip())
    if "identity" in of:
        words.append(f"generated {of.pop('identity')} as identity")
    words += [_clause(name, value) for name, value in of.items()]
    return " ".join(words)


def _clause(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    return words if value is True else f"{words} {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "(" + ", ".join(map(_value, value)) + ")"
    if isinstance(value, Mapping):
        return "(" + ", ".join(_clause(name, item) for name, item in value.items()) + ")"
    return str(value)


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _phrases(name: str, before: Any, after: Any) -> list[str]:
    """How one property changed; of something new, `before` is None."""
    if before is None and after is None:
        return []
    if name == "not_null":
        return ["not null" if after else "nullable"]
    if name == "grants":
        return [*_grants("revoke", "from", after or {}, before or {}), *_grants("grant", "to", before or {}, after or {})]
    if name == "comment":
        before, after = (None if value is None else _literal(value) for value in (before, after))
    if name == "labels":
        new = [label for label in after if label not in before]
        if [label for label in after if label in before] == before:
            return [f"value {_literal(label)}" for label in new]
    words = name.replace("_", " ")
    if before is True or after is True:
        return [words if after else f"no longer {words}"]
    if after is None:
        return [f"no {words} (was {_value(before)})"]
    if before is None:
        return [f"{words} {_value(after)}"]
    change = f"{_value(before)} → {_value(after)}"
    return [change if name in ("type", "definition", "version") else f"{words} {change}"]


def _grants(verb: str, preposition: str, without: Mapping[str, list[str]], having: Mapping[str, list[str]]) -> Iterator[str]:
    for role, privileges in having.items():
        missing = [privilege for privilege in privileges if privilege not in without.get(role, ())]
        plain = [privilege for privilege in missing if not privilege.endswith("*")]
        granting = [privilege.rstrip("*") for privilege in missing if privilege.endswith("*")]
        if plain:
            yield f"{verb} {', '.join(plain)} {preposition} {role}"
        if granting:
            yield f"{verb} {', '.join(granting)} {preposition} {role} with grant option"
