"""The relay: real PostgreSQL, real NATS and Redis, a webhook's receiver over TLS, a relay that is killed."""
