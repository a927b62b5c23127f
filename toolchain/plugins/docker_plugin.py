"""Stands in for pulumi-docker: Container and Volume, over the engine's HTTP API, on this machine or through `ssh`."""

from __future__ import annotations

import http.client
import io
import json
import os
import queue
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit

from stand_in import Call, Difference, HalfDone, Plugin, Refusal, Resource, Values, changed, has_unknown, unique

MIB = 1024 * 1024
IN_USE_PATIENCE = 30  # seconds for a volume or network to become free
CONNECTIONS = {"ssh": 6, "unix": 32, "tcp": 32}  # at a time; sshd's MaxStartups and MaxSessions are 10


class DockerError(Exception):
    """The Docker engine refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class SshStream(http.client.HTTPConnection):
    """HTTP to the Docker engine at the other end of `ssh`, where `docker system dial-stdio` takes it to the engine."""

    def __init__(self, argv: list[str], shown: str) -> None:
        super().__init__("docker")
        self.argv, self.shown = argv, shown

    def connect(self) -> None:
        self.sock, theirs = socket.socketpair()
        # No pipe, which a shared ssh connection in the background would hold open.
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self.process = subprocess.Popen(
                self.argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self.errors, start_new_session=True
            )

    def why(self) -> str:
        """What `ssh` said, after the stream broke."""
        self.close()
        self.process.wait()
        self.errors.seek(0)
        said = " ".join(self.errors.read().decode(errors="replace").split())
        return f"{self.shown}: {said or f'ssh exited with {self.process.returncode}'}"


class UnixStream(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class DockerEngine:
    """The Docker engine at `host`, with the open connections to it."""

    def __init__(self, host: str, ssh_opts: list[str]) -> None:
        self.host, url = host, urlsplit(host)
        self._open: Callable[[], http.client.HTTPConnection]
        if url.scheme == "ssh":
            argv = ["ssh", "-o", "ConnectTimeout=30", "-T", *ssh_opts]
            argv += ["-l", url.username] if url.username else []
            argv += ["-p", str(url.port)] if url.port else []
            argv += ["--", url.hostname or "", "docker system dial-stdio"]
            self._open = lambda: SshStream(argv, host)
        elif url.scheme == "unix":
            self._open = lambda: UnixStream(url.path)
        elif url.scheme == "tcp":
            self._open = lambda: http.client.HTTPConnection(url.hostname or "", url.port or 2375)
        else:
            raise ValueError(f"host {host}: the stand-in plugin knows ssh://, unix:// and tcp://")
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()
        self._slots = threading.BoundedSemaphore(CONNECTIONS[url.scheme])

    @contextmanager
    def _connection(self) -> Any:
        with self._slots:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = self._open()
            try:
                yield connection
            except (OSError, http.client.HTTPException) as error:
                why = connection.why() if isinstance(connection, SshStream) else f"{self.host}: {error}"
                raise RuntimeError(f"the Docker engine cannot be reached: {why}") from error
            self._idle.put(connection)

    def request(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The engine's answer, from JSON; `body` is bytes or becomes JSON. Raises DockerError with the engine's own words."""
        if query:
            path += "?" + urlencode({key: str(value).lower() if isinstance(value, bool) else value for key, value in query.items()})
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with self._connection() as connection:
            connection.request(method, path, data, {"Content-Type": kind})
            response = connection.getresponse()
            answer = response.read()
        if response.status >= 400:
            try:
                raise DockerError(response.status, json.loads(answer)["message"])
            except (ValueError, KeyError):
                raise DockerError(response.status, answer.decode(errors="replace").strip()) from None
        if "json" not in (response.headers["Content-Type"] or ""):
            return answer
        lines = [json.loads(line) for line in answer.splitlines() if line.strip()]
        return lines[0] if len(lines) == 1 else lines

    def find(self, path: str) -> Any:
        """The object at `path`, None when there is none."""
        try:
            return self.request("GET", path)
        except DockerError as error:
            if error.status != 404:
                raise
            return None

    def remove(self, path: str, **query: Any) -> None:
        """Deletes what may be gone, and what somebody may still let go of."""
        deadline = time.monotonic() + IN_USE_PATIENCE
        while True:
            try:
                self.request("DELETE", path, **query)
                return
            except DockerError as error:
                if error.status == 404 or "already in progress" in str(error):
                    return
                busy = error.status == 409 or "has active endpoints" in str(error)
                if not busy or time.monotonic() > deadline:
                    raise
            time.sleep(0.3)


def labels_to_map(labels: list[Values] | None) -> Values:
    return {label["label"]: label["value"] for label in labels or []}


def map_to_labels(labels: Values | None) -> list[Values]:
    return [{"label": key, "value": value} for key, value in sorted((labels or {}).items())]


