"""Have Coolify deploy an application anew when the schema that it was built for has changed.

python coolify_deploy.py postgresql://app@db/app https://coolify.example APPLICATION_UUID

The API token comes from COOLIFY_TOKEN; it needs the permission `deploy` and no other.
"""

import os
import sys
import urllib.parse
import urllib.request

from schema_changes import listen_batches_sync
from schema_changes.diff import FilePictureStore


def main(url: str, coolify: str, application: str, token: str) -> None:
    deploy = f"{coolify}/api/v1/deploy?{urllib.parse.urlencode({'uuid': application})}"
    for batch in listen_batches_sync(url, quiet=2, longest=60, store=FilePictureStore("deploy.picture"), diff=True):
        # an index that came and went, or a view that was made again as it was, is no reason
        if batch.differences:
            request = urllib.request.Request(deploy, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
            urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 (raises unless all is well: the next start tries again)


if __name__ == "__main__":
    main(*sys.argv[1:4], os.environ["COOLIFY_TOKEN"])
