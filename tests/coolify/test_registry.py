"""The registry on loopback, and what Coolify's nightly cleanup leaves of all this, on the real engine."""

import dataclasses
import http.client
import json
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.coolify.fixtures import Registry, registry_scripts, shell
from tests.support import REPOSITORY
from tests.support.docker import BASE_IMAGE, docker


def nightly_cleanup(folder: Path, names: list[str]) -> None:
    """What Coolify 4.3.11 runs on a server at night, and after stops and deletes that ask for it.

    Only on our own things: other people's containers and images on this engine are none of a test's business. So the prune has one
    more filter, and the list of images goes through one more grep.
    """
    engine = shutil.which("docker")
    assert engine
    ours = "|".join(name.replace(".", "[.]") for name in names)
    # `docker images` lists ours only.
    (folder / "docker").write_text(
        f'#!/bin/sh\ntest "$1" = images || exec {engine} "$@"\n{engine} "$@" | grep -E {shlex.quote(f"^({ours})")}\n'
    )
    (folder / "docker").chmod(0o755)
    commands = [
        'docker container prune -f --filter "label=coolify.managed=true" --filter "label!=coolify.proxy=true"'
        ' --filter "label!=coolify.type=database" --filter "label!=coolify.type=application"'
        f' --filter "label!=coolify.type=service" --filter "label=coolify-test={folder.name}"',
        "docker images --format '{{.Repository}}:{{.Tag}}' | grep -v '<none>' | xargs -r -I {} sh -c"
        ' \'docker inspect --format "{{index .Config.Labels \\"coolify.managed\\"}}" "{}" 2>/dev/null | grep -q true'
        ' || docker rmi "{}" 2>/dev/null\' || true',
    ]
    for command in commands:
        subprocess.run(["sh", "-c", command], env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}, check=True)


def test_it_listens_on_loopback_only_and_keeps_its_data_in_a_volume(registry: Registry) -> None:
    inspected = docker("inspect", "--format", "{{.HostConfig.NetworkMode}} {{.HostConfig.RestartPolicy.Name}}", registry.container)
    assert inspected == "host unless-stopped"
    listening = shell(f"grep -il ':{registry.port:04X} 00000000:0000 0A' /proc/net/tcp /proc/net/tcp6")
    assert listening == "/proc/net/tcp"
    assert f"0100007F:{registry.port:04X}" in Path("/proc/net/tcp").read_text()  # 127.0.0.1
    assert docker("volume", "inspect", "--format", "{{.Name}}", registry.container) == registry.container

    connection = http.client.HTTPConnection("127.0.0.1", registry.port)
    connection.request("GET", f"/v2/{registry.image.partition(':')[0]}/tags/list")
    assert registry.name.rpartition(":")[2] in connection.getresponse().read().decode()


def test_pushing_again_is_nothing(registry: Registry) -> None:
    before = docker("inspect", "--format", "{{.Id}}", registry.container)
    assert registry.push(registry.image_id) == registry.reference
    assert docker("inspect", "--format", "{{.Id}}", registry.container) == before


def test_a_stopped_registry_is_started(registry: Registry) -> None:
    docker("stop", "-t", "1", registry.container)
    assert registry.push(registry.image_id) == registry.reference


def test_what_is_pushed_can_be_pulled_without_the_build(registry: Registry) -> None:
    """As after the loss of the image on the host: the registry alone is enough."""
    name = f"coolify-test-{uuid.uuid4().hex[:8]}"
    build = f"FROM {registry.image}\nLABEL test={name}\n"
    subprocess.run(["docker", "build", "-q", "-t", name, "-"], input=build, text=True, check=True)
    image_id = docker("image", "inspect", "--format", "{{.Id}}", name)
    reference = registry.push(image_id)
    docker("image", "rm", name, reference.partition("@")[0])
    assert subprocess.run(["docker", "image", "inspect", image_id], capture_output=True, check=False).returncode != 0
    docker("pull", "-q", reference)
    assert docker("image", "inspect", "--format", "{{.Id}}", reference) == image_id

    # The next push tidies up behind it, since no container uses it.
    docker("tag", image_id, reference.partition("@")[0])
    registry.push(registry.image_id)
    assert subprocess.run(["docker", "image", "inspect", image_id], capture_output=True, check=False).returncode != 0


def test_a_port_that_is_taken_is_reported(registry: Registry, built_image: tuple[str, str]) -> None:
    image, image_id = built_image
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        push, remove = registry_scripts(image, image_id, port, registry.registry_image, keeper="coolify-test-no-keeper")
        done = subprocess.run(["sh"], input=push, capture_output=True, text=True, check=False)
        shell(remove)
    assert done.returncode == 1
    assert f"The registry notifying-postgres-registry-{port} does not start" in done.stderr
    assert "address already in use" in done.stderr


