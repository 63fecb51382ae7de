"""Tests and lint look at the notebooks as git has them: homework is not looked at, what is committed or staged is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

import lessons
from committed import VARIABLE, committed_notebooks, differing

NAME = "notebooks/Lesson_1-L.ipynb"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one notebook, and with lint and its settings."""
    root = tmp_path / "checkout"
    for name in ("pyproject.toml", "notebooks/ruff.toml", "tools/committed.py", "tools/lint.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(lessons.ROOT / name, root / name)
    write(root, "x = 1")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message=x")
    return root


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)


def write(root: Path, source: str) -> None:
    """The notebook of the checkout, with one code cell."""
    lessons.write_notebook(new_notebook(cells=[new_code_cell(source, id="only")]), root / NAME)


def source(notebooks: Path) -> str:
    return lessons.read_notebook(notebooks / Path(NAME).name).cells[0].source


def lint(root: Path, **variables: str) -> int:
    """The exit status of tools/lint.py in the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
    tool = [sys.executable, "tools/lint.py"]
    return subprocess.run(tool, cwd=root, env=environment, capture_output=True, check=False).returncode


def test_clean_checkout_is_looked_at_as_it_is(checkout: Path) -> None:
    assert differing(checkout) == []
    with committed_notebooks(checkout) as notebooks:
        assert notebooks == checkout / "notebooks"


def test_homework_and_new_notebooks_are_not_looked_at(checkout: Path) -> None:
    write(checkout, "x=2 ")
    (checkout / "notebooks" / "Untitled.ipynb").write_text("{}")
    assert differing(checkout) == [NAME, "notebooks/Untitled.ipynb"]
    with committed_notebooks(checkout) as notebooks:
        assert source(notebooks) == "x = 1"
        assert not (notebooks / "Untitled.ipynb").exists()
        tool = notebooks.parent / "tools" / "lint.py"
        assert tool.read_bytes() == (checkout / "tools" / "lint.py").read_bytes()
        assert tool.resolve().is_relative_to(notebooks.parent)  # the book follows links: they would lead out of it
    assert not notebooks.exists()
    assert source(checkout / "notebooks") == "x=2 "


def test_what_is_staged_is_looked_at(checkout: Path) -> None:
    write(checkout, "x = 2")
    git(checkout, "add", NAME)
    with committed_notebooks(checkout) as notebooks:
        assert notebooks == checkout / "notebooks"


def test_without_git_the_files_are_looked_at(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    write(checkout, "x = 2")
    with committed_notebooks(checkout) as notebooks:
        assert notebooks == checkout / "notebooks"


def test_lint_passes_over_homework_and_finds_what_is_staged_or_asked_for(checkout: Path) -> None:
    assert lint(checkout) == 0
    write(checkout, "x=2")
    assert lint(checkout) == 0
    assert lint(checkout, COURSE_NOTEBOOKS="notebooks") == 1
    git(checkout, "add", NAME)
    assert lint(checkout) == 1
    write(checkout, "x = 2")  # mended in the file, but not in what git has
    assert lint(checkout) == 1
    git(checkout, "add", NAME)
    assert lint(checkout) == 0
