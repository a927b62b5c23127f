"""A base image by its digest, for those who want to know exactly what they run."""

import socket
import time
import urllib.request
import uuid

import pytest

from tests.coolify.fixtures import registry_image
from tests.image.containers import build
from tests.support.docker import BASE_IMAGE, docker

__all__ = ["registry_image"]

pytestmark = pytest.mark.needs("docker")


def test_a_base_image_by_its_digest(registry_image: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = f"notifying-postgres-test-{uuid.uuid4().hex[:8]}"
    base = f"127.0.0.1:{port}/base:16"
    docker("run", "-d", "--name", name, "--network", "host", "-e", f"REGISTRY_HTTP_ADDR=127.0.0.1:{port}", registry_image)
    try:
        deadline = time.monotonic() + 30
        while "listening on" not in docker("logs", name):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        docker("tag", BASE_IMAGE, base)
        docker("push", base)
        accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        manifest = urllib.request.Request(f"http://127.0.0.1:{port}/v2/base/manifests/16", headers=accept, method="HEAD")
        digest = urllib.request.urlopen(manifest).headers["Docker-Content-Digest"]

        by_tag = build("--image", f"{name}:16", "--base-image", BASE_IMAGE)
        result = build("--yes", "--image", f"{name}:16", "--base-image", f"{base}@{digest}")
        assert result.returncode == 0, result.stderr
        assert result.stdout == by_tag.stdout
        missing = build("--yes", "--image", f"{name}:16", "--base-image", f"{base}@sha256:{'0' * 64}")
        assert missing.returncode == 1
        assert "manifest unknown" in missing.stderr or "not found" in missing.stderr
    finally:
        docker("rm", "-fv", name)
        docker("image", "rm", base, f"{name}:16", check=False)
