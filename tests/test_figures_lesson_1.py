"""What Lesson 1 draws says what the numbers say, in text that can be read."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import figures
from figure_checks import assert_readable, texts
from figures.lesson_1 import (
    AGAIN,
    FIRST_TIME,
    NOTHING,
    attention_rows,
    next_token_chances,
    positions_of_forwards,
    positions_sent,
    time_of_every_token,
)


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def words_in(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


# --- Positions -----------------------------------------------------------------------------------------


def test_a_position_is_new_once_and_sent_again_by_every_later_forward() -> None:
    kinds = positions_of_forwards(prompt_length=3, steps=4)
    assert kinds.shape == (4, 7)
    assert ((kinds == FIRST_TIME).sum(axis=0) == [1, 1, 1, 1, 1, 1, 0]).all()  # the last token is only written down
    assert [(row != NOTHING).sum() for row in kinds] == [3, 4, 5, 6]
    assert (kinds[0] != AGAIN).all()


def test_the_figure_of_positions_counts_them() -> None:
    figure = positions_sent(7, steps=16)
    assert_readable(figure)
    said = words_in(figure)
    assert "The plain loop: 210 of 232 positions had been worked on before" in said
    assert "What the plain loop sends: 232 positions" in said and "What is new: 22 positions" in said
    assert "position in the sequence" in said and "forward pass" in said


# --- Attention -----------------------------------------------------------------------------------------


def test_each_forward_is_drawn_at_its_place_in_the_triangle() -> None:
    triangle = np.tril(np.full((3, 3), 0.5))
    figure = attention_rows(["Once", "upon", "a", "time"], [triangle, np.full((1, 4), 0.25)])
    assert_readable(figure)
    first, second = (ax.collections[0].get_array() for ax in figure.axes[:2])
    drawn = ~np.ma.getmaskarray(np.ma.masked_invalid(first)).reshape(4, 4)
    assert (drawn == np.pad(np.tril(np.ones((3, 3), dtype=bool)), ((0, 1), (0, 1)))).all()
    drawn = ~np.ma.getmaskarray(np.ma.masked_invalid(second)).reshape(4, 4)
    assert drawn[3].all() and not drawn[:3].any()


def test_the_figure_of_attention_says_how_many_rows_were_computed() -> None:
    triangle = np.tril(np.full((2, 2), 0.5))
    said = words_in(attention_rows(["a", "b", "c"], [triangle, np.full((1, 3), 0.3)]))
    assert "The first forward computes 2 rows of the triangle, each later one only 1" in said
    assert "Forward 1: 2 tokens in" in said and "Forward 2: 1 token in" in said
    assert "attention weight (1 = all attention)" in said


# --- Times ---------------------------------------------------------------------------------------------


def test_measured_and_expected_times_are_in_milliseconds_and_below_the_legend() -> None:
    measured = {"recomputed": [0.010, 0.020, 0.030], "cached": [0.010, 0.004, 0.004]}
    ax = time_of_every_token(measured, {"predicted": [0.010, 0.025, 0.090]}, "The last took 3 times as long")
    assert_readable(ax.figure)
    assert ax.get_title(loc="left") == "The last took 3 times as long"
    assert ax.get_ylabel() == "time for this token (ms)"
    dotted = [line for line in ax.lines if line.get_label() == "predicted"]
    assert dotted[0].get_xdata().tolist() == [1, 2, 3]
    assert dotted[0].get_ydata() == pytest.approx([10, 25, 90])
    assert ax.get_ylim()[1] >= 1.3 * 90


# --- Sampling ------------------------------------------------------------------------------------------


def test_the_figure_of_chances_says_what_is_kept_and_what_goes_to_the_others() -> None:
    figure = next_token_chances(
        ["hat", "coat", "dog"],
        {0.5: [0.8, 0.15, 0.05], 1.0: [0.5, 0.3, 0.1], 2.0: [0.2, 0.15, 0.05]},
        top_k=(1, [1.0, 0.0, 0.0]),
        top_p=(0.7, [0.6, 0.4, 0.0]),
    )
    assert_readable(figure)
    said = words_in(figure)
    assert "Temperature 2 gives 60% to tokens not shown" in said
    assert "Top-k keeps 1 of these 3 tokens" in said
    assert "Top-p keeps 2 of these 3 tokens" in said
    assert "the 3 likeliest next tokens" in said and "probability" in said
    heights = [[bar.get_height() for bar in ax.patches] for ax in figure.axes[1:]]
    assert heights == [[1.0, 0.0, 0.0, 0.5, 0.3, 0.1], [0.6, 0.4, 0.0, 0.5, 0.3, 0.1]]
