"""Which request reads how many of its tokens in the next forward. Plain numbers, no tensors.

There is one budget of tokens per step and no distinction of phases: a request has some tokens that the model has
not read yet, its whole prompt at first (prefill), later the one token it was just given (decode), and a step reads
some of them. Running requests come first, in the order of their arrival, then newcomers; a long prompt is read in
chunks, as the budget allows (Agrawal et al. 2024, Sarathi-Serve). What a step costs depends on the rows that run,
not on how many wait.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from .blocks import Blocks
from .request import Request


class Work(NamedTuple):
    """A row of the next forward: `tokens` tokens of a request, from the first one that was not read yet."""

    request: Request
    tokens: int

    @property
    def end(self) -> int:
        """How many tokens of the request will have been read afterwards."""
        return self.request.computed + self.tokens


class Scheduler:
    """First come, first served: every running request came before every waiting one. Sizes are as for `Engine`."""

    def __init__(self, blocks: Blocks, max_rows: int, step_tokens: int) -> None:
        self.blocks, self.max_rows, self.step_tokens = blocks, max_rows, step_tokens
        self.running: list[Request] = []
        self.waiting: OrderedDict[int, Request] = OrderedDict()  # by number

    def add(self, request: Request) -> None:
        """Put a request at the end of the queue."""
        self.waiting[request.number] = request

    def remove(self, request: Request) -> None:
        """Take a request out, wherever it is; its blocks are free or cached afterwards."""
        if self.waiting.pop(request.number, None) is None:
            self._stop(request)

    def schedule(self) -> list[Work]:
        """The rows of the next forward, each with blocks for all tokens that it will have read.

        Nothing counts as read before `done` is called: a forward that failed can be scheduled again.
        """
        before, work = len(self.running), self._running_rows()
        if len(self.running) < before:
            return work  # nobody is admitted in a step that preempted
        return work + self._newcomers(self.step_tokens - sum(row.tokens for row in work))

    def done(self, work: list[Work]) -> None:
        """The forward has run: its tokens are read, and the blocks that are full now can be shared."""
        size = self.blocks.block_tokens
        for request, tokens in work:
            full_before, request.computed = request.computed // size, request.computed + tokens
            keys = request.block_keys(request.computed // size, size)
            for index in range(full_before, len(keys)):
                self.blocks.register(request.blocks[index], keys[index])

    def _running_rows(self) -> list[Work]:
        """Those who run already; when blocks run out, the last comers give up theirs."""
        work, budget = [], self.step_tokens
        for position, request in enumerate(list(self.running)):
            tokens = min(request.unread, budget)
            while position < len(self.running) and not self._reserve(request, tokens):
                self._preempt_last()
            if position < len(self.running):
                work.append(Work(request, tokens))
                budget -= tokens
        return work

    def _newcomers(self, budget: int) -> list[Work]:
        """As many of those who wait as there are rows, blocks and budget for; nobody overtakes."""
        work = []
        while budget and self.waiting and len(self.running) < self.max_rows:
            request = next(iter(self.waiting.values()))
            if not self._find_place(request):
                break
            self.running.append(self.waiting.pop(request.number))
            work.append(Work(request, min(request.unread, budget)))
            self._reserve(*work[-1])
            budget -= work[-1].tokens
        return work

    def _find_place(self, request: Request) -> bool:
        """Share the blocks that hold the request's first tokens already, if there is room for all its others."""
        size, known = self.blocks.block_tokens, len(request.ids)
        found = self.blocks.find(request.block_keys((known - 1) // size, size))  # the last token has to be read
        revived = sum(not self.blocks.references[block] for block in found)  # available until they are shared
        if self.blocks.needed(known) - len(found) > self.blocks.available - revived:
            return False
        self.blocks.share(found)
        request.blocks, request.computed = found, len(found) * size
        if request.cached_tokens is None:  # after a preemption it would find its own
            request.cached_tokens = request.computed
        return True

    def _reserve(self, request: Request, tokens: int) -> bool:
        """Give the request blocks for so many further tokens; nothing happens if there are too few."""
        missing = self.blocks.needed(request.computed + tokens) - len(request.blocks)
        if missing > self.blocks.available:
            return False
        request.blocks += [self.blocks.take() for _ in range(missing)]
        return True

    def _preempt_last(self) -> None:
        """The last comer waits again, before all others. It keeps its answer and is read anew later."""
        request = self.running[-1]
        self._stop(request)
        self.waiting[request.number] = request
        self.waiting.move_to_end(request.number, last=False)

    def _stop(self, request: Request) -> None:
        self.running.remove(request)
        self.blocks.release(request.blocks)
        request.blocks, request.computed = [], 0
