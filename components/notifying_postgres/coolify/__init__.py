"""PostgreSQL databases that Coolify itself manages: resources for its HTTP API, and the registry that its pulls need."""

from .args import CoolifyArgs, CoolifyBackupArgs, CoolifyDatabaseArgs, CoolifyPasswordArgs
from .resource import CoolifyDatabase, CoolifyPassword

__all__ = ["CoolifyArgs", "CoolifyBackupArgs", "CoolifyDatabase", "CoolifyDatabaseArgs", "CoolifyPassword", "CoolifyPasswordArgs"]
