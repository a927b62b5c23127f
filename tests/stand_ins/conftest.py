"""The fixtures are in plugins.py, whose other names the tests import."""

from tests.stand_ins.plugins import command, docker_plugin, sshd, start_plugin, unique_name

__all__ = ["command", "docker_plugin", "sshd", "start_plugin", "unique_name"]
