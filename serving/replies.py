"""What clients get: completions and chats, whole or in chunks, as OpenAI's interface has them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from itertools import accumulate
from time import time
from typing import Any, Literal

from pydantic import BaseModel
from transformers import PreTrainedTokenizerBase

from engine import Request
from engine.request import TokenLogprob
from engine.text import INCOMPLETE

from .driver import Piece

IMPOSSIBLE = -9999.0  # stands for a log probability of minus infinity, which JSON does not have


class TokenTexts:
    """Tokens by themselves, as text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, token: int) -> str:
        """Its text; for a token that is no whole character, which has none by itself, "token_id:" and its id."""
        text = self._decoded(token)
        return f"token_id:{token}" if INCOMPLETE in text else text

    def size(self, token: int) -> int:
        """About how many characters it adds to a text."""
        return len(self._decoded(token))

    def _decoded(self, token: int) -> str:
        return self.tokenizer.decode([token], clean_up_tokenization_spaces=False)


class Reply:
    """The frame around the answers to one call; `CompletionReply` and `ChatReply` are the two kinds.

    Every answer has an index: the prompt's number times the answers per prompt, and the number among these.
    """

    prefix: str
    whole: str
    chunk: str

    def __init__(self, model: str, texts: TokenTexts, prompts: int) -> None:
        self.head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time()), "model": model}
        self.texts, self.prompts = texts, prompts
        self.offsets: dict[int, int] = {}  # where in each answer its next token begins, where logprobs are wanted

    def all(self, requests: Sequence[Request]) -> dict[str, Any]:
        """The whole reply, when all answers have ended."""
        choices = [
            self.choice(index, request.text, request.logprobs, 0) | {"finish_reason": request.finish_reason}
            for index, request in enumerate(requests)
        ]
        return {**self.head, "object": self.whole, "choices": choices, "usage": self.usage(requests)}

    def part(self, piece: Piece) -> dict[str, Any]:
        """A chunk of a stream: what one step brought for one answer."""
        index, event, tokens = piece
        offset = self.offsets.get(index, 0)
        logprobs = event.request.logprobs[tokens - len(event.ids) : tokens]
        self.offsets[index] = offset + sum(self.texts.size(each.token) for each in logprobs)
        choice = self.chunk_choice(piece, logprobs, offset) | {"finish_reason": event.finish_reason}
        return {**self.head, "object": self.chunk, "choices": [choice]}

    def closing(self, requests: Sequence[Request]) -> dict[str, Any]:
        """The chunk that tells how many tokens all answers together took."""
        return {**self.head, "object": self.chunk, "choices": [], "usage": self.usage(requests)}

    def usage(self, requests: Sequence[Request]) -> dict[str, Any]:
        """Numbers of tokens; a prompt with several answers counts once."""
        prompts = requests[:: max(1, len(requests) // self.prompts)]
        prompt_tokens = sum(request.prompt_tokens for request in prompts)
        return usage(prompt_tokens, sum(r.output_tokens for r in requests), sum(r.cached_tokens or 0 for r in prompts))

    def usage_so_far(self, piece: Piece) -> dict[str, Any]:
        """The numbers of one answer, in a chunk of it."""
        request = piece.event.request
        return usage(request.prompt_tokens, piece.tokens, request.cached_tokens or 0)

    def choice(self, index: int, text: str, logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        """One whole answer without its finish reason."""
        raise NotImplementedError

    def chunk_choice(self, piece: Piece, logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        """A piece of one answer, without its finish reason."""
        raise NotImplementedError


class CompletionReply(Reply):
    """Completions: chunks and whole answers look alike."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, text: str, logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        shown = self.logprobs(logprobs, offset) if logprobs else None
        return {"index": index, "text": text, "logprobs": shown}

    def chunk_choice(self, piece: Piece, logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        return self.choice(piece.index, piece.event.text, logprobs, offset)

    def logprobs(self, logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        """Four lists, one entry per token; an offset is where in the answer the token's own text begins."""
        *offsets, _ = accumulate((self.texts.size(each.token) for each in logprobs), initial=offset)
        return {
            "tokens": [self.texts(each.token) for each in logprobs],
            "token_logprobs": [finite(each.logprob) for each in logprobs],
            "top_logprobs": [self.likeliest(each.likeliest) for each in logprobs],
            "text_offset": offsets,
        }

    def likeliest(self, pairs: Iterable[tuple[int, float]]) -> dict[str, float]:
        """By the tokens' texts; of two tokens with the same text the likelier one."""
        shown: dict[str, float] = {}
        for token, logprob in pairs:
            shown.setdefault(self.texts(token), finite(logprob))
        return shown


class ChatReply(Reply):
    """Chats: the assistant's message; the role comes with the first piece of it."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, text: str, logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        return {"index": index, "message": {"role": "assistant", "content": text}, "logprobs": self.logprobs(logprobs)}

    def chunk_choice(self, piece: Piece, logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        is_first = piece.tokens == len(piece.event.ids)
        delta = ({"role": "assistant"} if is_first else {}) | {"content": piece.event.text}
        return {"index": piece.index, "delta": delta, "logprobs": self.logprobs(logprobs)}

    def logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        """A list with one entry per token; none where none were asked for."""
        if not logprobs:
            return None
        content = [
            self.token(each.token, each.logprob)
            | {"top_logprobs": [self.token(token, logprob) for token, logprob in each.likeliest]}
            for each in logprobs
        ]
        return {"content": content, "refusal": None}

    def token(self, token: int, logprob: float) -> dict[str, Any]:
        """A token with its bytes in UTF-8, if it is a whole text by itself."""
        text = self.texts(token)
        is_whole = not text.startswith("token_id:")
        return {"token": text, "logprob": finite(logprob), "bytes": list(text.encode()) if is_whole else None}


def finite(logprob: float) -> float:
    """The log probability, as JSON can have it."""
    return max(logprob, IMPOSSIBLE)


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """Numbers of tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


# --- As /openapi.json describes them ------------------------------------------------------------------


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class Answer(BaseModel):
    id: str
    created: int
    model: str
    usage: Usage


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["length", "stop"]


class Completion(Answer):
    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class ChatMessage(BaseModel):
    role: Literal["assistant"]
    content: str


class ChatChoice(BaseModel):
    index: int
    message: ChatMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["length", "stop"]


class ChatCompletion(Answer):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class ModelCard(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]


class Tokens(BaseModel):
    tokens: list[int]
    count: int
    max_model_len: int


class Health(BaseModel):
    status: str
