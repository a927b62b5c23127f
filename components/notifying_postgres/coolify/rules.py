"""What Coolify accepts and honours, checked before anything is sent: a refusal then costs nothing and says what to do instead.

The rules are those of Coolify 4.3.11 (docs/coolify.md says where each was read).
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..errors import camel_case
from .args import CoolifyBackupArgs, CoolifyDatabaseArgs, CoolifyPasswordArgs

DATABASE_ARGUMENTS = [camel_case(name) for name in CoolifyDatabaseArgs.__annotations__]
BACKUP_ARGUMENTS = [camel_case(name) for name in CoolifyBackupArgs.__annotations__]
PASSWORD_ARGUMENTS = [camel_case(name) for name in CoolifyPasswordArgs.__annotations__]

_IGNORED = "Coolify stores it and never uses it: "
REFUSED = {
    "postgresInitdbArgs": f"{_IGNORED}give environmentVariables a POSTGRES_INITDB_ARGS",
    "postgresHostAuthMethod": f"{_IGNORED}give environmentVariables a POSTGRES_HOST_AUTH_METHOD",
    "isPublic": "give publicPort; Coolify silently ignores isPublic without a port",
    "instantDeploy": "the database is always started, and never before its mount has been checked",
}

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:[0-9]+/))(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r":(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})(?:@sha256:[0-9a-f]{64})?"
)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_PASSWORD = re.compile(r"[A-Za-z0-9!@#%^*()_+\-=\[\]{}:,.?/~]{1,128}")
_SIZE = re.compile(r"0|[1-9][0-9]*[bkmgBKMG]?")
_CPUS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_CPUSET = re.compile(r"[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*")
_CRON = re.compile(r"@?(?:hourly|daily|weekly|monthly|yearly)|every_minute|(?:\S+ ){4}\S+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
# What arrives in the container as it was given: Coolify escapes quotes and backslashes, resolves {{…}}, and Compose reads `$`.
_VARIABLE_VALUE = re.compile(r"[^\x00-\x1f\x7f\"'\\$]*")
# A variable that so much as mentions one of these makes Coolify leave out its own.
_COOLIFYS_VARIABLES = ("POSTGRES_USER", "PGUSER", "POSTGRES_PASSWORD", "POSTGRES_DB")
# Coolify's dumps run in a shell; it refuses names with the characters that a shell reads.
_DATABASES = re.compile(r"[A-Za-z0-9_.-]+(?:,[A-Za-z0-9_.-]+)*")

Problem = tuple[str, str]


def major_version(image: str) -> int | None:
    """PostgreSQL's major version by the image's tag, or None when the tag does not begin with it."""
    match = _IMAGE.fullmatch(image)
    number = re.match(r"(?:pg)?(\d{1,2})(?!\d)", match["tag"]) if match else None
    return int(number[1]) if number else None


def data_mount(image: str) -> str | None:
    """Where the volume belongs so that the official image of that version has its data in it; None when the version is unknown."""
    major = major_version(image)
    return None if major is None else "/var/lib/postgresql" if major >= 18 else "/var/lib/postgresql/data"


def database_problems(inputs: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the arguments of a database, as pairs of an argument and a sentence. Those not known yet are absent."""
    yield from _unknown_arguments(inputs, DATABASE_ARGUMENTS)
    yield from _check(inputs, _DATABASE_RULES)
    image = inputs.get("image")
    if isinstance(image, str) and _IMAGE.fullmatch(image) and data_mount(image) is None and "mountPath" not in inputs:
        yield "mountPath", f"the tag of {image} does not begin with PostgreSQL's major version: say where its data lies"
    if inputs.get("healthCheckEnabled") is False and any(
        key.startswith("healthCheck") for key in set(inputs) - {"healthCheckEnabled"}
    ):
        yield "healthCheckEnabled", "the other healthCheck arguments have no meaning when it is false"
    variables = inputs.get("environmentVariables")
    for key, value in variables.items() if isinstance(variables, dict) else ():
        if problem := _variable_problem(key, value):
            yield f"environmentVariables.{key}", problem
    backups = inputs.get("backups")
    for index, backup in enumerate(backups if isinstance(backups, list) else []):
        if not isinstance(backup, dict):
            yield f"backups[{index}]", "give an object with a frequency"
            continue
        for key, problem in [*_unknown_arguments(backup, BACKUP_ARGUMENTS), *_check(backup, _BACKUP_RULES)]:
            yield f"backups[{index}].{key}", problem
        if "frequency" not in backup:
            yield f"backups[{index}].frequency", "give a cron expression, or hourly, daily, weekly, monthly, yearly"
        if backup.get("allDatabases") is True and "databases" in backup:
            yield f"backups[{index}].databases", "leave it out, or allDatabases"


def _variable_problem(key: str, value: Any) -> str | None:
    """What is wrong with a variable of the container. Its value may be a secret and is not shown."""
    if not _VARIABLE.fullmatch(key):
        return "give a name of letters, digits and '_', the first no digit"
    if key == "PGDATA":
        return "the data must lie in the volume: see mountPath"
    if not isinstance(value, str) or not _VARIABLE_VALUE.fullmatch(value) or "{{" in value:
        return "give a string in one line without quotes, backslashes, '$' and '{{', which Coolify would change"
    if any(own in f"{key}={value}" for own in _COOLIFYS_VARIABLES):
        return (
            f"Coolify leaves out its own variable where another mentions it: none may have {', '.join(_COOLIFYS_VARIABLES)} in it"
        )
    return None


