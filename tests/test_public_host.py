"""The files for a public host, which nobody has run yet, can be read and name only what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from committed import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "tests.yml"
DEVCONTAINER = ROOT / ".devcontainer" / "devcontainer.json"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def workflow() -> dict[str, Any]:
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["test"]


def devcontainer() -> dict[str, Any]:
    """The file without the lines that are comments."""
    lines = DEVCONTAINER.read_text(encoding="utf-8").splitlines()
    return json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))


def commands() -> list[str]:
    """Every command line of both files."""
    scripts = [step["run"] for step in workflow()["steps"] if "run" in step] + [devcontainer()["postCreateCommand"]]
    return [line for script in scripts for line in script.splitlines() if line]


def named_files() -> list[str]:
    """The programs and requirements that the commands name."""
    return [word for command in commands() for word in command.split() if word.endswith((".py", ".txt"))]


def targets() -> set[str]:
    """The targets of the Makefile by the names that a command may call."""
    rules = re.findall(r"^([^\s:=#.]\S*):(?!=)", MAKEFILE, flags=re.MULTILINE)
    [environment] = re.findall(r"^VENV := (\S+)$", MAKEFILE, flags=re.MULTILINE)
    return {rule.replace("$(VENV)", environment) for rule in rules}


def supported_versions() -> list[str]:
    """The Python versions that the Makefile takes."""
    [(first, last)] = re.findall(r"\(3, (\d+)\) <= sys\.version_info\[:2\] <= \(3, (\d+)\)", MAKEFILE)
    return [f"3.{minor}" for minor in range(int(first), int(last) + 1)]


def test_every_supported_python_is_tested_on_three_systems() -> None:
    matrix = workflow()["strategy"]["matrix"]
    assert matrix["python"] == supported_versions()
    assert [name.removesuffix("-latest") for name in matrix["system"]] == ["ubuntu", "macos", "windows"]


def test_container_has_a_supported_python() -> None:
    [version] = re.findall(r"/python:(3\.\d+)-", devcontainer()["image"])
    assert version in supported_versions()


def test_commands_name_targets_and_files_that_exist() -> None:
    called = [command.split() for command in commands()]
    made = [word for first, *words in called if first == "make" for word in words if "=" not in word]
    assert {"test", "book", ".venv/.installed-serving"} <= set(made) <= targets()
    files = named_files()
    assert {"tools/lint.py", "requirements-dev.txt"} <= set(files)
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_cache_depends_on_every_file_of_requirements() -> None:
    [setup] = [step["with"] for step in workflow()["steps"] if step.get("uses", "").startswith("actions/setup-python@")]
    patterns = setup["cache-dependency-path"].split()
    assert all(list(ROOT.glob(pattern)) for pattern in patterns)
    cached = {path for pattern in patterns for path in ROOT.glob(pattern)}
    assert {ROOT / name for name in named_files() if name.endswith(".txt")} <= cached


def test_tests_on_windows_run_as_make_runs_them() -> None:
    [made] = re.findall(r"^TEST := \S+ \$\(RUN\) (-m pytest .*)$", MAKEFILE, flags=re.MULTILINE)
    assert f"python {made}" in commands()


@pytest.mark.parametrize("path", [WORKFLOW, DEVCONTAINER], ids=lambda path: path.name)
def test_files_say_at_their_top_that_they_have_not_been_run(path: Path) -> None:
    assert re.match(r"(#|//) Not run yet: ", path.read_text(encoding="utf-8"))
