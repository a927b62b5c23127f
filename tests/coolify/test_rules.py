"""The rules that are checked before anything is sent."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notifying_postgres.coolify import rules
from notifying_postgres.coolify.provided import Database, Password
from notifying_postgres.coolify.registry import pullable_name, registry_port
from notifying_postgres.provider import UNKNOWN, Refusal

from tests.support import REPOSITORY
from tests.support.coolify import mount_by_expression
from tests.support.documented_requests import BODIES, MISTAKES, QUERIES, REQUIRED, differences
from tests.support.documented_requests import problems as undocumented

GOOD: dict[str, Any] = {"image": "127.0.0.1:16/pg:16-0123", "project": "p", "environment": "e", "server": "s"}


def problems(**inputs: Any) -> dict[str, str]:
    try:
        Database().check("orders", {}, {**GOOD, **inputs})
    except Refusal as refusal:
        return dict(refusal.problems)
    return {}


def test_what_is_good_is_completed() -> None:
    inputs = Database().check("orders", {}, GOOD)
    assert inputs == {**GOOD, "name": "orders", "mountPath": "/var/lib/postgresql/data"}


def test_what_is_missing_is_named_unless_it_is_only_unknown() -> None:
    with pytest.raises(Refusal) as refused:
        Database().check("orders", {}, {"image": UNKNOWN})
    assert {key for key, _ in refused.value.problems} == {"project", "environment", "server"}
    with pytest.raises(Refusal) as refused:
        Password().check("x", {}, {"database": UNKNOWN})
    assert {key for key, _ in refused.value.problems} == {"password"}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("image", "postgres", "give a name and a tag"),
        ("image", "sha256:" + "0" * 64, "does not begin with"),
        ("image", "x:16; rm -rf /", "give a name and a tag"),
        ("image", "x:$(id)", "give a name and a tag"),
        ("postgresUser", "1a", "the first no digit"),
        ("postgresDb", "a-b", "letters, digits"),
        ("postgresPassword", "with space", "Coolify takes"),
        ("postgresPassword", "$HOME", "Coolify takes"),
        ("postgresPassword", "x" * 129, "1 to 128"),
        ("publicPort", 80, "1024 to 65535"),
        ("publicPort", True, "1024 to 65535"),
        ("limitsMemory", "lots", "such as 512m"),
        ("limitsCpus", 1.5, "as a string"),
        ("tags", ["A"], "lower case"),
        ("url", "coolify.example.com", "give Coolify's URL"),
        ("mountPath", "data", "absolute"),
        ("postgresInitdbArgs", "--data-checksums", "never uses it"),
        ("postgresHostAuthMethod", "trust", "never uses it"),
        ("environmentVariables", {"A B": "x"}, "letters, digits and '_'"),
        ("environmentVariables", {"A": "with space and $HOME"}, "which Coolify would change"),
        ("environmentVariables", {"PGDATA": "/elsewhere"}, "the data must lie in the volume"),
        ("environmentVariables", {"POSTGRES_PASSWORD_FILE": "/run/x"}, "leaves out its own"),
        ("environmentVariables", {}, "or leave it out"),
        ("isPublic", True, "give publicPort"),
        ("colour", "red", "there is no such argument"),
    ],
)
def test_what_coolify_would_not_honour_is_refused(key: str, value: Any, sentence: str) -> None:
    found = problems(**{key: value})
    assert sentence in " ".join(found.values()), found
    assert "$HOME" not in str(found)
    assert "with space" not in str(found)


LONG = "ä" * 255  # characters, of which each is two bytes
LIMITS: dict[str, tuple[list[Any], list[Any]]] = {
    "name": (
        ["x", LONG, "a < b", "a <\tb", "0", "R&D &lt;b&gt;", "it's \"x\""],
        ["", LONG + "ä", "a<b", "<!-- x -->", "x <", "a <\xa0b"],
    ),
    "description": (
        [LONG, "two\nlines"],
        ["", " x", "x\n", "\u200bx", "x\ufeff", "x\u3000", "x\0y", f"<{LONG}"],
    ),
    "postgresUser": (["_", "A" * 63], ["", "A" * 64, "1a", "a b", "a\n", "ä"]),
    "postgresPassword": (["x", "x" * 128, "!@#%^*()_+-=[]{}:,.?/~"], ["", "x" * 129, "a b", "a$", "a&b", "a'b", "ä", "a\n"]),
    "postgresConf": (["shared_buffers = 1GB", " x"], ["", " \n"]),
    "publicPort": ([1024, 65535], [1023, 65536, True]),
    "publicPortTimeout": ([1, 2**31 - 1], [0, 2**31]),
    "limitsMemory": (["0", "1", "512m", "2G", "10b"], ["", "00", "01m", "-1", "1.5g", "5t", "512 m", "512mb"]),
    "limitsMemorySwappiness": ([0, 100], [-1, 101]),
    "limitsCpus": (["0", "1.5", "16"], ["", ".5", "1.", "-1", "1,5"]),
    "limitsCpuset": (["0", "0-2", "0,3", "0-1,4"], ["", "0-", ",1", "a", "0 1"]),
    "limitsCpuShares": ([2, 262144], [1, 262145]),
    "healthCheckEnabled": ([True, False], ["true", 1, 0]),
    "healthCheckInterval": ([1], [0]),
    "healthCheckTimeout": ([1], [0]),
    "healthCheckRetries": ([1], [0]),
    "healthCheckStartPeriod": ([0, 2**31 - 1], [-1, 2**31]),
    "tags": ([[], ["aa"], ["a b", "ß-1"]], [["a"], ["Aa"], ["aa", "a"], ["<b>x"], [" aa"], [5], "aa"]),
    "environmentVariables": (
        [{"A": ""}, {"_a1": "ü #;&|<>`(){}!*?~=%^@:,"}, {"A" * 255: "x"}, {"A": "{x}", "B": "y" * 5000}],
        [
            *({"A": value} for value in ("a\nb", "a'b", 'a"b', "a\\b", "$A", "{{a}}", " a", "a ", "a\t", "a\x7fb", 5, None)),
            *({"A": value} for value in ("x POSTGRES_USER y", "PGUSER", "POSTGRES_DB", "POSTGRES_PASSWORD")),
            *({key: "x"} for key in ("A" * 256, "1A", "A-B", "Ä", "", "PGDATA", "POSTGRES_USER", "MY_PGUSER")),
        ],
    ),
    "mountPath": (["/data"], ["data", "/data ", "/<x>", ""]),
    "startTimeout": ([1, 86400], [0, 86401]),
    "url": (
        ["http://10.0.0.1:8000", "https://c.example.com/"],
        ["c.example.com", "ftp://c", "https://", "https://a:b@c", "https://c?x=1", "http://["],
    ),
    "token": (["7|abc"], ["", "7|a b", "7|abc\n", "ä"]),
    "docker": (["docker"], ["", " "]),
}  # fmt: skip
BACKUPS: dict[str, tuple[list[Any], list[Any]]] = {
    "frequency": (["daily", "@hourly", "every_minute", "0 3 * * *"], ["", "often", "@often", "0 3 * *", "0 3 * * * *", "daily "]),
    "databases": (["a", "a,b", "a-b.c_1"], ["", "a, b", "a;b", ",a", "a,", "a b"]),
    "keepAmount": ([0, 2**31 - 1], [-1, 2**31, 0.5]),
    "keepGigabytes": ([0, 0.5, 10], [-1, -0.1, True]),
    "timeout": ([60, 36000], [59, 36001]),
}


@pytest.mark.parametrize("key", LIMITS)
def test_the_last_value_that_is_allowed_and_the_first_that_is_not(key: str) -> None:
    allowed, refused = LIMITS[key]
    for value in allowed:
        assert problems(**{key: value}) == {}, value
    for value in refused:
        assert [found.partition(".")[0] for found in problems(**{key: value})] == [key], value


@pytest.mark.parametrize("key", BACKUPS)
def test_the_last_value_of_a_backup_that_is_allowed_and_the_first_that_is_not(key: str) -> None:
    allowed, refused = BACKUPS[key]
    for value in allowed:
        assert problems(backups=[{"frequency": "daily", key: value}]) == {}, value
    for value in refused:
        assert set(problems(backups=[{"frequency": "daily"}, {"frequency": "daily", key: value}])) == {f"backups[1].{key}"}, value


def test_what_takes_effect_without_a_restart() -> None:
    """All else is in the compose file, which Coolify writes at a start. The password is PostgreSQL's to change."""
    at_once = {argument for argument, field in rules.DATABASE.items() if field.api and not field.restart}
    passwords = {"postgresUser", "postgresPassword", "postgresDb"}
    assert at_once == {"name", "description", "publicPort", "publicPortTimeout", *passwords}


