"""What the component costs beside a minimal program with the same volumes and containers: 20 databases over SSH.

python benchmarks/deploy.py        (3 minutes; prints Markdown; needs Docker, sshd and the Pulumi CLI, as `make test` does)
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import Aim, Report, beside, in_turn, say

from tests.support.docker import docker
from tests.support.sshd import start_sshd, stop_sshd
from tests.support.stack import Stack

DATABASES = 20
WARM_UP = {"warm-up": {"retainData": False}}
OURS = "the component"
THEIRS = "a minimal program"
MINIMAL = """\
import pulumi, pulumi_docker as docker
DATA, PASSWORD = "/var/lib/postgresql/data", "/run/secrets/postgres_password"
config = pulumi.Config()
provider = docker.Provider("docker", host=config.require("host"), ssh_opts=config.require_object("sshOptions"))
opts = pulumi.ResourceOptions(provider=provider)
for n in range({databases}):
    name = f"{{pulumi.get_stack()}}-d{{n}}"
    volume = docker.Volume(name, name=f"{{name}}-data", opts=opts)
    # As the component makes them, so that the same containers are compared.
    docker.Container(
        name, name=name, image=config.require("imageId"), network_mode="bridge", restart="unless-stopped", destroy_grace_seconds=60,
        envs=[f"PGDATA={{DATA}}", f"POSTGRES_DB=d{{n}}", f"POSTGRES_PASSWORD_FILE={{PASSWORD}}", "POSTGRES_USER=postgres"],
        uploads=[docker.ContainerUploadArgs(file=PASSWORD, content=config.require_secret("password"), permissions="0400")],
        volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path=DATA)],
        log_opts={{"max-size": "10m", "max-file": "3"}},
        labels=[docker.ContainerLabelArgs(label="coolify.managed", value="false")],
        opts=opts,
    )
"""


def seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def first_up(stack: Stack) -> float:
    """Seconds until all databases accept connections: ours waits for that, the minimal program returns before."""
    started = time.monotonic()
    stack.up()
    for name in docker("ps", "--format", "{{.Names}}", "--filter", f"name=^{stack.name}-d").split():
        while "accepting" not in docker("exec", name, "pg_isready", "-h", "127.0.0.1", check=False):
            time.sleep(0.1)
    return time.monotonic() - started


def pulumi() -> str:
    """The CLI, and whose plugins it uses: the stand-ins take their time as well."""
    version = subprocess.run(["pulumi", "version"], check=True, capture_output=True, text=True).stdout.strip()
    stand_ins = (shutil.which("pulumi-resource-docker") or "").startswith(str(Path(__file__).parents[1] / "toolchain"))
    return f"Pulumi {version} with {'the stand-in' if stand_ins else 'its own'} plugins"


def run() -> Report:
    say("deploy: 20 databases over SSH, twice (3 minutes)")
    report = Report(machine=[pulumi()])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sshd = start_sshd(folder / "sshd")
        ours = Stack(folder / "ours")
        minimal = Stack(folder / "minimal", program=folder / "program", project="minimal")
        try:
            # One warm-up of ours builds the image, which the minimal program takes as it is.
            ours.config |= {**sshd.config, "databases": WARM_UP}
            ours.init()
            ours.up()
            image_id = ours.outputs()["imageId"]

            minimal.program.mkdir()
            (minimal.program / "Pulumi.yaml").write_text("name: minimal\nruntime: python\n")
            (minimal.program / "__main__.py").write_text(MINIMAL.format(databases=DATABASES))
            # The minimal program needs a shared connection as well, or sshd's MaxStartups ends it.
            options = ["-i", str(sshd.private_key_file), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
            options += ["-o", "ControlMaster=auto", "-o", f"ControlPath={minimal.home}/ssh", "-o", "ControlPersist=60"]
            minimal.config = {"host": sshd.address, "imageId": image_id, "sshOptions": options, "password": "benchmark"}
            minimal.init()

            def ours_first() -> float:
                ours.config["databases"] = WARM_UP
                ours.up()
                ours.config["databases"] = {f"d{n}": {"retainData": False} for n in range(DATABASES)}
                return first_up(ours)

            def minimal_first() -> float:
                minimal.destroy()
                return first_up(minimal)

            first = beside(in_turn({OURS: ours_first, THEIRS: minimal_first}, 2), THEIRS)
            nothing_to_do = {
                OURS: lambda: seconds(lambda: ours.up("--expect-no-changes")),
                THEIRS: lambda: seconds(lambda: minimal.up("--expect-no-changes")),
            }
            unchanged = beside(in_turn(nothing_to_do, 12), THEIRS)
        finally:
            for stack in (ours, minimal):
                stack.remove()
            stop_sshd(sshd)
    report.section(
        f"A deploy of {DATABASES} databases over SSH",
        "Beside a hand-written program with the same volumes and containers, and nothing else; it makes no check, so its first "
        "`up` is counted until all databases accept connections. The image is there already.",
        ["", "first `up`, s", "times", "unchanged `up`, s", "times"],
        [
            [name, f"{first[name].value:.1f}", str(first[name]), f"{unchanged[name].value:.1f}", str(unchanged[name])]
            for name in (THEIRS, OURS)
        ],
    )
    report.aims.append(Aim(f"first `up` of {DATABASES} databases, beside a minimal program", first[OURS].ratio, 1.5))
    report.aims.append(Aim(f"unchanged `up` of {DATABASES} databases, beside a minimal program", unchanged[OURS].ratio, 1.3))
    return report


if __name__ == "__main__":
    print(run())
