"""A database in Coolify: how it is created, read, changed and deleted through the API, in the order that keeps its data.

Arguments and state are plain dictionaries with the names that the schema has. Nothing here knows of Pulumi.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from . import rules
from .client import Coolify, CoolifyError

State = dict[str, Any]
Log = Callable[[str], None]

# Argument → field of the API, its value where the argument is not given, and whether only a restart makes it true.
_FIELDS: dict[str, tuple[str, Any, bool]] = {
    "name": ("name", None, False),
    "description": ("description", None, False),
    "image": ("image", None, True),
    "publicPortTimeout": ("public_port_timeout", 3600, False),
    "limitsMemory": ("limits_memory", "0", True),
    "limitsMemorySwap": ("limits_memory_swap", "0", True),
    "limitsMemorySwappiness": ("limits_memory_swappiness", 60, True),
    "limitsMemoryReservation": ("limits_memory_reservation", "0", True),
    "limitsCpus": ("limits_cpus", "0", True),
    "limitsCpuset": ("limits_cpuset", None, True),
    "limitsCpuShares": ("limits_cpu_shares", 1024, True),
}
_HEALTH_CHECK: dict[str, tuple[str, Any, bool]] = {
    "healthCheckEnabled": ("health_check_enabled", True, True),
    "healthCheckInterval": ("health_check_interval", 15, True),
    "healthCheckTimeout": ("health_check_timeout", 5, True),
    "healthCheckRetries": ("health_check_retries", 5, True),
    "healthCheckStartPeriod": ("health_check_start_period", 5, True),
}
_BACKUP_FIELDS: dict[str, tuple[str, Any]] = {
    "frequency": ("frequency", None),
    "enabled": ("enabled", True),
    "allDatabases": ("dump_all", False),
    "databases": ("databases_to_backup", None),
    "keepAmount": ("database_backup_retention_amount_locally", None),
    "keepDays": ("database_backup_retention_days_locally", None),
    "keepGigabytes": ("database_backup_retention_max_storage_locally", None),
    "keepAmountS3": ("database_backup_retention_amount_s3", None),
    "keepDaysS3": ("database_backup_retention_days_s3", None),
    "keepGigabytesS3": ("database_backup_retention_max_storage_s3", None),
    "timeout": ("timeout", None),
}
# Start writes this line into a configuration that does not say where to listen, and stores it.
_ADDED_TO_CONF = "\nlisten_addresses = '*'"
_EMPTY_CONF = "\n"  # counts as none; a truly empty text would be refused
_FIRST_START_ONLY = ("postgresUser", "postgresDb")
DEFAULT_START_TIMEOUT = 300


class Refused(Exception):
    """What is refused, and what to do instead, in a sentence. Nothing was changed."""


class Incomplete(Exception):
    """The database exists in Coolify, but is not as it should be: the state so far must be kept.

    :ivar uuid: the database's.
    :ivar state: what is known of it.
    """

    def __init__(self, uuid: str, state: State, reason: str) -> None:
        super().__init__(reason)
        self.uuid = uuid
        self.state = state


class Databases:
    """The databases of one Coolify.

    :param log: gets a line whenever there is progress to tell.
    :param cancelled: says whether to stop waiting.
    """

    def __init__(
        self,
        coolify: Coolify,
        log: Log,
        *,
        sleep: Callable[[float], object] = time.sleep,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._coolify = coolify
        self._log = log
        self._sleep = sleep
        self._cancelled = cancelled

    # Where it is

    def place(self, inputs: Mapping[str, Any]) -> State:
        """Finds the project, environment, server and destination that are named.

        :raises Refused: when one is not there, or a name belongs to several.
        """
        project = self._find("project", inputs["project"], "/projects")
        environment = self._find(
            "environment", inputs["environment"], f"/projects/{project['uuid']}/environments", f" in the project {project['name']}"
        )
        server = self._find("server", inputs["server"], "/servers")
        found = {
            "projectUuid": project["uuid"],
            "environmentUuid": environment["uuid"],
            "environmentId": environment["id"],
            "serverUuid": server["uuid"],
        }
        if "destination" in inputs:
            path = f"/servers/{server['uuid']}/destinations"
            found["destinationUuid"] = self._find("destination", inputs["destination"], path, f" on the server {server['name']}")[
                "uuid"
            ]
        return found

    def _find(self, what: str, wanted: str, path: str, where: str = "") -> dict[str, Any]:
        candidates: list[dict[str, Any]] = self._coolify.get(path)
        found = [one for one in candidates if one["uuid"] == wanted] or [one for one in candidates if one["name"] == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            uuids = ", ".join(one["uuid"] for one in found)
            raise Refused(f"There are several {what}s named '{wanted}'{where} in Coolify: give the uuid, one of {uuids}.")
        names = ", ".join(f"{one['name']} ({one['uuid']})" for one in candidates) or "none"
        raise Refused(f"There is no {what} '{wanted}'{where} in Coolify. There are: {names}.")

    # What is done to it

    def create(self, inputs: Mapping[str, Any]) -> tuple[str, State]:
        """Creates a database without starting it, checks its mount, and only then starts it and waits until it is healthy.

        :returns: its uuid and its state.
        :raises Refused: when nothing was created.
        :raises Incomplete: when it was created and something failed afterwards.
        """
        place = self.place(inputs)
        body: dict[str, Any] = {
            "project_uuid": place["projectUuid"],
            "environment_uuid": place["environmentUuid"],
            "server_uuid": place["serverUuid"],
            "instant_deploy": False,
            **{field: inputs[argument] for argument, (field, _, _) in _FIELDS.items() if argument in inputs},
        }
        if "destinationUuid" in place:
            body["destination_uuid"] = place["destinationUuid"]
        for argument, field in {
            "postgresUser": "postgres_user",
            "postgresPassword": "postgres_password",
            "postgresDb": "postgres_db",
        }.items():
            if argument in inputs:
                body[field] = inputs[argument]
        if "postgresConf" in inputs:
            body["postgres_conf"] = rules.encode_conf(inputs["postgresConf"])
        if "publicPort" in inputs:
            body |= {"is_public": True, "public_port": inputs["publicPort"]}
        if "tags" in inputs:
            body["tags"] = inputs["tags"]

        created = self._coolify.create("/databases/postgresql", body)
        uuid: str = created["uuid"]
        self._log(f"Coolify made the database {uuid}; it is not started yet.")
        # The answer shows the password that Coolify made even to a token that may not read it later.
        password = inputs.get("postgresPassword") or urlsplit(created["internal_db_url"]).password
        state: State = {
            **inputs,
            **place,
            "password": password,
            "backupUuids": [],
            "backupStorages": [],
            "started": False,
            "starts": 0,
            "ready": False,
        }
        state.pop("environmentVariables", None)  # Coolify has none of them yet
        return uuid, self._converge(uuid, inputs, state)

    def update(self, uuid: str, state: State, inputs: Mapping[str, Any]) -> State:
        """Brings an existing database to what the arguments say, and restarts it only when that is needed.

        :raises Refused: when that would need another database.
        :raises Incomplete: when something failed on the way.
        """
        return self._converge(uuid, inputs, {**state, **self.refuse_another(uuid, state, inputs)})

    def refuse_another(self, uuid: str, state: State, inputs: Mapping[str, Any]) -> State:
        """Looks up the place that the arguments name, and refuses what could only be had by starting an empty database.

        :returns: the place.
        """
        place = self.place(inputs)
        advice = "make another database, dump this one with pg_dump, restore it there, and then remove this one."
        for argument in _FIRST_START_ONLY:
            now = state.get(argument, "postgres")
            if inputs.get(argument, "postgres") != now:
                raise Refused(f"{argument} of the database {uuid} is '{now}' since its first start and cannot be changed: {advice}")
        for argument, key in {"server": "serverUuid", "destination": "destinationUuid"}.items():
            if key in place and place[key] != state.get(key, place[key]):
                raise Refused(f"The database {uuid} cannot move to another {argument}, its data would stay behind: {advice}")
        return place

    def delete(self, uuid: str, state: State) -> None:
        """Deletes a database and waits until it is gone. Its volume stays unless the arguments say otherwise."""
        self._coolify.delete(
            f"/databases/{uuid}",
            # All of them default to true.
            delete_volumes="true" if state.get("deleteVolumes") is True else "false",
            delete_configurations="true",
            delete_connected_networks="false",
            docker_cleanup="false",
        )
        deadline = time.monotonic() + state.get("startTimeout", DEFAULT_START_TIMEOUT)
        while self.record(uuid) is not None:
            if time.monotonic() > deadline or self._cancelled():
                raise CoolifyError(
                    f"Coolify queued the deletion of the database {uuid}, and it is still there. Look at its server in Coolify."
                )
            self._sleep(1)

    def read(self, uuid: str, state: State, inputs: Mapping[str, Any]) -> tuple[State, State] | None:
        """Reads what Coolify has.

        :returns: the state and the arguments as they are now, or None when there is no such database. Of an import, which has no
            arguments, they are those that make the database what it is.
        """
        record = self.record(uuid)
        if record is None:
            return None
        if "postgres_db" not in record:
            raise Refused(f"The database {uuid} in Coolify is not a PostgreSQL database.")
        importing = not inputs
        found: State = dict(inputs)
        observed = _observe(record, inputs.get("postgresConf", ""))
        for argument, value in observed.items():
            if argument in inputs or (importing and value != _default(argument)):
                found[argument] = value
        for argument in [argument for argument in inputs if argument in observed and observed[argument] is None]:
            del found[argument]

        storage = self._data_storage(uuid)
        found["mountPath"] = storage["mount_path"]
        if importing or "tags" in inputs:
            tags = sorted(tag["name"] for tag in self._coolify.get(f"/databases/{uuid}/tags"))
            if tags != sorted(inputs.get("tags", [])):
                found["tags"] = tags
        if "environmentVariables" in inputs:
            variables = {variable["key"]: variable for variable in self._coolify.get(f"/databases/{uuid}/envs")}
            ours = state.get("environmentVariables", {})
            found["environmentVariables"] = {key: variables[key].get("value", ours[key]) for key in ours if key in variables}
        uuids, storages = state.get("backupUuids", []), state.get("backupStorages", [])
        if uuids:
            found["backups"], uuids, storages = self._observe_backups(uuid, state, inputs.get("backups", []))

        place: State = {key: state[key] for key in ("projectUuid", "environmentUuid", "environmentId") if key in state}
        if record.get("environment_id") != place.get("environmentId"):
            place = self._environment(record)
            found |= {"project": place.pop("projectName"), "environment": place.pop("environmentName")}
        server = record["destination"]["server"]
        if importing:
            found["server"] = server["name"]
        running = _is_running(record)
        new: State = {
            **{key: value for key, value in state.items() if key not in rules.DATABASE_ARGUMENTS},
            **found,
            **place,
            "serverUuid": server["uuid"],
            "destinationUuid": record["destination"]["uuid"],
            "backupUuids": uuids,
            "backupStorages": storages,
            # Of an adopted database nobody knows whether it ran: then its mount is not touched.
            "started": state.get("started", True),
            "starts": state.get("starts", 0),
            "ready": state.get("ready", True) and running,
        }
        if record.get("postgres_password"):
            new["password"] = record["postgres_password"]
            if "postgresPassword" in inputs:
                found["postgresPassword"] = new["postgresPassword"] = record["postgres_password"]
        return self._outputs(uuid, new, record), found

    # How it is brought to what it should be

    def _converge(self, uuid: str, inputs: Mapping[str, Any], state: State) -> State:
        before = dict(state)
        # From here on the state has the new arguments, and nothing of the old ones.
        state = {key: value for key, value in state.items() if key not in rules.DATABASE_ARGUMENTS} | dict(inputs)
        state.pop("environmentVariables", None)
        if "environmentVariables" in before:
            state["environmentVariables"] = before["environmentVariables"]
        try:
            record = self._existing(uuid)
            state["destinationUuid"] = record["destination"]["uuid"]
            if record["environment_id"] != state["environmentId"]:
                self._coolify.create(f"/databases/{uuid}/move", {"environment_uuid": state["environmentUuid"]})
            changes, restart = _changes(record, inputs, before)
            if "postgresPassword" in inputs and inputs["postgresPassword"] != before.get("password"):
                changes["postgres_password"] = inputs["postgresPassword"]
                self._log("Coolify's record gets the new password; PostgreSQL itself must get it by ALTER ROLE.")
            self._ensure_mount(uuid, inputs, state)
            self._ensure_variables(uuid, inputs, state)
            self._ensure_tags(uuid, inputs, before)
            self._ensure_backups(uuid, inputs.get("backups", []), state)
            if changes:
                state["ready"] = state["ready"] and not restart
                self._coolify.update(f"/databases/{uuid}", changes)
                state["password"] = changes.get("postgres_password", state.get("password"))
            if not (state["ready"] and _is_running(record)):
                self._start(uuid, record, inputs, state)
            return self._outputs(uuid, state, self._existing(uuid))
        except (CoolifyError, Refused) as error:
            # What was taken out of the arguments may still be in Coolify: kept here, it makes a difference for the next deploy.
            raise Incomplete(uuid, before | state, str(error)) from error

    def _ensure_mount(self, uuid: str, inputs: Mapping[str, Any], state: State) -> None:
        """Makes sure that the data lies in the volume, before a start that would put it elsewhere."""
        wanted = inputs["mountPath"]
        storage = self._data_storage(uuid)
        if storage["mount_path"] != wanted:
            if state["started"]:
                raise Refused(
                    f"The volume {storage['name']} of the database {uuid} is mounted at {storage['mount_path']} "
                    f"and belongs at {wanted}. It was not restarted: what it wrote may lie in an anonymous volume, "
                    "which a restart leaves behind. "
                    "Dump it with pg_dumpall, and restore the dump into a new database."
                )
            self._log(f"Coolify would mount the volume at {storage['mount_path']}; it belongs at {wanted}.")
            which = {"uuid": storage["uuid"]} if storage.get("uuid") else {"id": storage["id"]}
            self._coolify.update(f"/databases/{uuid}/storages", {"type": "persistent", **which, "mount_path": wanted})
            storage = self._data_storage(uuid)
            if storage["mount_path"] != wanted:
                raise Refused(f"Coolify keeps the mount of the database {uuid} at {storage['mount_path']}: it was not started.")
        state["volumeName"] = storage["name"]

    def _data_storage(self, uuid: str) -> dict[str, Any]:
        storages: list[dict[str, Any]] = self._coolify.get(f"/databases/{uuid}/storages")["persistent_storages"]
        for storage in storages:
            if storage["name"] == f"postgres-data-{uuid}":
                return storage
        if len(storages) == 1:  # renamed in the dashboard
            return storages[0]
        raise Refused(
            f"The database {uuid} has no volume postgres-data-{uuid} in Coolify: it was not started, its data would be lost."
        )

    def _ensure_variables(self, uuid: str, inputs: Mapping[str, Any], state: State) -> None:
        """Creates, changes and removes the container's variables that are ours; `state` keeps what Coolify has got of them."""
        wanted = inputs.get("environmentVariables", {})
        ours: dict[str, str] = dict(state.get("environmentVariables", {}))
        if not wanted and not ours:
            return
        path = f"/databases/{uuid}/envs"
        there = {variable["key"]: variable for variable in self._coolify.get(path)}
        for key in sorted(wanted.keys() | ours.keys()):
            # The value is hidden unless the token has the ability read:sensitive.
            if key in wanted and key in there and there[key].get("value", ours.get(key)) == wanted[key]:
                continue
            state["ready"] = False  # only a restart makes it true
            if key in wanted:
                send = self._coolify.update if key in there else self._coolify.create
                send(path, {"key": key, "value": wanted[key]})
                ours[key] = wanted[key]
            else:
                if key in there:
                    self._coolify.delete(f"{path}/{there[key]['uuid']}")
                del ours[key]
            state["environmentVariables"] = dict(ours)
        if not wanted:
            del state["environmentVariables"]

    def _ensure_tags(self, uuid: str, inputs: Mapping[str, Any], before: State) -> None:
        if "tags" not in inputs and "tags" not in before:
            return
        wanted = set(inputs.get("tags", []))
        existing = {tag["name"]: tag["uuid"] for tag in self._coolify.get(f"/databases/{uuid}/tags")}
        if missing := sorted(wanted - set(existing)):
            self._coolify.act(f"/databases/{uuid}/tags", {"tag_names": missing})
        for name in sorted(set(existing) - wanted):
            self._coolify.delete(f"/databases/{uuid}/tags/{existing[name]}")

    def _ensure_backups(self, uuid: str, wanted: list[dict[str, Any]], state: State) -> None:
        """Creates, changes and removes the schedules that are ours; `state` keeps their uuids in the arguments' order."""
        path = f"/databases/{uuid}/backups"
        there = {backup["uuid"] for backup in self._coolify.get(path)} if wanted or state["backupUuids"] else set()
        ours = [one for one in state["backupUuids"] if one in there]
        for index, backup in enumerate(wanted):
            body = {field: backup.get(argument, default) for argument, (field, default) in _BACKUP_FIELDS.items()}
            body = {field: value for field, value in body.items() if value is not None}
            body["save_s3"] = "s3Storage" in backup
            if "s3Storage" in backup:
                body["s3_storage_uuid"] = backup["s3Storage"]
            if index < len(ours):
                self._coolify.update(f"{path}/{ours[index]}", body)
            else:
                ours.append(self._coolify.create(path, body)["uuid"])
                state["backupUuids"] = list(ours)
        for extra in ours[len(wanted) :]:
            self._coolify.delete(f"{path}/{extra}", delete_s3="false")
        state["backupUuids"] = ours[: len(wanted)]
        # Coolify tells of the S3 storage by a number that nothing else names. Read now, it shows later whether another one is used.
        numbers = {backup["uuid"]: _storage_number(backup) for backup in self._coolify.get(path)} if wanted else {}
        state["backupStorages"] = [numbers.get(one, "") for one in state["backupUuids"]]

    def _start(self, uuid: str, record: dict[str, Any], inputs: Mapping[str, Any], state: State) -> None:
        """Starts or restarts, and waits. A new image that does not come up makes way for the one before."""
        running = _is_running(record)
        state["started"] = True
        state["starts"] = state.get("starts", 0) + 1
        self._coolify.act(f"/databases/{uuid}/{'restart' if running else 'start'}")
        self._log(f"Coolify {'restarts' if running else 'starts'} the database {uuid}.")
        try:
            self._wait(uuid, record, inputs)
        except CoolifyError as error:
            if not running or record["image"] == inputs["image"]:
                raise
            self._log(f"It does not come up with {inputs['image']}; going back to {record['image']}.")
            self._coolify.update(f"/databases/{uuid}", {"image": record["image"]})
            self._coolify.act(f"/databases/{uuid}/restart")
            self._wait(uuid, self._existing(uuid) | {"status": ""}, inputs)
            raise CoolifyError(f"{error}\nIt runs again with the image before, {record['image']}.") from error
        state["ready"] = True

    def _wait(self, uuid: str, before: dict[str, Any], inputs: Mapping[str, Any]) -> None:
        """Waits until Coolify reports the database healthy, after a start that it has queued.

        What it reported before counts only once its status has changed since: a queued restart may not have begun yet.
        """
        started = time.monotonic()
        limit = inputs.get("startTimeout", DEFAULT_START_TIMEOUT)
        goal = "running:healthy" if inputs.get("healthCheckEnabled", True) else "running"
        told = (0.0, "")
        while True:
            record = self._existing(uuid)
            status = record["status"]
            waited = time.monotonic() - started
            changed = not _is_running(before) or record.get("last_online_at") != before.get("last_online_at")
            if status.startswith(goal) and changed:
                self._log(f"Coolify reports {status} after {waited:.0f} s.")
                return
            if waited >= limit or self._cancelled():
                raise CoolifyError(self._gave_up(uuid, status, waited, record["image"]))
            if status != told[1] or waited - told[0] >= 15:
                self._log(f"Coolify reports {status}; waiting for {goal} ({waited:.0f} of {limit} s).")
                told = (waited, status)
            # Coolify allows 200 requests a minute, and other databases may be waiting too.
            self._sleep(1 if waited < 15 else 3)

    def _gave_up(self, uuid: str, status: str, waited: float, image: str) -> str:
        sentence = (
            f"The database {uuid} did not come up in {waited:.0f} s; Coolify reports {status}. The next 'pulumi up' goes on there."
        )
        try:
            lines = str(self._coolify.get(f"/databases/{uuid}/logs", lines=20)["logs"]).strip()
        except CoolifyError as error:
            if error.status != 400:
                return f"{sentence} Its log cannot be read: {error}"
            # Coolify has logs only of containers that run.
            advice = f"Most often the image cannot be pulled: try 'docker pull {image}' on the server."
            return f"{sentence} Its container does not run. {advice}"
        return f"{sentence} The last lines of its log:\n{lines}"

    def _existing(self, uuid: str) -> dict[str, Any]:
        record = self.record(uuid)
        if record is None:
            raise CoolifyError(f"There is no database {uuid} in Coolify any more: run 'pulumi refresh'.", 404)
        return record

    def record(self, uuid: str) -> dict[str, Any] | None:
        """What Coolify tells of a database, or None when there is none."""
        try:
            record: dict[str, Any] = self._coolify.get(f"/databases/{uuid}")
        except CoolifyError as error:
            if error.status != 404:
                raise
            return None
        return record

    def _environment(self, record: dict[str, Any]) -> State:
        """Finds the environment that a record names by a number only."""
        for project in self._coolify.get("/projects"):
            for environment in self._coolify.get(f"/projects/{project['uuid']}/environments"):
                if environment["id"] == record["environment_id"]:
                    return {
                        "projectUuid": project["uuid"],
                        "projectName": project["name"],
                        "environmentUuid": environment["uuid"],
                        "environmentName": environment["name"],
                        "environmentId": environment["id"],
                    }
        raise Refused(f"The environment of the database {record['uuid']} is not among those that the token can see.")

    def _observe_backups(
        self, uuid: str, state: Mapping[str, Any], given: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[str], list[str]]:
        """Our schedules as they are in Coolify, with the arguments that were given for them; their uuids; their S3 storages."""
        there = {backup["uuid"]: backup for backup in self._coolify.get(f"/databases/{uuid}/backups")}
        seen, ours, storages = [], [], []
        known = dict(zip(state["backupUuids"], state["backupStorages"], strict=False))
        for one, arguments in zip(state["backupUuids"], given, strict=False):
            if one in there:
                backup = there[one]
                fields = {argument: backup.get(_BACKUP_FIELDS[argument][0]) for argument in arguments if argument in _BACKUP_FIELDS}
                if number := _storage_number(backup):
                    same = number == known.get(one) and "s3Storage" in arguments
                    fields["s3Storage"] = arguments["s3Storage"] if same else f"number {number}"
                seen.append(fields)
                ours.append(one)
                storages.append(known.get(one, ""))
        return seen, ours, storages

    def _outputs(self, uuid: str, state: State, record: dict[str, Any]) -> State:
        state = {**state, "status": record["status"]}
        user, database, password = record["postgres_user"], record["postgres_db"], state.get("password")
        if password:
            state["internalUrl"] = f"postgres://{quote(user, safe='')}:{quote(password, safe='')}@{uuid}:5432/{database}"
        state.pop("externalUrl", None)
        if record.get("external_db_url"):
            state["externalUrl"] = record["external_db_url"]
        return state