@pytest.mark.parametrize(
    ("backup", "key", "sentence"),
    [
        ({}, "backups[0].frequency", "cron"),
        ({"frequency": "often"}, "backups[0].frequency", "cron"),
        ({"frequency": "daily", "timeout": 5}, "backups[0].timeout", "60 to 36000"),
        ({"frequency": "daily", "keepDays": -1}, "backups[0].keepDays", "0 to keep all"),
        ({"frequency": "daily", "databases": "a;b"}, "backups[0].databases", "names of databases"),
        ({"frequency": "daily", "databases": "a", "allDatabases": True}, "backups[0].databases", "leave it out"),
        ({"frequency": "daily", "saveS3": True}, "backups[0].saveS3", "no such argument"),
        ("daily", "backups[0]", "give an object"),
    ],
)
def test_backups_are_checked(backup: Any, key: str, sentence: str) -> None:
    assert sentence in problems(backups=[backup])[key]


def test_each_backup_that_is_wrong_is_named() -> None:
    assert set(problems(backups=["daily", {"frequency": "daily"}, 5, {}])) == {"backups[0]", "backups[2]", "backups[3].frequency"}


def test_good_backups_pass() -> None:
    given = [{"frequency": "0 3 * * *", "allDatabases": True, "keepDays": 7, "s3Storage": "s3-uuid"}, {"frequency": "hourly"}]
    assert problems(backups=given) == {}


