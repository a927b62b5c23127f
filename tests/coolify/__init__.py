"""Databases that Coolify makes: client and rules by themselves, the rest against a Coolify that is not one on the real engine."""
