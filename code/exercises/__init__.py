"""Checks of the lessons' exercises: each says what is wrong with an answer, never what the answer is.

    check_batch_sizes(batch_sizes)      not attempted yet
                                        not yet right: wrong for the example: the last batch is missing
                                        correct: a limit on cells lets many short prompts share a batch ...

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
    check_batch_sizes,
    check_crossover_batch,
    check_one_row,
    check_padding_cells,
)
from .lesson_3 import (
    check_admission_order,
    check_admitted_count,
    check_chunked_prefill,
    check_forward_counts,
    check_ttft_percentile,
)
from .lesson_4 import (
    check_best_clip,
    check_grouped_bytes,
    check_grouped_int4,
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
from .lesson_6 import (
    check_adapter_loads,
    check_merge_or_batch,
    check_padded_share,
    check_room_for_adapters,
    check_stacked_loras,
)
from .lesson_7 import (
    check_capacity,
    check_closed_loop,
    check_knee,
    check_queue_room,
    check_share_in_time,
)
from .lesson_8 import (
    check_draft_gain,
    check_flat_tokens,
    check_found_tokens,
    check_places_of,
    check_rows_that_fit,
)

__all__ = [
    "Result",
    "check_adapter_loads",
    "check_adapter_updates",
    "check_admission_order",
    "check_admitted_count",
    "check_batch_latencies",
    "check_best_clip",
    "check_batch_sizes",
    "check_capacity",
    "check_chunked_prefill",
    "check_closed_loop",
    "check_crossover_batch",
    "check_decode_floor",
    "check_dora_weight",
    "check_draft_gain",
    "check_flat_tokens",
    "check_forward_counts",
    "check_found_tokens",
    "check_grouped_bytes",
    "check_grouped_int4",
    "check_keep_top_p",
    "check_knee",
    "check_kv_cache",
    "check_mean_error",
    "check_merge_or_batch",
    "check_merged_weight",
    "check_one_row",
    "check_padded_share",
    "check_padding_cells",
    "check_places_of",
    "check_positions_processed",
    "check_queue_room",
    "check_room_for_adapters",
    "check_rows_that_fit",
    "check_scale_and_zero_point",
    "check_share_in_time",
    "check_smallest_rank",
    "check_stacked_loras",
    "check_tempered",
    "check_trainable_parameters",
    "check_ttft_percentile",
]
