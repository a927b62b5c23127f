"""Tell a channel of Slack, Mattermost or Rocket.Chat what has changed.  The webhook's URL is a secret: WEBHOOK_URL.

python webhook_message.py postgresql://app@db/app
"""

import json
import os
import sys
import urllib.request

from schema_changes import listen_batches_sync
from schema_changes.diff import FilePictureStore, text

LONGEST = 3000  # characters of a message


def main(url: str, webhook: str) -> None:
    for batch in listen_batches_sync(url, store=FilePictureStore("message.picture"), diff=True):
        if not batch.differences:
            continue
        users = " and ".join(sorted({change.user for change in batch.changes if change.user})) or "Somebody"
        # a name must not end the block, nor call the whole channel
        told = text(batch.differences).replace("`", "'").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        more = "" if len(told) <= LONGEST else "\n…"
        body = json.dumps({"text": f"{users} changed the schema:\n```\n{told[:LONGEST].rstrip()}{more}\n```"}).encode()
        request = urllib.request.Request(webhook, body, {"Content-Type": "application/json"})  # noqa: S310
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 (raises unless all is well: the next start tells it again)


if __name__ == "__main__":
    main(sys.argv[1], os.environ["WEBHOOK_URL"])
