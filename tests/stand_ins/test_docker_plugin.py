"""The stand-in for pulumi-docker does what the official plugin does."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.stand_ins.plugins import Made, Plugin, in_parallel, secret
from tests.support.docker import BASE_IMAGE, docker
from tests.support.sshd import Sshd

pytestmark = pytest.mark.needs("docker")

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SLEEP = ["sleep", "1000"]


def inspect(name: str) -> dict[str, Any]:
    return dict(json.loads(docker("container", "inspect", name))[0])


def failure(error: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    return str(error.value.details())


def exists(kind: str, name: str) -> bool:
    return (
        name
        in docker(
            kind, "ls", "--format", "{{.Name}}" if kind != "container" else "{{.Names}}", *(["-a"] if kind == "container" else [])
        ).split()
    )


# Container


def test_a_container_has_all_that_was_asked_for(docker_plugin: Plugin, unique_name: str, tmp_path: Path) -> None:
    docker("network", "create", unique_name)
    volume = docker_plugin.create("Volume", {"name": unique_name})
    made = docker_plugin.create(
        "Container",
        {
            "name": unique_name,
            "image": docker("image", "inspect", "--format", "{{.Id}}", BASE_IMAGE),
            "command": SLEEP,
            "envs": ["A=b c", "D=e"],
            "labels": [{"label": "of", "value": "a test"}],
            "ports": [{"internal": 5432, "ip": "127.0.0.1"}],
            "volumes": [
                {"volumeName": volume.state["name"], "containerPath": "/data"},
                {"hostPath": str(tmp_path), "containerPath": "/host"},
            ],
            "uploads": [
                {"file": "/new/folder/secret", "content": secret("hidden"), "permissions": "0400"},
                {"file": "/text", "content": "shown"},
            ],
            "networkMode": unique_name,
            "capabilities": {"adds": ["CAP_KILL"], "drops": ["ALL"]},
            "securityOpts": ["no-new-privileges:true"],
            "init": True,
            "memory": 64,
            "memorySwap": 128,
            "shmSize": 32,
            "restart": "unless-stopped",
            "logOpts": {"max-size": "1m"},
        },
    )
    real = inspect(unique_name)
    host = real["HostConfig"]
    assert made.id == real["Id"]
    assert {"A=b c", "D=e"} < set(real["Config"]["Env"])
    assert real["Config"]["Labels"]["of"] == "a test"
    assert host["PortBindings"] == {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    assert host["Binds"] == [f"{unique_name}:/data:rw", f"{tmp_path}:/host:rw"]
    assert list(real["NetworkSettings"]["Networks"]) == [unique_name]
    assert (host["CapAdd"], host["CapDrop"]) == (["CAP_KILL"], ["ALL"])
    assert (host["SecurityOpt"], host["Init"]) == (["no-new-privileges:true"], True)
    assert (host["Memory"], host["MemorySwap"], host["ShmSize"]) == (64 << 20, 128 << 20, 32 << 20)
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"] == {"max-size": "1m"}
    assert docker("exec", unique_name, "stat", "-c", "%a %u", "/new/folder/secret", "/text").split("\n") == ["400 0", "644 0"]
    assert docker("exec", unique_name, "cat", "/new/folder/secret") == "hidden"
    # and the outputs, which programs use
    [data] = made.state["networkDatas"]
    assert (data["networkName"], data["ipAddress"]) == (unique_name, real["NetworkSettings"]["Networks"][unique_name]["IPAddress"])
    assert made.state["uploads"][0]["content"] == secret("hidden")
    assert {"hostname", "shmSize", "logDriver", "entrypoints", "exitCode", "bridge", "runtime"} <= made.state.keys()


@pytest.fixture
def sleeping(docker_plugin: Plugin, unique_name: str) -> Made:
    return docker_plugin.create(
        "Container",
        {"name": unique_name, "image": BASE_IMAGE, "command": SLEEP, "envs": ["A=1", "B=2"], "restart": "no", "memory": 64}
        | {
            "labels": [{"label": "a", "value": "1"}, {"label": "b", "value": "2"}],
            "logOpts": {"max-size": "1m"},
        }
        | {"networkMode": "bridge"},
    )


@pytest.mark.parametrize(
    ("change", "effect"),
    [
        ({"envs": ["B=2", "A=1"], "labels": [{"label": "b", "value": "2"}, {"label": "a", "value": "1"}]}, "none"),
        ({"envs": ["A=1", "B=3"]}, "replace"),
        ({"command": ["sleep", "1001"]}, "replace"),
        ({"image": "sha256:0000"}, "replace"),
        ({"name": "other"}, "replace"),
        ({"ports": [{"internal": 1}]}, "replace"),
        ({"uploads": [{"file": "/a", "content": "b"}]}, "replace"),
        ({"labels": []}, "replace"),
        ({"logOpts": {"max-size": "2m"}}, "replace"),
        ({"networkMode": "n"}, "replace"),
        ({"capabilities": {"drops": ["ALL"]}}, "replace"),
        ({"shmSize": 10}, "replace"),
        ({"restart": "always"}, "update"),
        ({"memory": 65}, "update"),
        ({"destroyGraceSeconds": 5}, "update"),
    ],
)
def test_what_replaces_and_what_updates(docker_plugin: Plugin, sleeping: Made, change: dict[str, Any], effect: str) -> None:
    diff = docker_plugin.diff(sleeping, sleeping.inputs | change)
    assert set(diff.diffs) == (set() if effect == "none" else set(change))
    assert set(diff.replaces) == (set(change) if effect == "replace" else set())
    assert diff.deleteBeforeReplace == (effect == "replace")
    assert diff.changes == (diff.DIFF_NONE if effect == "none" else diff.DIFF_SOME)


def test_limits_and_restart_policy_change_in_place(docker_plugin: Plugin, sleeping: Made) -> None:
    made = docker_plugin.update(sleeping, sleeping.inputs | {"memory": 96, "restart": "always"})
    host = inspect(sleeping.id)["HostConfig"]
    assert (host["Memory"], host["RestartPolicy"]["Name"]) == (96 << 20, "always")
    assert (made.id, made.state["memory"], made.state["restart"]) == (sleeping.id, 96, "always")


def test_a_refresh_that_finds_nothing_new_changes_nothing(docker_plugin: Plugin, sleeping: Made) -> None:
    read = docker_plugin.read(sleeping)
    assert (read.id, read.state, read.inputs) == (sleeping.id, sleeping.state, sleeping.inputs)


def test_a_refresh_finds_what_somebody_changed_and_the_next_up_mends_it(docker_plugin: Plugin, sleeping: Made) -> None:
    docker("update", "--restart", "always", "--memory", "80m", sleeping.id)
    docker("stop", "-t", "0", sleeping.id)
    read = docker_plugin.read(sleeping)
    assert (read.state["restart"], read.state["memory"], read.state["mustRun"]) == ("always", 80, False)
    assert (read.inputs["restart"], read.inputs["memory"]) == ("always", 80)
    diff = docker_plugin.diff(read, sleeping.inputs)
    assert (sorted(diff.diffs), list(diff.replaces)) == (["memory", "mustRun", "restart"], [])
    docker_plugin.update(read, sleeping.inputs)
    real = inspect(sleeping.id)
    assert (real["State"]["Running"], real["HostConfig"]["Memory"], real["HostConfig"]["RestartPolicy"]["Name"]) == (
        True,
        64 << 20,
        "no",
    )


def test_a_refresh_finds_a_container_gone(docker_plugin: Plugin, sleeping: Made) -> None:
    docker("rm", "-f", "-v", sleeping.id)
    assert docker_plugin.read(sleeping).id == ""
    docker_plugin.delete(sleeping)


def test_a_stop_gives_as_many_seconds_as_asked_for(docker_plugin: Plugin, unique_name: str) -> None:
    docker_plugin.create("Volume", {"name": unique_name})
    script = "trap 'sleep 1; echo ended >/data/log; exit' INT; touch /data/ready; while :; do sleep 0.1; done"
    inputs = {
        "name": unique_name,
        "image": BASE_IMAGE,
        "command": ["sh", "-c", script],
        "volumes": [{"volumeName": unique_name, "containerPath": "/data"}],
    }

    def stop(inputs: dict[str, Any]) -> None:
        made = docker_plugin.create("Container", inputs)
        docker("exec", made.id, "sh", "-c", "until rm /data/ready 2>/dev/null; do sleep 0.1; done")  # the trap is set
        docker_plugin.delete(made)

    stop(inputs)
    read = (
        "run",
        "--rm",
        "--name",
        f"{unique_name}-reader",
        "-v",
        f"{unique_name}:/data",
        BASE_IMAGE,
        "sh",
        "-c",
        "cat /data/log || true",
    )
    assert docker(*read) == "", "without grace it is killed"
    stop(inputs | {"destroyGraceSeconds": 20})
    assert docker(*read) == "ended"
    assert not exists("container", unique_name)


def test_anonymous_volumes_go_with_the_container(docker_plugin: Plugin, unique_name: str) -> None:
    made = docker_plugin.create("Container", {"name": unique_name, "image": BASE_IMAGE, "command": SLEEP})
    [volume] = [mount["Name"] for mount in inspect(made.id)["Mounts"]]  # the image's
    docker_plugin.delete(made)
    assert not exists("volume", volume)


def test_a_container_that_cannot_be_started_is_there_all_the_same(docker_plugin: Plugin, unique_name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [{"internal": 1, "external": taken.getsockname()[1], "ip": "127.0.0.1"}]
        with pytest.raises(grpc.RpcError) as error:
            docker_plugin.create("Container", {"name": unique_name, "image": BASE_IMAGE, "command": SLEEP, "ports": ports})
    assert f"container {unique_name} was created, but: " in failure(error)
    assert "address already in use" in failure(error)
    details = b"".join(datum.value for datum in error.value.trailing_metadata() if datum.key == "grpc-status-details-bin")
    assert inspect(unique_name)["Id"].encode() in details, "the engine is told what there is"
    docker("rm", "-f", "-v", unique_name)


def test_a_missing_image_is_named(docker_plugin: Plugin, unique_name: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        docker_plugin.create("Container", {"name": unique_name, "image": "sha256:" + "0" * 64})
    assert "Unable to create container with image sha256:000" in failure(error)


def test_what_is_not_implemented_is_refused_by_name(docker_plugin: Plugin) -> None:
    container = {"image": BASE_IMAGE}
    assert docker_plugin.refusal("Container", container | {"privileged": True}).startswith("privileged: ")
    assert "volumes.readOnly" in docker_plugin.refusal("Container", container | {"volumes": [{"readOnly": True}]})
    assert docker_plugin.refusal("Container", {}).startswith("image: ")
    assert docker_plugin.refusal("Volume", {"cluster": {}}).startswith("cluster: ")


def test_a_preview_makes_nothing_and_takes_what_is_not_known(docker_plugin: Plugin, unique_name: str) -> None:
    uploads = [{"file": "/a", "content": secret(UNKNOWN)}]
    outputs = docker_plugin.preview("Container", {"name": unique_name, "image": UNKNOWN, "uploads": uploads, "ports": UNKNOWN})
    assert outputs["image"] == outputs["networkDatas"] == UNKNOWN
    assert not exists("container", unique_name)


def test_a_name_is_made_up_once(docker_plugin: Plugin) -> None:
    first = docker_plugin.check("Container", {"image": BASE_IMAGE})
    assert first["name"].startswith("it-")
    assert docker_plugin.check("Container", {"image": BASE_IMAGE}, first)["name"] == first["name"]
    assert docker_plugin.check("Container", {"image": BASE_IMAGE})["name"] != first["name"]


# Volume


def test_volumes_come_change_and_go(docker_plugin: Plugin, unique_name: str) -> None:
    inputs = {"name": unique_name, "labels": [{"label": "a", "value": "1"}]}
    made = docker_plugin.create("Volume", inputs)
    assert json.loads(docker("volume", "inspect", unique_name))[0]["Labels"] == {"a": "1"}
    assert made.state["driver"] == "local"
    read = docker_plugin.read(made)
    assert (read.state, read.inputs) == (made.state, made.inputs)
    diff = docker_plugin.diff(made, inputs | {"labels": []})
    assert (list(diff.replaces), diff.deleteBeforeReplace) == (["labels"], True)
    renamed = docker_plugin.diff(made, inputs | {"name": "other"})
    assert (list(renamed.replaces), renamed.deleteBeforeReplace) == (["name"], False)
    docker_plugin.delete(made)
    assert not exists("volume", unique_name)
    assert docker_plugin.read(made).id == ""
    docker_plugin.delete(made)


def test_an_existing_volumes_labels_and_options_would_replace_it(docker_plugin: Plugin, unique_name: str) -> None:
    """As the official plugin reads them back: only who ignores them keeps the volume."""
    docker("volume", "create", "--label", "by=hand", "--opt", "type=tmpfs", "--opt", "device=tmpfs", unique_name)
    inputs = {"name": unique_name}
    made = docker_plugin.create("Volume", inputs)
    assert sorted(docker_plugin.diff(made, inputs).replaces) == ["driverOpts", "labels"]
    assert list(docker_plugin.diff(made, inputs, ignore=["driverOpts", "labels"]).replaces) == []
    assert {"label": "by", "value": "hand"} in docker_plugin.read(made).inputs["labels"]


def test_deleting_waits_for_a_container_that_still_goes(docker_plugin: Plugin, unique_name: str) -> None:
    volume = docker_plugin.create("Volume", {"name": unique_name})
    inputs = {"name": unique_name, "image": BASE_IMAGE, "command": SLEEP, "networkMode": "bridge"}
    container = docker_plugin.create("Container", inputs | {"volumes": [{"volumeName": unique_name, "containerPath": "/data"}]})

    def delete(number: int) -> None:
        if number == 1:
            time.sleep(1)
        docker_plugin.delete([volume, container][number])

    in_parallel(2, delete)
    assert not exists("volume", unique_name)


# The provider


def ssh_options(sshd: Sshd, host_key: str) -> list[str]:
    known = f"[127.0.0.1]:{sshd.port} {' '.join(host_key.split()[:2])}"
    options = {
        "IdentitiesOnly": "yes",
        "IdentityFile": sshd.private_key_file,
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": "/dev/null",
        "KnownHostsCommand": f"/bin/echo {known}",
    }
    return ["-F", "none", *(f"-o{key}={value}" for key, value in options.items())]


def over_ssh(start_plugin: Any, sshd: Sshd, host_key: str) -> Plugin:
    plugin: Plugin = start_plugin("docker")
    plugin.configure({"host": f"ssh://root@127.0.0.1:{sshd.port}", "sshOpts": json.dumps(ssh_options(sshd, host_key))})
    return plugin


def test_twenty_containers_over_ssh_within_sshds_own_limits(start_plugin: Any, sshd: Sshd, unique_name: str) -> None:
    plugin = over_ssh(start_plugin, sshd, sshd.host_key)
    inputs = {"image": BASE_IMAGE, "command": ["true"]}
    before = sshd.logins()
    made = in_parallel(20, lambda n: plugin.create("Container", inputs | {"name": f"{unique_name}-{n}"}))
    assert len({one.id for one in made}) == 20
    assert 1 <= sshd.logins() - before <= 6
    in_parallel(20, lambda n: plugin.delete(made[n]))
    assert not exists("container", f"{unique_name}-0")


def test_another_host_key_is_refused(start_plugin: Any, sshd: Sshd, unique_name: str) -> None:
    plugin = over_ssh(start_plugin, sshd, sshd.private_key_file.with_name("stranger.pub").read_text())
    with pytest.raises(grpc.RpcError) as error:
        plugin.create("Volume", {"name": unique_name})
    assert f"ssh://root@127.0.0.1:{sshd.port}" in failure(error)
    assert "Host key verification failed" in failure(error)
    assert not exists("volume", unique_name)


def test_an_engine_that_cannot_be_reached_is_named(start_plugin: Any) -> None:
    plugin: Plugin = start_plugin("docker")
    plugin.configure({"host": "unix:///nowhere/docker.sock"})
    with pytest.raises(grpc.RpcError) as error:
        plugin.create("Volume", {"name": "x"})
    assert failure(error).startswith("the Docker engine cannot be reached: unix:///nowhere/docker.sock: ")


def test_the_providers_other_inputs_are_refused(docker_plugin: Plugin) -> None:
    from pulumi.runtime.proto import provider_pb2

    from tests.stand_ins.plugins import struct

    answer = docker_plugin.stub.CheckConfig(
        provider_pb2.CheckRequest(news=struct({"host": "x", "version": "5.1.0", "certPath": "/x"}))
    )
    assert [failed.property for failed in answer.failures] == ["certPath"]
