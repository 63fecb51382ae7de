"""How large the engine's measurements are, on which models, and what a measurement hands over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from architectures import build_model
from helpers import gpt2_sized, load_model
from plans import LLAMA, SMOKE_PLANS, Plan
from workload import COURSE, QUICK, Workload, tiny_gpt2

MakeModel = Callable[[], PreTrainedModel]
ROWS = 8  # in every measurement
LONG_CONTEXT = 2048  # positions of the models that read long prompts


@dataclass(frozen=True)
class Sizes:
    """What is served, how often, and by which models.

    Attributes:
        repeats: rounds of whole runs, and `long_repeats` of those that read long prompts; steps: rounds where single
            steps are timed.
        workload: what the engine and `run_continuous` serve.
        long_prompt: tokens of the prompt that arrives among decoding rows.
        step_budgets: tokens per step with which it is read; the last one reads it whole.
        prefix: tokens that requests have in common, `sharers` is how many requests there are, and `prefix_budget` the
            tokens per step with which they are read.
        contexts: tokens that each row has already, where pages are compared with slots.
        waiting: how many requests wait, few and many.
        new_tokens: of each row, where adapters are compared.
    """

    repeats: int
    long_repeats: int
    steps: int
    workload: Workload
    long_prompt: int
    step_budgets: tuple[int, ...]
    prefix: int
    sharers: int
    prefix_budget: int
    contexts: tuple[int, int]
    waiting: tuple[int, int]
    new_tokens: int
    gpt2: MakeModel
    storyteller: MakeModel
    long_gpt2: MakeModel
    long_llama: MakeModel

    def long_models(self) -> dict[str, MakeModel]:
        """The models that read long prompts, by what they are called."""
        return {"GPT-2's size": self.long_gpt2, "storyteller's size, Llama": self.long_llama}

    def numbers(self) -> dict[str, Any]:
        """What the JSON says about the sizes: all but the models."""
        shown = {name: value for name, value in vars(self).items() if not callable(value)}
        return shown | {"workload": asdict(self.workload), "rows": ROWS}


def long_gpt2(positions: int = LONG_CONTEXT) -> PreTrainedModel:
    """GPT-2 small's shape with so many positions, random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(n_positions=positions)).eval()


def llama(plan: Plan) -> PreTrainedModel:
    """A Llama of this plan's shape, random weights."""
    with torch.random.fork_rng(devices=[]):
        return build_model(plan, end_of_text=0).eval()


def storyteller() -> PreTrainedModel:
    """The bundled model."""
    return load_model()[0]


FULL = Sizes(
    repeats=5,
    long_repeats=3,
    steps=60,
    workload=COURSE,
    long_prompt=1500,
    step_budgets=(16, 32, 64, 128, 256, LONG_CONTEXT),
    prefix=1000,
    sharers=16,
    prefix_budget=256,
    contexts=(64, 1500),
    waiting=(10, 10_000),
    new_tokens=64,
    gpt2=gpt2_sized,
    storyteller=storyteller,
    long_gpt2=long_gpt2,
    long_llama=partial(llama, LLAMA),
)
SMOKE = Sizes(
    repeats=1,
    long_repeats=1,
    steps=4,
    workload=QUICK,
    long_prompt=60,
    step_budgets=(16, 128),
    prefix=50,
    sharers=4,
    prefix_budget=16,
    contexts=(8, 60),
    waiting=(2, 40),
    new_tokens=6,
    gpt2=tiny_gpt2,
    storyteller=partial(tiny_gpt2, 1),
    long_gpt2=partial(tiny_gpt2, 2),
    long_llama=partial(llama, replace(SMOKE_PLANS["llama"], vocabulary=512)),
)


@dataclass(frozen=True)
class Target:
    """Something that was aimed at, with what was measured."""

    what: str
    measured: float
    target: float
    bound: str = "at least"  # or "at most"

    @property
    def met(self) -> bool:
        """Whether the aim was reached."""
        return self.measured >= self.target if self.bound == "at least" else self.measured <= self.target

    def row(self) -> dict[str, Any]:
        """What the JSON says about it."""
        return asdict(self) | {"met": self.met}


@dataclass(frozen=True)
class Outcome:
    """One measurement: what the JSON says, the lines of the printed table, and what was aimed at."""

    measured: dict[str, Any]
    lines: list[str]
    targets: list[Target]


def random_prompts(model: PreTrainedModel, count: int, tokens: int, seed: int = 0) -> list[list[int]]:
    """So many prompts of so many tokens each, the same ones every time."""
    vocabulary = model.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, vocabulary, (count, tokens), generator=generator).tolist()
