"""A database in Coolify: how it is created, read, changed and deleted through the API, in the order that keeps its data.

Arguments and state are plain dictionaries with the names that the schema has. Nothing here knows of Pulumi.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote, urlsplit

from ..provider import HalfDone, Values
from . import rules
from .client import Coolify, CoolifyError
from .container import Container, running_container, who_answers
from .records import Environment, Record, Schedule, Server, Storage, Variable

State = Values
Log = Callable[[str], None]

# Start writes this line into a configuration that does not say where to listen, and stores it.
_ADDED_TO_CONF = "\nlisten_addresses = '*'"
_EMPTY_CONF = "\n"  # counts as none; a truly empty text would be refused
# The arguments that are fields of a record, but for those that have a section of their own below.
_GENERAL = [
    argument for argument, field in rules.DATABASE.items() if field.api and not argument.startswith(("postgres", "publicPort"))
]
_FIRST_START_ONLY = ("postgresUser", "postgresDb")
# What Coolify's check of each minute writes down is up to 8 seconds old by then.
_OLDEST_REPORT = 10.0
_LONGEST_PUBLISHING = 60.0


class Refused(Exception):
    """What is refused, and what to do instead, in a sentence. Nothing was changed."""


class Databases:
    """The databases of one Coolify.

    :param log: gets a line whenever there is progress to tell.
    :param docker: the command line that reaches the server's Docker engine, if there is one.
    :param cancelled: says whether to stop waiting.
    :param sleep: waits for so many seconds.
    :param clock: the seconds that have passed since some time.
    """

    def __init__(
        self,
        coolify: Coolify,
        log: Log,
        *,
        docker: str | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._coolify = coolify
        self._log = log
        self._docker = docker
        self._cancelled = cancelled
        self._sleep = sleep
        self._clock = clock

    # Where it is

    def place(self, inputs: State) -> State:
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

    def _find(self, what: str, wanted: str, path: str, where: str = "") -> Environment:
        candidates: list[Environment] = self._coolify.get(path)
        found = [one for one in candidates if one["uuid"] == wanted] or [one for one in candidates if one["name"] == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            uuids = ", ".join(one["uuid"] for one in found)
            raise Refused(f"There are several {what}s named '{wanted}'{where} in Coolify: give the uuid, one of {uuids}.")
        names = ", ".join(f"{one['name']} ({one['uuid']})" for one in candidates) or "none"
        raise Refused(f"There is no {what} '{wanted}'{where} in Coolify. There are: {names}.")

    # What is done to it

    def create(self, inputs: State) -> tuple[str, State]:
        """Creates a database without starting it, checks its mount, and only then starts it and waits until it is healthy.

        :returns: its uuid and its state.
        :raises Refused: when nothing was created.
        :raises HalfDone: when it was created and something failed afterwards.
        """
        place = self.place(inputs)
        # The public port comes last: its proxy looks the container up.
        sent = {"postgresUser", "postgresPassword", "postgresDb", "publicPortTimeout"}
        sent |= {argument for argument in _GENERAL if not argument.startswith("healthCheck")}  # which only a PATCH takes
        body: State = {
            "project_uuid": place["projectUuid"],
            "environment_uuid": place["environmentUuid"],
            "server_uuid": place["serverUuid"],
            "instant_deploy": False,
            **{
                field.api: inputs[argument]
                for argument, field in rules.DATABASE.items()
                if field.api and argument in sent & set(inputs)
            },
        }
        if "destinationUuid" in place:
            body["destination_uuid"] = place["destinationUuid"]
        if "postgresConf" in inputs:
            body["postgres_conf"] = rules.encode_conf(inputs["postgresConf"])
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

    def update(self, uuid: str, state: State, inputs: State) -> State:
        """Brings an existing database to what the arguments say, and restarts it only when that is needed.

        :raises Refused: when that would need another database.
        :raises HalfDone: when something failed on the way.
        """
        return self._converge(uuid, inputs, {**state, **self.refuse_another(uuid, state, inputs)})

    def refuse_another(self, uuid: str, state: State, inputs: State) -> State:
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
        self._warn_of_pruning(state, "now that it has no container")
        self._coolify.delete(
            f"/databases/{uuid}",
            # All of them default to true.
            delete_volumes="true" if state.get("deleteVolumes") is True else "false",
            delete_configurations="true",
            delete_connected_networks="false",
            docker_cleanup="false",
        )
        deadline = self._clock() + _start_timeout(state)
        while self.record(uuid) is not None:
            if self._clock() > deadline or self._cancelled():
                raise CoolifyError(
                    f"Coolify queued the deletion of the database {uuid}, and it is still there. Look at its server in Coolify."
                )
            self._sleep(1)

    def read(self, uuid: str, state: State, inputs: State) -> tuple[State, State] | None:
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
        running = self._container(uuid)
        observed = _observe(record, inputs.get("postgresConf", ""))
        if running and observed["publicPort"] and who_answers(self._public_address(record), observed["publicPort"]) == "nobody":
            observed["publicPort"] = None  # whatever the record says
        for argument, value in observed.items():
            if argument in inputs or (importing and value != rules.DATABASE[argument].default):
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
            found["environmentVariables"] = {key: _value_of(variables[key], ours[key]) for key in ours if key in variables}
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
        new: State = {
            **{key: value for key, value in state.items() if key not in rules.DATABASE},
            **found,
            **place,
            "volumeName": storage["name"],
            "serverUuid": server["uuid"],
            "destinationUuid": record["destination"]["uuid"],
            "backupUuids": uuids,
            "backupStorages": storages,
            # Of an adopted database nobody knows whether it ran: then its mount is not touched.
            "started": state.get("started", True),
            "starts": state.get("starts", 0),
            "ready": state.get("ready", True) and running is not None and running.runs(record["image"]),
        }
        if password := record.get("postgres_password"):
            new["password"] = password
            if "postgresPassword" in inputs:
                found["postgresPassword"] = new["postgresPassword"] = password
        return self._outputs(uuid, new, record), found

    # How it is brought to what it should be

    def _converge(self, uuid: str, inputs: State, state: State) -> State:
        before = dict(state)
        # From here on the state has the new arguments, and nothing of the old ones.
        state = {key: value for key, value in state.items() if key not in rules.DATABASE} | dict(inputs)
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
            self._warn_of_pruning(state, "as soon as the database is stopped or removed")
            restart = self._ensure_variables(uuid, inputs, state) or restart
            self._ensure_tags(uuid, inputs, before)
            self._ensure_backups(uuid, inputs.get("backups", []), before, state)
            if changes:
                state["ready"] = state["ready"] and not restart
                self._coolify.update(f"/databases/{uuid}", changes)
                state["password"] = changes.get("postgres_password", state.get("password"))
            running = self._container(uuid)
            if not (state["ready"] and running and running.runs(inputs["image"])):
                self._start(uuid, record, running, inputs, state, sent_before="queued" in before and not restart)
            self._publish(uuid, inputs, before)
            return self._outputs(uuid, state, self._existing(uuid))
        except (CoolifyError, Refused) as error:
            # What was taken out of the arguments may still be in Coolify: kept here, it makes a difference for the next deploy.
            raise HalfDone(uuid, before | state, str(error)) from error

    def _ensure_mount(self, uuid: str, inputs: State, state: State) -> None:
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
            known = storage.get("uuid")
            which = {"uuid": known} if known else {"id": storage["id"]}
            self._coolify.update(f"/databases/{uuid}/storages", {"type": "persistent", **which, "mount_path": wanted})
            storage = self._data_storage(uuid)
            if storage["mount_path"] != wanted:
                raise Refused(f"Coolify keeps the mount of the database {uuid} at {storage['mount_path']}: it was not started.")
        state["volumeName"] = storage["name"]

    def _data_storage(self, uuid: str) -> Storage:
        storages: list[Storage] = self._coolify.get(f"/databases/{uuid}/storages")["persistent_storages"]
        for storage in storages:
            if storage["name"] == f"postgres-data-{uuid}":
                return storage
        if len(storages) == 1:  # renamed in the dashboard
            return storages[0]
        raise Refused(
            f"The database {uuid} has no volume postgres-data-{uuid} in Coolify: it was not started, its data would be lost."
        )

    def _ensure_variables(self, uuid: str, inputs: State, state: State) -> bool:
        """Creates, changes and removes the container's variables that are ours; `state` keeps what Coolify has got of them.

        :returns: whether that needs a restart.
        """
        wanted = inputs.get("environmentVariables", {})
        ours: dict[str, str] = dict(state.get("environmentVariables", {}))
        if not wanted and not ours:
            return False
        changed = False
        path = f"/databases/{uuid}/envs"
        there = {variable["key"]: variable for variable in self._coolify.get(path)}
        for key in sorted(wanted.keys() | ours.keys()):
            # The value is hidden unless the token has the ability read:sensitive.
            if key in wanted and key in there and _value_of(there[key], ours.get(key)) == wanted[key]:
                continue
            state["ready"] = False
            changed = True
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
        return changed

    def _ensure_tags(self, uuid: str, inputs: State, before: State) -> None:
        if "tags" not in inputs and "tags" not in before:
            return
        wanted = set(inputs.get("tags", []))
        existing = {tag["name"]: tag["uuid"] for tag in self._coolify.get(f"/databases/{uuid}/tags")}
        if missing := sorted(wanted - set(existing)):
            self._coolify.act(f"/databases/{uuid}/tags", {"tag_names": missing})
        for name in sorted(set(existing) - wanted):
            self._coolify.delete(f"/databases/{uuid}/tags/{existing[name]}")

    def _ensure_backups(self, uuid: str, wanted: list[State], before: State, state: State) -> None:
        """Creates, changes and removes the schedules that are ours; `state` keeps their uuids in the arguments' order."""
        path = f"/databases/{uuid}/backups"
        there = {backup["uuid"]: backup for backup in self._coolify.get(path)} if wanted or state["backupUuids"] else {}
        ours = [one for one in state["backupUuids"] if one in there]
        known = {one: (arguments.get("s3Storage"), number) for one, arguments, number in _known_backups(before)}
        for index, backup in enumerate(wanted):
            body = {field.api: backup.get(argument, field.default) for argument, field in rules.BACKUP.items() if field.api}
            body = {field: value for field, value in body.items() if value is not None}
            if index < len(ours) and _is_as_wanted(
                there[ours[index]], body, backup.get("s3Storage"), *known.get(ours[index], ("", ""))
            ):
                continue
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

    # How it is started

    def _container(self, uuid: str) -> Container | None:
        return running_container(uuid, self._coolify, self._docker)

    def _start(
        self,
        uuid: str,
        record: Record,
        running: Container | None,
        inputs: State,
        state: State,
        *,
        sent_before: bool,
    ) -> None:
        """Starts or restarts, and waits. A new image that does not come up makes way for the one before.

        Coolify would do a start that is sent twice twice, and the second would kill the first, at the first start in the middle of
        making the cluster. So what the deploy before has sent is waited for.

        :param running: the container that runs now.
        :param sent_before: whether a deploy that gave up has sent the start.
        """
        if sent_before and (running or time.time() - state["queued"] < _start_timeout(inputs)):
            self._log(f"The database {uuid} is being started since the deploy before.")
            self._wait(uuid, record, None, inputs)
        else:
            verb = "restart" if running or _is_running(record) else "start"  # Coolify refuses to start what it takes to be running
            state["started"] = True
            state["starts"] = state.get("starts", 0) + 1
            if not running:
                state["queued"] = time.time()
            self._coolify.order(f"/databases/{uuid}/{verb}")
            self._log(f"Coolify {verb}s the database {uuid}.")
            try:
                self._wait(uuid, record, running, inputs)
            except CoolifyError as error:
                if self._cancelled() or not running or record["image"] == inputs["image"]:
                    raise
                self._log(f"It does not come up with {inputs['image']}; going back to {record['image']}.")
                self._coolify.update(f"/databases/{uuid}", {"image": record["image"]})
                failed, now = self._container(uuid), self._existing(uuid)
                self._coolify.order(f"/databases/{uuid}/restart")
                self._wait(uuid, now, failed, inputs)
                raise CoolifyError(f"{error}\nIt runs again with the image before, {record['image']}.") from error
        state["ready"] = True
        state.pop("queued", None)

    def _wait(self, uuid: str, record: Record, before: Container | None, inputs: State) -> None:
        """Waits until the database is healthy, after a start that Coolify has queued.

        The proof is the container, another one than before. On its health, where only Coolify can be asked, a word counts that was
        given so long after that container was seen that it is not of the one before.

        :param record: what Coolify told before the start.
        :param before: the container that ran before the start.
        """
        begun = self._clock()
        limit = _start_timeout(inputs)
        goal = "running:healthy" if inputs.get("healthCheckEnabled", True) else "running"
        could_be_old = before is not None or _is_running(record)
        report, reported = _report(record), begun
        running: Container | None = None
        seen: float | None = None
        told = (0.0, "")
        while True:
            record = self._existing(uuid)
            status = str(record["status"])
            if _report(record) != report:
                report, reported = _report(record), self._clock()
            if self._docker or seen is None or status.startswith(goal):
                running = self._container(uuid)
                if running is None:
                    before = seen = None  # whatever runs next is another one
                elif seen is None and (before is None or running.has_replaced(before)):
                    seen = self._clock()
            fresh = seen is not None and (not could_be_old or reported >= seen + _OLDEST_REPORT)
            if running and running.health is not None:
                status, fresh = f"running:{running.health}", seen is not None and running.runs(record["image"])
            waited = self._clock() - begun
            if running and fresh and status.startswith(goal):
                self._log(f"The database is {status} after {waited:.0f} s.")
                return
            if waited >= limit or self._cancelled():
                raise CoolifyError(self._gave_up(uuid, status, waited, record["image"]))
            if status != told[1] or waited - told[0] >= 15:
                self._log(f"The database is {status}; waiting for {goal} ({waited:.0f} of {limit} s).")
                told = (waited, status)
            # Coolify allows 200 requests a minute, and other databases may be waiting too.
            self._sleep(1 if waited < 15 else 3)

    def _gave_up(self, uuid: str, status: str, waited: float, image: str) -> str:
        sentence = f"The database {uuid} did not come up in {waited:.0f} s; it is {status}. The next 'pulumi up' goes on there."
        try:
            lines = str(self._coolify.get(f"/databases/{uuid}/logs", lines=20)["logs"]).strip()
        except CoolifyError as error:
            if error.status != 400:
                return f"{sentence} Its log cannot be read: {error}"
            # Coolify has logs only of containers that run.
            advice = f"Most often the image cannot be pulled: try 'docker pull {image}' on the server."
            return f"{sentence} Its container does not run. {advice}"
        return f"{sentence} The last lines of its log:\n{lines}"

    # Where it is published

    def _publish(self, uuid: str, inputs: State, before: State) -> None:
        """Publishes the database at its port, and proves it by a connection, or takes that back.

        Coolify acts only when public is switched off or on: another port, or timeout, in between changes the record and no proxy.
        """
        wanted, timeout = inputs.get("publicPort"), inputs.get("publicPortTimeout", rules.DATABASE["publicPortTimeout"].default)
        record = self._existing(uuid)
        public = record["public_port"] if record["is_public"] else None
        if (
            wanted == public
            and wanted == before.get("publicPort")
            and (
                "publicPortTimeout" not in {*inputs, *before}
                or (record["public_port_timeout"] == timeout and before.get("publicPortTimeout", timeout) == timeout)
            )
        ):
            return
        if wanted is None and "publicPort" not in before:
            if record["public_port_timeout"] != timeout and "publicPortTimeout" in {*inputs, *before}:
                self._coolify.update(f"/databases/{uuid}", {"public_port_timeout": timeout})
            return

        host = self._public_address(record)
        if public is not None:
            self._coolify.update(f"/databases/{uuid}", {"is_public": False})
            self._wait_at(host, public, lambda answer: answer != "postgres")
        if wanted is None:
            self._coolify.update(f"/databases/{uuid}", {"is_public": False, "public_port": None, "public_port_timeout": timeout})
            return
        if who_answers(host, wanted) in ("postgres", "other"):
            raise Refused(
                f"The port {wanted} of {host} is taken by something else: choose another publicPort, or end what is there."
            )
        self._coolify.update(f"/databases/{uuid}", {"is_public": True, "public_port": wanted, "public_port_timeout": timeout})
        answer = self._wait_at(host, wanted, lambda answer: answer == "postgres" or not self._existing(uuid)["is_public"])
        if not self._existing(uuid)["is_public"]:
            raise CoolifyError(
                f"Coolify took the public port {wanted} back: it is taken on the server, or the proxy's image cannot be had. "
                "The database itself runs. See Coolify's notifications."
            )
        if answer == "unknown":
            self._log(
                f"Whether the database is published at {host}:{wanted} cannot be seen from this machine: nothing answers there."
            )
        elif answer != "postgres":
            raise CoolifyError(
                f"Coolify said that the port {wanted} is public, and no PostgreSQL answers at {host}:{wanted}. "
                f"The database itself runs. Look at the container {uuid}-proxy on the server."
            )
        else:
            self._log(f"The database is published at {host}:{wanted}.")

    def _wait_at(self, host: str, port: int, enough: Callable[[str], bool]) -> str:
        """Asks who answers at a port until that is enough, for a minute at most. Where nothing can be seen, for a few seconds."""
        begun = self._clock()
        while True:
            answer = who_answers(host, port)
            waited = self._clock() - begun
            if enough(answer) or self._cancelled() or waited >= (_OLDEST_REPORT if answer == "unknown" else _LONGEST_PUBLISHING):
                return answer
            self._sleep(1)

    def _public_address(self, record: Record) -> str:
        """Where the server's ports are: Coolify knows its own by a name that only its containers understand."""
        url = record.get("external_db_url")
        address = urlsplit(url).hostname if url else record["destination"]["server"]["ip"]
        return str(urlsplit(self._coolify.url).hostname) if address in (None, "host.docker.internal") else str(address)

    def _warn_of_pruning(self, state: State, when: str) -> None:
        """Tells when what is kept here is deleted by Coolify."""
        servers: list[Server] = self._coolify.get("/servers") if state.get("deleteVolumes") is not True else []
        for server in servers:
            if server["uuid"] == state.get("serverUuid") and (server.get("settings") or {}).get("delete_unused_volumes"):
                self._log(
                    f"Warning: the option 'delete unused volumes' of the server {server['name']} is on (Servers, Docker Cleanup). "
                    f"Coolify deletes the volume {state.get('volumeName')} with its data, {when}: switch the option off."
                )

    def _existing(self, uuid: str) -> Record:
        record = self.record(uuid)
        if record is None:
            raise CoolifyError(f"There is no database {uuid} in Coolify any more: run 'pulumi refresh'.", 404)
        return record

    def record(self, uuid: str) -> Record | None:
        """What Coolify tells of a database, or None when there is none."""
        try:
            record: Record = self._coolify.get(f"/databases/{uuid}")
        except CoolifyError as error:
            if error.status != 404:
                raise
            return None
        return record

    def _environment(self, record: Record) -> State:
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

    def _observe_backups(self, uuid: str, state: State, given: list[State]) -> tuple[list[State], list[str], list[str]]:
        """Our schedules as they are in Coolify, with the arguments that were given for them; their uuids; their S3 storages."""
        there = {backup["uuid"]: backup for backup in self._coolify.get(f"/databases/{uuid}/backups")}
        seen, ours, storages = [], [], []
        known = dict(zip(state["backupUuids"], state["backupStorages"], strict=False))
        for one, arguments in zip(state["backupUuids"], given, strict=False):
            if one in there:
                backup = there[one]
                fields = {key: _number(backup.get(api)) for key in arguments if (api := rules.BACKUP[key].api)}
                if number := _storage_number(backup):
                    same = number == known.get(one) and "s3Storage" in arguments
                    fields["s3Storage"] = arguments["s3Storage"] if same else f"number {number}"
                seen.append(fields)
                ours.append(one)
                storages.append(known.get(one, ""))
        return seen, ours, storages

    def _outputs(self, uuid: str, state: State, record: Record) -> State:
        state = {**state, "status": record["status"]}
        user, database, password = record["postgres_user"], record["postgres_db"], state.get("password")
        if password:
            mode = record.get("ssl_mode") if record.get("enable_ssl") else None
            ssl = f"?sslmode={mode}" if mode else ""
            state["internalUrl"] = f"postgres://{quote(user, safe='')}:{quote(password, safe='')}@{uuid}:5432/{database}{ssl}"
        state.pop("externalUrl", None)
        if external := record.get("external_db_url"):
            state["externalUrl"] = external
        return state


