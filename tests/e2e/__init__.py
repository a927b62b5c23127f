"""The project's own program with the real Pulumi CLI, sshd and Docker engine."""