class DockerResource(Resource):
    """What the two have in common. Sets are compared without their order; some inputs are read back from the engine."""

    sets: ClassVar[set[str]] = {"labels"}
    in_place: ClassVar[set[str]] = set()
    read_back: ClassVar[Values] = {}
    """The inputs whose real value a refresh finds, with what they are when they are not given."""

    def __init__(self, plugin: DockerPlugin) -> None:
        self._plugin = plugin

    @property
    def docker(self) -> DockerEngine:
        return self._plugin.docker

    def check(self, name: str, old: Values, inputs: Values) -> Values:
        return inputs if inputs.get("name") else inputs | {"name": old.get("name") or unique(f"{name}-", 7)}

    def diff(self, old_inputs: Values, state: Values, inputs: Values) -> Difference:
        real = {key: state.get(key, default) for key, default in self.read_back.items() if key in inputs or default is not None}
        wanted = {key: inputs.get(key, self.read_back[key]) for key in real}
        keys = changed(self._ordered(old_inputs), self._ordered(inputs)) - set(real) | changed(
            self._ordered(real), self._ordered(wanted)
        )
        update = keys & self.in_place
        # A name that the program gave can be there only once; one that was made up is made anew.
        return Difference(update, keys - update, delete_before_replace="name" not in keys)

    def _ordered(self, values: Values) -> Values:
        def by_content(item: Any) -> str:
            return json.dumps(item, sort_keys=True)  # an object's keys come over the wire in any order

        return {
            key: sorted(value, key=by_content) if key in self.sets and isinstance(value, list) else value
            for key, value in values.items()
        }

    def drifted_inputs(self, inputs: Values, state: Values) -> Values:
        """`inputs` with the real values, so that a refresh shows what somebody else changed."""
        real = {
            key: state[key] for key, default in self.read_back.items() if key in state and (key in inputs or state[key] != default)
        }
        return inputs | {key: value for key, value in real.items() if key in inputs or self.read_back[key] is not None}


class Volume(DockerResource):
    shape: ClassVar[dict[str, Any]] = {
        "name": None,
        "driver": None,
        "driverOpts": None,
        "labels": dict.fromkeys(("label", "value")),
    }
    outputs = ("driver", "mountpoint")
    read_back: ClassVar[Values] = {"driver": "local", "driverOpts": {}, "labels": []}

    def create(self, call: Call, name: str, inputs: Values) -> tuple[str, Values]:
        body = {
            "Name": inputs["name"],
            "Driver": inputs.get("driver", "local"),
            "DriverOpts": inputs.get("driverOpts") or {},
            "Labels": labels_to_map(inputs.get("labels")),
        }
        volume = self.docker.request("POST", "/volumes/create", body)
        return volume["Name"], self.state(volume, inputs)

    def state(self, volume: Values, inputs: Values) -> Values:
        """Whoever made it: of a volume that was there already, its driver, options and labels are what they are."""
        real = {"driverOpts": volume.get("Options") or {}, "labels": map_to_labels(volume.get("Labels"))}
        return inputs | real | {"name": volume["Name"], "driver": volume["Driver"], "mountpoint": volume["Mountpoint"]}

    def read(self, call: Call, identity: str, state: Values, inputs: Values) -> tuple[Values, Values] | None:
        volume = self.docker.find(f"/volumes/{quote(identity)}")
        if volume is None:
            return None
        state = state | {"name": volume["Name"]}
        if not inputs:  # an import
            inputs = {"name": volume["Name"]}
        state = self.state(volume, state)
        return state, self.drifted_inputs(inputs, state)

    def delete(self, call: Call, identity: str, state: Values) -> None:
        self.docker.remove(f"/volumes/{quote(identity)}")


