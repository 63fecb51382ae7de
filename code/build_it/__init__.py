"""Build it: the last exercise of each lesson, and the server that the learner's five parts make together.

    from build_it import check_cache
    check_cache(KVCache)          not attempted yet / not yet right: ... / correct: ...

The checks of `exercises` compare a small function with a reference. These run what a learner has built on the bundled
model and the course's requests, and compare answers with answers, so they stand above all other modules of `code/`.
"""

from .assembly import own_server
from .lesson_1 import check_cache
from .lesson_2 import check_batch_step
from .lesson_3 import check_scheduler
from .lesson_4 import check_quantized_linear
from .lesson_5 import check_lora_layer
from .lesson_6 import check_grouped_layer
from .lesson_7 import check_open_loop
from .lesson_8 import check_block_allocator

__all__ = [
    "check_batch_step",
    "check_block_allocator",
    "check_cache",
    "check_grouped_layer",
    "check_lora_layer",
    "check_open_loop",
    "check_quantized_linear",
    "check_scheduler",
    "own_server",
]
