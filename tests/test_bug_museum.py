"""Each known bug, put back into a copy of `code/`, turns the test red that is said to catch it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bug_museum.bugs import BUGS, Bug
from bug_museum.run import ROOT, turns_red, with_bug


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.title)
def test_is_caught(bug: Bug) -> None:
    assert turns_red(bug), f"{bug.caught_by} stays green"


def test_titles_are_unique() -> None:
    assert len({bug.title for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.title)
def test_an_exhibit_fits_todays_code(bug: Bug) -> None:
    source = (ROOT / "code" / f"{bug.module}.py").read_text(encoding="utf-8")
    compile(with_bug(source, bug), bug.module, "exec")


def test_an_exhibit_that_is_out_of_date_is_told(tmp_path) -> None:
    with pytest.raises(ValueError, match="0 places in helpers.py read\nno such line"):
        with_bug("", replace(BUGS[0], module="helpers", edits=(("no such line", ""),)))


@pytest.mark.slow
def test_the_runner_tells_green_from_red_and_from_broken() -> None:
    harmless = Bug("none", "helpers", (), "test_helpers.py::test_positions_of_a_mask")
    assert not turns_red(harmless)
    with pytest.raises(RuntimeError, match="did not run"):
        turns_red(replace(harmless, edits=(("import torch\n", "import nothing_of_this_name\n"),)))
