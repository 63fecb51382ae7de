"""Figures: one style, one palette, units on every axis, and one function for each thing that is drawn.

    style         the palette and the sizes of text
    charts        what several lessons draw
    lesson_1 ...  what only this lesson draws: figures.lesson_1.NAME(...)

What several lessons draw is at hand as figures.NAME(...).
"""

from . import lesson_1, lesson_2, lesson_3, lesson_4, lesson_5, lesson_6, lesson_7, lesson_8
from .charts import (
    per_step_curves,
    predicted_and_measured,
    running_median,
    throughput_and_latency,
    timeline,
    timing_bars,
)
from .style import BLUE, GREEN, GREY, LINE_STYLES, MARKERS, ORANGE, PALE, PALETTE, PURPLE, save_svg, use_style

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "LINE_STYLES",
    "MARKERS",
    "ORANGE",
    "PALE",
    "PALETTE",
    "PURPLE",
    "lesson_1",
    "lesson_2",
    "lesson_3",
    "lesson_4",
    "lesson_5",
    "lesson_6",
    "lesson_7",
    "lesson_8",
    "per_step_curves",
    "predicted_and_measured",
    "running_median",
    "save_svg",
    "throughput_and_latency",
    "timeline",
    "timing_bars",
    "use_style",
]