def _storage_number(backup: Mapping[str, Any]) -> str:
    return str(backup["s3_storage_id"]) if backup.get("save_s3") and backup.get("s3_storage_id") else ""


def _is_running(record: Mapping[str, Any]) -> bool:
    return str(record.get("status", "")).startswith("running")


def _default(argument: str) -> Any:
    return {**_FIELDS, **_HEALTH_CHECK}.get(argument, (None, {"postgresUser": "postgres", "postgresDb": "postgres"}.get(argument)))[
        1
    ]


def _observe(record: Mapping[str, Any], given_conf: str) -> State:
    """A record as arguments."""
    observed = {argument: record.get(field) for argument, (field, _, _) in {**_FIELDS, **_HEALTH_CHECK}.items()}
    conf = record.get("postgres_conf")
    if conf and conf.endswith(_ADDED_TO_CONF) and "listen_addresses" not in given_conf:
        conf = conf.removesuffix(_ADDED_TO_CONF)
    return observed | {
        "postgresUser": record.get("postgres_user"),
        "postgresDb": record.get("postgres_db"),
        "postgresConf": conf if conf and conf.strip() else None,
        "publicPort": record.get("public_port") if record.get("is_public") else None,
        # Coolify's own default is '0' in some versions and nothing in others.
        "limitsCpuset": record.get("limits_cpuset") if record.get("limits_cpuset") not in ("0", "") else None,
        "description": record.get("description") or None,
    }


def _changes(record: Mapping[str, Any], inputs: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The fields to PATCH, and whether they need a restart. Arguments that are not given, and were not, are left alone."""
    observed = _observe(record, inputs.get("postgresConf", ""))
    changes: dict[str, Any] = {}
    restart = False
    for argument, (field, default, needs_restart) in {**_FIELDS, **_HEALTH_CHECK}.items():
        wanted = inputs.get(argument, default)
        if (argument in inputs or argument in before) and observed[argument] != wanted:
            changes[field] = wanted
            restart = restart or needs_restart
    if ("postgresConf" in inputs or "postgresConf" in before) and observed["postgresConf"] != inputs.get("postgresConf"):
        changes["postgres_conf"] = rules.encode_conf(inputs.get("postgresConf", _EMPTY_CONF))
        restart = True
    if ("publicPort" in inputs or "publicPort" in before) and observed["publicPort"] != inputs.get("publicPort"):
        # Only together: a port alone changes nothing.
        changes |= {"is_public": "publicPort" in inputs, "public_port": inputs.get("publicPort")}
    return changes, restart