def test_it_stays_for_containers_that_use_its_images(registry: Registry) -> None:
    container = f"coolify-test-{uuid.uuid4().hex[:8]}"
    docker("create", "--name", container, registry.reference)
    try:
        remove = registry.scripts(registry.image_id)[1]
        done = subprocess.run(["sh"], input=remove, capture_output=True, text=True, check=True)
        assert f"The registry {registry.container} stays" in done.stderr
        assert docker("inspect", "--format", "{{.State.Running}}", registry.container) == "true"
    finally:
        docker("rm", "-v", container)
        registry.push(registry.image_id)


def test_it_stays_for_the_images_of_other_stacks(registry: Registry) -> None:
    """Their database may be stopped, and Coolify removes the container of what it stops."""
    other = f"127.0.0.1:{registry.port}/coolify-test-other:16-{uuid.uuid4().hex[:12]}"
    docker("tag", registry.image_id, other)
    try:
        remove = registry.scripts(registry.image_id)[1]
        done = subprocess.run(["sh"], input=remove, capture_output=True, text=True, check=True)
        assert "stopped databases may need" in done.stderr
        assert docker("inspect", "--format", "{{.State.Running}}", registry.container) == "true"
        assert registry.push(registry.image_id) == registry.reference
    finally:
        docker("image", "rm", other)


def rebuild(registry: Registry) -> tuple[str, str]:
    """Another build of the image: its name and id."""
    name = f"coolify-test-{uuid.uuid4().hex[:8]}:16"
    build = f"FROM {registry.image}\nLABEL test={name}\n"
    subprocess.run(["docker", "build", "-q", "-t", name, "-"], input=build, text=True, check=True)
    return name, docker("image", "inspect", "--format", "{{.Id}}", name)