@pytest.mark.parametrize(
    ("image", "wanted", "coolifys"),
    [
        ("postgres:16-alpine", "/var/lib/postgresql/data", "/var/lib/postgresql/data"),
        ("postgres:18-alpine", "/var/lib/postgresql", "/var/lib/postgresql"),
        ("ghcr.io/a/b:pg17", "/var/lib/postgresql/data", "/var/lib/postgresql/data"),
        ("127.0.0.1:5000/x:16", "/var/lib/postgresql/data", "/var/lib/postgresql"),
        ("127.0.0.1:16/x:18", "/var/lib/postgresql", "/var/lib/postgresql/data"),
        ("x:latest", None, "/var/lib/postgresql/data"),
        ("x:2024-01", None, "/var/lib/postgresql"),
    ],
)
def test_where_the_data_belongs_and_where_coolify_would_mount_it(image: str, wanted: str | None, coolifys: str) -> None:
    assert rules.data_mount(image) == wanted
    assert mount_by_expression(image) == coolifys


@given(st.integers(14, 30), st.from_regex(r"[0-9a-f]{64}", fullmatch=True))
def test_the_registrys_port_leads_coolify_to_the_right_mount(major: int, image_id: str) -> None:
    """Whoever gives this name to Coolify's API gets the right mount, corrected or not."""
    image = f"xooo-postgres-notifications:{major}"
    name = pullable_name(image, f"sha256:{image_id}", registry_port(image))
    assert mount_by_expression(name) == rules.data_mount(name)


def test_an_images_other_registry_is_left_behind() -> None:
    assert pullable_name("ghcr.io/a/b:16", "sha256:0123456789abcdef", 16) == "127.0.0.1:16/a/b:16-0123456789ab"
    assert pullable_name("team/b:16", "sha256:0123456789abcdef", 16) == "127.0.0.1:16/team/b:16-0123456789ab"


def test_health_checks_that_are_off_have_no_settings() -> None:
    assert "healthCheckEnabled" in problems(healthCheckEnabled=False, healthCheckInterval=5)
    assert problems(healthCheckEnabled=False) == {}


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "problem"),
    [
        ("GET", "/databases/u", {"colour"}, {}, "colour is not documented"),
        ("PUT", "/databases/u", set(), {}, "PUT /databases/u is not documented"),
        ("PATCH", "/databases/u", set(), {"limits_cpus": 2}, "limits_cpus is no string"),
        ("PATCH", "/databases/u", set(), {"public_port": True}, "public_port is no integer"),
        ("PATCH", "/databases/u", set(), {"image": None}, "image is null"),
        ("PATCH", "/databases/u", set(), {"colour": "red"}, "colour is not documented"),
        ("POST", "/databases/u/backups", set(), {"enabled": True}, "frequency is missing"),
        ("DELETE", "/databases/u", {"delete_volumes"}, {}, None),
        ("PATCH", "/databases/u", set(), {"public_port": None, "is_public": False}, None),
    ],
)
def test_requests_that_coolify_does_not_document_are_found(
    method: str, path: str, query: set[str], body: dict[str, Any], problem: str | None
) -> None:
    found = undocumented(method, path, query, body)
    assert found == [] if problem is None else problem in " ".join(found)


def test_another_versions_openapi_file_is_compared(tmp_path: Path) -> None:
    """`make coolify-facts FILE=…`, on a file as the table has it, and on one that differs."""
    paths: dict[str, Any] = {}
    for method, path in [*BODIES, *QUERIES]:
        fields = {name: {"type": kind} for name, kind in BODIES.get((method, path), {}).items()}
        required = [*REQUIRED.get((method, path), ()), *MISTAKES.get((method, path), ())]
        paths.setdefault(path, {})[method.lower()] = {
            "requestBody": {"content": {"application/json": {"schema": {"properties": fields, "required": required}}}},
            "parameters": [{"name": name, "in": "query"} for name in QUERIES.get((method, path), ())],
        }
    assert differences({"paths": paths}) == []
    create = paths["/databases/postgresql"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    create["required"].append("team_uuid")
    create["properties"]["limits_cpus"] = {"$ref": "#/components/schemas/Cpus"}
    del paths["/databases/{uuid}/move"]
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps({"paths": paths}))
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tests" / "support" / "documented_requests.py", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    for word in ("team_uuid", "limits_cpus is None in the file, string here", "POST /databases/{uuid}/move: not in the file"):
        assert word in done.stdout
