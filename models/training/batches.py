"""The tokens of every training step, and what they weigh: documents packed into windows, and drills of copying."""

import random
from collections.abc import Iterator

import torch
from transformers import PreTrainedTokenizerBase

from corpus import NAMES, documents
from corpus_books import memories
from plans import Plan


def training_texts(plan: Plan, seed: str, count: int, window: int) -> list[str]:
    """`count` training documents; the plan's share of them are memories that fit into a window of `window` tokens."""
    texts = list(documents(seed, count))
    if not plan.memory_share:
        return texts
    rng, long_texts = random.Random(f"mixture-{seed}"), memories(seed, window)
    return [next(long_texts)[1] if rng.random() < plan.memory_share else text for text in texts]


def document_stream(
    plan: Plan, tokenizer: PreTrainedTokenizerBase, seed: str, count: int, window: int
) -> Iterator[list[int]]:
    """Endless training documents as token ids, encoded `count` at a time."""
    for part in range(1_000_000):
        texts = training_texts(plan, f"{seed}-{part}", count, window)
        yield from (encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(texts))


def pack_window(
    stream: Iterator[list[int]], rest: list[int], end_of_text: int, bare_start: bool, length: int
) -> tuple[list[int], list[int]]:
    """Fill one window with `rest` and documents; return it and what was cut off.

    Every document follows an end-of-text token, except the first of a window with `bare_start`: prompts have none.
    With E for end of text:   bare_start  a a a a E b b E c     otherwise  E a a a a E b b E
    """
    window = list(rest)
    if not window and not bare_start:
        window.append(end_of_text)
    while len(window) < length:
        window += next(stream)
        window.append(end_of_text)
    return window[:length], window[length:]


def longest_first(stream: Iterator[list[int]], length: int) -> Iterator[list[int]]:
    """As many documents as fill a window of `length`, the longest first: the window's end cuts off a short one.

    Documents of 3, 9 and 4 tokens and a window of 15, with E in front:   E 9 9 9 9 9 9 9 9 9 E 4 4 4 4
    """
    taken: list[list[int]] = []
    while sum(len(document) + 1 for document in taken) < length:
        taken.append(next(stream))
    return iter(sorted(taken, key=len, reverse=True))


def make_windows(plan: Plan, tokenizer: PreTrainedTokenizerBase, step: int) -> torch.Tensor:
    """Windows of documents, (B, S + 1).

    Three windows in four start at a document, two of those without an end-of-text token in front;
    the fourth goes on where the window before was cut, so that the ends of documents are seen as often as their starts.
    Where the longest documents come first, no window goes on: it would hold questions on a book that it does not hold.
    """
    rng = random.Random(f"windows-{plan.seed}-{step}")
    length = plan.window_length(step)
    count = max(8, plan.tokens_per_step // 150)
    stream = document_stream(plan, tokenizer, f"{plan.seed}-{step}", count, length)
    windows: list[list[int]] = []
    rest: list[int] = []
    for _ in range(plan.tokens_per_step // length):
        continues = rng.random() < 0.25 and not plan.longest_first
        bare_start = rng.random() < 0.67
        source = longest_first(stream, length + 1) if plan.longest_first else stream
        window, rest = pack_window(source, rest if continues else [], tokenizer.eos_token_id, bare_start, length + 1)
        windows.append(window)
    return torch.tensor(windows)


def name_ids(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """The ids of the characters' names (their first token where a small vocabulary splits them), sorted."""
    return torch.tensor(sorted({tokenizer.encode(f" {name}")[0] for name in NAMES}))


def make_drill(plan: Plan, tokenizer: PreTrainedTokenizerBase, step: int) -> torch.Tensor:
    """Rows (B, S + 1) of one to four names in random order: to predict one is to copy what came before.

    A model that copies has a loss of (log 1 + log 2 + log 3 + log 4) / 4 = 0.79 and a little for each row's first
    names; one that does not copy has log 290 = 5.67, as there are 290 names.
    """
    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
    rows, length, names = plan.tokens_per_step // 128, min(128, plan.context) + 1, name_ids(tokenizer)
    pool = names[torch.randint(len(names), (rows, 4), generator=generator)]  # (B, 4)
    size = torch.randint(1, 5, (rows, 1), generator=generator)  # how many of them a row uses
    choice = (torch.rand(rows, length, generator=generator) * size).long()
    return pool.gather(1, choice)


def make_batch(plan: Plan, tokenizer: PreTrainedTokenizerBase, step: int) -> torch.Tensor:
    """The token ids of one step, (B, S + 1); they depend on the plan's seed and the step only."""
    return (make_drill if plan.is_drill(step) else make_windows)(plan, tokenizer, step)


def held_out_batches(plan: Plan, tokenizer: PreTrainedTokenizerBase) -> list[torch.Tensor]:
    """Held-out documents packed in windows, each batch (B, S + 1)."""
    texts = list(documents(plan.seed, plan.held_out_documents, held_out=True))
    long_texts = memories(plan.seed, plan.context, held_out=True)
    texts += [next(long_texts)[1] for _ in range(plan.held_out_memories)]
    stream: list[int] = []
    for text in texts:
        stream += [tokenizer.eos_token_id, *tokenizer.backend_tokenizer.encode(text).ids]
    size = plan.context + 1
    windows = torch.tensor([stream[start : start + size] for start in range(0, len(stream) - size, plan.context)])
    return list(windows.split(8 if plan.context <= 512 else 2))


def answer_mask(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor) -> torch.Tensor:
    """Which tokens belong to an answer, (B, S): those behind "Answer:", to the end of the line or of the text."""
    marker = torch.tensor(tokenizer.encode("Answer:"), device=ids.device)
    stops = torch.tensor([tokenizer.encode("\n")[0], tokenizer.eos_token_id], device=ids.device)
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)  # (B, S)
    found = (ids.unfold(1, len(marker), 1) == marker).all(dim=-1)  # (B, S - len(marker) + 1)
    opens = torch.nn.functional.pad(found, (len(marker) - 1, 0))  # (B, S), true at the marker's last token
    opened = places.where(opens, -1).cummax(dim=1).values
    stopped = places.where(torch.isin(ids, stops), -1).cummax(dim=1).values
    before = torch.nn.functional.pad(stopped[:, :-1], (1, 0), value=-1)  # the stop itself still belongs to the answer
    return (opened >= 0) & (places > opened) & (before < opened)


def token_weights(
    plan: Plan, tokenizer: PreTrainedTokenizerBase, step: int, targets: torch.Tensor
) -> torch.Tensor | None:
    """The weight of every target in the loss of a step, (B, S); `None` where all weigh the same."""
    weight = plan.text_weight(step)
    if weight == 1.0 and plan.answer_weight == 1.0:
        return None
    names = torch.isin(targets, name_ids(tokenizer).to(targets.device))
    weights = torch.full(targets.shape, weight, device=targets.device).masked_fill(names, 1.0)
    if plan.answer_weight != 1.0:
        weights = weights.where(~answer_mask(tokenizer, targets), weights * plan.answer_weight)
    return weights
