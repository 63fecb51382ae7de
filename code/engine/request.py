"""What one asker wants (`Sampling`) and has (`Request`): tokens, text, times, and where its keys and values are.

An answer lives in its request and nowhere else, so it cannot reach anybody else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from .blocks import block_key

if TYPE_CHECKING:
    from .adapters import Adapter
    from .text import TextStream

LARGEST = 1e308  # a number above it would be infinite as a float


@dataclass(frozen=True)
class Sampling:
    """How an answer is chosen, and when it ends. `check` says what is allowed."""

    max_tokens: int = 16  # the budget: at most so many tokens are generated
    temperature: float = 0.0  # 0 takes the likeliest token (greedy); logits are divided by anything above
    top_k: int = 0  # only so many of the likeliest tokens can be chosen; 0 is all of them
    top_p: float = 1.0  # only the likeliest that together reach this probability can (Holtzman et al. 2020)
    seed: int | None = None  # the same seed gives the same answer, whatever else is served; None: any answer
    stop: Sequence[str] = ()  # the text ends before the first of these; the tokens that spell it stay in the ids
    min_tokens: int = 0  # neither an end-of-sequence token nor a stop string ends the answer with so many tokens
    ignore_eos: bool = False  # go on to the budget even when the model says it is done (for benchmarks)
    logprobs: int | None = None  # record each token's log probability, and those of so many of the likeliest

    def check(self) -> None:
        """Raises TypeError or ValueError unless every wish is one that can be met."""
        check_number("max_tokens", self.max_tokens, 1)
        check_number("min_tokens", self.min_tokens, 0, self.max_tokens)
        check_number("temperature", self.temperature, 0, LARGEST, kind=float)
        check_number("top_k", self.top_k, 0)
        check_number("top_p", self.top_p, 0, 1, kind=float)
        check_number("seed", 0 if self.seed is None else self.seed, 0)
        check_number("logprobs", 0 if self.logprobs is None else self.logprobs, 0, 20)
        if not isinstance(self.stop, (list, tuple)) or not all(isinstance(string, str) for string in self.stop):
            raise TypeError(f"stop is {self.stop!r}; it must be a list of strings")
        if "" in self.stop:
            raise ValueError(f"stop is {self.stop!r}; an empty string would end every answer at once")


def check_number(name: str, value: Any, least: float, most: float | None = None, kind: type = int) -> None:
    """Raises TypeError or ValueError unless the value is an int, or any number for `kind=float`, in this range."""
    allowed = f"{least} or more" if most is None else f"{least} to {most}"
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        raise TypeError(f"{name} is {value!r}; it must be {'an int' if kind is int else 'a number'}, {allowed}")
    if not (value >= least and (most is None or value <= most)):  # NaN is neither
        raise ValueError(f"{name} is {value}; it must be {allowed}")


class TokenLogprob(NamedTuple):
    """The natural logarithm of a token's probability, before temperature, and (id, logarithm) of the likeliest."""

    token: int
    logprob: float
    likeliest: list[tuple[int, float]]


class Event(NamedTuple):
    """What a step did for a request: its new tokens, the text that can be shown now, and whether it has ended."""

    number: int
    text: str
    ids: list[int]
    finish_reason: str | None
    request: Request


@dataclass(eq=False)
class Request:
    """A prompt, what is wanted of the answer, the answer so far, and where its keys and values are."""

    number: int  # what the engine calls it; later requests have higher numbers
    ids: list[int]  # the prompt's token ids, then the answer's, an end-of-sequence token included
    prompt_tokens: int  # how many of them are the prompt's
    sampling: Sampling
    adapter: Adapter | None  # None is the model alone
    stream: TextStream | None  # makes the answer's text; None where there is no tokenizer
    arrival_s: float  # these times are by the engine's clock, in seconds
    token_times_s: list[float] = field(default_factory=list)  # when each token of the answer was there
    end_s: float | None = None
    text: str = ""  # what was shown of the answer so far
    logprobs: list[TokenLogprob] = field(default_factory=list)  # one per token of the answer, where they are wanted
    finish_reason: str | None = None  # then "length", "stop" (end of sequence or stop string) or "cancelled"
    blocks: list[int] = field(default_factory=list)  # the block table
    computed: int = 0  # how many tokens have their keys and values there
    cached_tokens: int | None = None  # how many tokens of the prompt were found in the cache; None before it runs
    _keys: list[bytes] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.max_tokens, self.random = self.sampling.max_tokens, Random(self.sampling.seed)

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt."""
        return self.ids[: self.prompt_tokens]

    @property
    def output_ids(self) -> list[int]:
        """The answer so far."""
        return self.ids[self.prompt_tokens :]

    @property
    def output_tokens(self) -> int:
        """How many tokens the answer has so far."""
        return len(self.ids) - self.prompt_tokens

    @property
    def unread(self) -> int:
        """How many tokens the model has still to read."""
        return len(self.ids) - self.computed

    def block_keys(self, count: int, block_tokens: int) -> list[bytes]:
        """The keys of the first `count` blocks, all of them full."""
        while len(self._keys) < count:
            start = len(self._keys) * block_tokens
            identity = self.adapter.identity if self.adapter else 0
            parent = self._keys[-1] if self._keys else identity.to_bytes(32)
            self._keys.append(block_key(parent, self.ids[start : start + block_tokens]))
        return self._keys[:count]

    def append(self, token: int, eos: Collection[int], now_s: float) -> Event:
        """Take the next token, and finish if it is the last one; what is to be told of it."""
        self.ids.append(token)
        self.token_times_s.append(now_s)
        is_end = token in eos and not self.sampling.ignore_eos
        is_last = is_end or self.output_tokens >= self.max_tokens
        text = ""
        if self.stream:
            text = "" if is_end else self.stream.push(token)
            text += self.stream.finish() if is_last else ""
        stopped = is_end or (self.stream is not None and self.stream.stopped)
        if stopped or is_last:
            self.finish("stop" if stopped else "length", now_s)
        self.text += text
        return Event(self.number, text, [token], self.finish_reason, self)

    def finish(self, reason: str, now_s: float) -> None:
        """No further token will come."""
        self.finish_reason, self.end_s = reason, now_s
