"""What the component says when it refuses its arguments."""

from collections.abc import Callable, Iterable
from typing import Any

import pulumi

from .names import camel_case


class InvalidArgument(pulumi.RunError):
    """An argument that is missing or wrong, found before anything is created.

    Pulumi prints a `RunError` as its sentence alone, without a traceback.

    :param key: the argument as a stack file has it, such as ``databases.app.port``.
    :param value: what was given, or None where it is missing.
    :param allowed: what may be given instead.
    :param secret: whether the sentence must not show the value.
    :param because: what is wrong with the argument, where it is not its value.
    """

    def __init__(self, key: str, value: object, allowed: str, *, secret: bool = False, because: str | None = None) -> None:
        output = isinstance(value, pulumi.Output)
        given = "is missing" if value is None else "is an output" if output else "is not allowed" if secret else f"is {value!r}"
        super().__init__(f"{key} {because or given}: {allowed}")


def refuse_unknown(prefix: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuses arguments that do not exist, since a misspelt one would otherwise be ignored.

    :raises InvalidArgument: naming the first of them.
    """
    names = sorted(known)
    for name in sorted(set(map(str, given)) - set(names)):
        allowed = ", ".join(camel_case(known_name) for known_name in names)
        raise InvalidArgument(prefix + camel_case(name), None, f"there are {allowed}", because="is not an argument")


def checked(value: pulumi.Input[Any], check: Callable[[Any], Any]) -> pulumi.Output[Any]:
    """Runs a check at once when the value is plain, so that nothing is made before it, and as soon as it is known otherwise.

    :returns: what the check returns.
    """
    if isinstance(value, pulumi.Output):
        return value.apply(check)
    return pulumi.Output.from_input(check(value))
