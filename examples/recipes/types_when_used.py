"""Generate types anew, but only when a table that they use has changed (its columns, or an enum: not an index, nor a GRANT).

python types_when_used.py postgresql://app@db/app 'npm run generate-types' public.orders public.mood
"""

import subprocess
import sys
from collections.abc import Collection

from schema_changes import listen_batches_sync
from schema_changes.diff import Difference, FilePictureStore

# what a generated type is made of
KINDS = {"table", "view", "materialized view", "column", "enum", "domain", "composite type"}
IRRELEVANT = {"owner", "grants", "comment", "options", "row_security", "statistics", "storage", "replica_identity"}


def matters(difference: Difference, used: Collection[str]) -> bool:
    whole = f"{difference.schema}.{difference.table or difference.name}"
    if difference.action == "renamed" and difference.table is None:
        was = f"{difference.before.get('schema', difference.schema)}.{difference.before.get('name', difference.name)}"
        return whole in used or was in used
    changed = set(difference.changed) - IRRELEVANT
    return whole in used and difference.kind in KINDS and (difference.action != "altered" or bool(changed))


def main(url: str, command: str, used: Collection[str]) -> None:
    for batch in listen_batches_sync(url, store=FilePictureStore("types.picture"), diff=True):
        if any(matters(difference, used) for difference in batch.differences):
            subprocess.run(command, shell=True, check=True)  # noqa: S602 (it is the user's own)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], set(sys.argv[3:]))
