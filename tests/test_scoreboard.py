"""The scoreboard of predictions: what it computes, and what the committed lessons say with it."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pytest

import lessons
from figures import predicted_and_measured
from measure import Scoreboard
from scoreboard import MISS, SCOREBOARD_MIME
from scoreboards import scoreboards_of

COUNTED = {"bytes", "tokens", "forwards", "positions", "cells", "parameters"}


def test_a_row_says_how_far_the_two_are_apart():
    scores = Scoreboard("Lesson 0")
    row = scores.add("gain of the cache", 3.0, 2.0, "times")
    assert row.factor == 1.5 and not row.missed
    assert str(row) == "gain of the cache: predicted 3, measured 2 times (within 1.50 times)"
    assert scores.add("the same, the other way round", 2.0, 3.0, "times").factor == 1.5


def test_a_miss_comes_with_its_explanation_and_whether_it_was_tested():
    scores = Scoreboard("Lesson 0")
    tested = scores.add("decode step", 10.0, 25.0, "ms", tested="the kernel reads at half the bandwidth")
    assert tested.verdict == "missed by 2.5 times; tested: the kernel reads at half the bandwidth"
    assert scores.add("swap", 10, 1, "times", guess="many small copies").verdict.endswith("a guess: many small copies")
    assert scores.add("wait", 1, 2, "s").verdict == "missed by 2.0 times; unexplained"
    assert scores.add("hit", 1, 1.1, "s", guess="not needed").verdict == "within 1.10 times"
    assert scores.add("near", 1, 1.54, "s").verdict == "missed by 1.54 times; unexplained"
    assert [row.what for row in scores.misses] == ["decode step", "swap", "wait", "near"]


def test_counts_must_agree():
    scores = Scoreboard("Lesson 0")
    assert scores.add("forwards", 132, 132, "forwards", exact=True).verdict == "exact"
    with pytest.raises(ValueError, match="bytes of the cache: predicted 4,096, measured 4,097 bytes; these must agree"):
        scores.add("bytes of the cache", 4096, 4097, "bytes", exact=True)
    assert len(scores.rows) == 1


@pytest.mark.parametrize(("predicted", "measured"), [(0, 1), (1, 0), (-1, 1), (math.nan, 1), (1, math.inf)])
def test_only_positive_finite_numbers_can_be_compared(predicted, measured):
    with pytest.raises(ValueError, match="takes positive, finite numbers"):
        Scoreboard("Lesson 0").add("a difference", predicted, measured, "ms")


def test_a_cell_that_runs_again_replaces_its_row():
    scores = Scoreboard("Lesson 0")
    for measured in (2.0, 3.0):
        scores.add("first", 2.0, measured, "ms")
        scores.add("second", 4.0, 4.0, "ms")
    assert [(row.what, row.measured) for row in scores.rows] == [("first", 3.0), ("second", 4.0)]


def test_the_table_and_the_saved_rows_hold_every_prediction():
    scores = Scoreboard("Lesson 0")
    scores.add("bytes", 12345678, 12345678, "bytes", exact=True)
    scores.add("step", 0.0123, 0.05, "s", guess="nobody looked")
    bundle = scores._repr_mimebundle_()
    assert "12,345,678" in bundle["text/plain"] and "0.0123" in bundle["text/plain"]
    assert "a guess: nobody looked" in bundle["text/plain"]
    assert [row["what"] for row in bundle[SCOREBOARD_MIME]["rows"]] == ["bytes", "step"]


def test_the_figure_shows_every_point_and_counts_the_hits():
    one, two = Scoreboard("one"), Scoreboard("two")
    one.add("a", 1, 1, "s"), one.add("b", 10, 30, "s"), two.add("c", 100, 90, "s")
    two.add("d", 4096, 4096, "bytes", exact=True)
    ax = predicted_and_measured(one, two)
    points = [tuple(point) for collection in ax.collections[1:] for point in collection.get_offsets()]
    assert points == [(1, 1), (10, 30), (100, 90)]
    assert "not drawn: 1 exact counts and bytes" in ax.get_legend_handles_labels()[1]
    assert (ax.get_title() or ax.get_title(loc="left")) == f"2 of 3 predictions are within a factor of {MISS}"
    assert not ax.texts
    assert {text.get_text() for text in predicted_and_measured(one).texts} == {"1", "2"}
    plt.close("all")


def test_numbers_of_points_that_lie_close_together_do_not_cover_each_other():
    scores = Scoreboard("crowded")
    for number in range(6):
        scores.add(f"{number}", 10 + number / 10, 10.0, "s")
    scores.add("far away", 1000, 1000, "s")
    ax = predicted_and_measured(scores)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(one.overlaps(two) for place, one in enumerate(boxes) for two in boxes[:place])
    plt.close("all")


def test_every_board_of_several_is_drawn_and_told_from_the_others():
    boards = []
    for number in range(1, 9):
        board = Scoreboard(f"Lesson {number}")
        board.add("time", 10 + number, 10.0, "s")
        boards.append(board)
    ax = predicted_and_measured(*boards)
    drawn = [group for group in ax.collections if str(group.get_label()).startswith("Lesson")]
    looks = {(str(g.get_edgecolor()), str(g.get_facecolor()), str(g.get_paths()[0].vertices.round(3))) for g in drawn}
    assert len(drawn) == len(looks) == 8
    plt.close("all")


# --- The committed lessons ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", lessons.find_lessons(), ids=lambda path: path.stem)
def test_a_lesson_ends_with_its_scoreboard(path):
    [scores] = scoreboards_of(path)
    assert scores.lesson == path.stem.partition("-")[0].replace("_", " ")
    assert len(scores.rows) >= 6
    assert not [row.what for row in scores.misses if not (row.tested or row.guess)]
    assert sum(row.exact for row in scores.rows) >= 2
    assert all(row.predicted == row.measured for row in scores.rows if row.unit in COUNTED), "counts miss by nothing"
