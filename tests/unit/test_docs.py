"""What the documentation shows of the code is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qnodeos.qnpu.process import state_diagram

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

if not (ROOT / "docs").is_dir():
    pytest.skip("the documentation is not installed with the package", allow_module_level=True)


def test_the_state_diagram_is_the_table():
    assert state_diagram() in (ROOT / "docs" / "architecture.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