class Container(DockerResource):
    shape: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("name", "image", "envs", "command", "init", "restart", "memory", "memorySwap", "shmSize", "logOpts")),
        **dict.fromkeys(("networkMode", "destroyGraceSeconds", "securityOpts")),
        "capabilities": dict.fromkeys(("adds", "drops")),
        "labels": dict.fromkeys(("label", "value")),
        "ports": dict.fromkeys(("internal", "external", "ip", "protocol")),
        "volumes": dict.fromkeys(("volumeName", "hostPath", "containerPath")),
        "uploads": dict.fromkeys(("file", "content", "permissions")),
    }
    required = ("image",)
    sets: ClassVar[set[str]] = {"labels", "envs", "volumes", "uploads"}
    in_place: ClassVar[set[str]] = {
        *("restart", "memory", "memorySwap"),  # the engine is told
        "mustRun",  # a stopped container, which a refresh finds, is started
        "destroyGraceSeconds",  # for the next time
    }
    read_back: ClassVar[Values] = {
        **{"name": None, "image": None, "networkMode": None, "memorySwap": None},
        **{"restart": "no", "memory": 0, "mustRun": True},
    }
    outputs = (
        *("bridge", "command", "containerLogs", "entrypoints", "envs", "exitCode", "healthcheck", "hostname", "init", "ipcMode"),
        *("logDriver", "networkDatas", "platform", "runtime", "securityOpts", "shmSize", "stopSignal", "stopTimeout"),
    )

    def check(self, name: str, old: Values, inputs: Values) -> Values:
        if "" in (inputs.get("command") or []):
            raise Refusal("command", "values for command may not be empty")
        return super().check(name, old, inputs)

    def diff(self, old_inputs: Values, state: Values, inputs: Values) -> Difference:
        difference = super().diff(old_inputs, state, inputs)
        difference.delete_before_replace = True  # whatever the name: two servers must not have the same data, nor the same port
        return difference

    def create(self, call: Call, name: str, inputs: Values) -> tuple[str, Values]:
        identity = self._create(inputs)
        try:
            for upload in inputs.get("uploads") or []:
                self.docker.request("PUT", f"/containers/{identity}/archive?path=/", tar_of(upload))
            self.docker.request("POST", f"/containers/{identity}/start")
        except Exception as error:
            raise HalfDone(identity, inputs, f"container {inputs['name']} was created, but: {error}") from error
        return identity, self.state(self.docker.request("GET", f"/containers/{identity}/json"), inputs)

    def _create(self, inputs: Values) -> str:
        image, path = inputs["image"], f"/containers/create?name={quote(inputs['name'])}"
        body = {key: value for key, value in create_body(inputs).items() if value is not None}
        try:
            identity = self.docker.request("POST", path, body)["Id"]
        except DockerError as error:
            if error.status != 404 or image.startswith("sha256:"):
                raise RuntimeError(f"Unable to create container with image {image}: {error}") from error
            progress = self.docker.request("POST", "/images/create", fromImage=image)
            failed = [line["error"] for line in (progress if isinstance(progress, list) else [progress]) if "error" in line]
            if failed:
                raise RuntimeError(f"Unable to create container with image {image}: {failed[0]}") from error
            identity = self.docker.request("POST", path, body)["Id"]
        return str(identity)

    def state(self, container: Values, inputs: Values) -> Values:
        """The inputs, and what the engine made of them."""
        config, host, networks = container["Config"], container["HostConfig"], container["NetworkSettings"]
        running = container["State"]["Running"]
        outputs = {
            "bridge": networks.get("Bridge") or "",
            "containerLogs": "",
            "exitCode": 0 if running else container["State"]["ExitCode"],
            "networkDatas": [
                {
                    "networkName": name,
                    "ipAddress": network["IPAddress"],
                    "ipPrefixLength": network["IPPrefixLen"],
                    "gateway": network["Gateway"],
                    "globalIpv6Address": network["GlobalIPv6Address"],
                    "globalIpv6PrefixLength": network["GlobalIPv6PrefixLen"],
                    "ipv6Gateway": network["IPv6Gateway"],
                    "macAddress": network["MacAddress"],
                }
                for name, network in sorted((networks.get("Networks") or {}).items())
            ],
            "command": config["Cmd"] or [],
            "entrypoints": config["Entrypoint"] or [],
            "hostname": config["Hostname"],
            "init": bool(host.get("Init")),
            "ipcMode": host["IpcMode"],
            "logDriver": host["LogConfig"]["Type"],
            "platform": container["Platform"],
            "runtime": host["Runtime"],
            "securityOpts": host["SecurityOpt"] or [],
            "shmSize": host["ShmSize"] // MIB,
            "stopSignal": config.get("StopSignal") or "",
            "stopTimeout": config.get("StopTimeout") or 0,
            # What a refresh compares.
            "name": container["Name"].removeprefix("/"),
            "image": container["Image"] if inputs["image"].startswith("sha256:") else config["Image"],
            "networkMode": inputs.get("networkMode", "bridge") if host["NetworkMode"] == "default" else host["NetworkMode"],
            "restart": host["RestartPolicy"]["Name"] or "no",
            "memory": host["Memory"] // MIB,
            "memorySwap": host["MemorySwap"] // MIB if host["MemorySwap"] > 0 else host["MemorySwap"],
            "mustRun": running,
        }
        unset = {"envs": config["Env"] or [], "labels": map_to_labels(config["Labels"])}
        return unset | inputs | outputs

    def read(self, call: Call, identity: str, state: Values, inputs: Values) -> tuple[Values, Values] | None:
        container = self.docker.find(f"/containers/{quote(identity)}/json")
        if container is None:
            return None
        inputs = inputs or {"name": container["Name"].removeprefix("/"), "image": container["Config"]["Image"]}
        state = self.state(container, {"image": inputs["image"]} | {key: value for key, value in state.items() if key != "mustRun"})
        return state, self.drifted_inputs(inputs, state)

    def update(self, call: Call, identity: str, state: Values, inputs: Values) -> Values:
        if not state.get("mustRun", True):
            self.docker.request("POST", f"/containers/{identity}/start")
        limits = ("restart", "memory", "memorySwap")
        if any(state.get(key) != inputs.get(key) for key in limits if key in state or key in inputs):
            body: Values = {"RestartPolicy": restart_policy(inputs), "Memory": inputs.get("memory", 0) * MIB}
            if inputs.get("memorySwap"):
                body["MemorySwap"] = swap_bytes(inputs["memorySwap"])
            self.docker.request("POST", f"/containers/{identity}/update", body)
        # Only a refresh sees that a container has stopped.
        return self.state(self.docker.request("GET", f"/containers/{identity}/json"), inputs) | {"mustRun": True}

    def delete(self, call: Call, identity: str, state: Values) -> None:
        try:
            self.docker.request("POST", f"/containers/{identity}/stop", t=state.get("destroyGraceSeconds") or 0)
        except DockerError as error:
            if error.status != 404:
                raise
        self.docker.remove(f"/containers/{identity}", v=True, force=True)


