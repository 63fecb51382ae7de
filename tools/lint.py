"""Check the style of all code and of the notebooks as git has them: what `make lint` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from committed import ROOT, chosen_notebooks, committed_notebooks

CHECKS = (["check", "--quiet"], ["format", "--check", "--quiet"])


def lint(*options: str) -> bool:
    """Run ruff's two checks with these options; True if both find nothing."""
    commands = [[sys.executable, "-m", "ruff", *check, *options] for check in CHECKS]
    statuses = [subprocess.run(command, cwd=ROOT, check=False).returncode for command in commands]  # both run
    return not any(statuses)


def lint_with(notebooks: Path) -> bool:
    """Check the project with the notebooks of the folder `notebooks` in place of its own."""
    if notebooks == ROOT / "notebooks":
        return lint()
    code, lessons = lint("--extend-exclude", "notebooks"), lint(str(notebooks))
    return code and lessons


def main() -> int:
    """Returns the exit status."""
    if chosen := chosen_notebooks():
        clean = lint_with(chosen)
    else:
        with committed_notebooks() as notebooks:
            clean = lint_with(notebooks)
    if clean:
        print("The style of code and notebooks is as it should be.")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
