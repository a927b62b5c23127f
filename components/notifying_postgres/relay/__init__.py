"""Hands a database's changes on to webhooks, NATS and Redis: a container of `schema-changes relay` beside it."""
