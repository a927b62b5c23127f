"""The requests that Coolify's OpenAPI file documents, as far as this project makes them: the fake validates every request by it.

The file itself is not part of this repository. After an update of Coolify, compare:

    make coolify-facts FILE=openapi.json

prints how this table and that file differ; it was compared with the openapi.json of Coolify 4.3.11 (commit 379abb2), no difference.
What the file has wrong is in MISTAKES, and in docs/coolify.md.
"""

import json
import re
import sys
from typing import Any

Fields = dict[str, str]

_DATABASE: Fields = {
    **dict.fromkeys(
        ("name", "description", "image", "postgres_user", "postgres_password", "postgres_db", "postgres_conf"), "string"
    ),
    **dict.fromkeys(("limits_memory", "limits_memory_swap", "limits_memory_reservation", "limits_cpus", "limits_cpuset"), "string"),
    **dict.fromkeys(("limits_memory_swappiness", "limits_cpu_shares", "public_port", "public_port_timeout"), "integer"),
    "is_public": "boolean",
}
_PLACE: Fields = dict.fromkeys(
    ("project_uuid", "environment_name", "environment_uuid", "server_uuid", "destination_uuid"), "string"
)
_HEALTH_CHECK: Fields = {
    "health_check_enabled": "boolean",
    **{f"health_check_{name}": "integer" for name in ("interval", "timeout", "retries", "start_period")},
}
_BACKUP: Fields = {
    **dict.fromkeys(("frequency", "databases_to_backup", "s3_storage_uuid"), "string"),
    **dict.fromkeys(("enabled", "save_s3", "dump_all"), "boolean"),
    **{f"database_backup_retention_{what}_{where}": "integer" for what in ("amount", "days") for where in ("locally", "s3")},
    **{f"database_backup_retention_max_storage_{where}": "number" for where in ("locally", "s3")},
    "timeout": "integer",
}
_ONE = "/databases/{uuid}"
BODIES: dict[tuple[str, str], Fields] = {
    ("POST", "/databases/postgresql"): {**_DATABASE, **_PLACE, "instant_deploy": "boolean", "tags": "array"},
    ("PATCH", _ONE): {**_DATABASE, **_HEALTH_CHECK},
    ("POST", f"{_ONE}/start"): {},
    ("POST", f"{_ONE}/restart"): {},
    ("POST", f"{_ONE}/move"): {"environment_uuid": "string"},
    ("PATCH", f"{_ONE}/storages"): {"uuid": "string", "id": "integer", "type": "string", "mount_path": "string"},
    ("POST", f"{_ONE}/tags"): {"tag_names": "array"},
    ("POST", f"{_ONE}/backups"): _BACKUP,
    ("PATCH", f"{_ONE}/backups/{{scheduled_backup_uuid}}"): _BACKUP,
    ("POST", f"{_ONE}/envs"): {"key": "string", "value": "string"},
    ("PATCH", f"{_ONE}/envs"): {"key": "string", "value": "string"},
}
QUERIES: dict[tuple[str, str], set[str]] = {
    ("GET", "/projects"): set(),
    ("GET", "/projects/{uuid}/environments"): set(),
    ("GET", "/servers"): set(),
    ("GET", "/servers/{server_uuid}/destinations"): set(),
    ("GET", _ONE): set(),
    ("GET", f"{_ONE}/logs"): {"lines", "show_timestamps"},
    ("GET", f"{_ONE}/storages"): set(),
    ("GET", f"{_ONE}/tags"): set(),
    ("GET", f"{_ONE}/backups"): set(),
    ("GET", f"{_ONE}/envs"): set(),
    ("DELETE", _ONE): {"delete_configurations", "delete_volumes", "docker_cleanup", "delete_connected_networks"},
    ("DELETE", f"{_ONE}/tags/{{tag_uuid}}"): set(),
    ("DELETE", f"{_ONE}/backups/{{scheduled_backup_uuid}}"): {"delete_s3"},
    ("DELETE", f"{_ONE}/envs/{{env_uuid}}"): set(),
}
REQUIRED: dict[tuple[str, str], set[str]] = {
    ("POST", "/databases/postgresql"): {"project_uuid", "server_uuid"},
    ("POST", f"{_ONE}/move"): {"environment_uuid"},
    ("PATCH", f"{_ONE}/storages"): {"type"},
    ("POST", f"{_ONE}/backups"): {"frequency"},
    ("PATCH", f"{_ONE}/envs"): {"key", "value"},
}
# Where the file is wrong: it requires both fields of which one is enough, and does not say that null takes a setting back.
MISTAKES = {("POST", "/databases/postgresql"): {"environment_name", "environment_uuid"}}
NULLABLE = {"description", "limits_cpuset", "public_port"}

_PYTHON: dict[str, tuple[type, ...]] = {
    **{"string": (str,), "boolean": (bool,), "integer": (int,), "number": (int, float), "array": (list,)},
}


def problems(method: str, path: str, query: set[str], body: dict[str, Any]) -> list[str]:
    """What the file does not document about a request."""
    matching = [
        (verb, template)
        for verb, template in [*BODIES, *QUERIES]
        if verb == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
    ]
    if not matching:
        return [f"{method} {path} is not documented"]
    endpoint = matching[0]
    fields = BODIES.get(endpoint, {})
    found = [f"{method} {path}: {name} is missing" for name in REQUIRED.get(endpoint, set()) - body.keys()]
    found += [f"{method} {path}: ?{name} is not documented" for name in query - QUERIES.get(endpoint, set())]
    for name, value in body.items():
        if name not in fields:
            found.append(f"{method} {path}: {name} is not documented")
        elif value is None:
            found += [] if name in NULLABLE else [f"{method} {path}: {name} is null"]
        elif not isinstance(value, _PYTHON[fields[name]]) or (isinstance(value, bool) and fields[name] != "boolean"):
            found.append(f"{method} {path}: {name} is no {fields[name]}")
    return found


def differences(openapi: dict[str, Any]) -> list[str]:
    """Where this table says something else than the file, its known mistakes aside."""
    found = []
    for method, path in [*BODIES, *QUERIES]:
        operation = openapi["paths"].get(path, {}).get(method.lower())
        if operation is None:
            found.append(f"{method} {path}: not in the file")
            continue
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        documented = {name: field.get("type") for name, field in body.get("properties", {}).items()}
        for name, kind in BODIES.get((method, path), {}).items():
            if documented.get(name) != kind:
                found.append(f"{method} {path}: {name} is {documented.get(name)} in the file, {kind} here")
        required = set(body.get("required", [])) - MISTAKES.get((method, path), set())
        if required != REQUIRED.get((method, path), set()):
            found.append(f"{method} {path}: the file requires {sorted(required)}")
        parameters = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        for name in QUERIES.get((method, path), set()) - parameters:
            found.append(f"{method} {path}: ?{name} is not in the file")
    return found


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        different = differences(json.load(file))
    print("\n".join(different) or "no difference: the rules of Coolify 4.3.11 hold, as far as that file tells")
    sys.exit(bool(different))
