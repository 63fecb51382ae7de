"""Known bugs of public serving code, each put back into ours to show which test turns red.

    python -m bug_museum      (from tests/; `make museum` does it) prints the table

A bug is a few replaced lines (`bugs.py`). The runner (`run.py`) copies `code/` to a temporary folder,
replaces the lines there and runs one test against the copy: the test must fail.
"""