def password_problems(inputs: Mapping[str, Any]) -> Iterator[Problem]:
    """The same for a CoolifyPassword."""
    yield from _unknown_arguments(inputs, PASSWORD_ARGUMENTS)
    yield from _check(inputs, {"password": _DATABASE_RULES["postgresPassword"], "url": _DATABASE_RULES["url"]})


def _unknown_arguments(inputs: Mapping[str, Any], known: list[str]) -> Iterator[Problem]:
    for key in sorted(set(inputs) - set(known)):
        yield key, REFUSED.get(key, f"there is no such argument; there are {', '.join(sorted(known))}")


Rule = tuple[Callable[[Any], bool], str]


def _check(inputs: Mapping[str, Any], rules: Mapping[str, Rule]) -> Iterator[Problem]:
    for key, (holds, allowed) in rules.items():
        if key in inputs and not holds(inputs[key]):
            # A secret's value is not shown.
            shown = "" if "assword" in key or key == "environmentVariables" else f"{inputs[key]!r} is not allowed: "
            yield key, f"{shown}{allowed}"


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _between(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_url(value: Any) -> bool:
    try:
        parts = urlsplit(value)
    except (ValueError, AttributeError, TypeError):
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and parts.username is None


def _is_tags(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(tag, str) and len(tag) >= 2 and tag == tag.strip().lower() for tag in value)


def _is_conf(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


_BIG = 2**31 - 1
_SIZE_RULE: Rule = (_matches(_SIZE), "give a number with a unit, such as 512m or 2g, or 0 for no limit")
_KEEP_RULE: Rule = (_between(0, _BIG), "give a whole number, or 0 to keep all")
_KEEP_SIZE_RULE: Rule = (
    lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value >= 0,
    "give a number of gigabytes, or 0 to keep all",
)
_DATABASE_RULES: dict[str, Rule] = {
    "image": (_matches(_IMAGE), "give a name and a tag, such as 127.0.0.1:16/xooo-postgres-notifications:16"),
    "name": (
        lambda value: isinstance(value, str) and 1 <= len(value) <= 255 and value == value.strip(),
        "give 1 to 255 characters",
    ),
    "postgresUser": (_matches(_IDENTIFIER), "give letters, digits and '_', at most 63, the first no digit"),
    "postgresDb": (_matches(_IDENTIFIER), "give letters, digits and '_', at most 63, the first no digit"),
    "postgresPassword": (_matches(_PASSWORD), "Coolify takes 1 to 128 letters, digits and !@#%^*()_+-=[]{}:,.?/~"),
    "postgresConf": (_is_conf, "give the text of a postgresql.conf, or leave it out"),
    "environmentVariables": (lambda value: isinstance(value, dict) and len(value) > 0, "give names and values, or leave it out"),
    "publicPort": (_between(1024, 65535), "give a port from 1024 to 65535"),
    "publicPortTimeout": (_between(1, _BIG), "give a number of seconds"),
    "limitsMemory": _SIZE_RULE,
    "limitsMemorySwap": _SIZE_RULE,
    "limitsMemoryReservation": _SIZE_RULE,
    "limitsMemorySwappiness": (_between(0, 100), "give a number from 0 to 100"),
    "limitsCpus": (_matches(_CPUS), "give a number as a string, such as '1.5', or '0' for all"),
    "limitsCpuset": (_matches(_CPUSET), "give processors, such as 0-2 or 0,3"),
    "limitsCpuShares": (_between(2, 262144), "give a number from 2 to 262144"),
    "healthCheckInterval": (_between(1, _BIG), "give a number of seconds"),
    "healthCheckTimeout": (_between(1, _BIG), "give a number of seconds"),
    "healthCheckRetries": (_between(1, _BIG), "give a number from 1"),
    "healthCheckStartPeriod": (_between(0, _BIG), "give a number of seconds"),
    "tags": (_is_tags, "give names in lower case of at least two characters"),
    "mountPath": (lambda value: isinstance(value, str) and value.startswith("/"), "give an absolute path"),
    "startTimeout": (_between(1, 86400), "give a number of seconds"),
    "url": (_is_url, "give Coolify's URL, such as https://coolify.example.com"),
}
_BACKUP_RULES: dict[str, Rule] = {
    "frequency": (_matches(_CRON), "give a cron expression, or hourly, daily, weekly, monthly, yearly"),
    "databases": (_matches(_DATABASES), "give names of databases, separated by commas"),
    "keepAmount": _KEEP_RULE,
    "keepDays": _KEEP_RULE,
    "keepGigabytes": _KEEP_SIZE_RULE,
    "keepAmountS3": _KEEP_RULE,
    "keepDaysS3": _KEEP_RULE,
    "keepGigabytesS3": _KEEP_SIZE_RULE,
    "timeout": (_between(60, 36000), "give 60 to 36000 seconds"),
}


def encode_conf(text: str) -> str:
    """A postgresql.conf as the API takes it."""
    return base64.b64encode(text.encode()).decode()
