"""README and docs name tests, files, sections and options that exist; README lists every module."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

import run
import speed

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOREIGN = {"help", "index-url", "logdir", "long", "nproc_per_node"}  # argparse, pip, TensorBoard, test.sh, torchrun
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


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "log.md"], ids=lambda page: page.name)
def test_page_names_options_that_exist(page):
    scripts = [*(ROOT / "scripts").glob("*.py"), ROOT / "corpus/build.py"]
    of_scripts = re.findall(r'"--(\w+)"', "".join(path.read_text(encoding="utf-8") for path in scripts))
    named = set(re.findall(r"--([a-z][\w-]*)", page.read_text(encoding="utf-8")))
    assert named <= {*run.OPTIONS, *speed.OPTIONS, *of_scripts, *FOREIGN}


def test_readme_lists_every_module():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"src/{path.name} " in text for path in (ROOT / "src").glob("*.py"))
