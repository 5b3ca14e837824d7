"""The pages that people read lead somewhere, and the first one is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FIRST = [ROOT / "README.md", ROOT / "README.ko.md"]
PAGES = [*FIRST, *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(
        r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.S)
    )
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not dead


@pytest.mark.parametrize("page", FIRST, ids=lambda page: page.name)
def test_the_first_page_is_short(page: Path) -> None:
    assert len(page.read_text("utf-8").splitlines()) <= 130


def test_the_index_has_every_page() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    missing = [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"({page.name})" not in index]
    assert not missing, "add them to docs/README.md"
