"""What several folders of tests use: the Docker engine, an sshd, stacks, PostgreSQL from the wheel, a Coolify that is not one."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
