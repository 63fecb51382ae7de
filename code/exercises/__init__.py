"""Checks of the lessons' exercises: each says what is wrong with an answer, never what the answer is.

    check_left_padded(left_padded)      not attempted yet
                                        not yet right: wrong for the example: this pads on the right ...
                                        correct: the last column is a real token in every row ...

A check returns a `Result`, which shows its message and nothing else when it ends a notebook cell. It never
raises, whatever the answer is or does; if the check itself has a bug, it says so and blames nobody else. Answers
are compared with references that are written as plainly as possible, a file per lesson: they are best read
after the exercises.
"""

from .checking import Result
from .lesson_1 import (
    check_decode_floor,
    check_keep_top_p,
    check_kv_cache,
    check_positions_processed,
    check_tempered,
)
from .lesson_2 import (
    check_batch_latencies,
    check_crossover_batch,
    check_left_padded,
    check_padding_cells,
    check_positions_of,
)
from .lesson_3 import (
    check_admission_order,
    check_admitted_count,
    check_filtered_mask,
    check_forward_counts,
    check_ttft_percentile,
)
from .lesson_4 import (
    check_grouped_bytes,
    check_grouped_int4,
    check_integer_linear,
    check_mean_error,
    check_scale_and_zero_point,
)
from .lesson_5 import (
    check_adapter_updates,
    check_dora_weight,
    check_merged_weight,
    check_smallest_rank,
    check_trainable_parameters,
)

__all__ = [
    "Result",
    "check_adapter_updates",
    "check_admission_order",
    "check_admitted_count",
    "check_batch_latencies",
    "check_crossover_batch",
    "check_decode_floor",
    "check_dora_weight",
    "check_filtered_mask",
    "check_forward_counts",
    "check_grouped_bytes",
    "check_grouped_int4",
    "check_integer_linear",
    "check_keep_top_p",
    "check_kv_cache",
    "check_left_padded",
    "check_mean_error",
    "check_merged_weight",
    "check_padding_cells",
    "check_positions_of",
    "check_positions_processed",
    "check_scale_and_zero_point",
    "check_smallest_rank",
    "check_tempered",
    "check_trainable_parameters",
    "check_ttft_percentile",
]
