"""The documents: their links lead somewhere, and what they name is there."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support import REPOSITORY

DOCUMENTS = sorted(
    REPOSITORY / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.split()
)


def anchors(document: Path) -> set[str]:
    """The headings of a document as GitHub makes links of them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / unquote(path)).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_reached_from_the_readme() -> None:
    reached, left = set[Path](), [REPOSITORY / "README.md"]
    while left:
        document = left.pop()
        reached.add(document)
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            file = (document.parent / target).resolve()
            if file.suffix == ".md" and file.exists() and file not in reached:
                left.append(file)
    assert set(DOCUMENTS) - reached == set()


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 180
