"""What the component costs beside a minimal program with the same volumes and containers: 20 databases over SSH, in one run.

.venv/bin/python benchmarks/deploy.py        (needs Docker, sshd and the Pulumi CLI, as `make test` does)
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "e2e"))

from harness import Stack, docker, start_sshd, stop_sshd

DATABASES = 20
MINIMAL = """\
import pulumi, pulumi_docker as docker
config = pulumi.Config()
provider = docker.Provider("docker", host=config.require("host"), ssh_opts=config.require_object("sshOptions"))
opts = pulumi.ResourceOptions(provider=provider)
for n in range({databases}):
    name = f"{{pulumi.get_stack()}}-d{{n}}"
    volume = docker.Volume(name, name=f"{{name}}-data", opts=opts)
    docker.Container(
        name, name=name, image=config.require("imageId"), network_mode="bridge", restart="unless-stopped", destroy_grace_seconds=60,
        envs=["POSTGRES_PASSWORD=benchmark", "POSTGRES_USER=postgres", f"POSTGRES_DB=d{{n}}"],
        volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path="/var/lib/postgresql/data")], opts=opts,
    )
"""


def seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def first_up(stack: Stack) -> None:
    """Until all databases accept connections: ours waits for that, the minimal program returns before."""
    stack.up()
    for name in docker("ps", "--format", "{{.Names}}", "--filter", f"name=^{stack.name}").split():
        while "accepting" not in docker("exec", name, "pg_isready", "-h", "127.0.0.1", check=False):
            time.sleep(0.1)


def unchanged_up(stack: Stack) -> float:
    """Seconds for an `up` that has nothing to do."""
    return seconds(lambda: stack.up("--expect-no-changes"))


def run() -> list[tuple[str, float, float]]:
    """Measures both programs. Each row is what was done, our seconds, the minimal program's seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sshd = start_sshd(folder / "sshd")
        ours = Stack(folder / "ours")
        minimal = Stack(folder / "minimal", program=folder / "program", project="minimal")
        try:
            # One warm-up of ours builds the image, which the minimal program takes as it is.
            ours.config |= sshd.config
            ours.init()
            ours.up()
            image_id = ours.outputs()["imageId"]

            minimal.program.mkdir()
            (minimal.program / "Pulumi.yaml").write_text("name: minimal\nruntime: python\n")
            (minimal.program / "__main__.py").write_text(MINIMAL.format(databases=DATABASES))
            # The minimal program needs a shared connection as well, or sshd's MaxStartups ends it.
            options = ["-i", str(sshd.private_key_file), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
            options += ["-o", "ControlMaster=auto", "-o", f"ControlPath={minimal.home}/ssh", "-o", "ControlPersist=60"]
            minimal.config = {"host": sshd.address, "imageId": image_id, "sshOptions": options}
            minimal.init()
            ours.config["databases"] = {f"d{n}": {} for n in range(DATABASES)}

            rows = [("first up", seconds(lambda: first_up(ours)), seconds(lambda: first_up(minimal)))]
            turns = [[unchanged_up(ours), unchanged_up(minimal)] for _ in range(5)]
            mine, theirs = (statistics.median(turn[which] for turn in turns) for which in (0, 1))
            rows.append(("unchanged up", mine, theirs))
            # The image goes with ours.
            theirs, mine = seconds(minimal.destroy), seconds(ours.destroy)
            rows.append(("destroy", mine, theirs))
            return rows
        finally:
            for stack in (ours, minimal):
                stack.remove()
            stop_sshd(sshd)


if __name__ == "__main__":
    print(f"{DATABASES} databases over SSH on {os.cpu_count()} cores")
    for what, mine, theirs in run():
        print(f"{what:14} {mine:6.1f} s   minimal {theirs:6.1f} s   {mine / theirs:.2f} times")
