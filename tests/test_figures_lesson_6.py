"""What Lesson 6 draws can be read, and its titles say what the numbers say."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

import figures
from figure_checks import assert_readable, legend, title
from figures import lesson_6


@pytest.fixture(autouse=True)
def in_the_course_style() -> Iterator[None]:
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def test_the_title_of_the_ways_says_up_to_where_groups_are_fastest():
    times = {"loop": [9.0, 9.0, 9.0], "gather": [4.0, 4.0, 4.0], "groups": [1.0, 3.0, 5.0]}
    ax = lesson_6.way_times([1, 8, 64], times, "groups", 64)
    assert_readable(ax.figure)
    assert title(ax) == "Of 64 rows the groups are the fastest way up to 8 adapters"
    assert legend(ax) == list(times) and "ms" in ax.get_ylabel()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "8", "64"]
    returns = {"gather": [4.0, 4.0, 9.0], "groups": [1.0, 5.0, 6.0]}
    assert title(lesson_6.way_times([1, 8, 64], returns, "groups", 64)).endswith("up to 1 adapter")
    late = {"gather": [4.0, 9.0], "groups": [5.0, 6.0]}
    assert title(lesson_6.way_times([1, 8], late, "groups", 64)).endswith("not the fastest way for few adapters")
    slow = {"gather": [1.0], "groups": [2.0]}
    assert title(lesson_6.way_times([1], slow, "groups", 8)) == "Of 8 rows the groups are nowhere the fastest way"


def test_every_row_of_every_step_has_the_colour_of_its_name():
    steps = [{0: "a", 1: "b"}, {1: "b", 2: "a", 3: "c"}, {3: "c"}]
    ax = lesson_6.rows_over_steps(steps, ["a", "b", "c"])
    assert_readable(ax.figure)
    grid = ax.collections[0].get_array().reshape(3, 3).tolist()
    assert [column[1] for column in zip(*grid, strict=True)] == [2, 2, 0], "a request keeps its row until it ends"
    assert [sorted(column) for column in zip(*grid, strict=True)] == [[0, 1, 2], [1, 2, 3], [0, 0, 3]]
    assert title(ax) == "2 of 3 forwards read rows of different adapters"
    assert legend(ax) == ["a", "b", "c"]


def test_bars_tell_who_waits_under_which_policy():
    ax = lesson_6.waits({"in order": {"a": 1.0, "b": 9.0}, "overtaking": {"a": 1.0, "b": 5.0}})
    assert_readable(ax.figure)
    assert title(ax) == "The longest mean wait: 9 forwards (in order), 5 (overtaking)"
    assert [bar.get_height() for bar in ax.patches] == [1, 9, 1, 5]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b"]
    assert "forward" in ax.get_ylabel()
