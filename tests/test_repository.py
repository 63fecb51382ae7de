"""The repository as a reader finds it: links that lead somewhere, the six packages, modules in their layers."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

import lessons

ROOT = lessons.ROOT
PAGES = [ROOT / "README.md", *sorted((ROOT / "notes").rglob("*.md")), ROOT / "models/storyteller/MODEL_CARD.md"]
PAGES += [ROOT / "serving" / "README.md", ROOT / "CONTRIBUTING.md"]
NOTEBOOKS = lessons.notebooks_of(lessons.NOTEBOOKS)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def markdown(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def anchors(path: Path) -> set[str]:
    """The anchors that headings get on GitHub: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", markdown(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_relative_links_lead_somewhere(page):
    links = [link for link in LINK.findall(markdown(page)) if not re.match(r"https?:", link)]
    for link in links:
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_no_address_is_broken_over_two_lines(page):
    """Such a link is none, and the test above does not see it."""
    assert not re.findall(r"\]\([^)\s`]*\n[^)]*\)", markdown(page))


def test_requirements_are_the_six_packages_of_the_course():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert {pin.split("==")[0] for pin in pins} == {"torch", "transformers", "numpy", "matplotlib", "jupyter", "tqdm"}
    assert all("==" in pin for pin in pins)


def test_code_is_no_package():
    """A package named `code` would hide the standard library's, which pdb uses."""
    assert not (ROOT / "code" / "__init__.py").exists()


def test_only_measure_reads_a_clock():
    for path in sorted((ROOT / "code").rglob("*.py")):
        reads = re.findall(r"\b(?:perf_counter|time\.time|monotonic)\b", path.read_text())
        assert not reads or path.name == "measure.py", path.name
    for path in NOTEBOOKS:
        assert "perf_counter" not in path.read_text() and "time.time" not in path.read_text(), path.name
