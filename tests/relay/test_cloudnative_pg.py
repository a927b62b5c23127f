"""The extension as CloudNativePG mounts it: an image of files alone, and the manifest of the example."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support import REPOSITORY
from tests.support.docker import BASE_IMAGE
from tests.support.needs import need, program
from tests.support.postgres import Cluster, install

OPERATOR = "github.com/cloudnative-pg/cloudnative-pg@v1.27.0"
EXAMPLE = REPOSITORY / "examples/cloudnative-pg/cluster.yaml"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """The files of the image, as a pod has them under /extensions/schema-notifications."""
    need("docker")
    name = f"relay-test-extension-{uuid.uuid4().hex[:8]}"
    try:
        subprocess.run(
            [
                *("docker", "build", "--quiet", "--target", "extension", "--build-arg", f"BASE_IMAGE={BASE_IMAGE}"),
                "-t",
                name,
                "image",
            ],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
        )
        subprocess.run(["docker", "create", "--name", name, name, "none"], check=True, capture_output=True)
        subprocess.run(["docker", "cp", f"{name}:/", tmp_path / "mounted"], check=True, capture_output=True)
        yield tmp_path / "mounted"
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)
        subprocess.run(["docker", "rmi", name], check=False, capture_output=True)


def test_the_extension_is_created_from_the_layout(mounted: Path) -> None:
    assert (mounted / "lib").is_dir()  # in dynamic_library_path
    assert {file.name for file in (mounted / "share/extension").iterdir()} == {
        file.name for file in (REPOSITORY / "image").glob("schema_notifications*")
    }
    bare = install(18).with_name(f"bare18-{uuid.uuid4().hex[:8]}")
    place = bare.with_name(bare.name + "-mounted")
    try:
        shutil.copytree(install(18), bare, symlinks=True)
        for file in bare.rglob("schema_notifications*"):
            file.unlink()
        # where the server's user can read it
        shutil.copytree(mounted, place)
        place.chmod(0o755)
        cluster = Cluster(18, {"extension_control_path": f"$system:{place}/share", "dynamic_library_path": f"$libdir:{place}/lib"})
        cluster.bin = bare / "bin"
        with cluster:
            cluster.create_database("app")
            cluster.execute("CREATE TABLE t ()", "app")
            assert cluster.execute("SELECT tag FROM schema_notifications.log", "app") == [("CREATE TABLE",)]
            assert cluster.execute("SELECT healthy FROM schema_notifications.status()", "app") == [(True,)]
    finally:
        shutil.rmtree(bare, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)


def test_the_manifest_names_what_there_is() -> None:
    cluster, database = yaml.safe_load_all(EXAMPLE.read_text())
    assert database["spec"]["cluster"]["name"] == cluster["metadata"]["name"]
    assert [one["name"] for one in database["spec"]["extensions"]] == ["schema_notifications"]
    control = (REPOSITORY / "image/schema_notifications.control").read_text()
    assert f"default_version = '{database['spec']['extensions'][0]['version']}'" in control
    assert "CREATE EXTENSION IF NOT EXISTS schema_notifications" in cluster["spec"]["bootstrap"]["initdb"]["postInitTemplateSQL"]


def test_the_manifest_is_what_the_operator_takes(tmp_path: Path) -> None:
    download = [program("go"), "mod", "download", "-json", OPERATOR]  # its sources, 13 MB
    operator = json.loads(subprocess.run(download, cwd=tmp_path, check=True, capture_output=True).stdout)
    for manifest in yaml.safe_load_all(EXAMPLE.read_text()):
        file = Path(operator["Dir"]) / f"config/crd/bases/postgresql.cnpg.io_{manifest['kind'].lower()}s.yaml"
        (version,) = yaml.safe_load(file.read_text())["spec"]["versions"]
        schema = version["schema"]["openAPIV3Schema"]
        jsonschema.validate(manifest, schema)
        assert unknown(manifest, schema) == []
        assert unknown({**manifest, "spec": {**manifest["spec"], "nmae": 1}}, schema) == ["spec.nmae"]


def unknown(value: Any, schema: Mapping[str, Any], path: str = "") -> list[str]:
    """The fields that the schema does not have; Kubernetes would drop them without a word."""
    if isinstance(value, list):
        return [found for item in value for found in unknown(item, schema.get("items", {}), f"{path}[]")]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    found = []
    for key, item in value.items():
        place = f"{path}.{key}".removeprefix(".")
        if key not in schema["properties"]:
            found.append(place)
        else:
            found += unknown(item, schema["properties"][key], place)
    return found
