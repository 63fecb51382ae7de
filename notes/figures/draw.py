"""Draw the drawings of the notes: `python notes/figures/draw.py` writes one SVG for each beside this file.

Words behind it choose: `draw.py lesson_3 lesson_0_wastes` draws those whose names begin with one of them.

What is data comes from the code of the lessons: real runs of the storyteller, real batches, real
weights. Nothing depends on a clock; drawings about time compute it and say from what.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

from matplotlib import rc_context
from tqdm.auto import tqdm

import ladder_page
import lesson_0
import lesson_1
import lesson_2
import lesson_3
import lesson_4
import lesson_5
import lesson_6
import lesson_7
import lesson_8
from canvas import Sheet, set_style


class Drawing(NamedTuple):
    """A drawing and the sentence that stands for it where it cannot be seen."""

    draw: Callable[[], Sheet]
    alt: str

    @property
    def file_name(self) -> str:
        """Such as `lesson_0_wastes.svg`: the module and the function that draws it."""
        return f"{self.draw.__module__}_{self.draw.__name__}.svg"


DRAWINGS = [
    Drawing(
        lesson_0.one_token_at_a_time,
        "The storyteller finishes the proverb A friend in need: each of eight forwards reads the text so far and adds "
        "one token, first is, then a, friend, a space, ind, eed, a full stop and the end.",
    ),
    Drawing(
        lesson_0.wastes,
        "Five wastes of serving and the technique that removes each: recomputed tokens (KV cache), weights read for "
        "one token (batching), finished rows that keep their slot (continuous batching), four bytes per weight "
        "(quantization), a model copy per customer (low-rank adapters).",
    ),
    Drawing(
        lesson_0.request_time_line,
        "Time line of one request that waits 30 ms, is prefilled for 30 ms and gets five tokens: TTFT is 60 ms, the "
        "gaps (ITL) are 20, 20, 20 and 60 ms, their mean (TPOT) is 30 ms, and latency is 180 ms, waiting included.",
    ),
    Drawing(
        lesson_0.percentiles,
        "Nine requests of 100 ms and one of 1,000 ms on an axis: the mean of 190 ms lies where no request is, the "
        "median is 100 ms and the worst 1,000 ms.",
    ),
    Drawing(
        lesson_0.ladder,
        "Bars of the seconds that the same 32 requests take on eleven rungs: one at a time without a cache, with a KV "
        "cache, in static batches, by continuous batching, then with packed weights in fp32, bf16 and int8, with the "
        "same three by the engine, and by a server on it.",
    ),
    Drawing(
        ladder_page.peers,
        "Bars of the seconds that the same 32 requests take on transformers, CTranslate2, OpenVINO GenAI, vLLM, and on "
        "the functions and the engine of this project, slowest first.",
    ),
    Drawing(
        ladder_page.load,
        "Two panels over the rate at which requests arrive, for static batches, continuous batching, this server and "
        "vLLM: the share of answers in time, and the TTFT that nine of ten answers keep.",
    ),
    Drawing(
        ladder_page.predictions,
        "Predicted against measured, both axes logarithmic, for the times and ratios that the eight lessons "
        "predict: most points lie in a pale band around the diagonal, the misses outside of it.",
    ),
    Drawing(
        lesson_1.encoder_and_decoder,
        "Two attention masks over the words Once upon a time: in an encoder every token looks at all four, in a "
        "decoder only at itself and at those before it.",
    ),
    Drawing(
        lesson_1.kv_cache_steps,
        "The triangle of attention in four forwards: without a cache all rows are computed every time for 4, 5, 6 and"
        " 7 tokens; with a cache the first forward computes 4 rows and each later one a single row.",
    ),
    Drawing(
        lesson_1.prefill_and_decode,
        "Computed times of two forwards: both read the weights in 16.6 ms, but the arithmetic takes 248.9 ms for a "
        "prefill of 200 tokens and 1.2 ms for a decode step, so prefill waits for arithmetic and decode for memory.",
    ),
    Drawing(
        lesson_1.decode_step,
        "A decode step in one attention head: the new token becomes a query, a key and a value; key and value are "
        "appended to those of four earlier tokens in the cache, the query is compared with all five keys, and the "
        "values are mixed by the weights that result.",
    ),
    Drawing(
        lesson_1.kv_cache_block,
        "The storyteller's KV cache as six layers of keys and values with four heads of 64 numbers each: 12,288 bytes"
        " for every token, 6.3 MB for a full context of 512 tokens.",
    ),
    Drawing(
        lesson_1.sampling,
        "Chances of the storyteller's next word after The fox under temperature 1, 0.5 and 2, top-k and top-p: a low "
        "temperature favours the likeliest words, a high one gives most of the chance to the thousands of unlikely "
        "tokens, top-k and top-p leave the others out.",
    ),
    Drawing(
        lesson_1.pages,
        "A request that uses 200 places of the KV cache: reserving 1,024 at once wastes 824 of them, 13 pages of 16 "
        "places waste 8.",
    ),
    Drawing(
        lesson_2.padded_batch,
        "Three prompts of 4, 7 and 5 tokens as one batch padded on the left, with attention mask and positions: 5 of "
        "21 cells are padding, and the next token of every row is read at the last column.",
    ),
    Drawing(
        lesson_2.padding_side,
        "Two prompts padded on the left and on the right: on the left both next tokens equal those of the prompts "
        "alone, on the right the shorter row is read at a pad and its token is wrong.",
    ),
    Drawing(
        lesson_2.knee,
        "Computed throughput and step time over the batch size: up to about 13 rows throughput grows and the step "
        "time stays at 16.6 ms, beyond that throughput is flat at 804 tokens per second and the step time grows.",
    ),
    Drawing(
        lesson_2.roofline,
        "Roofline with a slope of 30 GB/s and a roof of 200 GFLOP/s: decode steps of 1 to 8 rows lie on the slope, 16"
        " and 32 rows and a prefill of 200 tokens at the roof; slope and roof meet at 6.7 operations per byte.",
    ),
    Drawing(
        lesson_2.packing,
        "A weight matrix of 8 outputs and 4 inputs, numbered in the order in which a kernel reads it, four outputs at "
        "once: in unpacked memory the first four weights lie at places 0, 4, 8 and 12, in packed memory at 0, 1, 2 and "
        "3.",
    ),
    Drawing(
        lesson_2.three_requests,
        "Time lines of three requests sent at 0, 100 and 200 ms: served one by one their latencies are 300, 500 and "
        "700 ms, gathered into one batch 530, 430 and 330 ms.",
    ),
    Drawing(
        lesson_3.small_time_lines,
        "Two slots and four requests of 6, 2, 3 and 2 tokens: static batching takes 9 forwards with 13 of 18 cells "
        "useful, continuous batching 8 forwards with 13 of 16.",
    ),
    Drawing(
        lesson_3.static_and_continuous,
        "Slots over forwards for the course's 32 requests: static batching takes 400 forwards with 21 % of the cells "
        "useful, continuous batching 132 forwards with 64 %.",
    ),
    Drawing(
        lesson_3.loop,
        "The loop of continuous batching: admit, prefill, merge, decode, filter, and again until nobody waits and "
        "nobody runs.",
    ),
    Drawing(
        lesson_3.merge,
        "Attention masks of two running rows and a newcomer: in the merged batch the newcomer gets three columns of "
        "padding on the left and becomes the third row.",
    ),
    Drawing(
        lesson_3.filter_rows,
        "Attention masks during a filter: the finished row leaves, then the two columns that are padding in every "
        "remaining row are cut.",
    ),
    Drawing(
        lesson_3.gain,
        "Static forwards divided by continuous forwards over the share of long requests, counted: the gain is "
        "largest, 3.0 times for requests of 100 among 10 tokens, when 4 of 32 are long; it vanishes when all are alike,"
        " and a few short among many long requests make a small loss, down to 0.96.",
    ),
    Drawing(
        lesson_3.prefill_stall,
        "Computed time lines of three running rows when a prompt of 128 tokens arrives: prefilled at once it makes a "
        "gap of 176 ms, in chunks beside the decodes gaps of at most 40 ms, and its first token comes a little later.",
    ),
    Drawing(
        lesson_3.paged_cache,
        "Block tables of three requests that point at blocks anywhere in a pool: only the last block of each has "
        "empty places, here 6 in all.",
    ),
    Drawing(
        lesson_4.number_formats,
        "The bits of pi in fp32, bf16, fp16 and fp8 e4m3, split into sign, exponent and fraction: it comes back as "
        "3.141593, 3.140625, 3.140625 and 3.25, and the largest values are 3.4e38, 3.4e38, 65,504 and 448.",
    ),
    Drawing(
        lesson_4.quantization_grid,
        "Five values from -1 to 3 on the eight levels of three bits with scale 0.571 and zero point 2: each moves to "
        "the nearest level, and the largest error of 0.143 stays below half a step, 0.286.",
    ),
    Drawing(
        lesson_4.rounding,
        "Histograms of the error over a real weight matrix: rounding spreads from -0.5 to 0.5 steps with a root mean "
        "square of 0.289, truncating from -1 to 0 with 0.577 and a mean of -0.5.",
    ),
    Drawing(
        lesson_4.granularity,
        "Which weights share a scale, and the 4-bit error of a real matrix: 20.2 % with one scale per matrix, 11.3 % "
        "per channel and 8.2 % per group of 32, at 4.00, 4.16 and 5.25 bits a weight.",
    ),
    Drawing(
        lesson_4.model_bytes,
        "Bytes of GPT-2 small: 497.8 MB in fp32, 243.4 MB with 8 bits, 127.8 MB with the output head in 8 bits too, "
        "and 207.1 MB with 4 bits in groups of 64 and the head in fp32.",
    ),
    Drawing(
        lesson_4.bytes_moved,
        "Bytes moved per weight and forward: 4 in fp32, 9 when int8 codes are dequantized just in time, 1 with a "
        "fused kernel.",
    ),
    Drawing(
        lesson_4.method_map,
        "Map of quantization methods: for weights only, this project's quantize_model, AWQ and GPTQ; for weights and "
        "activations, dynamic int8, SmoothQuant and LLM.int8(); by rows, what each does about the error.",
    ),
    Drawing(
        lesson_5.factors,
        "The frozen matrix W of 2,304 by 768 beside the thin factors B and A of rank 8, to scale: they have 24,576 "
        "parameters, 1.4 % of W's.",
    ),
    Drawing(
        lesson_5.training_memory,
        "Memory for training GPT-2 small in fp32 without activations: 1.99 GB when all weights are trained, 0.50 GB "
        "with an adapter of rank 8, of which the adapter is 4.7 MB.",
    ),
    Drawing(
        lesson_5.merge_and_swap,
        "Three ways to serve an adapter: A and B beside the frozen W, A and B exchanged for others without touching "
        "W, or their product added into W.",
    ),
    Drawing(
        lesson_5.adapters_in_a_batch,
        "Four rows of a batch go through the shared W together, and to each row the product of its own adapter's thin"
        " matrices is added, or nothing where it has none.",
    ),
    Drawing(
        lesson_5.qlora,
        "The parts of QLoRA: a frozen base in 4-bit NF4 with scales quantized again, 16-bit factors A and B that "
        "alone are trained, and Adam's moments in paged memory.",
    ),
    Drawing(
        lesson_6.groups,
        "Six rows of a batch, five with adapters and one without, sorted into three groups: each group is multiplied "
        "by its own thin factors, of rank 8, 16 or 4, and added to what W gives for these rows.",
    ),
    Drawing(
        lesson_6.tiers,
        "Three tiers of memory: on the GPU the base model, the KV cache and the adapters in use, in main memory those "
        "that were used a while ago, on disk all files; adapters are fetched upwards and make room downwards.",
    ),
    Drawing(
        lesson_6.order_of_service,
        "Sixteen requests of four voices on eight rows with room for two adapters: strictly in order two rows are busy "
        "for 64 forwards, with overtaking eight rows for 16 forwards.",
    ),
    Drawing(
        lesson_7.open_and_closed,
        "Two ways to load a server: in a closed loop eight askers send the next request only when the last one is "
        "answered, so at most eight are there; in an open loop requests come at their own times, and a queue grows.",
    ),
    Drawing(
        lesson_7.two_clocks,
        "A request's way: it waits in the client, travels, lies in a socket, is read by the server, waits for a row, "
        "is computed, and its first token travels back; the server's time to first token covers the middle, the "
        "client's all.",
    ),
    Drawing(
        lesson_8.pages,
        "Three block tables, of three requests that ask about one book: their first entries name the same blocks of "
        "the cache, and only the last blocks are each request's own.",
    ),
    Drawing(
        lesson_8.draft,
        "A text whose last two tokens, lost the, stand in it once before, where red, kite and a full stop followed: "
        "one forward says red and kite too, and then a question mark, so three tokens are gained.",
    ),
]


def draw_all(folder: Path, beginnings: tuple[str, ...] = ()) -> None:
    """Write the drawings whose names begin with one of `beginnings` into the folder; all of them if there are none."""
    chosen = [drawing for drawing in DRAWINGS if drawing.file_name.startswith(beginnings or "")]
    with rc_context():
        set_style()
        for drawing in tqdm(chosen, desc="drawings"):
            drawing.draw().save(folder / drawing.file_name, drawing.alt)


if __name__ == "__main__":
    draw_all(Path(__file__).resolve().parent, tuple(sys.argv[1:]))