def restart_policy(inputs: Values) -> Values:
    return {"Name": inputs.get("restart", "no")}


def swap_bytes(mebibytes: int) -> int:
    return mebibytes * MIB if mebibytes > 0 else mebibytes


def create_body(inputs: Values) -> Values:
    """The engine's words for a container's inputs."""
    ports: dict[str, list[Values]] = {}
    for port in inputs.get("ports") or []:
        binding = {"HostIp": port.get("ip", "0.0.0.0"), "HostPort": str(port.get("external", ""))}  # noqa: S104
        ports.setdefault(f"{port['internal']}/{port.get('protocol', 'tcp')}", []).append(binding)
    binds = [
        f"{volume.get('volumeName') or volume['hostPath']}:{volume['containerPath']}:rw" for volume in inputs.get("volumes") or []
    ]
    return {
        "Image": inputs["image"],
        "Env": inputs.get("envs"),
        "Cmd": inputs.get("command"),
        "Labels": labels_to_map(inputs.get("labels")),
        "ExposedPorts": {port: {} for port in ports},
        "HostConfig": {
            "PortBindings": ports,
            "Binds": binds,
            "RestartPolicy": restart_policy(inputs),
            "Memory": inputs.get("memory", 0) * MIB,
            "MemorySwap": swap_bytes(inputs.get("memorySwap", 0)),
            "ShmSize": inputs.get("shmSize", 0) * MIB,
            "LogConfig": {"Type": "", "Config": inputs.get("logOpts") or {}},
            "NetworkMode": inputs.get("networkMode", "bridge"),
            "Init": inputs.get("init", False),
            "CapAdd": (inputs.get("capabilities") or {}).get("adds"),
            "CapDrop": (inputs.get("capabilities") or {}).get("drops"),
            "SecurityOpt": inputs.get("securityOpts"),
        },
    }


def tar_of(upload: Values) -> bytes:
    """An archive with the one file that an entry of `uploads` describes, owned by root."""
    content = upload["content"].encode()
    entry = tarfile.TarInfo(upload["file"].lstrip("/"))
    entry.size, entry.mtime = len(content), int(time.time())
    entry.mode = int(upload.get("permissions") or "0644", 8)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class DockerPlugin(Plugin):
    def __init__(self) -> None:
        resources = {
            "docker:index/container:Container": Container(self),
            "docker:index/volume:Volume": Volume(self),
        }
        super().__init__("docker", "5.1.0", resources)
        self._config: Values = {}
        self._lock = threading.Lock()
        self._engine: DockerEngine | None = None

    def check_config(self, config: Values) -> None:
        for key in config:
            if key not in ("host", "sshOpts"):
                raise Refusal(
                    key, f"the stand-in plugin does not implement the provider's input {key}; install the official plugin to use it"
                )

    def configure(self, config: Values) -> None:
        if os.environ.get("DOCKER_CONTEXT"):
            raise ValueError(
                "DOCKER_CONTEXT is set: unset it, or install the official plugin; the stand-in does not implement Docker contexts"
            )
        self._config = config

    @property
    def docker(self) -> DockerEngine:
        """Made when it is first needed, since in a preview the host may not be known."""
        with self._lock:
            if self._engine is None:
                host = self._config.get("host") or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
                options = self._config.get("sshOpts") or []
                if has_unknown([host, options]):
                    raise ValueError("the provider's host is not known yet")
                self._engine = DockerEngine(host, json.loads(options) if isinstance(options, str) else options)
            return self._engine

    def cancel(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    DockerPlugin().serve()
