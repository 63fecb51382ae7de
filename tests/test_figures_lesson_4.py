"""The figures of Lesson 4: they show the numbers that they are given, and their titles say what these numbers say."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest

from figure_checks import assert_readable, texts
from figures import lesson_4, use_style


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with plt.rc_context():
        use_style()
        yield
        plt.close("all")


def labels(ax: plt.Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_numbers_of_formats() -> None:
    ax = lesson_4.numbers_of_formats({"one": [0.0, 1.0, 3.0], "other": [0.0, 2.0]})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "other"]
    assert [len(lines.get_positions()) for lines in ax.collections] == [3, 2]
    assert "value" in ax.get_xlabel()
    assert_readable(ax.figure)


def test_error_of_rounding() -> None:
    ax = lesson_4.error_of_rounding(np.array([[-0.5, 0.25], [0.0, 0.25]]))
    assert ax.get_title(loc="left") == "No weight moves by more than 0.50 steps, and the RMS is 0.306"
    assert ax.get_xlabel() == "error (steps)" and sorted(labels(ax)) == ["measured", "predicted: spread evenly"]
    assert_readable(ax.figure)


def test_codes_in_use() -> None:
    counts = np.zeros(256)
    counts[[0, 100, 130, 255]] = [1, 90, 8, 1]
    ax = lesson_4.codes_in_use(counts, zero_point=100)
    assert "98.0% of the weights crowd within 32 levels of zero" in ax.get_title(loc="left")
    assert ax.get_yscale() == "log" and "log scale" in ax.get_ylabel()
    assert [bar.get_height() for bar in ax.patches if bar.get_height()] == [1, 90, 8, 1]
    assert_readable(ax.figure)


def test_codes_in_use_near_the_edge() -> None:
    ax = lesson_4.codes_in_use([5, 5, 90], zero_point=0, near=1)
    assert "10.0% of the weights crowd within 1 levels" in ax.get_title(loc="left")


def test_bits_and_damage() -> None:
    curves = {
        "coarse": [(8.0, 1.53, 1e-4, 1e-4), (2.0, 142.1, 4.5, 0.4)],
        "fine": [(9.2, 1.52, 1e-5, 1e-5), (3.2, 1.69, 0.09, 0.04)],
    }
    figure = lesson_4.bits_and_damage(curves, fp32_perplexity=1.51)
    title = figure.get_suptitle()
    assert "at most 1.53" in title and "142 (coarse) to 1.69 (fine)" in title
    left, right = figure.axes
    assert labels(left) == ["coarse", "fine", "fp32"]
    assert labels(right) == ["coarse", "fine", "dotted: predicted from 8 bits"]
    assert right.get_ylabel() == "KL divergence from fp32 (nats, log scale)"
    np.testing.assert_allclose(right.lines[1].get_ydata(), [1e-4, 0.4])
    assert_readable(figure)


def test_parts_of_memory() -> None:
    ax = lesson_4.parts_of_memory(["layers", "head"], {"fp32": [300.0, 150.0], "int8": [75.0, 150.0]})
    assert ax.get_title(loc="left") == "From 450 MB down to 225: what stays in fp32 limits the saving"
    assert {" 450 MB", " 225 MB"} <= {text.get_text() for text in texts(ax.figure)}
    assert labels(ax) == ["layers", "head"] and ax.get_xlabel() == "memory (MB)"
    assert_readable(ax.figure)


def test_parts_and_numbers_must_fit_together() -> None:
    with pytest.raises(ValueError):
        lesson_4.parts_of_memory(["layers"], {"fp32": [300.0, 150.0]})


def test_predicted_steps() -> None:
    reading, fixed = {"bf16": 8.0, "int8": 4.0}, {"bf16": 3.0, "int8": 3.0}
    ax = lesson_4.predicted_steps(reading, fixed, {"bf16": 12.0, "int8": 9.0}, beside="bf16")
    assert ax.get_title(loc="left") == "“int8” reads 0.50 of the bytes of bf16 and takes 0.75 of its time"
    shown = {text.get_text().strip() for text in texts(ax.figure)}
    assert {"11.0 ms", "12.0 ms", "7.0 ms", "9.0 ms"} <= shown
    assert "(ms)" in ax.get_xlabel()
    assert_readable(ax.figure)


def test_answers_still_unchanged() -> None:
    changes = {"bf16": np.array([0, 2, np.inf, np.inf]), "int8": np.array([np.inf] * 4)}
    laws = {"bf16": [1.0, 0.8, 0.6, 0.5], "int8": [1.0] * 4}
    ax = lesson_4.answers_still_unchanged(changes, laws, tokens=3)
    steps, law = ax.lines[0], ax.lines[1]
    assert steps.get_ydata().tolist() == [100, 75, 75, 50]  # after 0, 1, 2 and 3 tokens
    np.testing.assert_allclose(law.get_ydata(), [100, 80, 60, 50])
    assert "in the end 50 to 100 % of the answers are unchanged" in ax.get_title(loc="left")
    styles = [line.get_linestyle() for line in ax.lines]
    assert styles[0] == styles[1] != styles[2] == styles[3]  # in print, each thin line can be told from the others
    assert ax.get_ylabel() == "answers unchanged so far (% of 4)"
    assert labels(ax) == ["bf16", "int8", "predicted (thin lines)"]
    assert_readable(ax.figure)
