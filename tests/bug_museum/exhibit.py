"""What an exhibit is. To add one: the lines as they are in `code/`, the same lines with the bug, the test to fail."""

from __future__ import annotations

from dataclasses import dataclass

COURSE = "course notebooks"


@dataclass(frozen=True)
class Bug:
    """A bug that somebody really shipped, or the mistake every learner makes first.

    Attributes:
        title: what goes wrong, in a few words.
        module: the file it is put into, below `code/` and without `.py`.
        edits: pairs (text as it is, text with the bug); each text stands in the module exactly once.
        caught_by: the test that turns red, as `file::test` below `tests/`.
        seen_in: where the bug was found; `name #3` is an issue or a pull request of the GitHub project of this name.
    """

    title: str
    module: str
    edits: tuple[tuple[str, str], ...]
    caught_by: str
    seen_in: str = COURSE
