"""The choice of the next token: greedy, or drawn with temperature, top-k and top-p, each request by its own numbers.

A drawn token uses one random number, the next one of the request's own generator. Nothing is drawn for a token that
is not kept, and nobody else draws from it: the answer does not depend on the neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from .request import Request, Sampling, TokenLogprob

FEW = 256  # candidates that are sorted before all are


@torch.inference_mode()
def next_tokens(logits: Tensor, requests: Sequence[Request], eos: Collection[int]) -> list[int]:
    """The next token of every request, its log probability recorded where that was wanted.

    `logits` is (R, V), and is changed where an answer is still too short for one of the tokens in `eos`.
    """
    before = logits.clone() if any(request.sampling.logprobs is not None for request in requests) else logits
    for row, request in zip(logits, requests, strict=True):
        if request.output_tokens < request.sampling.min_tokens and not request.sampling.ignore_eos:
            row[list(eos)] = -torch.inf  # as transformers' min_new_tokens does it
    wide = logits.float() if logits.dtype == torch.bfloat16 else logits  # in bfloat16 argmax takes three times as long
    tokens = wide.argmax(-1).tolist()
    for index, request in enumerate(requests):
        if request.sampling.temperature > 0:
            tokens[index] = drawn_token(logits[index], request.sampling, request.random.random())
        if request.sampling.logprobs is not None:
            request.logprobs.append(_token_logprob(tokens[index], before[index], request.sampling.logprobs))
    return tokens


def drawn_token(logits: Tensor, sampling: Sampling, u: float) -> int:
    """The token at the fraction `u`, from 0 to just below 1, of the probability that can be chosen.

    >>> drawn_token(torch.tensor([0.5, 0.25, 0.25]).log(), Sampling(temperature=1.0), u=0.6)
    1
    """
    probabilities, tokens = candidates(logits, sampling)
    cumulative = probabilities.cumsum(-1)  # (C,)
    place = int(torch.searchsorted(cumulative, u * cumulative[-1], right=True))
    return int(tokens[min(place, len(tokens) - 1)])  # u * total may be rounded up to the total


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Of logits (V,) the probabilities (C,), float64 up to a factor, and ids (C,) of the tokens that can be chosen."""
    logits = logits.double()
    probabilities = ((logits - logits.max()) / sampling.temperature).softmax(-1)  # (V,)
    if not sampling.top_k and sampling.top_p == 1:
        return probabilities, torch.arange(len(logits), device=logits.device)  # all, and no sorting
    size = min(sampling.top_k or FEW, len(logits))
    likeliest = probabilities.topk(size).values
    total = likeliest.sum() if sampling.top_k else probabilities.sum()
    if sampling.top_k or likeliest.sum() - likeliest[-1] >= sampling.top_p * total:  # enough to sort
        tokens = (probabilities >= likeliest[-1]).nonzero().flatten()  # by id, with those as likely as the last
        likeliest, order = probabilities[tokens].sort(descending=True, stable=True)
        likeliest, tokens = likeliest[:size], tokens[order[:size]]
    else:
        likeliest, tokens = probabilities.sort(descending=True, stable=True)
    likelier = likeliest.cumsum(-1) - likeliest  # what those before have together
    count = max(1, int((likelier < sampling.top_p * total).sum()))
    return likeliest[:count], tokens[:count]


def _token_logprob(token: int, logits: Tensor, count: int) -> TokenLogprob:
    logprobs = logits.double().log_softmax(-1)  # (V,)
    values, ids = logprobs.topk(min(count, len(logprobs)))
    return TokenLogprob(token, float(logprobs[token]), list(zip(ids.tolist(), values.tolist(), strict=True)))
