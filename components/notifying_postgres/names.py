"""How arguments and outputs are called, in Python and in stack files, and which of them are secret."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pulumi

SECRETS = frozenset(
    {"password", "postgresPassword", "environmentVariables", "token", "secret", "internalUrl", "externalUrl", "urls"}
)
"""What is secret wherever it stands, and whatever it is made of."""


def camel_case(name: str) -> str:
    """An argument's name as stack files and other languages have it."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def snake_case(name: str) -> str:
    """An argument's name as Python has it."""
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def renamed(value: Any, spell: Callable[[str], str]) -> Any:
    """Spells the keys of an argument's value, and of all in it, another way; what is None is left out.

    The names of environment variables are the user's, and stay.
    """
    if isinstance(value, pulumi.Output):
        return value.apply(lambda known: renamed(known, spell))
    if isinstance(value, list):
        return [renamed(item, spell) for item in value]
    if isinstance(value, Mapping):
        return {
            spell(key): item if camel_case(key) == "environmentVariables" else renamed(item, spell)
            for key, item in value.items()
            if item is not None
        }
    return value
