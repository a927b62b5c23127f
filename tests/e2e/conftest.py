from harness import sshd, stack

__all__ = ["sshd", "stack"]
