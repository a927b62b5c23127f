"""Hand on each schema change to webhooks, NATS and Redis: `schema-changes relay`.

Needs the extra `relay`: `pip install 'notifying-postgres[relay]'`.  In a program: `schema_changes.relay.relay.Relay`.
"""
