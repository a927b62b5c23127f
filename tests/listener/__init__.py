"""The listener, the check and the command line, against a real PostgreSQL."""
