"""Make the book: notes, committed notebooks and the code's docstrings as one website that needs no network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from committed import ROOT, chosen_notebooks, committed_notebooks

OUT = ROOT / "build" / "book"


def build(project: Path, out: Path) -> int:
    """Build the book of the project in the folder `project`, any warning is an error; returns Sphinx's exit status.

    All texts are read every time: what Sphinx keeps of them, beside `out`, knows nothing of changes in book/*.py, and
    a warning about a text that has not changed would come only once.
    """
    from sphinx.cmd.build import build_main

    kept = out.with_name(f"{out.name}-kept")
    how = ["--builder=html", f"--conf-dir={project / 'book'}", f"--doctree-dir={kept}", "--jobs=auto"]
    strict = ["--fresh-env", "--fail-on-warning", "--quiet"]
    return build_main([*how, *strict, str(project), str(out)])


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the book (build/book)")
    out = parser.parse_args(arguments).out.resolve()
    if chosen := chosen_notebooks():
        status = build(chosen.parent, out)
    else:
        with committed_notebooks() as notebooks:
            status = build(notebooks.parent, out)
    if status == 0:
        print(f"The book is made: open {out / 'index.html'} in a browser.")
    return status


if __name__ == "__main__":
    sys.exit(main())
