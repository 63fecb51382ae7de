"""The choice of the next token: greedy, or drawn with temperature, top-k and top-p, each request by its own numbers.

A drawn token uses one random number, the next one of the request's own generator. Nothing is drawn for a token that
is not kept, and nobody else draws from it: the answer does not depend on the neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from .request import Request, Sampling, TokenLogprob


@torch.inference_mode()
def next_tokens(logits: Tensor, requests: Sequence[Request], eos: Collection[int]) -> list[int]:
    """The next token of every request, its log probability recorded where that was wanted.

    Args:
        logits: (R, V), one row per request; may be changed.
        eos: the ids that end an answer.
    """
    wanted = [request.sampling.logprobs for request in requests]
    logprobs = [
        None if count is None else row.double().log_softmax(-1) for row, count in zip(logits, wanted, strict=True)
    ]
    for row, request in zip(logits, requests, strict=True):
        _forbid_early_end(row, request, eos)
    tokens = logits.argmax(-1).tolist()
    for index, (row, request) in enumerate(zip(logits, requests, strict=True)):
        if request.sampling.temperature > 0:
            tokens[index] = drawn_token(row, request.sampling, request.random.random())
        if logprobs[index] is not None:
            request.logprobs.append(_token_logprob(tokens[index], logprobs[index], wanted[index]))
    return tokens


def _forbid_early_end(row: Tensor, request: Request, eos: Collection[int]) -> None:
    """An answer that is still too short cannot end: as transformers' `min_new_tokens` does it."""
    if request.output_tokens < request.sampling.min_tokens and not request.sampling.ignore_eos:
        row[list(eos)] = -torch.inf


def drawn_token(logits: Tensor, sampling: Sampling, u: float) -> int:
    """The token at the fraction `u`, from 0 to just below 1, of the probability that can be chosen.

    Args:
        logits: (V,) of one row.

    >>> drawn_token(torch.tensor([0.5, 0.25, 0.25]).log(), Sampling(temperature=1.0), u=0.6)
    1
    """
    probabilities, tokens = candidates(logits, sampling)
    cumulative = probabilities.cumsum(-1)  # (C,)
    place = int(torch.searchsorted(cumulative, u * cumulative[-1], right=True))
    return int(tokens[min(place, len(tokens) - 1)])  # u * total may be rounded up to the total


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Probabilities (C,) in float64, up to a factor, and the ids (C,) of the tokens that can be chosen.

    In the order of the vocabulary while all can be chosen, the likeliest first otherwise.
    """
    logits = logits.double()
    probabilities = ((logits - logits.max()) / sampling.temperature).softmax(-1)  # (V,)
    tokens = torch.arange(len(logits), device=logits.device)
    if not sampling.top_k and sampling.top_p == 1:
        return probabilities, tokens
    probabilities, tokens = probabilities.sort(descending=True, stable=True)
    if sampling.top_k:
        probabilities, tokens = probabilities[: sampling.top_k], tokens[: sampling.top_k]
    before = probabilities.cumsum(-1) - probabilities  # what the likelier ones have together
    kept = before < sampling.top_p * probabilities.sum()
    return probabilities[kept], tokens[kept]


def _token_logprob(token: int, logprobs: Tensor, count: int) -> TokenLogprob:
    values, ids = logprobs.topk(count)
    return TokenLogprob(token, float(logprobs[token]), list(zip(ids.tolist(), values.tolist(), strict=True)))
