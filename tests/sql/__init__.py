"""The extension in a real PostgreSQL."""
