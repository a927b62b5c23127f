from mocked import deploy, workstation

__all__ = ["deploy", "workstation"]
