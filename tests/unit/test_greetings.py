"""What a login shell prints at its start, before a script or docker answers, is not taken for the answer."""

import json
from pathlib import Path
from typing import cast

import pytest
from notifying_postgres.coolify.client import Coolify
from notifying_postgres.coolify.container import running_container


@pytest.mark.parametrize("greeting", ["", "Welcome!\n", "[1] jobs are stopped\n[\n{ hello }\n"])
def test_the_container_is_seen_behind_a_greeting(tmp_path: Path, greeting: str) -> None:
    seen = [{"Id": "0123", "Config": {"Image": "an/image:1"}, "State": {"Running": True, "Health": {"Status": "healthy"}}}]
    (tmp_path / "said").write_text(greeting + json.dumps(seen, indent=4))
    (tmp_path / "docker").write_text(f"cat {tmp_path}/said\n")
    container = running_container("uuid", cast(Coolify, None), f"sh {tmp_path}/docker")
    assert container is not None
    assert (container.id, container.image, container.health) == ("0123", "an/image:1", "healthy")
