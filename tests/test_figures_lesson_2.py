"""What Lesson 2 draws: titles that say what the numbers say, units on the axes, and text that can be read."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest

from figure_checks import assert_readable, texts
from figures import lesson_2, use_style

SIZES = np.array([1, 2, 4, 8, 16])


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    use_style()
    yield
    plt.close("all")


def words(figure: plt.Figure) -> set[str]:
    return {text.get_text() for text in texts(figure)}


def test_the_title_of_the_steps_says_how_much_longer_8_rows_take() -> None:
    measured = {"fp32": np.array([10.0, 10, 11, 12, 20]) / 1e3, "bf16": np.array([5.0, 5, 5, 10, 15]) / 1e3}
    figure = lesson_2.predicted_and_measured_steps(SIZES, measured, measured, measured)
    shown = words(figure)
    assert "A step of 8 rows takes 1.2 (fp32) and 2.0 (bf16) times as long as a step of one row" in shown
    assert {"decode step (ms)", "rows in the batch", "fp32", "bf16", "measured"} <= shown
    assert figure.axes[0].lines[-1].get_ydata()[3] == pytest.approx(12)  # seconds became milliseconds
    assert_readable(figure)


def test_the_title_of_the_surprise_says_what_the_second_row_costs() -> None:
    measured = {"unpacked": [0.02, 0.05, 0.06, 0.06, 0.07], "packed": [0.02, 0.022, 0.02, 0.02, 0.03]}
    ax = lesson_2.packed_and_unpacked_steps(SIZES, [0.01] * 5, measured)
    assert ax.get_title(loc="left") == (
        "A step of 2 rows takes 2.5 (unpacked) and 1.1 (packed) times as long as one of 1 row"
    )
    assert [line.get_label() for line in ax.lines] == ["predicted", "measured, unpacked", "measured, packed"]
    assert_readable(ax.figure)


@pytest.mark.parametrize(("knee", "rows", "more", "longer"), [(8.0, 8, "4.0", "2.0"), (7.9, 4, "3.0", "1.5")])
def test_throughput_and_latency_are_told_at_the_last_size_up_to_the_knee(
    knee: float, rows: int, more: str, longer: str
) -> None:
    throughput, latency = [100, 200, 300, 400, 500], [0.1, 0.11, 0.15, 0.2, 0.4]
    figure = lesson_2.throughput_against_latency(SIZES, throughput, latency, knee, "a model")
    shown = words(figure)
    assert f"{rows} requests at once: {more} times the throughput at {longer} times the latency (a model)" in shown
    assert {"latency of a request (s)", "throughput (tokens/s)", "knee"} <= shown
    assert_readable(figure)


def test_points_that_lie_close_together_do_not_all_get_a_number() -> None:
    throughput, latency = [10, 20, 40, 500, 1000], [0.1, 0.1, 0.11, 0.2, 0.4]
    figure = lesson_2.throughput_against_latency(SIZES, throughput, latency, 8.0, "a model")
    numbers = [text.get_text() for text in figure.axes[1].texts]
    assert numbers == ["1", "8", "16"]


def test_a_knee_before_the_first_size_counts_as_the_first() -> None:
    assert [lesson_2.largest_size_up_to(knee, SIZES) for knee in (0.5, 1, 15.9, 16, 99)] == [0, 0, 3, 4, 4]


def test_the_title_of_the_padding_counts_the_cells() -> None:
    orders = {"in order of arrival": [1, 3, 1, 3], "sorted by length": [1, 1, 3, 3]}
    figure = lesson_2.padding_of_batches(orders, 2)
    assert "Pads are 33% of the cells in order of arrival and 0% of the cells sorted by length" in words(figure)
    pads, tokens = figure.axes[0].containers
    assert [bar.get_width() for bar in pads] == [2, 0, 2, 0]
    assert [bar.get_x() + bar.get_width() for bar in tokens] == [3, 3, 3, 3]  # padded on the left
    assert_readable(figure)


def test_the_last_batch_may_be_smaller() -> None:
    figure = lesson_2.padding_of_batches({"in any order": [2, 4, 3]}, 2)
    assert "Pads are 18% of the cells in any order" in words(figure)  # 2 of 4 + 4 + 3 cells


def test_waiting_and_being_served_add_up_to_the_latency() -> None:
    begun, done = {1: np.array([0.0, 1.0]), 2: np.array([0.0, 0.0])}, {1: np.array([1.0, 2.0]), 2: np.array([1.2, 1.2])}
    figure = lesson_2.waiting_and_served(begun, done)
    assert "On average a request is done after 1.50 s in batches of 1, 1.20 s in batches of 2" in words(figure)
    waiting, served = figure.axes[0].containers
    assert [bar.get_width() for bar in waiting] == [0, 1]
    assert [bar.get_x() + bar.get_width() for bar in served] == [1, 2]
    assert {"time since sending (s)", "request", "waiting", "being served", "mean latency"} <= words(figure)
    assert_readable(figure)
