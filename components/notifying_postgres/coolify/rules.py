"""What Coolify accepts and honours, in one table, checked before anything is sent: a refusal costs nothing and says what to do.

The rules are those of Coolify 4.3.11 (docs/coolify.md says where each was read).
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..names import SECRETS, camel_case
from .args import CoolifyBackupArgs, CoolifyDatabaseArgs, CoolifyPasswordArgs

Problem = tuple[str, str]
Rule = tuple[Callable[[object], bool], str]
"""Whether a value is allowed, and what is."""

# Of the API's fields that are no arguments, or what somebody may look for.
_IGNORED = "Coolify stores it and never uses it: "
_DASHBOARD = "Coolify's API does not take it: set it in the dashboard and restart the database there; nothing here changes it"
REFUSED = {
    "postgresInitdbArgs": f"{_IGNORED}give environmentVariables a POSTGRES_INITDB_ARGS",
    "postgresHostAuthMethod": f"{_IGNORED}give environmentVariables a POSTGRES_HOST_AUTH_METHOD",
    "isPublic": "give publicPort; Coolify silently ignores isPublic without a port",
    "instantDeploy": "the database is always started, and never before its mount has been checked",
    "enableSsl": _DASHBOARD,
    "sslMode": _DASHBOARD,
}

# What the framework takes off at either end of every string, beside white space.
_BLANK = "\\s\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b-\\u200f\\u2060-\\u206f\\u2800\\u3164\\ufeff\\uffa0"
_OUTER_BLANK = re.compile(rf"^[{_BLANK}]|[{_BLANK}]\Z")
_TAG = re.compile(r"<(?![ \t-\r])|\0")  # what PHP's strip_tags would change
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


def _matches(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _between(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 255 and not _OUTER_BLANK.search(value) and not _TAG.search(value)


def _is_url(value: object) -> bool:
    try:
        parts = urlsplit(str(value))
    except ValueError:  # such as a bracket that is not closed
        return False
    return (
        isinstance(value, str)
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and not parts.query
        and parts.username is None
    )


def _is_tags(value: object) -> bool:
    return isinstance(value, list) and all(_is_text(tag) and len(tag) >= 2 and tag == tag.lower() for tag in value)


_BIG = 2**31 - 1
_SIZE_RULE: Rule = (_matches(_SIZE), "give a number with a unit, such as 512m or 2g, or 0 for no limit")
_KEEP_RULE: Rule = (_between(0, _BIG), "give a whole number, or 0 to keep all")
_KEEP_SIZE_RULE: Rule = (
    lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value >= 0,
    "give a number of gigabytes, or 0 to keep all",
)
_SECONDS_RULE: Rule = (_between(1, _BIG), "give a number of seconds")
_TEXT_RULE: Rule = (
    _is_text,
    "give 1 to 255 characters, or leave it out; Coolify would strip blanks at which they begin or end, and what looks like a tag",
)
_IDENTIFIER_RULE: Rule = (_matches(_IDENTIFIER), "give letters, digits and '_', at most 63, the first no digit")
_PASSWORD_RULE: Rule = (_matches(_PASSWORD), "Coolify takes 1 to 128 letters, digits and !@#%^*()_+-=[]{}:,.?/~")
_BOOLEAN_RULE: Rule = (lambda value: isinstance(value, bool), "give true or false, without quotes")
_NAME_RULE: Rule = (lambda value: isinstance(value, str) and bool(value), "give a uuid or a name")
_TOKEN_RULE: Rule = (
    lambda value: isinstance(value, str) and re.fullmatch(r"[!-~]+", value) is not None,
    "give an API token, such as Coolify shows once under Keys & Tokens",
)
_URL_RULE: Rule = (_is_url, "give Coolify's URL, such as https://coolify.example.com")


@dataclass(frozen=True)
class Field:
    """An argument.

    :ivar api: its name in Coolify's records, or None where they have nothing like it.
    :ivar default: what Coolify has where it is not given, or None where it is left to Coolify.
    :ivar rule: what may be given.
    :ivar restart: whether only a restart makes it true.
    """

    api: str | None = None
    default: str | int | bool | None = None
    rule: Rule | None = None
    restart: bool = False


DATABASE: dict[str, Field] = {
    "image": Field(
        "image", None, (_matches(_IMAGE), "give a name and a tag, such as 127.0.0.1:16/xooo-postgres-notifications:16"), True
    ),
    "name": Field("name", None, _TEXT_RULE),
    "description": Field("description", None, _TEXT_RULE),
    "postgresUser": Field("postgres_user", "postgres", _IDENTIFIER_RULE),
    "postgresPassword": Field("postgres_password", None, _PASSWORD_RULE),
    "postgresDb": Field("postgres_db", "postgres", _IDENTIFIER_RULE),
    "postgresConf": Field(
        "postgres_conf",
        None,
        (lambda value: isinstance(value, str) and bool(value.strip()), "give the text of a postgresql.conf, or leave it out"),
        True,
    ),
    "publicPort": Field("public_port", None, (_between(1024, 65535), "give a port from 1024 to 65535")),
    "publicPortTimeout": Field("public_port_timeout", 3600, _SECONDS_RULE),
    "limitsMemory": Field("limits_memory", "0", _SIZE_RULE, True),
    "limitsMemorySwap": Field("limits_memory_swap", "0", _SIZE_RULE, True),
    "limitsMemorySwappiness": Field("limits_memory_swappiness", 60, (_between(0, 100), "give a number from 0 to 100"), True),
    "limitsMemoryReservation": Field("limits_memory_reservation", "0", _SIZE_RULE, True),
    "limitsCpus": Field("limits_cpus", "0", (_matches(_CPUS), "give a number as a string, such as '1.5', or '0' for all"), True),
    "limitsCpuset": Field("limits_cpuset", None, (_matches(_CPUSET), "give processors, such as 0-2 or 0,3"), True),
    "limitsCpuShares": Field("limits_cpu_shares", 1024, (_between(2, 262144), "give a number from 2 to 262144"), True),
    "healthCheckEnabled": Field("health_check_enabled", True, _BOOLEAN_RULE, True),
    "healthCheckInterval": Field("health_check_interval", 15, _SECONDS_RULE, True),
    "healthCheckTimeout": Field("health_check_timeout", 5, _SECONDS_RULE, True),
    "healthCheckRetries": Field("health_check_retries", 5, (_between(1, _BIG), "give a number from 1"), True),
    "healthCheckStartPeriod": Field("health_check_start_period", 5, (_between(0, _BIG), "give a number of seconds"), True),
    "tags": Field(None, None, (_is_tags, "give names in lower case of at least two characters")),
    "environmentVariables": Field(
        None, None, (lambda value: isinstance(value, dict) and len(value) > 0, "give names and values, or leave it out")
    ),
    "backups": Field(None, None, (lambda value: isinstance(value, list), "give a list, each entry with a frequency")),
    "mountPath": Field(
        None,
        None,
        (
            lambda value: _is_text(value) and str(value).startswith("/"),
            "give an absolute path that does not begin or end with blanks",
        ),
    ),
    "deleteVolumes": Field(None, False, _BOOLEAN_RULE),
    "startTimeout": Field(None, 300, (_between(1, 86400), "give a number of seconds")),
    "project": Field(None, None, _NAME_RULE),
    "environment": Field(None, None, _NAME_RULE),
    "server": Field(None, None, _NAME_RULE),
    "destination": Field(None, None, _NAME_RULE),
    "docker": Field(
        None, None, (lambda value: isinstance(value, str) and bool(value.strip()), "give a command line, or leave it out")
    ),
    "url": Field(None, None, _URL_RULE),
    "token": Field(None, None, _TOKEN_RULE),
}
BACKUP: dict[str, Field] = {
    "frequency": Field("frequency", None, (_matches(_CRON), "give a cron expression, or hourly, daily, weekly, monthly, yearly")),
    "enabled": Field("enabled", True, _BOOLEAN_RULE),
    "allDatabases": Field("dump_all", False, _BOOLEAN_RULE),
    "databases": Field("databases_to_backup", None, (_matches(_DATABASES), "give names of databases, separated by commas")),
    "s3Storage": Field(None, None, _NAME_RULE),  # a record tells of it by a number
    "keepAmount": Field("database_backup_retention_amount_locally", None, _KEEP_RULE),
    "keepDays": Field("database_backup_retention_days_locally", None, _KEEP_RULE),
    "keepGigabytes": Field("database_backup_retention_max_storage_locally", None, _KEEP_SIZE_RULE),
    "keepAmountS3": Field("database_backup_retention_amount_s3", None, _KEEP_RULE),
    "keepDaysS3": Field("database_backup_retention_days_s3", None, _KEEP_RULE),
    "keepGigabytesS3": Field("database_backup_retention_max_storage_s3", None, _KEEP_SIZE_RULE),
    "timeout": Field("timeout", None, (_between(60, 36000), "give 60 to 36000 seconds")),
}
PASSWORD: dict[str, Field] = {
    "database": Field(None, None, _NAME_RULE),
    "password": Field("postgres_password", None, _PASSWORD_RULE),
    "url": Field(None, None, _URL_RULE),
    "token": Field(None, None, _TOKEN_RULE),
}


def required(args: type) -> set[str]:
    """The arguments without which there is nothing to do, by the names that the schema has."""
    return {camel_case(name) for name in args.__required_keys__}  # type: ignore[attr-defined]


def major_version(image: str) -> int | None:
    """PostgreSQL's major version by the image's tag, or None when the tag does not begin with it."""
    match = _IMAGE.fullmatch(image)
    number = re.match(r"(?:pg)?(\d{1,2})(?!\d)", match["tag"]) if match else None
    return int(number[1]) if number else None


def data_mount(image: str) -> str | None:
    """Where the volume belongs so that the official image of that version has its data in it; None when the version is unknown."""
    major = major_version(image)
    return None if major is None else "/var/lib/postgresql" if major >= 18 else "/var/lib/postgresql/data"


def database_problems(inputs: Mapping[str, object], unknown: set[str]) -> Iterator[Problem]:
    """What is wrong with the arguments of a database, as pairs of an argument and a sentence.

    :param inputs: those that are known.
    :param unknown: the names of the others.
    """
    yield from _problems(inputs, DATABASE, required(CoolifyDatabaseArgs) - unknown)
    image = inputs.get("image")
    if isinstance(image, str) and _IMAGE.fullmatch(image) and data_mount(image) is None and "mountPath" not in {*inputs, *unknown}:
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
        for key, problem in _problems(backup, BACKUP, required(CoolifyBackupArgs)):
            yield f"backups[{index}].{key}", problem
        if backup.get("allDatabases") is True and "databases" in backup:
            yield f"backups[{index}].databases", "leave it out, or allDatabases"


def _variable_problem(key: str, value: object) -> str | None:
    """What is wrong with a variable of the container. Its value may be a secret and is not shown."""
    if not _VARIABLE.fullmatch(key):
        return "give a name of letters, digits and '_', the first no digit"
    if key == "PGDATA":
        return "the data must lie in the volume: see mountPath"
    if not isinstance(value, str) or not _VARIABLE_VALUE.fullmatch(value) or "{{" in value:
        return "give a string in one line without quotes, backslashes, '$' and '{{', which Coolify would change"
    if _OUTER_BLANK.search(value):
        return "give a string that does not begin or end with blanks, which Coolify would strip"
    if any(own in f"{key}={value}" for own in _COOLIFYS_VARIABLES):
        return (
            f"Coolify leaves out its own variable where another mentions it: none may have {', '.join(_COOLIFYS_VARIABLES)} in it"
        )
    return None


def password_problems(inputs: Mapping[str, object], unknown: set[str]) -> Iterator[Problem]:
    """The same for a CoolifyPassword."""
    yield from _problems(inputs, PASSWORD, required(CoolifyPasswordArgs) - unknown)


def _problems(inputs: Mapping[str, object], fields: Mapping[str, Field], needed: set[str]) -> Iterator[Problem]:
    for key in sorted(needed - set(inputs)):
        yield key, "it is missing" if fields[key].rule is None else f"it is missing: {fields[key].rule[1]}"  # type: ignore[index]
    for key in sorted(set(inputs) - set(fields)):
        yield key, REFUSED.get(key, f"there is no such argument; there are {', '.join(sorted(fields))}")
    for key, field in fields.items():
        if key in inputs and field.rule and not field.rule[0](inputs[key]):
            # A secret's value is not shown.
            shown = "" if key in SECRETS else f"{inputs[key]!r} is not allowed: "
            yield key, f"{shown}{field.rule[1]}"


def encode_conf(text: str) -> str:
    """A postgresql.conf as the API takes it."""
    return base64.b64encode(text.encode()).decode()
