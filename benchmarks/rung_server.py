"""The last rung: the engine behind HTTP. A server in a process of its own serves the requests, all sent at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import Request
from load_client import PATIENCE_S
from load_models import word_tokenizer
from load_servers import Place, ours
from results_file import BUILD

SERVER_RUNG, ENGINE_BESIDE = "server, packed fp32", "engine, packed fp32"
Ask = Callable[[], list[list[int]]]


@contextmanager
def server_of(model: PreTrainedModel, requests: Sequence[Request], slots: int) -> Iterator[Ask]:
    """A server on the float32 weights of a model, ready until the block ends.

    The function sends it all requests (their prompts are ids) and returns the tokens of the answers. They travel as
    text, so the model gets a tokenizer whose every token is a word.
    """
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="rung-", dir=BUILD) as parent:
        folder = Path(parent) / "model"
        tokenizer = word_tokenizer(model.config.vocab_size)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        with ours(folder, slots, torch.get_num_threads()) as place:
            yield partial(answers_of, place, tokenizer, requests)


def answers_of(place: Place, tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request]) -> list[list[int]]:
    """The tokens of all answers; the texts are read as they are streamed."""
    return tokenizer(asyncio.run(_texts_of(place, requests)))["input_ids"]


async def _texts_of(place: Place, requests: Sequence[Request]) -> list[str]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=place.url, timeout=PATIENCE_S, limits=limits, trust_env=False) as client:
        return await asyncio.gather(*(_text_of(client, place.model, request) for request in requests))


async def _text_of(client: httpx.AsyncClient, model: str, request: Request) -> str:
    body = {"model": model, "prompt": list(request.prompt), "max_tokens": request.max_tokens, "temperature": 0}
    body |= {"ignore_eos": True, "stream": True}
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        pieces = [json.loads(line[6:]) async for line in response.aiter_lines() if line.startswith("data: {")]
    return "".join(piece["choices"][0]["text"] for piece in pieces)