def _storage_number(backup: Schedule) -> str:
    number = backup.get("s3_storage_id") if backup.get("save_s3") else None
    return str(number) if number else ""


def _is_running(record: Record) -> bool:
    return str(record.get("status", "")).startswith("running")


def _report(record: Record) -> tuple[str, str | None]:
    """What changes with every check of Coolify's."""
    return record["status"], record.get("last_online_at")


def _start_timeout(arguments: State) -> float:
    return float(arguments.get("startTimeout") or rules.DATABASE["startTimeout"].default or 0)


def _value_of(variable: Variable, ours: str | None) -> str | None:
    """A variable's value, an empty one being stored as null; hidden unless the token has the ability read:sensitive: then ours."""
    return (variable["value"] or "") if "value" in variable else ours


def _number(value: object) -> object:
    """A decimal, which comes as a string, as a number."""
    if isinstance(value, str):
        with suppress(ValueError):
            return int(value) if value.isdecimal() else float(value)
    return value


def _known_backups(state: State) -> list[tuple[str, State, str]]:
    """The uuid, the arguments and the S3 storage's number of the schedules that the deploy before made."""
    return list(zip(state.get("backupUuids", []), state.get("backups", []), state.get("backupStorages", []), strict=False))


def _is_as_wanted(backup: Schedule, body: State, storage: str | None, known_storage: str | None, known_number: str) -> bool:
    """Whether a schedule in Coolify is what the arguments say; its S3 storage by the number that it had for the same argument."""
    same_storage = storage == known_storage and _storage_number(backup) == known_number
    return same_storage and all(_number(backup.get(field)) == value for field, value in body.items())


def _observe(record: Record, given_conf: str) -> State:
    """A record as arguments."""
    observed = {argument: record.get(str(rules.DATABASE[argument].api)) for argument in [*_GENERAL, "publicPortTimeout"]}
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


def _changes(record: Record, inputs: State, before: State) -> tuple[State, bool]:
    """The fields to PATCH, and whether they need a restart. Arguments that are not given, and were not, are left alone."""
    observed = _observe(record, inputs.get("postgresConf", ""))
    changes: State = {}
    restart = False
    for argument in _GENERAL:
        field = rules.DATABASE[argument]
        wanted = inputs.get(argument, field.default)
        if (argument in inputs or argument in before) and observed[argument] != wanted:
            changes[str(field.api)] = wanted
            restart = restart or field.restart
    if ("postgresConf" in inputs or "postgresConf" in before) and observed["postgresConf"] != inputs.get("postgresConf"):
        changes["postgres_conf"] = rules.encode_conf(inputs.get("postgresConf", _EMPTY_CONF))
        restart = True
    return changes, restart
