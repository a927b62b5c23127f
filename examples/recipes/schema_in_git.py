"""The history of a schema in git: each burst of changes a commit, by who made it, with what is different as its message.

    git init /srv/schema && python schema_in_git.py postgresql://app@db/app /srv/schema

schema.txt has the whole schema for people; .git/picture is where this stands, so that a restart goes on there.
"""

import subprocess
import sys
from pathlib import Path

from schema_changes import listen_batches_sync
from schema_changes.diff import FilePictureStore, listing, text


def main(url: str, folder: Path) -> None:
    for batch in listen_batches_sync(url, store=FilePictureStore(folder / ".git/picture"), diff=True):
        if not batch.differences or batch.picture is None:
            continue
        (folder / "schema.txt").write_text(listing(batch.picture))
        tags = ", ".join(dict.fromkeys(change.tag for change in batch.changes)) or "Changed while nobody listened"
        users = " and ".join(sorted({change.user for change in batch.changes if change.user})) or "somebody"
        author = "".join(" " if letter in "<>\n" else letter for letter in users)  # which git does not take
        message = f"{tags}\n\n{text(batch.differences)}"
        subprocess.run(["git", "-C", folder, "add", "schema.txt"], check=True)
        commit = ["git", "-C", folder, "commit", "--quiet", "--allow-empty", f"--author={author} <schema@localhost>", "--file=-"]
        subprocess.run([*commit, "--cleanup=verbatim"], input=message, text=True, check=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
