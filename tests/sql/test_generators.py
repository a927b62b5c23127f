"""What code generators and migration tools see of the feed: as docs/feed.md says."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, create_engine

from tests.sql.database import Database
from tests.support import REPOSITORY

pytestmark = pytest.mark.versions(16)


def address(database: Database) -> str:
    return database.cluster.url(database.name).replace("postgresql:", "postgresql+psycopg:")


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")
def test_alembic_autogenerate(database: Database) -> None:
    database.execute("CREATE TABLE orders (id int); CREATE SCHEMA shop; CREATE TABLE shop.item (id int)")
    (block,) = re.findall(r"```python\n(def include_name.*?)```", (REPOSITORY / "docs/feed.md").read_text(), re.DOTALL)
    documented: dict[str, Any] = {}
    exec(block, documented)

    def would_drop(**options: Any) -> set[str]:
        with create_engine(address(database)).connect() as connection:
            context = MigrationContext.configure(connection, opts=options)
            return {step[1].fullname for step in compare_metadata(context, MetaData()) if step[0] == "remove_table"}

    assert would_drop() == {"orders"}
    assert would_drop(include_schemas=True) == {"orders", "shop.item", "schema_notifications.log", "schema_notifications.state"}
    assert would_drop(include_schemas=True, include_name=documented["include_name"]) == {"orders", "shop.item"}


@pytest.mark.parametrize("schemas", ["public", "public,shop"])
def test_sqlacodegen(database: Database, schemas: str) -> None:
    database.execute("CREATE TABLE orders (id int PRIMARY KEY); CREATE SCHEMA shop; CREATE TABLE shop.item (id int PRIMARY KEY)")
    command = [sys.executable, "-m", "sqlacodegen", "--schemas", schemas, address(database)]
    models = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "class Orders(" in models
    assert ("class Item(" in models) == ("shop" in schemas)
    assert "schema_notifications" not in models
