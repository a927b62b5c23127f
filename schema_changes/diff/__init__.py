"""What exactly is different in a schema: a picture of it, and typed differences between two pictures.

from schema_changes import diff, listen_batches

async for batch in listen_batches("postgresql://app@db/app", diff=True):
    print(diff.text(batch.differences))

before = diff.snapshot("postgresql://app@staging/app")
after = diff.snapshot("postgresql://app@production/app")
for difference in diff.compare(before, after):
    print(difference)
"""

from typing import TYPE_CHECKING

# Names are imported when first used: the command line starts without them.
_HOME = {
    "Difference": "differences",
    "FilePictureStore": "store",
    "Follower": "follow",
    "Locked": "reader",
    "Object": "picture",
    "Picture": "picture",
    "Reader": "reader",
    "TablePictureStore": "store",
    "compare": "differences",
    "listing": "words",
    "snapshot": "follow",
    "text": "words",
}

if TYPE_CHECKING:
    from .differences import Difference as Difference
    from .differences import compare as compare
    from .follow import Follower as Follower
    from .follow import snapshot as snapshot
    from .picture import Object as Object
    from .picture import Picture as Picture
    from .reader import Locked as Locked
    from .reader import Reader as Reader
    from .store import FilePictureStore as FilePictureStore
    from .store import TablePictureStore as TablePictureStore
    from .words import listing as listing
    from .words import text as text

__all__ = [
    "Difference",
    "FilePictureStore",
    "Follower",
    "Locked",
    "Object",
    "Picture",
    "Reader",
    "TablePictureStore",
    "compare",
    "listing",
    "snapshot",
    "text",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
