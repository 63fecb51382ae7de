"""What Lesson 7 draws can be read, and its titles say what the numbers say."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

import figures
from figure_checks import assert_readable, legend, title
from figures import lesson_7


@pytest.fixture(autouse=True)
def in_the_course_style() -> Iterator[None]:
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def test_first_tokens_stand_in_order_and_rounds_are_counted():
    ax = lesson_7.first_tokens([0.3, 0.1, 0.2], [0.1, 0.3, 0.1], rows=2)
    assert_readable(ax.figure)
    assert title(ax) == "3 askers on 2 rows get their first tokens in 2 rounds"
    assert legend(ax) == ["predicted", "measured"]
    predicted, measured = (line.get_ydata().tolist() for line in ax.get_lines()[:2])
    assert measured == [0.1, 0.2, 0.3] and predicted == [0.1, 0.1, 0.3]
    assert "(s)" in ax.get_ylabel()


def test_waits_are_drawn_over_the_time_of_sending():
    runs = {"closed": ([1.0, 0.0], [0.2, 0.1]), "open": ([0.0, 1.0], [0.1, 0.9])}
    ax = lesson_7.waits_over_time(runs)
    assert_readable(ax.figure)
    assert title(ax) == "The longest wait: 0.20 s (closed), 0.90 s (open)"
    assert legend(ax) == ["closed", "open"]
    assert ax.get_lines()[0].get_xdata().tolist() == [0.0, 1.0]
    assert ax.get_lines()[0].get_ydata().tolist() == [0.1, 0.2]


def test_the_knee_stands_in_the_title():
    ax = lesson_7.goodput([5.0, 10.0, 20.0], [5.0, 10.0, 12.0], [5.0, 9.5, 2.0], knee=10.0)
    assert_readable(ax.figure)
    assert title(ax) == "The promise is kept up to 10.0 requests per second"
    assert legend(ax) == ["everything that was asked", "answered (throughput)", "answered in time (goodput)"]
    none = lesson_7.goodput([5.0], [5.0], [1.0], knee=0.0)
    assert title(none) == "The promise is kept at no rate"
