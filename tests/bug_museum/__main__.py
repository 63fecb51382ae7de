"""Print the table: bug, where it was seen, the test that catches it. Exit status 1 if one is not caught."""

from __future__ import annotations

import sys

from tqdm import tqdm

from bug_museum.bugs import BUGS
from bug_museum.run import run_all


def main() -> int:
    """Run every exhibit under a progress bar, then print the table."""
    verdicts = list(tqdm(run_all(BUGS), total=len(BUGS), unit="bug", desc="museum"))
    width = max(len(bug.title) for bug in BUGS)
    for bug, caught in verdicts:
        print(f"{bug.title:{width}}  {'caught by' if caught else 'NOT CAUGHT by'} {bug.caught_by}  [{bug.seen_in}]")
    missed = sum(not caught for _, caught in verdicts)
    print(f"{len(verdicts) - missed} of {len(verdicts)} bugs caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
