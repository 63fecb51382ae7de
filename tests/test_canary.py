"""The comparison between versions of transformers: it agrees with itself, and it sees a change."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import canary

ROOT = Path(canary.__file__).resolve().parent.parent


def test_the_canary_agrees_with_itself():
    command = [sys.executable, canary.__file__, "--against", sys.executable]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "answers, every token the same: transformers 5" in result.stdout


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


def read(name: str) -> list[str]:
    return (ROOT / name).read_text().splitlines()
