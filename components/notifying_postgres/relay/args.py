"""The arguments of a relay: the sinks, and the rules by which they are read."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NotRequired, TypedDict
from urllib.parse import urlsplit

import pulumi

from ..errors import InvalidArgument, checked, refuse_unknown

DEFAULT_RELAY_BASE_IMAGE = "python:3.13-alpine"

_SCHEMES = {"https": "path", "http": "path", "nats": "SUBJECT", "tls": "SUBJECT", "redis": "STREAM", "rediss": "STREAM"}


class RelaySinkArgs(TypedDict):
    """Where changes are handed on to, each once, as a CloudEvent in JSON."""

    url: pulumi.Input[str]
    """`https://host/path`, `nats://host/SUBJECT` or `redis://host/STREAM`; a user may be in it, a password not."""
    secret: NotRequired[pulumi.Input[str]]
    """A webhook's signing secret (`whsec_…`; two, in two lines, while it changes); of NATS and Redis the password or token."""
    name: NotRequired[pulumi.Input[str]]
    """What its place in the feed goes by; under another name it begins anew, from now on. Default: made from the URL."""
    differences: NotRequired[bool]
    """Whether it is told with each burst of changes what exactly is different. Default: false."""


@dataclass(frozen=True)
class Sink:
    """A sink's arguments, checked. Every value is known only as far as its argument is."""

    where: str
    url: pulumi.Output[str]
    secret: pulumi.Output[str] | None
    name: pulumi.Output[str] | None
    differences: bool


def url(key: str, value: object) -> str:
    """A sink's URL. The sentence that refuses it does not show it: it may have a password in it."""
    refuse = partial(InvalidArgument, key, value, secret=True)
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,2000}", value):
        raise refuse("give a URL without spaces, such as https://host/path; what is no ASCII as %XX")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise refuse("its host or port cannot be read") from None
    if parts.scheme not in _SCHEMES or not parts.hostname or port == 0:
        raise refuse("give https://host/path, nats://host/SUBJECT or redis://host/STREAM")
    if parts.password is not None:
        raise refuse("there is a password in it: give that as the sink's secret")
    if _SCHEMES[parts.scheme] != "path" and not parts.path.strip("/"):
        raise refuse(f"the {_SCHEMES[parts.scheme]} is missing: give {parts.scheme}://host/{_SCHEMES[parts.scheme]}")
    return value


def secret(key: str, value: object) -> str:
    """What a sink lets in or believes. The sentence that refuses it does not show it."""
    if not isinstance(value, str) or not value.strip() or any(ord(letter) < 32 and letter != "\n" for letter in value):
        raise InvalidArgument(key, value, "give a text without control characters; a number goes in quotes", secret=True)
    return value.strip()


def name(key: str, value: object) -> str:
    """A sink's name, as `schema-changes relay` takes it."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,63}", value):
        raise InvalidArgument(key, value, "give 1 to 63 letters, digits, '_', '.' and '-'")
    return value


def read_relay(where: str, given: object) -> list[Sink]:
    """Checks the sinks of one database; there are none without a relay.

    :raises InvalidArgument: when something is wrong.
    """
    if given is None:
        return []
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise InvalidArgument(where, given, "give a list of sinks, each with its url", secret=True)
    sinks = [_read_sink(f"{where}[{number}]", sink) for number, sink in enumerate(given)]
    values = [tuple(sink.get(key) for key in ("url", "secret", "name")) for sink in given]
    if not any(isinstance(value, pulumi.Output) for of_one in values for value in of_one):
        _refuse_what_does_not_go_together(sinks, values)
    return sinks


def _read_sink(where: str, given: object) -> Sink:
    if not isinstance(given, Mapping):
        raise InvalidArgument(where, given, "give its settings by name: url, and if need be secret, name, differences", secret=True)
    refuse_unknown(f"{where}.", given, RelaySinkArgs.__annotations__)
    if given.get("url") is None:
        raise InvalidArgument(f"{where}.url", None, "give https://host/path, nats://host/SUBJECT or redis://host/STREAM")
    differences = given.get("differences")
    if differences is not None and not isinstance(differences, bool):
        raise InvalidArgument(f"{where}.differences", differences, "give true or false, without quotes")

    def read(setting: str, rule: Any) -> Any:
        value = given.get(setting)
        return None if value is None else checked(value, partial(rule, f"{where}.{setting}"))

    return Sink(where, read("url", url), read("secret", secret), read("name", name), bool(differences))


def _refuse_what_does_not_go_together(sinks: Sequence[Sink], values: Sequence[Sequence[Any]]) -> None:
    """Of each sink URL, secret and name.

    :raises InvalidArgument: when a secret does not go with its URL, or two sinks are the same.
    """
    names: set[str] = set()
    for sink, (its_url, its_secret, its_name) in zip(sinks, values, strict=True):
        if its_url.startswith("http"):
            wanted = "a webhook's receiver knows by it who sends: whsec_ and 24 to 64 random bytes in base64"
            if its_secret is None:
                raise InvalidArgument(f"{sink.where}.secret", None, wanted)
            if not all(re.fullmatch(r"(whsec_)?[A-Za-z0-9+/]{16,}={0,2}", line) for line in its_secret.split()):
                raise InvalidArgument(f"{sink.where}.secret", "", wanted, secret=True)
        by = its_name or its_url
        if by in names:
            raise InvalidArgument(f"{sink.where}.name", its_name, "another sink has it, or the same URL: give each its own")
        names.add(by)


def as_file(sinks: Sequence[Sink]) -> pulumi.Output[str]:
    """What `schema-changes relay --sinks` reads: secret.

    :raises InvalidArgument: as soon as it is known that what was not known before does not go together.
    """

    def text(values: Sequence[Sequence[Any]]) -> str:
        _refuse_what_does_not_go_together(sinks, values)
        listed = []
        for sink, (its_url, its_secret, its_name) in zip(sinks, values, strict=True):
            named = {} if its_name is None else {"name": its_name}
            listed.append({**named, "url": its_url, "secret": its_secret or "", "differences": sink.differences})
        return json.dumps(listed, indent=1)

    known = [pulumi.Output.all(sink.url, sink.secret, sink.name) for sink in sinks]
    return pulumi.Output.secret(pulumi.Output.all(*known).apply(text))
