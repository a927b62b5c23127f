"""The fixtures are in fixtures.py, whose other names the tests import."""

from tests.coolify.fixtures import built_image, deploy, fake, network, registry, registry_image, without_engine

__all__ = ["built_image", "deploy", "fake", "network", "registry", "registry_image", "without_engine"]
