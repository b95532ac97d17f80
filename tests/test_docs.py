"""README and docs name tests, files and sections that exist."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_names_tests_files_and_sections_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\btest_\w+(?!\w*\.py)", text):
        assert f"def {name}(" in TESTS or (ROOT / "tests" / f"{name}.py").exists(), name
    if page.name != "log.md":  # tells of scripts of its day
        for path in re.findall(r"\b(?:src|scripts|findings|benchmarks|corpus)/\w+\.(?:py|sh)\b", text):
            assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path) if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target
