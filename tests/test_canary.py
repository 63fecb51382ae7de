"""The comparison between versions of transformers: it agrees with itself, and it sees a change."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import canary

ROOT = Path(canary.__file__).resolve().parent.parent


def write_lesson(folder: Path, code: str) -> Path:
    """A folder with one lesson of one cell."""
    lesson = new_notebook(cells=[new_code_cell(code)])
    folder.mkdir(exist_ok=True)
    nbformat.write(lesson, folder / "Lesson_1-Tiny.ipynb")
    return folder


@pytest.mark.slow
def test_the_canary_agrees_with_itself(tmp_path):
    lessons = write_lesson(tmp_path / "notebooks", "import os\nprint('Headline: rounds', os.environ['COURSE_REPEATS'])")
    command = [sys.executable, canary.__file__, "--against", sys.executable, "--notebooks", str(lessons)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "answers, every token the same: transformers 5" in result.stdout
    assert "Lesson 1: Tiny" in result.stdout and "rounds 1" in result.stdout


def test_a_lesson_that_fails_fails_the_canary(tmp_path, capfd):
    lessons = write_lesson(tmp_path / "notebooks", "from transformers import NothingOfThisName")
    assert canary.run_lessons(sys.executable, lessons) == 1
    said = capfd.readouterr().err
    assert "Lesson_1-Tiny.ipynb, code cell 1" in said and "NothingOfThisName" in said


def test_the_canary_sees_one_changed_token():
    ours = {"static": [[1, 2, 3], [4, 5]], "continuous": [[1, 2, 3], [4, 5]]}
    theirs = copy.deepcopy(ours)
    assert canary.differences(ours, theirs) == []
    theirs["continuous"][1][0] = 9
    assert canary.differences(ours, theirs) == ["continuous, request 1: [4, 5] here, [9, 5] there"]
    assert len(canary.differences(ours, {"static": []})) == 1


def test_the_supported_range_is_stated_once_and_pinned():
    """The comment in requirements.txt names the two versions that are pinned and compared."""
    newest = next(line for line in read("requirements.txt") if line.startswith("transformers==")).split("==")[1]
    oldest = next(line for line in read("requirements-oldest.txt") if line.startswith("transformers==")).split("==")[1]
    assert f"transformers {oldest} to {newest}" in "\n".join(read("requirements.txt"))


def test_the_oldest_environment_has_what_executes_the_lessons_and_is_pinned_like_the_others():
    oldest = pins("requirements-oldest.txt")
    assert {"ipykernel", "ipywidgets", "nbclient", "nbformat"} <= oldest.keys()
    others = pins("requirements.txt") | pins("requirements-dev.txt") | {"transformers": oldest["transformers"]}
    assert {name: others.get(name, version) for name, version in oldest.items()} == oldest


def test_the_requirements_of_the_course_can_be_installed_from_code_as_well():
    """Whoever follows the course's own instructions looks for them there."""
    (line,) = read("code/requirements.txt")
    option, _, path = line.partition(" ")
    assert option == "-r" and (ROOT / "code" / path).resolve() == ROOT / "requirements.txt"


def pins(name: str) -> dict[str, str]:
    """Package -> version."""
    return dict(line.split("==") for line in read(name) if "==" in line and not line.startswith("#"))


def read(name: str) -> list[str]:
    return (ROOT / name).read_text().splitlines()
