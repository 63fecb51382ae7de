"""Keys and values in pages, as the engine has them, beside contiguous slots, one for each row.

    pages                                    slots
    | b1 | a0 | a1 | b0 |    gathered        | a0 a1 ...        |    read where they lie
                             at every step   | b0 b1 ...        |

Slots spare the gathering, but no two rows can share a prefix, and each of them is as long as the longest request.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from engine import Engine
from engine.model import Flat, PagedModel, Part
from engine_serving import STEP_TOKENS, engine_for
from engine_sizes import ROWS, Outcome, Sizes, random_prompts
from helpers import Request
from measure import Comparison, interleaved
from packed import pack_model


class View(NamedTuple):
    """Where the rows of a part have their keys and values."""

    tokens: slice  # among all tokens of the step
    slots: slice | Tensor  # (R,), a slice where they follow one another
    mask: Tensor  # (R, T, S), S the length of the longest row


class SlotModel(PagedModel):
    """Each request has one long block, its slot, in which its keys and values follow one another.

    A block that is never full is never shared, so the engine's bookkeeping does the rest as it is.
    """

    def _attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, flat: Flat) -> Tensor:
        if not index:
            self.views = [view_of(part, flat) for part in flat.parts]
        for slots, new in zip(self.pages[index], (k, v), strict=True):
            slots.view(-1, new[0].numel()).index_copy_(0, flat.places, new.flatten(1))
        scale = self.architecture.scales[index]
        attended = [attend_in_slots(q[view.tokens], *self.pages[index], view, scale) for view in self.views]
        return torch.cat(attended) if len(attended) > 1 else attended[0]


def view_of(part: Part, flat: Flat) -> View:
    """The slots of these rows, and the mask up to the end of the longest one."""
    slots, longest = part.table.flatten(), int(flat.positions[part.tokens].max()) + 1
    first, count = int(slots[0]), len(slots)
    in_order = torch.equal(slots, torch.arange(first, first + count))
    return View(part.tokens, slice(first, first + count) if in_order else slots, part.mask[:, :, :longest])


def attend_in_slots(q: Tensor, keys: Tensor, values: Tensor, view: View, scale: float) -> Tensor:
    """As `engine.model.attend`, with keys and values (slots, places, G, D) that are read where they lie."""
    (rows, tokens, places), (_, heads, size), groups = view.mask.shape, q.shape, keys.shape[2]
    keys, values = (stored[view.slots][:, :places].transpose(1, 2) for stored in (keys, values))  # (R, G, S, D)
    shared = heads // groups
    q = q.view(rows, tokens, groups, shared, size).permute(0, 2, 3, 1, 4).flatten(2, 3)  # (R, G, H / G * T, D)
    mask = view.mask[:, None, None].expand(-1, -1, shared, -1, -1).flatten(2, 3)  # (R, 1, H / G * T, S)
    y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=scale)
    return y.unflatten(2, (shared, tokens)).permute(0, 3, 1, 2, 4).reshape(rows * tokens, heads * size)


def engine_with_slots(model: PreTrainedModel, requests: list[Request], rows: int) -> Engine:
    """An engine that has taken these requests and keeps each in a slot of its own."""
    longest = max(len(request.prompt) + request.max_tokens for request in requests)
    engine = engine_for(model, requests, rows, block_tokens=longest)
    engine.paged = SlotModel(model, rows, longest)
    return engine


# --- Measuring ---------------------------------------------------------------------------------------


def measure(sizes: Sizes) -> Outcome:
    """Time single decode steps of both, in turn, with little and with much context."""
    measured: dict[str, Any] = {}
    lines = [f"{'':28}{'context':>9}{'pages ms':>10}{'slots ms':>10}{'pages / slots':>15}{'same answers':>14}"]
    for name, make in sizes.long_models().items():
        model = pack_model(make())
        measured[name] = {}
        for context in sizes.contexts:
            row = measured[name][context] = pages_and_slots(f"{name}, {context} tokens", model, context, sizes.steps)
            same = f"{row['same_answers']} of {ROWS}"
            lines.append(
                f"{name:28}{context:9}{row['pages_s'] * 1e3:10.2f}{row['slots_s'] * 1e3:10.2f}"
                f"{row['pages_over_slots']:15.2f}{same:>14}"
            )
    return Outcome(measured, lines, [])


def pages_and_slots(label: str, model: PreTrainedModel, context: int, steps: int) -> dict[str, Any]:
    """One decode step of eight rows that have so many tokens each."""
    warmup = 2
    prompts = random_prompts(model, ROWS, context)
    meanwhile = ROWS * context // (STEP_TOKENS - ROWS) + ROWS  # steps in which the last rows' prompts are read
    requests = [Request(prompt, meanwhile + warmup + steps, ignore_eos=True) for prompt in prompts]
    engines = {"pages": engine_for(model, requests, ROWS), "slots": engine_with_slots(model, requests, ROWS)}
    asked = {name: list(engine.requests.values()) for name, engine in engines.items()}
    for engine in engines.values():
        while any(not request.output_tokens for request in engine.requests.values()):
            engine.step()
    functions = {name: engine.step for name, engine in engines.items()}
    timings = interleaved(functions, repeats=steps, warmup=warmup, progress=label)
    pages, slots = timings["pages"], timings["slots"]
    same = [one.output_ids == other.output_ids for one, other in zip(asked["pages"], asked["slots"], strict=True)]
    return {
        "pages_s": pages.median_s,
        "slots_s": slots.median_s,
        "pages_quartiles_s": list(pages.quartiles_s),
        "slots_quartiles_s": list(slots.quartiles_s),
        "pages_over_slots": Comparison(pages, slots).ratio,
        "steps": len(pages.seconds),
        "same_answers": sum(same),
    }
