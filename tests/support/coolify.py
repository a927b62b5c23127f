"""A Coolify for tests: an HTTP server that keeps Coolify 4.3.11's rules, and runs what it is told on the real Docker engine.

Every rule was read in Coolify's source (docs/coolify.md says where) or measured at a real one; nothing of that source is here. What
is simplified: one team; containers are started by the `docker` commands that Coolify's compose file amounts to; the proxy of a
public port is a thread here instead of an nginx; a minute is a second (`FakeCoolify.minute`).
"""

import base64
import binascii
import contextlib
import json
import queue
import re
import secrets
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from tests.support.docker import docker
from tests.support.documented_requests import problems

Json = dict[str, Any]

CREATE_FIELDS = {
    *("name", "description", "image", "public_port", "public_port_timeout", "is_public", "project_uuid", "environment_name"),
    *("environment_uuid", "server_uuid", "destination_uuid", "instant_deploy", "limits_memory", "limits_memory_swap"),
    *(
        "limits_memory_swappiness",
        "limits_memory_reservation",
        "limits_cpus",
        "limits_cpuset",
        "limits_cpu_shares",
        "postgres_user",
    ),
    *("postgres_password", "postgres_db", "postgres_initdb_args", "postgres_host_auth_method", "postgres_conf", "tags"),
}
# Dropped before unknown fields are looked for.
DROPPED = {
    *("project_uuid", "environment_name", "environment_uuid", "destination_uuid", "server_uuid", "type", "domains"),
    *("instant_deploy", "tags"),
}
HEALTH_FIELDS = {f"health_check_{name}" for name in ("enabled", "interval", "timeout", "retries", "start_period")}
PATCH_FIELDS = (CREATE_FIELDS - DROPPED) | HEALTH_FIELDS
BACKUP_FIELDS = {
    *("save_s3", "enabled", "dump_all", "frequency", "databases_to_backup", "s3_storage_uuid", "timeout", "backup_now"),
    *(f"database_backup_retention_{what}_{where}" for what in ("amount", "days", "max_storage") for where in ("locally", "s3")),
}
STRINGS = {
    *("name", "image", "limits_memory", "limits_memory_swap", "limits_memory_reservation", "limits_cpus", "postgres_conf"),
    *("postgres_initdb_args", "postgres_host_auth_method"),
}
HIDDEN = {"postgres_password", "init_scripts", "internal_db_url", "external_db_url"}
CRON_NAMES = {
    "every_minute",
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "yearly",
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "@yearly",
}


