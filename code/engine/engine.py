"""The loop that takes requests while it runs: they come, stream, are cancelled, and end (Yu et al. 2022, Orca).

    engine = Engine(model, tokenizer)
    number = engine.add("Once upon a time", Sampling(max_tokens=50, temperature=0.8, seed=1, stop=["\\n"]))
    while engine.requests:
        for event in engine.step():
            print(event.number, event.text, event.finish_reason)

No threads: whoever embeds the engine decides about those, and calls it from one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import measure
from checks import check_fits, check_not_empty, check_prompt
from models import eos_token_ids

from .adapters import Adapter, fitted, read_adapter
from .architectures import adaptable_layers
from .blocks import Blocks
from .model import PagedModel
from .request import Event, Request, Sampling, check_number
from .sampling import next_tokens
from .scheduler import Scheduler
from .text import TextStream


class EngineFull(RuntimeError):
    """As many requests wait as may; ask again later."""


class Engine:
    """Serves requests that come at any time, with one forward per step.

    Args:
        model: GPT-2, Llama, Qwen2 or Qwen3, packed and quantized ones included. It is used, not copied: leave it alone.
        tokenizer: for prompts given as text, and for the text of answers; `None`: token ids only.
        max_rows: at most so many requests run at a time, and at most `max_waiting` wait.
        step_tokens: at most so many tokens are read per step: `max_rows` or more.
        cache_tokens: so many tokens have room in the KV cache, in blocks of `block_tokens`.
    Raises ValueError or TypeError: the model is of another architecture; a number is out of range, or not an int.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        max_rows: int = 8,
        step_tokens: int = 256,
        cache_tokens: int = 8192,
        block_tokens: int = 16,
        max_waiting: int = 10_000,
    ) -> None:
        check_number("max_rows", max_rows, 1)
        check_number("step_tokens", step_tokens, max_rows)
        check_number("block_tokens", block_tokens, 1)
        check_number("cache_tokens", cache_tokens, block_tokens)
        check_number("max_waiting", max_waiting, 0)
        blocks = Blocks(cache_tokens // block_tokens, block_tokens)
        self.model, self.tokenizer, self.max_waiting = model, tokenizer, max_waiting
        self.paged = PagedModel(model, blocks.count, block_tokens)
        self.scheduler = Scheduler(blocks, max_rows, step_tokens)
        self.eos = eos_token_ids(model)
        self.requests: dict[int, Request] = {}  # those that wait or run, by number
        self.adapters: dict[str, Adapter] = {}
        self.clock = measure.now_s  # what the time stamps in the requests are read from, in seconds
        self._added = self._loaded = 0
        self._cancelled: list[Event] = []

    def load_adapter(self, name: str, source: str | Path | Mapping[str, Tensor], *, alpha: float | None = None) -> None:
        """Make a LoRA adapter known, which requests then ask for by name.

        Args:
            source: a folder that PEFT has saved (safetensors only), or the state that `utils.lora_state_dict` returns.
            alpha: the strength of such a state, which does not hold it; `None` is the rank. Folders say it.

        Raises ValueError: the name is taken, or none; files are missing, damaged, pickled, not plain LoRA; the adapter
        is of another model. Nothing is changed then.
        """
        if not isinstance(name, str) or not name or name in self.adapters:
            raise ValueError(f"the name is {name!r}; it must be a text and none of the loaded: {sorted(self.adapters)}")
        weights = fitted(read_adapter(source, alpha), adaptable_layers(self.model), self.paged.like)
        self._loaded += 1
        self.adapters[name] = Adapter(name, self._loaded, weights)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter. Raises ValueError if there is none of this name, or if a request still needs it."""
        adapter = self._adapter(name)
        users = [number for number, request in self.requests.items() if request.adapter is adapter]
        if users:
            raise ValueError(f"adapter {name!r} is in use by {len(users)} requests, first {users[0]}")
        del self.adapters[name]

    def add(self, prompt: str | Sequence[int], sampling: Sampling | None = None, adapter: str | None = None) -> int:
        """Take a request; its number. It runs as soon as those before it leave it a row and blocks.

        Raises TypeError or ValueError: the prompt, what is wanted of the answer, or the adapter is none that can be
        had; the request can never fit. EngineFull: too many wait already. Nothing is changed then.
        """
        arrival_s = self.clock()
        known = None if adapter is None else self._adapter(adapter)
        sampling = Sampling() if sampling is None else sampling
        if not isinstance(sampling, Sampling):
            raise TypeError(f"sampling is {sampling!r}; it must be a Sampling")
        sampling.check()
        if sampling.stop and self.tokenizer is None:
            raise ValueError(f"stop is {sampling.stop!r}, but the engine has no tokenizer and makes no text")
        ids = self._prompt_ids(prompt)
        stream = TextStream(self.tokenizer, sampling.stop, sampling.min_tokens) if self.tokenizer is not None else None
        request = Request(self._added, ids, len(ids), sampling, known, stream, arrival_s)
        self._check_room(request)
        self.requests[request.number] = request
        self.scheduler.add(request)
        self._added += 1
        return request.number

    def step(self) -> list[Event]:
        """One forward; an event for each request that got a token, and for each that was cancelled before.

        If the forward raises an error, nothing counts as read, and the next step does it again. Wherever an error
        comes from, it concerns the requests in `scheduler.running` only: cancel them, and the others are served.
        """
        work, requests, tokens = self.scheduler.schedule(), [], []
        if work:
            requests, logits = self.paged.forward(work)
            tokens = next_tokens(logits, requests, self.eos)
        now_s = self.clock()
        events = [request.append(token, self.eos, now_s) for request, token in zip(requests, tokens, strict=True)]
        self.scheduler.done(work)
        for request in requests:
            if request.finish_reason:
                self._let_go(request)
        cancelled, self._cancelled = self._cancelled, []
        return cancelled + events

    def cancel(self, number: int) -> None:
        """End a request, wherever it is; the next step tells it. Nothing happens if it has ended already."""
        if number in self.requests:
            request = self.requests[number]
            request.finish("cancelled", self.clock())
            self._let_go(request)
            self._cancelled.append(Event(number, "", [], "cancelled", request))
        elif number not in range(self._added):
            raise ValueError(f"there is no request {number!r}; {self._added} were added, counted from 0")

    def run(self) -> list[Request]:
        """Step until nothing is left to do; the requests that ended meanwhile, in the order in which they came."""
        ended = []
        while self.requests or self._cancelled:
            ended += [event.request for event in self.step() if event.finish_reason]
        return sorted(ended, key=lambda request: request.number)

    def _let_go(self, request: Request) -> None:
        """A request has ended: others may have its row and its blocks."""
        self.scheduler.remove(request)
        del self.requests[request.number]

    def _adapter(self, name: str) -> Adapter:
        if not isinstance(name, str) or name not in self.adapters:
            raise ValueError(f"there is no adapter {name!r}; loaded are {sorted(self.adapters)}")
        return self.adapters[name]

    def _prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        check_prompt(self._added, prompt)
        if isinstance(prompt, str) and self.tokenizer is None:
            raise ValueError("the prompt is text, but the engine has no tokenizer; give token ids")
        ids = self.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else list(prompt)
        check_not_empty(self._added, ids)
        return ids

    def _check_room(self, request: Request) -> None:
        """Raises an error unless the request fits the model, can fit the cache, and may wait."""
        check_fits(self.model, [request])
        blocks, waiting = self.scheduler.blocks, len(self.scheduler.waiting)
        needed = blocks.needed(request.prompt_tokens + request.max_tokens - 1)  # nobody reads the last token
        if needed > blocks.count:
            given = f"{request.prompt_tokens} prompt tokens and max_tokens={request.max_tokens} need {needed} blocks"
            raise ValueError(f"{given} of {blocks.block_tokens} tokens; the cache has {blocks.count}")
        if waiting >= self.max_waiting:
            raise EngineFull(f"{waiting} requests wait, and at most {self.max_waiting} may")
