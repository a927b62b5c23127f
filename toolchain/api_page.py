"""Prints the page docs/api.md, from the schema that stacks in every language see: python toolchain/api_page.py >docs/api.md"""

import json
from typing import Any

from notifying_postgres import NotifyingPostgres
from notifying_postgres.plugin import PACKAGE, VERSION, schema
from pulumi.provider.experimental.component import ComponentProvider


def kind(one: dict[str, Any]) -> str:
    """A property's type, as a reader would say it."""
    if "$ref" in one:
        name = one["$ref"].rpartition(":")[2]
        return f"[{name}](#{name.lower()})"
    if one["type"] == "array":
        return f"list of {kind(one['items'])}"
    if one["type"] == "object":
        return f"map of {kind(one['additionalProperties'])}"
    return str(one["type"])


def section(token: str, described: dict[str, Any]) -> str:
    """A resource or a type: what it is, its arguments, its outputs."""
    lines = [f"### {token.rpartition(':')[2]}", "", described["description"]]
    inputs: dict[str, Any] = described.get("inputProperties", {})
    lines += table("Argument", inputs, described.get("requiredInputs", []))
    outputs = {key: one for key, one in described["properties"].items() if inputs.get(key) is None or described.get("isComponent")}
    lines += table("Output" if inputs else "Key", outputs, [] if inputs else described.get("required", []))
    return "\n".join(lines)


def table(heading: str, properties: dict[str, Any], required: list[str]) -> list[str]:
    """The lines of a table, the required properties first; none when there is nothing to tell."""
    if not properties:
        return []
    lines = ["", f"| {heading} | Type | What it is |", "|---|---|---|"]
    for key in sorted(properties, key=lambda key: key not in required):
        one = properties[key]
        marks = [mark for mark, holds in (("required", key in required), ("secret", one.get("secret"))) if holds]
        suffix = f" ({', '.join(marks)})" if marks else ""
        lines.append(f"| `{key}` | {kind(one)}{suffix} | {one['description']} |")
    return lines


package = json.loads(schema(ComponentProvider([NotifyingPostgres], PACKAGE, version=VERSION).schema or ""))
print(f"""\
# The package `{PACKAGE}` {VERSION}

Written by `python toolchain/api_page.py` from the package's schema. In Python the names are in snake_case
(`private_key_file`), and so are the keys of what the outputs hold.

## Configuration of the provider
""")
print("\n".join(table("Key", package["config"]["variables"], []))[1:])
for title, content in (("Resources", package["resources"]), ("Types", package["types"])):
    print(f"\n## {title}")
    # The component first, then by name.
    for token in sorted(content, key=lambda token: (not content[token].get("isComponent"), token)):
        print(f"\n{section(token, content[token])}")
