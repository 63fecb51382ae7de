"""A request: the prompt, budget and answer of one person, and how the arguments of a call become requests that can run.

The answer of a request is kept in the request and nowhere else, so nobody else can receive it (Lesson 3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from checks import (
    check_course_tokenizer_fits,
    check_max_tokens,
    check_not_empty,
    check_not_started,
    check_prompt,
    check_tokenizer,
)
from models import shared_course_model


@dataclass
class Request:
    """One person's prompt, budget and answer so far. The answer is kept here and nowhere else.

    Attributes:
        prompt: text, or token ids.
        max_tokens: the budget: at most this many tokens are generated.
        ignore_eos: go on to the budget even when the model says it is done (for benchmarks).
        output_ids: generated token ids, the end-of-sequence token included.
        finish_reason: `None` while running, then `"length"` or `"eos"`.
        prompt_ids: the prompt as token ids, set by `init_batch` from `prompt`.
    """

    prompt: str | list[int]
    max_tokens: int
    ignore_eos: bool = False
    output_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    prompt_ids: list[int] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the request wants no more tokens."""
        return self.finish_reason is not None

    def append(self, token: int, eos: Collection[int] = ()) -> None:
        """Take the next token, and finish at the budget or at a token in `eos`. No-op once finished."""
        if self.finished:
            return
        self.output_ids.append(token)
        if token in eos and not self.ignore_eos:
            self.finish_reason = "eos"
        elif len(self.output_ids) >= self.max_tokens:
            self.finish_reason = "length"


RequestLike = Request | tuple[str | Sequence[int], int]


def course_tokenizer_for(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The course model's tokenizer, if it can be this model's too."""
    own_model, tokenizer = shared_course_model()
    check_course_tokenizer_fits(len(tokenizer), model, own_model)
    return tokenizer


def fresh_copy(request: Request) -> Request:
    """A request that can run (again) without touching the caller's."""
    return replace(request, output_ids=[], finish_reason=None, prompt_ids=[])


def prepared(requests: Iterable[RequestLike], tokenizer: PreTrainedTokenizerBase | None) -> list[Request]:
    """Requests with prompt ids, every one of them valid; nothing is changed if one is not."""
    ready = [as_request(index, request) for index, request in enumerate(requests)]
    check_not_started(ready)
    if tokenizer is None and any(isinstance(request.prompt, str) for request in ready):
        tokenizer = shared_course_model()[1]
    if tokenizer is not None:
        check_tokenizer(tokenizer)
    all_ids = [_prompt_ids(index, request.prompt, tokenizer) for index, request in enumerate(ready)]
    for request, ids in zip(ready, all_ids, strict=True):
        request.prompt_ids = ids
        if request.max_tokens == 0:
            request.finish_reason = "length"
    return ready


def as_request(index: int, request: RequestLike) -> Request:
    """The request itself, or one made of a (prompt, max_tokens) tuple; `index` names it in an error message."""
    if isinstance(request, tuple) and len(request) == 2:
        request = Request(*request)
    if not isinstance(request, Request):
        raise TypeError(f"request {index} is {request!r}; it must be a Request or a (prompt, max_tokens) tuple")
    check_max_tokens(index, request.max_tokens)
    return request


def _prompt_ids(index: int, prompt: str | Sequence[int], tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """The prompt as token ids, made anew: what an earlier call found may be of another prompt or tokenizer."""
    check_prompt(index, prompt)
    ids = tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else list(prompt)
    check_not_empty(index, ids)
    return ids
