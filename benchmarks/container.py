"""What the image adds to its base: bytes, layers, and time to the first connection.

python benchmarks/container.py        (2 minutes; prints Markdown; needs Docker)
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from functools import partial
from pathlib import Path

import psycopg
from measure import Aim, Report, beside, in_turn, say

CONTEXT = Path(__file__).parent.parent / "image"
BASE_IMAGE = os.environ.get("NOTIFYING_POSTGRES_BASE_IMAGE", "postgres:16-alpine")
BASE = "the base image"
OURS = "this image"


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def first_start(image: str) -> float:
    """Seconds from starting a new container until it accepts a connection."""
    container = docker("create", "--env", "POSTGRES_PASSWORD=benchmark", image)
    try:
        started = time.perf_counter()
        docker("start", container)
        address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)
        while True:
            try:
                psycopg.connect(host=address, user="postgres", password="benchmark", dbname="postgres", connect_timeout=5).close()
                return time.perf_counter() - started
            except psycopg.OperationalError:
                if time.perf_counter() - started > 60:
                    raise RuntimeError(f"{image} does not start: {docker('logs', container)}") from None
                time.sleep(0.005)
    finally:
        docker("rm", "--force", "--volumes", container)


def run(rounds: int = 30) -> Report:
    report = Report()
    say("image: build, size, first start (2 minutes)")
    ours = f"benchmark-{uuid.uuid4().hex[:8]}:16"
    build = ["bash", str(CONTEXT / "build-postgres-image.sh"), "--yes", "--image", ours, "--base-image", BASE_IMAGE]
    subprocess.run(build, check=True, capture_output=True)
    try:
        images = {BASE: BASE_IMAGE, OURS: ours}
        size = {name: int(docker("image", "inspect", "--format", "{{.Size}}", image)) / 1000 for name, image in images.items()}
        layers = {name: docker("image", "inspect", "--format", "{{len .RootFS.Layers}}", image) for name, image in images.items()}
        start = beside(in_turn({name: partial(first_start, image) for name, image in images.items()}, rounds), BASE)
    finally:
        docker("rmi", ours)
    report.section(
        "Image and first start",
        f"On `{BASE_IMAGE}`. From `docker start` of a new container with an empty volume until it accepts a connection over TCP.",
        ["", "kB", "layers", "first start, s", "times"],
        [[name, f"{size[name]:,.0f}", layers[name], f"{start[name].value:.2f}", str(start[name])] for name in images],
    )
    report.aims.append(Aim("first start, beside the base image", start[OURS].ratio, 1.05))
    report.aims.append(Aim("image, on top of the base image", size[OURS] - size[BASE], 100, "kB"))
    return report


if __name__ == "__main__":
    print(run())
