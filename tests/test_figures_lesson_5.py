"""What Lesson 5 draws can be read, and its titles say what the numbers say."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

import figures
from figure_checks import assert_readable, legend, texts, title
from figures import lesson_5


@pytest.fixture(autouse=True)
def in_the_course_style() -> Iterator[None]:
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def test_the_share_of_an_adapter_is_a_line_for_each_layer():
    ax = lesson_5.adapter_share({"square": (100, 100), "wide": (100, 400)}, rank=4)
    assert_readable(ax.figure)
    assert title(ax) == "At rank 4 an adapter has 5.0% to 8.0% of its layer's parameters"
    assert legend(ax) == ["square (100 to 100)", "wide (100 to 400)"]
    ranks, shares = ax.lines[0].get_data()
    assert dict(zip(ranks, shares, strict=True))[8] == 16  # 8 (100 + 100) / (100 · 100)
    assert "as large as the layer itself" in [text.get_text() for text in texts(ax.figure)]


def test_the_curve_of_a_training_is_told_from_its_first_step_to_the_last_seven():
    ax = lesson_5.training_loss({"pirate adapter": [3.0, *[1.0] * 9], "whisper adapter": [2.0] * 10})
    assert_readable(ax.figure)
    assert title(ax) == ("The pirate adapter begins at 3.0 nats per token; the median of its last 7 steps is 1.0")
    assert legend(ax) == ["pirate adapter", "whisper adapter"]
    assert "nats" in ax.get_ylabel() and ax.get_ylim()[0] == 0


def test_the_dial_says_what_half_the_strength_keeps_and_costs():
    ax = lesson_5.strength_dial([0, 0.25, 0.5, 1], voice=[3.0, 2.5, 1.5, 1.0], plain=[1.0, 1.1, 1.2, 2.0])
    assert_readable(ax.figure)
    assert title(ax) == "Half the strength keeps 75% of the gain in the voice, at 20% of the price in plain text"
    assert list(ax.lines[0].get_xdata()) == [0, 25, 50, 100]
    assert "%" in ax.get_xlabel() and "nats" in ax.get_ylabel()


def test_the_title_of_the_layers_times_compares_the_two_ways_at_the_largest_size():
    times = {"loop": [1.0, 9.0], "gather": [2.0, 3.0], "no adapter": [0.5, 0.7], "copies alone": [0.1, 0.2]}
    ax = lesson_5.layer_times([1, 64], times, "loop", "gather")
    assert_readable(ax.figure)
    assert title(ax) == "With 64 rows the loop takes 3.0 times as long as the gather"
    other = {"loop": [1.0, 2.0], "gather": [1.0, 3.0]}
    assert title(lesson_5.layer_times([1, 8], other, "loop", "gather")).startswith("With 8 rows the gather takes 1.5")
    assert legend(ax) == list(times)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "64"]
    assert "ms" in ax.get_ylabel()


def test_lines_can_be_told_apart_without_colours():
    times = {label: [1.0, 2.0] for label in ("loop", "gather", "no adapter", "copies alone")}
    lines = lesson_5.layer_times([1, 2], times, "loop", "gather").lines
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 4
