"""A Pulumi component for PostgreSQL databases that tell their listeners the moment the schema changes.

from notifying_postgres import NotifyingPostgres

postgres = NotifyingPostgres("shop", {"databases": {"orders": {}}})
pulumi.export("urls", postgres.urls)
"""

from .args import DatabaseArgs, DatabaseOutputs, NotifyingPostgresArgs
from .component import NotifyingPostgres
from .errors import InvalidArgument

__all__ = ["DatabaseArgs", "DatabaseOutputs", "InvalidArgument", "NotifyingPostgres", "NotifyingPostgresArgs"]
