"""What both benchmarks serve: the course's 32 requests, and a tiny model for a quick try."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from helpers import Request


@dataclass(frozen=True)
class Workload:
    """How many requests there are, how long they are, and how many of them are served at a time."""

    requests: int = 32
    prompt_tokens: int = 7
    long_tokens: int = 100
    short_tokens: int = 10
    every: int = 8
    slots: int = 8

    def make(self, vocabulary: int) -> list[Request]:
        """The requests, each with a random prompt of its own, the same ones every time."""
        generator = torch.Generator().manual_seed(0)
        prompts = torch.randint(vocabulary, (self.requests, self.prompt_tokens), generator=generator).tolist()
        budgets = [self.long_tokens if i % self.every == 0 else self.short_tokens for i in range(self.requests)]
        return [Request(prompt, budget, ignore_eos=True) for prompt, budget in zip(prompts, budgets, strict=True)]


COURSE = Workload()
QUICK = Workload(requests=8, long_tokens=12, short_tokens=3, every=4, slots=4)


def tiny_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """GPT-2's architecture at a size that every library loads and runs in no time, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"vocab_size": 512, "n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4}
        model = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.4, bos_token_id=511, eos_token_id=511))
    return model.eval()