class Refusal(Exception):
    """An answer other than the one that was hoped for."""

    def __init__(self, status: int, body: Json, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status, self.body, self.headers = status, body, headers or {}


def invalid(**errors: str) -> Refusal:
    return Refusal(422, {"message": "Validation failed.", "errors": errors})


def mount_by_expression(image: str) -> str:
    """Where Coolify mounts the volume of a new database: by the first number after a colon, be it a registry's port."""
    match = re.search(r":(?:pg)?(\d+)", image, re.IGNORECASE)
    return "/var/lib/postgresql" if match and int(match[1]) >= 18 else "/var/lib/postgresql/data"


# What Laravel takes for blank at either end of a string, beside `\s`.
_BLANK = "\\s\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b-\\u200f\\u2060-\\u206f\\u2800\\u3164\\ufeff\\uffa0"


def as_laravel_takes_it(value: Any) -> Any:
    """What the framework makes of a body before the API sees it: strings are trimmed, empty ones are null."""
    if isinstance(value, str):
        return re.sub(f"^[{_BLANK}]+|[{_BLANK}]+$", "", value) or None
    if isinstance(value, list):
        return [as_laravel_takes_it(item) for item in value]
    if isinstance(value, dict):
        return {key: as_laravel_takes_it(item) for key, item in value.items()}
    return value


def without_tags(text: str | None) -> str:
    """A name or a description as it is stored (PHP's strip_tags)."""
    return re.sub(r"<(?!\s)[^>]*>?", "", text or "").replace("\0", "")


def _escaped(value: str) -> str:
    """What becomes of a variable's value on its way into the container."""
    return re.sub(r"([\\\"'])", r"\\\1", value)


@dataclass
class Database:
    """A row of Coolify's table, with what belongs to it."""

    uuid: str
    fields: Json
    environment_id: int
    destination: Json
    number: int
    status: str = "exited:unhealthy"
    last_online_at: str | None = None
    storages: list[Json] = field(default_factory=list)
    tags: list[Json] = field(default_factory=list)
    backups: list[Json] = field(default_factory=list)
    variables: list[Json] = field(default_factory=list)
    deleted: bool = False
    container: str | None = None
    """Without an engine: what stands for the container's id."""
    proxy: "Proxy | None" = None

    def set_status(self, status: str) -> None:
        """Whether it is another one or not, the record says when it was reported."""
        self.status, self.last_online_at = status, f"{time.time():.6f}"


class Proxy(socketserver.ThreadingTCPServer):
    """The proxy of a public port: passes connections on to a container. Its port is fixed when it is made, as nginx's is."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, timeout: int, container: str, without_engine: bool) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                if without_engine:
                    self.request.recv(8)
                    self.request.sendall(b"N")
                    return
                address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)
                with socket.create_connection((address, 5432)) as upstream:
                    threading.Thread(target=_pump, args=(upstream, self.request), daemon=True).start()
                    _pump(self.request, upstream)

        super().__init__(("127.0.0.1", port), Handler)
        self.timeout_of_idle = timeout
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class FakeCoolify:
    """The server; use as a context manager.

    :ivar requests: every request as (method, path, body).
    :ivar undocumented: what of them Coolify's OpenAPI file does not have.
    :ivar commands: every line that ran on the host.
    :ivar without_engine: whether to only note the commands and to report every start as a success.
    :ivar minute: seconds between two looks at the containers; it can be changed while it runs.
    :ivar lag: seconds from a look until all that it saw is written down.
    """

    def __init__(self, folder: Path, network: str) -> None:
        """
        :param folder: where files that it mounts into containers go, as /data/coolify does.
        :param network: the Docker network of its destination.
        """
        self._folder = folder
        self.token = f"1|{secrets.token_hex(20)}"
        self.abilities = {"read", "write", "deploy"}
        self.api_enabled = True
        self.allowed_address = True
        self.minute, self.lag = 0.6, 0.08
        self.healthy_by_itself = True
        self.ignore_mounts = False
        self.without_engine = False
        self.requests: list[tuple[str, str, Json]] = []
        self.undocumented: list[str] = []
        self.commands: list[str] = []
        self.errors: list[str] = []
        self.answer_first: list[Refusal] = []
        self.projects = [
            {"id": 1, "uuid": "project-shop", "name": "shop", "description": None},
            {"id": 2, "uuid": "project-other", "name": "other", "description": None},
        ]
        self.environments: dict[str, list[Json]] = {
            "project-shop": [
                {"id": 11, "uuid": "environment-production", "name": "production"},
                {"id": 12, "uuid": "environment-staging", "name": "staging"},
            ],
            "project-other": [{"id": 21, "uuid": "environment-elsewhere", "name": "production"}],
        }
        self.servers: list[Json] = [
            {
                **{"id": 0, "uuid": "server-one", "name": "localhost", "ip": "host.docker.internal", "user": "root", "port": 22},
                "settings": {"delete_unused_volumes": False, "a_setting_of_versions_to_come": []},
            }
        ]
        self.destinations = {"server-one": [{"uuid": "destination-one", "name": "coolify", "network": network}]}
        self.s3_storages = {"s3-one": 1, "s3-two": 2}
        self.databases: dict[str, Database] = {}
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FakeCoolify":
        self._threads = [threading.Thread(target=self._server.serve_forever, args=(0.05,)), threading.Thread(target=self._work)]
        self._threads.append(threading.Thread(target=self._look_once_a_minute))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._jobs.put(None)
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for database in self.databases.values():
            if database.proxy:
                database.proxy.end()
        for database in [] if self.without_engine else self.databases.values():
            docker("rm", "-fv", database.uuid, check=False)
            for storage in database.storages:
                docker("volume", "rm", "-f", storage["name"], check=False)

    def settle(self) -> None:
        """Waits until the queue is empty."""
        self._jobs.join()

    # The queue

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:
                self.errors.append(str(error))
            finally:
                self._jobs.task_done()

    def _run(self, *words: str, check: bool = True) -> str:
        self.commands.append(" ".join(["docker", *words]))
        return "" if self.without_engine else docker(*words, check=check)

    def _start(self, database: Database) -> None:
        values = database.fields
        self._run("pull", "-q", values["image"])  # a failure ends the job, and nothing tells the API
        self._run("stop", "-t", "10", database.uuid, check=False)
        self._run("rm", "-f", database.uuid, check=False)
        conf = values["postgres_conf"]
        words = ["--name", database.uuid, "--network", database.destination["network"], "--restart", "unless-stopped"]
        for label in ("managed=true", "type=database", f"databaseId={database.number}", "database.subType=standalone-postgresql"):
            words += ["--label", f"coolify.{label}"]
        variables = [f"{variable['key']}={_escaped(variable['value'] or '')}" for variable in database.variables]
        names = {"POSTGRES_USER": "postgres_user", "PGUSER": "postgres_user", "POSTGRES_DB": "postgres_db"}
        for variable, name in (names | {"POSTGRES_PASSWORD": "postgres_password"}).items():
            if not any(variable in other for other in variables):  # a mere mention is enough
                words += ["-e", f"{variable}={values[name]}"]
        for variable in variables:
            words += ["-e", variable]
        for storage in database.storages:
            words += ["-v", f"{storage['name']}:{storage['mount_path']}"]
        if values["health_check_enabled"]:
            # Coolify asks over the socket after 15 seconds. Asked at once, as here, the server of the first initialization would
            # answer there, which takes nobody else's connections yet: hence over TCP.
            check = f"psql -h 127.0.0.1 -U {values['postgres_user']} -d {values['postgres_db']} -c 'SELECT 1'"
            words += ["--health-cmd", check, "--health-interval", "200ms", "--health-start-period", "1s"]
            words += [
                "--health-timeout",
                f"{values['health_check_timeout']}s",
                "--health-retries",
                str(values["health_check_retries"]),
            ]
        if values["limits_memory"] != "0":
            words += ["--memory", values["limits_memory"]]
        command: list[str] = []
        if conf and conf.strip():
            if "listen_addresses" not in conf:
                conf = values["postgres_conf"] = conf + "\nlisten_addresses = '*'"
            file = self._folder / database.uuid
            file.write_text(conf)
            words += ["-v", f"{file}:/etc/postgresql/postgresql.conf:ro"]
            command = ["postgres", "-c", "config_file=/etc/postgresql/postgresql.conf"]
        self._run("run", "-d", *words, values["image"], *command)
        if self.without_engine:
            database.container = secrets.token_hex(6)
        if values["is_public"] and values["public_port"]:
            self._start_proxy(database)

    def _start_proxy(self, database: Database) -> None:
        self._stop_proxy(database)
        values = database.fields
        try:
            database.proxy = Proxy(values["public_port"], values["public_port_timeout"], database.uuid, self.without_engine)
        except OSError:  # the port is taken on the host: Coolify takes the setting back, and tells by e-mail
            values["is_public"] = False

    def _stop_proxy(self, database: Database) -> None:
        if database.proxy:
            database.proxy.end()
            database.proxy = None

    def _stop(self, database: Database, cleanup: bool = False) -> None:
        self._run("stop", "-t", "30", database.uuid, check=False)
        self._run("rm", "-f", database.uuid, check=False)
        database.container = None
        database.set_status("exited:unhealthy")
        if cleanup:
            self.commands.append("cleanup")
        if database.fields["is_public"]:
            self._stop_proxy(database)

    def _restart(self, database: Database) -> None:
        self._stop(database)
        self._start(database)

    def _delete(self, database: Database, volumes: bool, cleanup: bool) -> None:
        self._stop(database)
        if cleanup:
            self.commands.append("cleanup")
        if volumes:
            for storage in database.storages:
                self._run("volume", "rm", "-f", storage["name"], check=False)
        database.deleted = True

    def _look_once_a_minute(self) -> None:
        while not self._ended.wait(self.minute):
            if self.healthy_by_itself:
                self.look()

    def look(self) -> None:
        """What the check of each minute does: it looks at all containers, and takes its time to write what it saw."""
        databases = [database for database in self.databases.values() if not database.deleted]
        seen = {database.uuid: self._container_status(database) for database in databases}
        self._ended.wait(self.lag)
        for database in databases:
            status = seen[database.uuid]
            if status is not None:
                database.set_status(status)
            elif not database.status.startswith("exited"):
                database.set_status("exited:unhealthy")

    def _container_status(self, database: Database) -> str | None:
        if self.without_engine:
            return "running:healthy" if database.container else None
        form = "{{.State.Status}}:{{if .State.Health}}{{.State.Health.Status}}{{else}}unknown{{end}}"
        return docker("inspect", "--format", form, database.uuid, check=False) or None

    # The API

    def answer(self, method: str, path: str, query: dict[str, str], body: Json | None, token: str) -> Any:
        if self.answer_first:
            raise self.answer_first.pop(0)
        if not self.api_enabled:
            raise Refusal(403, {"success": True, "message": "API is disabled."})
        if not self.allowed_address:
            raise Refusal(403, {"success": True, "message": "You are not allowed to access the API."})
        if token != self.token:
            raise Refusal(401, {"message": "Unauthenticated."})
        action = re.search(r"/databases/[^/]+/(start|stop|restart)$", path)
        ability = "read" if method == "GET" else "deploy" if action else "write"
        if ability not in self.abilities:
            raise Refusal(403, {"message": f"Missing required permissions: {ability}"})
        if method in ("POST", "PATCH") and not action and not body:
            raise Refusal(400, {"message": "Invalid request.", "error": "Empty JSON."})
        if action:
            body = {**query, **(body or {})}  # Laravel looks in both
        for pattern, verb, handle in self._routes():
            if verb == method and (match := re.fullmatch(pattern, path)):
                return handle(*match.groups(), **({"query": query} if verb in ("DELETE", "GET") else {"body": body or {}}))
        raise Refusal(404, {"message": "Not found.", "docs": "https://coolify.io/docs"})

    def _routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        one = "/databases/([^/]+)"
        return [
            ("/projects", "GET", lambda query: self.projects),
            ("/projects/([^/]+)/environments", "GET", lambda uuid, query: self._listed(self.environments, uuid, "Project")),
            ("/servers", "GET", lambda query: self.servers),
            ("/servers/([^/]+)/destinations", "GET", lambda uuid, query: self._listed(self.destinations, uuid, "Server")),
            ("/databases/postgresql", "POST", self._create),
            (one, "GET", lambda uuid, query: self._show(uuid)),
            (one, "PATCH", self._patch),
            (one, "DELETE", self._remove),
            (f"{one}/start", "POST", lambda uuid, body: self.act(uuid, "start")),
            (
                f"{one}/stop",
                "POST",
                lambda uuid, body: self.act(uuid, "stop", str(body.get("docker_cleanup", True)) in ("True", "true", "1")),
            ),
            (f"{one}/restart", "POST", lambda uuid, body: self.act(uuid, "restart")),
            (f"{one}/move", "POST", self._move),
            (f"{one}/logs", "GET", self._logs),
            (f"{one}/storages", "GET", lambda uuid, query: {"persistent_storages": self._find(uuid).storages, "file_storages": []}),
            (f"{one}/storages", "PATCH", self._patch_storage),
            (f"{one}/tags", "GET", lambda uuid, query: self._find(uuid).tags),
            (f"{one}/tags", "POST", self._add_tags),
            (f"{one}/tags/([^/]+)", "DELETE", self._remove_tag),
            (f"{one}/envs", "GET", lambda uuid, query: self._variables(uuid)),
            (f"{one}/envs", "POST", self._add_variable),
            (f"{one}/envs", "PATCH", self._patch_variable),
            (f"{one}/envs/([^/]+)", "DELETE", self._remove_variable),
            (f"{one}/backups", "GET", lambda uuid, query: self._find(uuid).backups),
            (f"{one}/backups", "POST", self._add_backup),
            (f"{one}/backups/([^/]+)", "PATCH", self._patch_backup),
            (f"{one}/backups/([^/]+)", "DELETE", self._remove_backup),
        ]

    def _listed(self, lists: dict[str, list[Json]], uuid: str, what: str) -> list[Json]:
        if uuid not in lists:
            raise Refusal(404, {"message": f"{what} not found."})
        return lists[uuid]

    def _find(self, uuid: str) -> Database:
        if uuid not in self.databases or self.databases[uuid].deleted:
            raise Refusal(404, {"message": "Database not found."})
        return self.databases[uuid]

    def _create(self, body: Json) -> Json:
        if extra := set(body) - CREATE_FIELDS:
            raise invalid(**dict.fromkeys(extra, "This field is not allowed."))
        if not body.get("environment_uuid") and not body.get("environment_name"):
            raise Refusal(422, {"message": "You need to provide at least one of environment_name or environment_uuid."})
        if body.get("is_public") and not body.get("public_port"):
            body["is_public"] = False
        environments = self._listed(self.environments, body.get("project_uuid", ""), "Project")
        environment = next((e for e in environments if e["name"] == body.get("environment_name")), None) or next(
            (e for e in environments if e["uuid"] == body.get("environment_uuid")), None
        )
        if environment is None:
            raise Refusal(422, {"message": "You need to provide a valid environment_name or environment_uuid."})
        destinations = self._listed(self.destinations, body.get("server_uuid", ""), "Server")
        if len(destinations) > 1 and "destination_uuid" not in body:
            raise Refusal(400, {"message": "Server has multiple destinations and you do not set destination_uuid."})
        wanted = body["destination_uuid"] if len(destinations) > 1 else destinations[0]["uuid"]
        destination = next((d for d in destinations if d["uuid"] == wanted), None)
        if destination is None:
            raise invalid(destination_uuid="Provided destination_uuid does not belong to the specified server.")
        if body.get("is_public") and self._port_taken(body["public_port"]):
            raise Refusal(400, {"message": "Public port already used by another database."})
        if any(not isinstance(tag, str) or len(tag.strip()) < 2 for tag in body.get("tags") or []):
            raise invalid(tags="Each tag name must be at least 2 characters after sanitization.")
        if body.get("public_port") and not 1024 <= body["public_port"] <= 65535:
            raise invalid(public_port="The public port should be between 1024 and 65535.")
        self._validate(body)

        uuid = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(24))
        fields: Json = {
            **{"name": f"postgresql-database-{uuid}", "description": None, "image": "postgres:16-alpine"},
            **{"postgres_user": "postgres", "postgres_db": "postgres", "postgres_password": secrets.token_hex(32)},
            **{"postgres_initdb_args": None, "postgres_host_auth_method": None, "postgres_conf": None, "init_scripts": None},
            **{"is_public": False, "public_port": None, "public_port_timeout": 3600, "limits_memory": "0"},
            **{"limits_memory_swap": "0", "limits_memory_swappiness": 60, "limits_memory_reservation": "0", "limits_cpus": "0"},
            **{"limits_cpuset": None, "limits_cpu_shares": 1024, "health_check_enabled": True, "health_check_interval": 15},
            **{"health_check_timeout": 5, "health_check_retries": 5, "health_check_start_period": 5},
        }
        fields |= self._stored({name: value for name, value in body.items() if name not in DROPPED})
        self._decode_conf(body, fields)
        mount = mount_by_expression(fields["image"])
        number = len(self.databases) + 1
        storage = {"id": number, "uuid": f"storage-{uuid}", "name": f"postgres-data-{uuid}", "mount_path": mount, "host_path": None}
        database = Database(uuid, fields, environment["id"], destination, number, storages=[storage])
        database.tags = [{"uuid": f"tag-{name}", "name": name} for name in dict.fromkeys(body.get("tags") or [])]
        self.databases[uuid] = database
        if body.get("instant_deploy"):
            self._jobs.put(lambda: self._start(database))
        created = {"uuid": uuid, "internal_db_url": self._url(database, uuid, 5432)}
        if fields["is_public"] and fields["public_port"]:
            created["external_db_url"] = self._url(database, "127.0.0.1", fields["public_port"])
        return created

    def _stored(self, body: Json) -> Json:
        """A body as it gets into the table."""
        body = body | {name: without_tags(body[name]) for name in ("name", "description") if name in body}
        if len(body.get("description", "")) > 255:
            raise Refusal(500, {"message": "Server Error"})  # the column's length, which nothing checks
        return body

    def _validate(self, body: Json) -> None:
        for name in STRINGS & set(body):
            if not isinstance(body[name], str):
                raise invalid(**{name: f"The {name} field must be a string."})
        for name in {"postgres_user", "postgres_db"} & set(body):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", str(body[name])):
                raise invalid(**{name: f"The {name} field format is invalid."})
        password = body.get("postgres_password")
        if password is not None and not re.fullmatch(r"[A-Za-z0-9!@#%^*()_+\-=\[\]{}:,.?/~]{1,128}", password):
            raise invalid(postgres_password="The postgres_password field format is invalid.")

    def _decode_conf(self, body: Json, fields: Json) -> None:
        if "postgres_conf" in body:
            try:
                fields["postgres_conf"] = base64.b64decode(body["postgres_conf"], validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                raise invalid(postgres_conf="The postgres_conf should be base64 encoded.") from None

    def _port_taken(self, port: int, but: str = "") -> bool:
        return any(d.fields["public_port"] == port and d.fields["is_public"] and d.uuid != but for d in self.databases.values())

    def _url(self, database: Database, host: str, port: int) -> str:
        values = database.fields
        user, password = quote(values["postgres_user"], safe=""), quote(values["postgres_password"], safe="")
        return f"postgres://{user}:{password}@{host}:{port}/{values['postgres_db']}"

    def _show(self, uuid: str) -> Json:
        database = self._find(uuid)
        server = self.servers[0]
        public = database.fields["is_public"] and database.fields["public_port"]
        shown = {
            **database.fields,
            **{"uuid": uuid, "status": database.status, "last_online_at": database.last_online_at},
            **{"environment_id": database.environment_id, "destination": {**database.destination, "server": server}},
            **{"internal_db_url": self._url(database, uuid, 5432), "database_type": "standalone-postgresql"},
            "external_db_url": self._url(database, "127.0.0.1", database.fields["public_port"]) if public else None,
            **{"enable_ssl": False, "ssl_mode": "require", "a_field_of_versions_to_come": {"name": "x", "status": "x"}},
        }
        return shown if "read:sensitive" in self.abilities else {key: value for key, value in shown.items() if key not in HIDDEN}

    def _patch(self, uuid: str, body: Json) -> Json:
        body = {name: value for name, value in body.items() if name not in DROPPED}
        database = self._find(uuid)
        if extra := set(body) - PATCH_FIELDS:
            raise invalid(**dict.fromkeys(extra, "This field is not allowed."))
        self._validate(body)
        for name in HEALTH_FIELDS - {"health_check_enabled"} & set(body):
            if name in body and (not isinstance(body[name], int) or body[name] < 0):
                raise invalid(**{name: f"The {name} field must be an integer."})
        if body.get("is_public") and body.get("public_port") and self._port_taken(body["public_port"], uuid):
            raise Refusal(400, {"message": "Public port already used by another database."})
        was_public = database.fields["is_public"]
        database.fields |= self._stored(body)
        self._decode_conf(body, database.fields)
        # Another port or timeout alone reaches no proxy.
        if body.get("is_public") is False and was_public:
            self._jobs.put(lambda: self._stop_proxy(database))
        if body.get("is_public") is True and body.get("public_port") and not was_public:
            self._jobs.put(lambda: self._start_proxy(database))
        return {"message": "Database updated."}

    def _remove(self, uuid: str, query: dict[str, str]) -> Json:
        database = self._find(uuid)
        flags = ("delete_volumes", "delete_configurations", "delete_connected_networks", "docker_cleanup")
        given = {flag: query.get(flag, "true") in ("1", "true", "on", "yes") for flag in flags}
        self._jobs.put(lambda: self._delete(database, given["delete_volumes"], given["docker_cleanup"]))
        return {"message": "Database deletion request queued."}

    def act(self, uuid: str, action: str, cleanup: bool = True) -> Json:
        database = self._find(uuid)
        if action == "start" and "running" in database.status:
            raise Refusal(400, {"message": "Database is already running."})
        if action == "stop" and "exited" in database.status:
            raise Refusal(400, {"message": "Database is already stopped."})
        if action == "stop":
            self._jobs.put(lambda: self._stop(database, cleanup))
        else:
            # Whatever else is queued: after two starts the second has killed what the first one started.
            work = {"start": self._start, "restart": self._restart}[action]
            self._jobs.put(lambda: work(database))
        return {"message": f"Database {action}ing request queued."}

    def _move(self, uuid: str, body: Json) -> Json:
        database = self._find(uuid)
        found = [e for all_of in self.environments.values() for e in all_of if e["uuid"] == body.get("environment_uuid")]
        if not found:
            raise Refusal(404, {"message": "Target environment not found or not owned by your team."})
        if found[0]["id"] == database.environment_id:
            raise Refusal(400, {"message": "Database is already in this environment."})
        database.environment_id = found[0]["id"]
        return {"message": "Database moved successfully."}

    def _logs(self, uuid: str, query: dict[str, str]) -> Json:
        database = self._find(uuid)
        if self.without_engine:
            if database.container is None:
                raise Refusal(400, {"message": "Database is not running."})
            return {"logs": f"container {database.container}"}
        if docker("inspect", "--format", "{{.State.Status}}", uuid, check=False) != "running":
            raise Refusal(400, {"message": "Database is not running."})
        run = subprocess.run(
            [
                *("docker", "logs", "--tail", str(min(int(query.get("lines", "100")), 10000))),
                *(["--timestamps"] if query.get("show_timestamps") in ("1", "true") else []),
                uuid,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if run.returncode:  # gone since it was asked for
            raise Refusal(500, {"message": "Server Error"})
        return {"logs": run.stdout}

    def _patch_storage(self, uuid: str, body: Json) -> Json:
        database = self._find(uuid)
        if extra := set(body) - {"uuid", "id", "type", "is_preview_suffix_enabled", "name", "mount_path", "host_path", "content"}:
            raise invalid(**dict.fromkeys(extra, "This field is not allowed."))
        if body.get("type") not in ("persistent", "file"):
            raise invalid(type="The selected type is invalid.")
        key = "uuid" if "uuid" in body else "id"
        if key not in body:
            raise invalid(uuid="Either uuid or id is required.")
        for storage in database.storages:
            if storage[key] == body[key]:
                if not self.ignore_mounts:
                    storage |= {name: body[name] for name in ("name", "mount_path", "host_path") if name in body}
                return storage
        raise Refusal(404, {"message": "Storage not found."})

    def _add_tags(self, uuid: str, body: Json) -> list[Json]:
        database = self._find(uuid)
        if set(body) - {"tag_name", "tag_names"} or ("tag_name" in body) == ("tag_names" in body):
            raise invalid(tag_name="Provide either tag_name or tag_names, not both.")
        names = body["tag_names"] if "tag_names" in body else [body["tag_name"]]
        there = {tag["name"] for tag in database.tags}
        database.tags += [{"uuid": f"tag-{name}", "name": name} for name in names if name not in there]
        return database.tags

    def _remove_tag(self, uuid: str, tag: str, query: dict[str, str]) -> Json:
        database = self._find(uuid)
        if not any(one["uuid"] == tag for one in database.tags):
            raise Refusal(404, {"message": "Tag not found."})
        database.tags = [one for one in database.tags if one["uuid"] != tag]
        return {"message": "Tag removed."}

    def _variables(self, uuid: str) -> list[Json]:
        return [self._shown_variable(one) for one in self._find(uuid).variables]

    def _shown_variable(self, variable: Json) -> Json:
        hidden = set() if "read:sensitive" in self.abilities else {"value"}
        return {key: value for key, value in variable.items() if key not in hidden}

    def _checked_variable(self, body: Json) -> Json:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", str(body.get("key", ""))):
            raise invalid(key="The key field format is invalid.")
        if not isinstance(body.get("value"), str | None):
            raise invalid(value="The value field must be a string.")
        return {"key": body["key"], "value": body.get("value"), "is_literal": False, "is_multiline": False, "comment": None}

    def _add_variable(self, uuid: str, body: Json) -> Json:
        database, variable = self._find(uuid), self._checked_variable(body)
        if any(one["key"] == variable["key"] for one in database.variables):
            raise Refusal(409, {"message": "Environment variable already exists. Use PATCH request to update it."})
        database.variables.append({"uuid": f"variable-{secrets.token_hex(6)}", **variable})
        return self._shown_variable(database.variables[-1])

    def _patch_variable(self, uuid: str, body: Json) -> Json:
        variable = self._checked_variable(body)
        for one in self._find(uuid).variables:
            if one["key"] == variable["key"]:
                one.update(variable)
                return self._shown_variable(one)
        raise Refusal(404, {"message": "Environment variable not found."})

    def _remove_variable(self, uuid: str, variable: str, query: dict[str, str]) -> Json:
        database = self._find(uuid)
        if not any(one["uuid"] == variable for one in database.variables):
            raise Refusal(404, {"message": "Environment variable not found."})
        database.variables = [one for one in database.variables if one["uuid"] != variable]
        return {"message": "Environment variable deleted."}

    def _checked_backup(self, body: Json) -> Json:
        frequency = body.get("frequency")
        if frequency is not None and frequency not in CRON_NAMES and len(frequency.split()) != 5:
            raise invalid(frequency="Invalid cron expression or frequency format.")
        if body.get("save_s3") and not body.get("s3_storage_uuid"):
            raise invalid(s3_storage_uuid="The s3_storage_uuid field is required when save_s3 is true.")
        if body.get("save_s3") and body["s3_storage_uuid"] not in self.s3_storages:
            raise invalid(s3_storage_uuid="The selected S3 storage is invalid for this team.")
        if extra := set(body) - BACKUP_FIELDS:
            raise invalid(**dict.fromkeys(extra, "This field is not allowed."))
        if not 60 <= body.get("timeout", 3600) <= 36000:
            raise invalid(timeout="The timeout field must be between 60 and 36000.")
        return {
            **{name: value for name, value in body.items() if name != "s3_storage_uuid"},
            "s3_storage_id": self.s3_storages[body["s3_storage_uuid"]] if body.get("save_s3") else None,
        }

    def _add_backup(self, uuid: str, body: Json) -> Json:
        database = self._find(uuid)
        if "frequency" not in body:
            raise invalid(frequency="The frequency field is required.")
        defaults = {
            "enabled": True,
            "save_s3": False,
            "dump_all": False,
            "databases_to_backup": database.fields["postgres_db"],
            "timeout": 3600,
        }
        backup = {"uuid": f"backup-{secrets.token_hex(6)}", **defaults, **self._checked_backup(body)}
        database.backups.append(backup)
        return {"uuid": backup["uuid"], "message": "Backup configuration created successfully."}

    def _patch_backup(self, uuid: str, backup: str, body: Json) -> Json:
        for one in self._find(uuid).backups:
            if one["uuid"] == backup:
                one.update(self._checked_backup(body))
                return {"message": "Database backup configuration updated"}
        raise Refusal(404, {"message": "Backup config not found."})

    def _remove_backup(self, uuid: str, backup: str, query: dict[str, str]) -> Json:
        database = self._find(uuid)
        if not any(one["uuid"] == backup for one in database.backups):
            raise Refusal(404, {"message": "Backup configuration not found."})
        database.backups = [one for one in database.backups if one["uuid"] != backup]
        return {"message": "Backup configuration and all executions deleted."}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                parts = urlsplit(self.path)
                path = parts.path.removeprefix("/api/v1")
                query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
                length = int(self.headers.get("Content-Length") or 0)
                text = self.rfile.read(length)
                body: Json | None = json.loads(text) if text and text != b"null" else None
                fake.undocumented += problems(self.command, path, set(query), body or {})
                fake.requests.append((self.command, self.path.removeprefix("/api/v1"), body or {}))
                headers: dict[str, str] = {}
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                try:
                    result = fake.answer(self.command, path, query, as_laravel_takes_it(body), token)
                    created = (self.command == "POST" and not re.search("/(start|stop|restart|move)$", path)) or (
                        self.command == "PATCH" and path.endswith("/envs")
                    )
                    status = 201 if created else 200
                except Refusal as refusal:
                    status, result, headers = refusal.status, refusal.body, refusal.headers
                data = json.dumps(result).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
