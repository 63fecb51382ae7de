"""Exercise 8.6: a block allocator that finds prefixes, tried by random operations and then in the engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from engine import Engine, Sampling
from engine.blocks import block_key
from engine.request import Request
from exercises.checking import Wrong, exercise, running, short
from models import load_model

from .block_trial import NOBODY, Trial, value_of
from .workload import OPENINGS


@exercise("numbers in lists are all that it takes to share a beginning, and no block is given away while it is used")
def check_block_allocator(blocks_class: Any) -> str:
    """Exercise 8.6: who uses which block of the cache, and which full blocks can be found by their keys."""
    if not inspect.isclass(blocks_class):
        raise Wrong(f"expected a class, got {short(blocks_class)}")
    _check_new(blocks_class)
    _check_states(blocks_class)
    for seed, (count, block_tokens) in enumerate(((1, 1), (4, 2), (7, 3), (12, 2), (30, 4))):
        with running(blocks_class, f"random operations on {count} blocks"):
            Trial(blocks_class, count, block_tokens, seed).run()
    return _check_in_the_engine(blocks_class)


def _check_new(blocks_class: type) -> None:
    """Complain about a new allocator."""
    for count, block_tokens in ((3, 4), (5, 1)):
        case = f"a new cache of {count} blocks of {block_tokens} tokens"
        with running(blocks_class, case):
            blocks = blocks_class(count, block_tokens)
            available = value_of(blocks, "available")
            attributes = [blocks.count, blocks.block_tokens, list(blocks.references)]
            needed = [value_of(blocks, "needed", tokens) for tokens in range(2 * block_tokens + 2)]
            found = value_of(blocks, "find", [block_key(NOBODY, [1])])
        if available != count:
            raise Wrong(f"wrong for {case}: available is {short(available)}, but nobody uses any")
        if attributes != [count, block_tokens, [0] * count]:
            raise Wrong(f"wrong for {case}: count, block_tokens and references are {short(attributes)}")
        if needed != [-(-tokens // block_tokens) for tokens in range(2 * block_tokens + 2)]:
            raise Wrong(f"wrong for {case}: needed gives {short(needed)} for 0, 1, 2 ... tokens")
        if found != []:
            raise Wrong(f"wrong for {case}: find gives {short(found)}, but no key is known")


# --- The states of a block, one after the other --------------------------------------------------------


def _filled(blocks: Any, keys: Sequence[bytes | None]) -> list[int]:
    """As many blocks as there are keys, taken and registered; `None` stands for a block that is not full."""
    taken = [value_of(blocks, "take") for _ in keys]
    if sorted(taken) != list(range(len(keys))) or list(blocks.references) != [1] * len(keys):
        given = f"take gives {short(taken)}, one after the other, and references is {short(blocks.references)}"
        raise Wrong(f"wrong for three blocks: {given}")
    for block, key in zip(taken, keys, strict=True):
        if key is not None:
            blocks.register(block, key)
    return taken


def _check_states(blocks_class: type) -> None:
    """Complain about what becomes of blocks that are released, found, shared and taken."""
    for complaint, keys, act, known in SCENES:
        with running(blocks_class, "three blocks"):
            blocks = blocks_class(len(keys), 4)
            act(blocks, _filled(blocks, keys))
            lengths = [len(value_of(blocks, "find", list(wanted))) for wanted, _ in known]
        if lengths != [length for _, length in known]:
            raise Wrong(f"wrong for three blocks: {complaint}")


def _one_by_one(blocks: Any, taken: Sequence[int]) -> None:
    """Release these blocks, each as a request of its own."""
    for block in taken:
        blocks.release([block])


def _take_one(blocks: Any, taken: Sequence[int]) -> None:
    """Release the blocks one by one, and take the first that is given."""
    _one_by_one(blocks, taken)
    blocks.take()


def _take_one_after_all(blocks: Any, taken: Sequence[int]) -> None:
    """Release the blocks together, and take the first that is given."""
    blocks.release(list(taken))
    blocks.take()


def _take_one_after_sharing(blocks: Any, taken: Sequence[int]) -> None:
    """Release the blocks, use the first once more, and take the first that is given."""
    _one_by_one(blocks, taken)
    blocks.share(list(taken[:1]))
    _take_one(blocks, taken[:1])


Known = list[tuple[Sequence[bytes], int]]  # what is looked for, and how much of it is to be found
A, B, C, UNKNOWN = (block_key(NOBODY, [token]) for token in range(4))
SCENES: list[tuple[str, list[bytes | None], Callable[[Any, list[int]], None], Known]] = [
    (
        "blocks that were released and not taken since are not found",
        [A, B, C],
        _one_by_one,
        [((A, B, C), 3), ((B,), 1)],
    ),
    ("find goes on behind a key that nobody has registered", [A, None, C], _one_by_one, [((A, UNKNOWN, C), 1)]),
    (
        "the block that was released longest ago is to be given away first",
        [A, B, C],
        _take_one,
        [((A,), 0), ((B,), 1), ((C,), 1)],
    ),
    ("of one request's blocks the last is to be given away first", [A, B, C], _take_one_after_all, [((A, B, C), 2)]),
    (
        "a block that was shared and released again is the one released last",
        [A, B, C],
        _take_one_after_sharing,
        [((A,), 1), ((B,), 0), ((C,), 1)],
    ),
    ("a block without a key is to be given away before one that can be found", [A, B, None], _take_one, [((A, B), 2)]),
]


# --- In the engine -------------------------------------------------------------------------------------


def _check_in_the_engine(blocks_class: type) -> str:
    """Complain unless a crowded engine gives the same answers with these blocks, and finds as much."""
    model, tokenizer = load_model("storyteller-llama", device="cpu")
    beginning = " ".join(OPENINGS)
    prompts = [tokenizer(f"{beginning} {opening}")["input_ids"] for opening in OPENINGS]
    expected, _ = _served(Engine(model, None, cache_tokens=192), prompts)
    engine = Engine(model, None, cache_tokens=192)
    engine.scheduler.blocks = blocks_class(engine.scheduler.blocks.count, 16)
    with running(blocks_class, "the engine"):
        answers, anew = _served(engine, prompts)
    if [request.output_ids for request in answers] != [request.output_ids for request in expected]:
        raise Wrong("right for random operations, but in the engine some requests get other tokens")
    found, right = (sum(request.cached_tokens for request in requests) for requests in (answers, expected))
    if found != right:
        raise Wrong(f"right for random operations, but in the engine {found} tokens were found instead of {right}")
    return f"in the engine {len(prompts)} requests get the same tokens, {found} were found, {anew} requests had to wait"


def _served(engine: Engine, prompts: Sequence[Sequence[int]]) -> tuple[list[Request], int]:
    """The requests when they have ended, and how many gave up their blocks on the way."""
    preempt, preempted = engine.scheduler._preempt_last, set()

    def watched() -> None:
        preempted.add(engine.scheduler.running[-1].number)
        preempt()

    engine.scheduler._preempt_last = watched
    for prompt in prompts:
        engine.add(prompt, Sampling(40, ignore_eos=True))
    return engine.run(), len(preempted)
