"""The registry on loopback, and what Coolify's nightly cleanup leaves of all this, on the real engine."""

import http.client
import os
import shlex
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.coolify.fixtures import Registry, registry_scripts, shell
from tests.support.docker import docker


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
    assert registry.reference.rpartition(":")[2] in connection.getresponse().read().decode()


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
    docker("image", "rm", name, reference)
    assert subprocess.run(["docker", "image", "inspect", image_id], capture_output=True, check=False).returncode != 0
    docker("pull", "-q", reference)
    assert docker("image", "inspect", "--format", "{{.Id}}", reference) == image_id

    # The next push tidies up behind it, since no container uses it.
    registry.push(registry.image_id)
    assert reference not in docker("images", "--format", "{{.Repository}}:{{.Tag}}")


def test_a_port_that_is_taken_is_reported(registry: Registry, built_image: tuple[str, str]) -> None:
    image, image_id = built_image
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        push, remove = registry_scripts(image, image_id, port, registry.registry_image)
        done = subprocess.run(["sh"], input=push, capture_output=True, text=True, check=False)
        shell(remove)
    assert done.returncode == 1
    assert f"The registry notifying-postgres-registry-{port} does not start" in done.stderr
    assert "address already in use" in done.stderr


def test_it_stays_for_containers_that_use_its_images(registry: Registry) -> None:
    container = f"coolify-test-{uuid.uuid4().hex[:8]}"
    docker("create", "--name", container, registry.reference)
    try:
        remove = registry_scripts(registry.image, registry.image_id, registry.port, registry.registry_image)[1]
        done = subprocess.run(["sh"], input=remove, capture_output=True, text=True, check=True)
        assert f"The registry {registry.container} stays" in done.stderr
        assert docker("inspect", "--format", "{{.State.Running}}", registry.container) == "true"
    finally:
        docker("rm", "-v", container)


def test_it_stays_for_the_images_of_other_stacks(registry: Registry) -> None:
    """Their database may be stopped, and Coolify removes the container of what it stops."""
    other = f"127.0.0.1:{registry.port}/coolify-test-other:16-{uuid.uuid4().hex[:12]}"
    docker("tag", registry.image_id, other)
    try:
        remove = registry_scripts(registry.image, registry.image_id, registry.port, registry.registry_image)[1]
        done = subprocess.run(["sh"], input=remove, capture_output=True, text=True, check=True)
        assert "stopped databases may need" in done.stderr
        assert docker("inspect", "--format", "{{.State.Running}}", registry.container) == "true"
        assert registry.push(registry.image_id) == registry.reference
    finally:
        docker("image", "rm", other)


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
        nightly_cleanup(tmp_path, [registry.image, registry.reference, other, registry.registry_image])
        tags = docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
        assert other not in tags, "the cleanup did not run"
        assert registry.image in tags
        assert registry.reference in tags
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
