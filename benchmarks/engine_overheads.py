"""What a step costs besides the forward: scheduling with its blocks, and the choice of the tokens.

Few or many requests wait, and the choice is greedy or drawn. As soon as a request ends, another one comes, so the queue
stays as long as it is.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedModel

import engine.engine as engine_module
from call_times import seconds_of_calls
from engine import Engine, Sampling
from engine_sizes import ROWS, Outcome, Sizes, Target, random_prompts
from packed import pack_model

CHOICES = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "temperature and top-p": {"temperature": 0.8, "top_p": 0.9},
}
PROMPT_TOKENS, AT_MOST_SHARE, AT_MOST_GROWTH = 7, 0.05, 1.25
SCHEDULING = ("schedule", "done", "remove")


def measure(sizes: Sizes) -> Outcome:
    """Time the parts of single steps with both queues, in turn, for every kind of choice."""
    few, many = sizes.waiting
    measured, targets = {}, []
    lines = [f"{'':28}{'waiting':>9}{'step ms':>9}{'scheduling ms':>15}{'sampling ms':>13}{'share':>8}"]
    model = pack_model(sizes.gpt2())
    for name, choice in CHOICES.items():
        rows = measured[name] = with_queues(name, model, choice, sizes)
        for count, row in rows.items():
            lines.append(
                f"{name:28}{count:9}{row['step_s'] * 1e3:9.2f}{row['scheduling_s'] * 1e3:15.3f}"
                f"{row['sampling_s'] * 1e3:13.3f}{row['share']:8.1%}"
            )
        worst = max(row["share"] for row in rows.values())
        targets.append(
            Target(f"{name}: share of scheduling, blocks and sampling in a step", worst, AT_MOST_SHARE, "at most")
        )
    growth = measured["greedy"][many]["scheduling_s"] / measured["greedy"][few]["scheduling_s"]
    targets.append(Target(f"scheduling with {many} waiting, with {few} it is 1", growth, AT_MOST_GROWTH, "at most"))
    return Outcome(measured, lines, targets)


def with_queues(name: str, model: PreTrainedModel, choice: dict[str, float], sizes: Sizes) -> dict[int, dict[str, Any]]:
    """By the length of the queue, medians over the steps."""
    queues = {waiting: Queue(model, choice, waiting) for waiting in sizes.waiting}
    steps: dict[int, list[dict[str, float]]] = {waiting: [] for waiting in queues}
    for turn in tqdm(range(2 + sizes.steps), desc=f"{name}, queues", leave=False):
        for waiting, queue in queues.items():
            parts = queue.timed_step()
            if turn >= 2:  # those before warm up
                steps[waiting].append(parts)
    return {waiting: medians(rows) for waiting, rows in steps.items()}


def medians(steps: list[dict[str, float]]) -> dict[str, Any]:
    """The step in the middle, of each part."""
    scheduling = [sum(step[name] for name in SCHEDULING) for step in steps]
    shares = [(own + step["sampling"]) / step["step"] for own, step in zip(scheduling, steps, strict=True)]
    return {
        "step_s": median(step["step"] for step in steps),
        "scheduling_s": median(scheduling),
        "sampling_s": median(step["sampling"] for step in steps),
        "share": median(shares),
        "steps": len(steps),
    }


class Queue:
    """An engine whose queue is always as long as `waiting` says."""

    def __init__(self, model: PreTrainedModel, choice: dict[str, float], waiting: int) -> None:
        self.engine = Engine(model, None, ROWS, cache_tokens=ROWS * 48, max_waiting=waiting)
        self.choice, self.waiting, self.added = choice, waiting, 0
        self.prompts = random_prompts(model, 64, PROMPT_TOKENS)
        self._fill()
        self.engine.step()

    def timed_step(self) -> dict[str, float]:
        """The seconds of one step, and of its parts."""
        self._fill()
        scheduler = self.engine.scheduler
        watched = {name: (scheduler, name) for name in SCHEDULING} | {
            "sampling": (engine_module, "next_tokens"),
            "step": (self.engine, "step"),
        }
        with ExitStack() as stack:
            calls = {name: stack.enter_context(seconds_of_calls(*call)) for name, call in watched.items()}
            self.engine.step()
        return {name: sum(seconds) for name, seconds in calls.items()}

    def _fill(self) -> None:
        """Let requests come until so many wait; their budgets differ, so that somebody ends in most steps."""
        while len(self.engine.scheduler.waiting) < self.waiting:
            budget = 5 + self.added % 11
            sampling = Sampling(budget, seed=self.added, ignore_eos=True, **self.choice)
            self.engine.add(self.prompts[self.added % len(self.prompts)], sampling)
            self.added += 1
