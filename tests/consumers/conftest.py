import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "coolify"))
sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from harness import sshd, stack

__all__ = ["sshd", "stack"]
