"""The fixtures are in standins.py, whose other names the tests import."""

from standins import command, docker_plugin, sshd, start_plugin, unique_name

__all__ = ["command", "docker_plugin", "sshd", "start_plugin", "unique_name"]
