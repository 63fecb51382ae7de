"""What Lesson 8 draws can be read, and its titles say what the numbers say."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

import figures
from figure_checks import assert_readable
from figures import lesson_8


@pytest.fixture(autouse=True)
def in_the_course_style() -> Iterator[None]:
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def colors(ax) -> list[list[float]]:
    return ax.collections[0].get_array().reshape(-1, 16).tolist()


def test_every_block_has_the_colour_of_whoever_uses_it():
    ax = lesson_8.cache_blocks({"Anna": [3, 0], "Ben": [3, 5]}, 20)
    assert_readable(ax.figure)
    first = [1, 0, 0, 4, 0, 2, *[0] * 10]
    assert colors(ax)[0] == first
    assert colors(ax)[1][:4] == [0, 0, 0, 0] and ax.get_yticklabels()[1].get_text() == "from 16"
    assert ax.get_title(loc="left") == "3 of 20 blocks are in use, 1 of them by several requests"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["Anna", "Ben", "several", "free"]
    assert {text.get_text() for text in ax.texts} == {"A1", "B1"}
    plain = lesson_8.cache_blocks({"Anna": [1]}, 100)
    assert plain.get_title(loc="left") == "1 of 100 blocks are in use" and not plain.texts


def test_the_title_of_the_budgets_compares_the_smallest_with_the_largest():
    ax = lesson_8.gap_and_wait([2048, 256, 64], [300.0, 60.0, 30.0], [300.0, 330.0, 450.0])
    assert_readable(ax.figure)
    assert ax.get_title(loc="left") == (
        "Budget 64, not 2048: the gap is 10.0 times shorter, the wait 1.5 times as long"
    )
    assert [bar.get_height() for bar in ax.patches] == [300, 60, 30, 300, 330, 450]
    assert "ms" in ax.get_ylabel()


def test_each_forward_shows_who_reads_one_token_and_who_several():
    ax = lesson_8.rows_of_forwards([{0: 16, 1: 1}, {0: 1}, {1: 5, 0: 1}], ["A", "B"])
    assert_readable(ax.figure)
    assert ax.collections[0].get_array().reshape(2, 3).tolist() == [[2, 1, 1], [1, 0, 2]]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["one token", "several tokens", "waits, or has ended"]


def test_bars_tell_who_waits_in_which_order():
    ax = lesson_8.first_tokens(
        {"in order": {"short": 12.0, "long": 9.0}, "longest first": {"short": 30.0, "long": 1.0}}
    )
    assert_readable(ax.figure)
    assert ax.get_title(loc="left") == "Requests for short wait until forward 30.0 longest first, 12.0 in order"
    assert [bar.get_height() for bar in ax.patches] == [12, 9, 30, 1]
