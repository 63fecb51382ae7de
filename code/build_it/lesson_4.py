"""Lesson 4."""

from __future__ import annotations

from typing import Any

from exercises.checking import NotAttempted, exercise


@exercise("")
def check_quantized_linear(linear_class: Any) -> None:
    """Exercise 4.6."""
    raise NotAttempted
