"""The stated machine and model of all drawings about time: arithmetic instead of a clock."""

from __future__ import annotations

GPT2_PARAMETERS = 124_439_808
GPT2_WEIGHT_BYTES = 4 * GPT2_PARAMETERS  # fp32
BANDWIDTH = 30e9  # bytes per second
OPERATIONS = 200e9  # floating-point operations per second
STATED = "GPT-2 small in fp32, an assumed 30 GB/s of memory bandwidth and 200 GFLOP/s"


def reading_s() -> float:
    """Seconds to read every weight once."""
    return GPT2_WEIGHT_BYTES / BANDWIDTH


def arithmetic_s(tokens: int) -> float:
    """Seconds of arithmetic for this many tokens: two operations per parameter and token."""
    return 2 * GPT2_PARAMETERS * tokens / OPERATIONS


def forward_s(tokens: int) -> float:
    """Seconds of a forward over this many tokens: the slower of the two limits."""
    return max(reading_s(), arithmetic_s(tokens))


def crossover() -> float:
    """The number of tokens at which both limits are equal."""
    return reading_s() / arithmetic_s(1)
