"""The scheduler and its blocks without a model: a cache that remembers which tokens were written where."""

from __future__ import annotations

import ast
import time
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import engine.scheduler
import test_properties  # noqa: F401  (loads the profile)
from engine.adapters import Adapter
from engine.blocks import Blocks, block_key
from engine.request import Request, Sampling
from engine.scheduler import Scheduler
from engine_invariants import check_schedule

ADAPTERS = [None, Adapter("a", 1, {}), Adapter("a", 2, {})]


def request_of(number: int, prompt: list[int], budget: int, adapter: Adapter | None = None) -> Request:
    return Request(number, list(prompt), len(prompt), Sampling(budget), adapter, None, 0.0)


class Rememberer:
    """Reads tokens as a model would, and knows of every place in the cache what was written there last."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler, self.places = scheduler, {}

    def place(self, request: Request, index: int) -> int:
        size = self.scheduler.blocks.block_tokens
        return request.blocks[index // size] * size + index % size

    def read(self, request: Request, end: int) -> None:
        """Write the new tokens; fail if an earlier one is not where the block table says."""
        identity = request.adapter.identity if request.adapter else 0
        for index in range(end):
            known = identity, tuple(request.ids[: index + 1])
            if index >= request.computed:
                self.places[self.place(request, index)] = known
            assert self.places[self.place(request, index)] == known

    def step(self) -> list[Request]:
        """One step, with a token for whoever is up to date; those that ended."""
        work = self.scheduler.schedule()
        for row in work:
            self.read(row.request, row.end)
        up_to_date = [row.request for row in work if row.end == len(row.request.ids)]
        self.scheduler.done(work)
        for request in up_to_date:
            request.append(sum(request.ids) % 3, (), 0.0)
        ended = [request for request in up_to_date if request.finish_reason]
        for request in ended:
            self.scheduler.remove(request)
        assert sum(row.tokens for row in work) <= self.scheduler.step_tokens
        assert all(row.tokens > 0 for row in work)
        return ended


SEEN: Counter = Counter()


class Schedules(RuleBasedStateMachine):
    """Requests of a few different tokens, so that many begin alike, come, run and go in any order."""

    @initialize(
        rows=st.integers(1, 4),
        spare=st.integers(0, 9),
        blocks=st.integers(5, 12),
        block_tokens=st.sampled_from([1, 2, 4]),
    )
    def begin(self, rows, spare, blocks, block_tokens):
        self.scheduler = Scheduler(Blocks(blocks, block_tokens), rows, rows + spare)
        self.model, self.requests, self.ended = Rememberer(self.scheduler), [], []

    def alive(self) -> list[Request]:
        return [request for request in self.requests if not request.finish_reason]

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=16),
        budget=st.integers(1, 8),
        adapter=st.sampled_from(ADAPTERS),
    )
    def add(self, prompt, budget, adapter):
        blocks = self.scheduler.blocks
        most = blocks.count * blocks.block_tokens
        prompt, budget = prompt[:most], min(budget, max(1, most - len(prompt) + 1))
        self.requests.append(request_of(len(self.requests), prompt, budget, adapter))
        self.scheduler.add(self.requests[-1])

    @rule(steps=st.integers(1, 5))
    def step(self, steps):
        for _ in range(steps):
            was_running = list(self.scheduler.running)
            first = was_running[0] if was_running else next(iter(self.scheduler.waiting.values()), None)
            before = first and (first.computed, len(first.ids))
            self.ended += self.model.step()
            assert first is None or first.finish_reason or (first.computed, len(first.ids)) > before, "no progress"
            preempted = [request for request in was_running if request.number in self.scheduler.waiting]
            newcomers = [request for request in self.scheduler.running if request not in was_running]
            assert not (preempted and newcomers), "somebody was admitted in a step that preempted"
            SEEN["preempted"] += len(preempted)
            SEEN["preempted with a part of the answer"] += sum(request.output_tokens > 0 for request in preempted)
            SEEN["read in chunks"] += any(0 < request.computed < request.prompt_tokens for request in was_running)

    @rule(data=st.data())
    def cancel(self, data):
        if self.alive():
            request = data.draw(st.sampled_from(self.alive()))
            SEEN["cancelled while waiting"] += request.number in self.scheduler.waiting
            SEEN["cancelled inside its prompt"] += 0 < request.computed < request.prompt_tokens
            request.finish("cancelled", 0.0)
            self.scheduler.remove(request)

    @invariant()
    def whatever_must_hold_holds(self):
        if hasattr(self, "scheduler"):
            check_schedule(self.scheduler)

    def teardown(self):
        if not hasattr(self, "scheduler"):
            return
        for _ in range(2000):
            if not self.alive():
                break
            self.ended += self.model.step()
            check_schedule(self.scheduler)
        assert not self.alive(), "some request is never served"
        assert all(len(request.output_ids) == request.max_tokens for request in self.ended)
        assert self.scheduler.blocks.available == self.scheduler.blocks.count
        SEEN["found a prefix"] += any(request.cached_tokens for request in self.requests)
        SEEN["more than rows"] += len(self.requests) > self.scheduler.max_rows


def test_any_schedule_reads_every_token_once_from_its_place():
    SEEN.clear()
    run_state_machine_as_test(Schedules, settings=settings(max_examples=150, stateful_step_count=30))
    assert len(SEEN) == 7 and min(SEEN.values()) > 0, SEEN


# --- One thing at a time -----------------------------------------------------------------------------


def started(
    prompts: list[list[int]], budget: int = 4, *, rows: int = 4, step: int = 64, blocks: int = 16, size: int = 4
):
    scheduler = Scheduler(Blocks(blocks, size), rows, step)
    requests = [request_of(number, prompt, budget) for number, prompt in enumerate(prompts)]
    for request in requests:
        scheduler.add(request)
    return scheduler, requests


def reads(scheduler: Scheduler) -> list[tuple[int, int]]:
    """(request, tokens) of one step, which is done."""
    work = scheduler.schedule()
    told = [(row.request.number, row.tokens) for row in work]
    up_to_date = [row.request for row in work if row.end == len(row.request.ids)]
    scheduler.done(work)
    for request in up_to_date:
        request.append(0, (), 0.0)
        if request.finish_reason:
            scheduler.remove(request)
    return told


def test_running_rows_come_first_then_newcomers_and_long_prompts_in_chunks():
    scheduler, _ = started([[1] * 3, [2] * 20, [3] * 2], budget=9, step=8)
    assert [reads(scheduler) for _ in range(4)] == [
        [(0, 3), (1, 5)],
        [(0, 1), (1, 7)],
        [(0, 1), (1, 7)],
        [(0, 1), (1, 1), (2, 2)],
    ]


def test_nobody_overtakes_a_long_prompt_that_does_not_fit_yet():
    scheduler, _ = started([[1] * 30, [2] * 40, [3]], budget=4, blocks=16, size=4)
    assert [reads(scheduler) for _ in range(5)][:2] == [[(0, 30)], [(0, 1)]]
    assert 1 in scheduler.waiting or scheduler.running[0].number == 1
    assert not any(request.number == 2 and 1 in scheduler.waiting for request in scheduler.running)


def test_a_newcomer_waits_until_there_is_room_for_its_whole_prompt():
    """Admitted with its first chunk alone, it would be preempted again before it had a token."""
    scheduler, _ = started([[1] * 8, [2] * 16], budget=4, step=10, blocks=5, size=4)
    assert [reads(scheduler) for _ in range(5)] == [[(0, 8)], [(0, 1)], [(0, 1)], [(0, 1)], [(1, 10)]]


def test_the_last_comer_is_preempted_keeps_its_answer_and_comes_back_first():
    scheduler, (first, second, third) = started([[1] * 7, [2] * 7, [3]], budget=12, rows=2, blocks=5, size=4)
    assert reads(scheduler) == [(0, 7), (1, 7)]
    assert reads(scheduler) == [(0, 1), (1, 1)]
    assert reads(scheduler) == [(0, 1)]  # the fifth block goes to the first; nobody is admitted
    assert second.output_tokens == 2 and second.blocks == [] and second.computed == 0
    assert list(scheduler.waiting) == [1, 2]
    check_schedule(scheduler)
    while scheduler.waiting or scheduler.running:
        reads(scheduler)
        check_schedule(scheduler)
    assert [request.output_tokens for request in (first, second, third)] == [12, 12, 12]


def test_nobody_is_admitted_in_a_step_that_preempted():
    """Not even the preempted, whom the blocks of a neighbour with the same prompt would let in at once."""
    scheduler, _ = started([[1] * 12, [1] * 12], budget=9, blocks=7, size=4)
    assert [reads(scheduler) for _ in range(3)] == [[(0, 12), (1, 12)], [(0, 1)], [(0, 1), (1, 1)]]


def test_what_a_preempted_request_wrote_itself_is_no_hit():
    scheduler, (first, second) = started([[1] * 7, [2] * 7], budget=12, rows=2, blocks=5, size=4)
    while not second.output_tokens or second.computed:
        reads(scheduler)
    scheduler.remove(first)
    reads(scheduler)
    assert second.computed == 9 and second.cached_tokens == 0


def test_a_prefix_is_found_after_it_was_computed_and_not_before():
    prompt = list(range(9))
    scheduler, (_, second) = started([prompt, prompt])
    assert reads(scheduler) == [(0, 9), (1, 9)] and second.cached_tokens == 0
    scheduler.add(third := request_of(2, prompt, 4))
    assert (2, 1) in reads(scheduler) and third.cached_tokens == 8


def test_of_a_prompt_that_is_known_in_full_its_last_tokens_are_read_again():
    prompt = list(range(8))
    scheduler, _ = started([prompt])
    reads(scheduler)
    scheduler.add(second := request_of(1, prompt, 4))
    assert (1, 4) in reads(scheduler) and second.cached_tokens == 4


def test_of_equal_blocks_computed_in_one_step_one_is_kept_and_all_can_be_given_away():
    scheduler, _ = started([list(range(8))] * 2, budget=1, blocks=4)
    assert reads(scheduler) == [(0, 8), (1, 8)]
    assert scheduler.blocks.available == 4 and len(scheduler.blocks.cached) == 2
    scheduler.add(third := request_of(2, list(range(20, 36)), 1))
    assert reads(scheduler) == [(2, 16)] and third.finish_reason == "length"
    check_schedule(scheduler)


def test_a_freed_block_can_be_found_until_it_is_needed_and_the_oldest_goes_first():
    scheduler, _ = started([list(range(8)), list(range(10, 18))], budget=1, rows=1, blocks=4)
    reads(scheduler), reads(scheduler)
    assert scheduler.blocks.available == 4 and len(scheduler.blocks.cached) == 4
    scheduler.add(request_of(2, [99] * 5, 1))  # needs two blocks: those of the first request go
    reads(scheduler)
    scheduler.add(third := request_of(3, list(range(10, 19)), 1))
    scheduler.add(fourth := request_of(4, list(range(9)), 1))
    reads(scheduler), reads(scheduler)
    assert (third.cached_tokens, fourth.cached_tokens) == (8, 0)


def test_the_end_of_a_prefix_is_given_away_before_its_beginning():
    blocks = Blocks(3, 4)
    table = [blocks.take() for _ in range(3)]
    for block, key in zip(table, (b"1", b"2", b"3"), strict=True):
        blocks.register(block, key)
    blocks.release(table)
    blocks.take()
    assert len(blocks.find([b"1", b"2", b"3"])) == 2


def test_a_shared_block_counts_once_and_outlives_its_first_owner():
    blocks = Blocks(2, 4)
    block = blocks.take()
    blocks.register(block, b"key")
    blocks.share([block])
    assert blocks.available == 1
    blocks.release([block])
    assert blocks.available == 1 and blocks.take() != block
    blocks.release([block])
    assert blocks.available == 1 and blocks.find([b"key"]) == [block]


def test_a_cached_block_that_is_shared_again_can_no_longer_be_given_away():
    blocks = Blocks(2, 4)
    block = blocks.take()
    blocks.register(block, b"key")
    blocks.release([block])
    assert blocks.available == 2
    blocks.share([block])
    assert blocks.available == 1 and blocks.take() != block


def test_sharing_a_cached_block_leaves_fewer_to_take():
    """Otherwise a request would be admitted for whose other tokens there is no room."""
    scheduler, _ = started([[1] * 8, [2] * 4], budget=5, rows=2, blocks=5, size=4)
    reads(scheduler)
    first, second = scheduler.running
    scheduler.remove(first)
    while second.output_tokens < 4:
        reads(scheduler)
    scheduler.add(third := request_of(2, [1] * 8 + [3] * 5, 3))  # 4 blocks, 2 of them cached; 3 are available
    reads(scheduler)
    assert third.blocks == [] or len(third.blocks) == 4
    check_schedule(scheduler)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, [1, 2]), (1, [1, 2])),
        ((1, [1, 2]), (2, [1, 2])),
        ((0, [1, 2]), (0, [2, 1])),
        ((0, [1, 2]), (0, [1, 2 + 2**32])),
        ((0, [1]), (0, [1, 0])),
        ((0, [1, 32]), (0, [2, 1])),
    ],
)
def test_keys_tell_adapters_and_tokens_apart(one, other):
    assert len({block_key(adapter.to_bytes(32), tokens) for adapter, tokens in (one, other)}) == 2


def test_a_key_is_of_everything_before_it():
    beginnings = [block_key(bytes(32), [token]) for token in (1, 2)]
    assert block_key(beginnings[0], [7]) != block_key(beginnings[1], [7])


def test_a_step_takes_as_long_with_many_waiting_as_with_few():
    def seconds(waiting: int) -> float:
        scheduler, _ = started([[1] * 8] * waiting, budget=30, rows=8, blocks=400)
        reads(scheduler)
        start = time.perf_counter()
        for _ in range(20):
            reads(scheduler)
            scheduler.add(extra := request_of(waiting, [1], 1))
            scheduler.remove(extra)
        return time.perf_counter() - start

    assert min(seconds(20_000) for _ in range(3)) < 5 * min(seconds(10) for _ in range(3))


def test_a_step_looks_at_nobody_in_the_queue_but_those_it_admits():
    class Watched(OrderedDict):
        looked_at = 0

        def values(self):
            for request in super().values():
                self.looked_at += 1
                yield request

    scheduler, _ = started([[1] * 8] * 100, budget=1, rows=4, blocks=400)
    scheduler.waiting = Watched(scheduler.waiting)
    assert [len(reads(scheduler)) for _ in range(5)] == [4] * 5
    assert scheduler.waiting.looked_at == 20


def test_scheduler_and_blocks_need_no_torch():
    folder = Path(engine.scheduler.__file__).parent
    for name in ("scheduler", "blocks"):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        modules |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        standard = {"__future__", "array", "collections", "collections.abc", "hashlib", "itertools", "typing"}
        assert modules <= standard | {"blocks", "request"}, name