def test_after_rebuilds_the_last_stack_removes_it(registry: Registry) -> None:
    """A container still ran the build before when the next was pushed, and two stacks have the same build."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = dataclasses.replace(registry, port=free.getsockname()[1])
    container = f"coolify-test-{uuid.uuid4().hex[:8]}"
    first = own.push(own.image_id)
    docker("create", "--name", container, first)
    name, rebuilt = rebuild(registry)
    try:
        second = own.push(rebuilt)
        assert docker("images", "-q", first.partition("@")[0]), "a container uses it"
        other = own.scripts(rebuilt, keeper=f"{own.keeper}-other")
        assert shell(other[0]) == second
        docker("rm", "-v", container)

        shell(own.scripts(rebuilt)[1])
        assert docker("images", "-q", first.partition("@")[0]) == "", "the build of before goes with its stack"
        docker("pull", "-q", second)
        shell(other[1])
        for kind in ("container", "volume"):
            listed = docker(kind, "ls", *(["-a"] if kind == "container" else []), "--filter", f"name={own.container}", "-q")
            assert listed == ""
        assert docker("ps", "-aq", "--filter", f"name={own.keeper}") == ""
    finally:
        docker("rm", "-fv", container, own.container, own.keeper, f"{own.keeper}-other", check=False)
        docker("image", "rm", name, check=False)


def put_in_place_of(port: int, repository: str, tag: str, evil: str) -> int:
    """What any user of the host can do: the image `evil` of the registry gets another one's name.

    :returns: the answer's status.
    """

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request(method, path, body, headers)
        return connection.getresponse()

    answer = ask("GET", f"/v2/{evil}/manifests/16", Accept="application/vnd.docker.distribution.manifest.v2+json")
    manifest, kind = answer.read(), answer.getheader("Content-Type") or ""
    content = json.loads(manifest)
    for blob in [content["config"], *content["layers"]]:
        ask("POST", f"/v2/{repository}/blobs/uploads/?mount={blob['digest']}&from={evil}").read()
    return ask("PUT", f"/v2/{repository}/manifests/{tag}", manifest, **{"Content-Type": kind}).status


def as_nobody(work: Callable[[], bool]) -> bool:
    """Works in a process of the user nobody."""
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setgid(pwd.getpwnam("nobody").pw_gid)
            os.setuid(pwd.getpwnam("nobody").pw_uid)
        done = False
        try:
            done = work()
        finally:
            os._exit(0 if done else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_another_user_of_the_host_pushes_is_not_what_coolify_pulls(registry: Registry) -> None:
    name, evil = rebuild(registry)
    pushed = f"127.0.0.1:{registry.port}/evil:16"
    docker("tag", evil, pushed)
    docker("push", "-q", pushed)
    repository, tag = registry.name.partition("/")[2].split(":")
    try:
        # Once as we are: what Python imports on the way may be in folders that nobody cannot read.
        assert put_in_place_of(registry.port, "warm", "16", "evil") == 201
        assert as_nobody(lambda: put_in_place_of(registry.port, repository, tag, "evil") == 201), "the push itself is not refused"
        docker("pull", "-q", registry.name)
        assert docker("image", "inspect", "--format", "{{.Id}}", registry.name) == evil, "the tag is the attacker's"
        docker("image", "rm", pushed, registry.name)

        docker("pull", "-q", registry.reference)
        assert docker("image", "inspect", "--format", "{{.Id}}", registry.reference) == registry.image_id
    finally:
        docker("image", "rm", name, pushed, check=False)
        registry.push(registry.image_id)


def test_what_the_next_build_needs_survives_the_cleanup_of_a_stop(registry: Registry, tmp_path: Path) -> None:
    base = f"coolify-test-base-{uuid.uuid4().hex[:8]}:16"
    subprocess.run(["docker", "build", "-q", "-t", base, "-"], input=f"FROM {BASE_IMAGE}\nLABEL x={base}\n", text=True, check=True)
    push, remove = registry.scripts(registry.image_id, keeper=f"{registry.keeper}-base", base_image=base)
    try:
        shell(push)
        nightly_cleanup(tmp_path, [base])
        assert docker("images", "-q", base)
        shell(remove)
        nightly_cleanup(tmp_path, [base])
        assert docker("images", "-q", base) == "", "the cleanup did not run"
    finally:
        docker("image", "rm", base, check=False)


def test_a_kept_volume_survives_a_cleanup_that_deletes_unused_volumes() -> None:
    kept, lost = (f"coolify-test-{uuid.uuid4().hex[:8]}" for _ in range(2))
    label = f"coolify-test={kept}"
    folder = REPOSITORY / "components" / "notifying_postgres" / "on_host"

    def prune() -> None:
        """As Coolify does it, of these two volumes; `-a` means the same to engines before 23, which do not know it."""
        words = ["volume", "prune", "-f", "--filter", f"label={label}"]
        if subprocess.run(["docker", *words, "-a"], capture_output=True, check=False).returncode:
            docker(*words)

    for volume in (kept, lost):
        docker("volume", "create", "--label", label, volume)
    try:
        for _ in range(2):
            shell(f"sh {folder}/volume-keep.sh {kept} {BASE_IMAGE}")
        prune()
        assert docker("volume", "ls", "-q", "--filter", f"label={label}") == kept
        assert docker("container", "inspect", "--format", "{{.State.Status}}", f"{kept}-kept") == "created"
        shell(f"sh {folder}/volume-release.sh {kept}")
        prune()
        assert docker("volume", "ls", "-q", "--filter", f"label={label}") == ""
    finally:
        docker("rm", "-f", f"{kept}-kept", check=False)
        docker("volume", "rm", "-f", kept, lost, check=False)


def test_it_comes_back_when_its_process_ends(registry: Registry) -> None:
    """As after a reboot: nobody has to deploy before Coolify can pull."""
    process = docker("inspect", "--format", "{{.State.Pid}}", registry.container)
    docker("run", "--rm", "--pid", "host", "--entrypoint", "kill", registry.image_id, "-9", process)
    deadline = time.monotonic() + 20
    while docker("inspect", "--format", "{{.State.Running}} {{.RestartCount}}", registry.container) != "true 1":
        assert time.monotonic() < deadline, "it stayed down"
        time.sleep(0.1)
    shell(f"for try in $(seq 50); do docker pull -q {registry.reference} && exit; sleep 0.2; done; exit 1")


@pytest.mark.parametrize("state", ["running", "stopped", "unused"])
def test_the_nightly_cleanup_leaves_image_container_and_registry(registry: Registry, tmp_path: Path, state: str) -> None:
    managed, plain = (f"coolify-test-{uuid.uuid4().hex[:8]}" for _ in range(2))
    own = ["--label", f"coolify-test={tmp_path.name}", "-e", "POSTGRES_PASSWORD=x", "--tmpfs", "/var/lib/postgresql/data"]
    if state != "unused":
        # A database as Coolify labels it, and a plain container as this project labels it.
        docker("run", "-d", "--name", managed, *own, "--label", "coolify.type=database", registry.reference)
        docker("run", "-d", "--name", plain, *own, "--label", "coolify.managed=false", registry.image_id)
    if state == "stopped":
        docker("kill", managed, plain)
    other = f"coolify-test-{uuid.uuid4().hex[:8]}:1"
    build = f"FROM {registry.registry_image}\nLABEL test={other}\n"
    subprocess.run(["docker", "build", "-q", "-t", other, "-"], input=build, text=True, check=True)
    try:
        nightly_cleanup(tmp_path, [registry.image, registry.name, other, registry.registry_image])
        tags = docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
        assert other not in tags, "the cleanup did not run"
        assert registry.image in tags
        assert registry.name in tags
        assert registry.registry_image in tags, "its container holds it"
        if state != "unused":
            # The engine takes several label!= for one: it spares only what matches them all. So a stopped container of Coolify's
            # own is pruned, whatever Coolify meant; its data is in a named volume, and the next start makes it again.
            names = docker("ps", "-a", "--format", "{{.Names}}").splitlines()
            assert plain in names
            assert (managed in names) is (state == "running")
        docker("pull", "-q", registry.reference)
    finally:
        docker("rm", "-fv", managed, plain, check=False)
        docker("image", "rm", other, check=False)
