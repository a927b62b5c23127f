"""The feed in a browser: Server-Sent Events whose ids are cursors, and a page that shows them.  `schema-changes serve`.

Needs the extra `web`: `pip install 'notifying-postgres[web]'`.
"""
