from tests.unit.mocked import deploy, workstation

__all__ = ["deploy", "workstation"]
