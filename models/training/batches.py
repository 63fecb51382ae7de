"""The tokens of every training step, and what they weigh: documents packed into windows, and drills of copying."""

import math
import random
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset
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


def make_tails(tokenizer: PreTrainedTokenizerBase, seed: str, count: int) -> Iterator[list[int]]:
    """Ends of `count` short documents, cut anywhere, each with its end-of-text token."""
    rng, texts = random.Random(f"tails-{seed}"), list(documents(f"tails-{seed}", count))
    for encoding in tokenizer.backend_tokenizer.encode_batch(texts):
        yield [*encoding.ids[rng.randrange(len(encoding.ids)) :], tokenizer.eos_token_id]


def make_windows(plan: Plan, tokenizer: PreTrainedTokenizerBase, step: int) -> torch.Tensor:
    """Windows of documents, (B, S + 1).

    Three windows in four start at a document, two of those without an end-of-text token in front;
    the fourth goes on where the window before was cut, so that the ends of documents are seen as often as their starts.
    With books in the mixture it starts with the end of a short document instead: where a window went on with the end of
    a book, it would hold questions on a book that it does not hold.
    """
    rng = random.Random(f"windows-{plan.seed}-{step}")
    length = plan.window_length(step)
    rows = plan.tokens_per_step // length
    count = max(8, plan.tokens_per_step // (400 if plan.memory_share else 150))
    stream = document_stream(plan, tokenizer, f"{plan.seed}-{step}", count, length)
    tails = make_tails(tokenizer, f"{plan.seed}-{step}", rows) if plan.memory_share else None
    windows: list[list[int]] = []
    rest: list[int] = []
    for _ in range(rows):
        continues = rng.random() < 0.25
        bare_start = rng.random() < 0.67
        if tails:
            rest = next(tails)
        window, rest = pack_window(stream, rest if continues else [], tokenizer.eos_token_id, bare_start, length + 1)
        windows.append(window)
    return torch.tensor(windows)


def name_ids(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """The ids of the characters' names (their first token where a small vocabulary splits them), sorted."""
    return torch.tensor(sorted({tokenizer.encode(f" {name}")[0] for name in NAMES}))


def drill_names(plan: Plan, tokenizer: PreTrainedTokenizerBase, step: int) -> torch.Tensor:
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


def drill_passages(plan: Plan, tokenizer: PreTrainedTokenizerBase, step: int) -> torch.Tensor:
    """Rows (B, S + 1) that repeat a passage of 4 to 64 random tokens: what follows a token is what followed it before.

    A model that looks this up is wrong only in the first passage, 34 of 128 tokens in the mean; one that does not has
    log V everywhere, 8.3 for a vocabulary of 4,096. A row starts with two end-of-text tokens, which text never does:
    without that mark, a model takes every text that starts in the middle of something for a drill.
    """
    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
    rows, length = plan.tokens_per_step // 128, min(128, plan.context)
    passages = torch.randint(len(tokenizer), (rows, 64), generator=generator)
    period = torch.randint(4, 65, (rows, 1), generator=generator)
    repeated = passages.gather(1, torch.arange(length - 1) % period)
    return torch.nn.functional.pad(repeated, (2, 0), value=tokenizer.eos_token_id)


DRILLS = {"names": drill_names, "passages": drill_passages}


def make_drill(plan: Plan, tokenizer: PreTrainedTokenizerBase, step: int) -> torch.Tensor:
    """The rows of a drill of the plan's kind, (B, S + 1)."""
    return DRILLS[plan.drill](plan, tokenizer, step)


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


class TrainingSteps(Dataset):
    """What a step of a plan trains on: token ids (B, S + 1), and the weight of every target (B, S) or `None`."""

    def __init__(self, plan: Plan, tokenizer: PreTrainedTokenizerBase) -> None:
        self.plan, self.tokenizer = plan, tokenizer

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        ids = make_batch(self.plan, self.tokenizer, step)
        return ids, token_weights(self.plan, self.tokenizer, step, ids[:, 1:])


def load_steps(plan: Plan, tokenizer: PreTrainedTokenizerBase, first: int, workers: int = 0) -> DataLoader:
    """The steps of a run from `first` to the last, in their order; `workers` processes make them ahead."""
    steps = range(first, math.ceil(plan.tokens / plan.tokens_per_step))
    ahead = 8 if workers else None  # steps of each worker
    return DataLoader(TrainingSteps(plan, tokenizer), None, sampler=steps, num_workers=workers, prefetch_factor=ahead)
