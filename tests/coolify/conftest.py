import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from coolify_fixtures import built_image, deploy, fake, network, registry, registry_image, without_engine
from harness import sshd, stack

__all__ = ["built_image", "deploy", "fake", "network", "registry", "registry_image", "sshd", "stack", "without_engine"]
