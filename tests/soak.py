"""A great many random schedules: the law of the engine of `test_engine_properties`, driven by a seeded generator.

    make soak                                             100,000 schedules on all processors
    make soak SOAK_OPTIONS="--first 4711 --schedules 1"   one of them again

Schedule number n is always the same one: its random numbers have the seed n. Nothing is searched or shrunk as
hypothesis does it, so far more schedules run in the same time. What a request gets alone is computed once for every
prompt, adapter and sampling.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("code", "models/training", "tools", "tests")]

import pytest
from hypothesis.strategies import SearchStrategy
from tqdm import tqdm

import conftest
from engine import Event, Sampling
from test_engine_properties import BEGINNINGS, LONGEST, SAMPLINGS, SEEN, Serving

ARCHITECTURES = ("gpt2", "llama", "qwen3")
LONGEST_SCHEDULE = 25  # operations
CHUNK = 20  # schedules that a process gets at a time
OPERATIONS = {"step": 4, "add": 2, "cancel": 1, "change_adapter": 1, "ask_what_cannot_be": 1}  # and how often
WRONG = [{"prompt": []}, {"prompt": [1] * 99}, {"adapter": "c"}, {"sampling": Sampling(0)}]
COUNTED = {
    "requests": "requests ended, cancelled ones included",
    "compared": "tokens compared with those that the request gets alone",
    "steps": "steps",
    "preempted": "preemptions",
    "prefix hits": "requests that found a prefix in the cache",
    "cancelled": "cancels",
    "ended by a stop string": "answers ended by a stop string",
    "ended by the end of sequence": "answers ended by the end of sequence",
    "several adapters in one step": "steps with several adapters",
}


class Draws:
    """Stands in for hypothesis' `data`, where an operation draws while it runs."""

    def __init__(self, random: Random, log: list[str]) -> None:
        self.random, self.log = random, log

    def draw(self, strategy: SearchStrategy, label: str = "") -> Any:
        """One of those that the strategy samples from; a boolean where it is none that does."""
        drawn = self.random.choice(getattr(strategy, "elements", (False, True)))
        self.log.append(f"    {label or 'drawn'}: {drawn!r}")
        return drawn


@lru_cache(maxsize=len(ARCHITECTURES))
def machine_of(architecture: str) -> type[Serving]:
    """The state machine on this architecture's tiny model."""
    tokenizer = conftest.tokenizer.__wrapped__()  # what the fixture makes
    return type(f"Soaking{architecture}", (Serving,), {"architecture": architecture, "tokenizer": tokenizer})


class Schedule:
    """The schedule of this number: what is asked of an engine and when, and whether everybody gets what is right."""

    def __init__(self, number: int) -> None:
        self.architecture = ARCHITECTURES[number % len(ARCHITECTURES)]
        self.random, self.log = Random(number), []
        self.machine = machine_of(self.architecture)()

    def run(self) -> None:
        """Raises AssertionError, or whatever the engine raises, if anything is not as it must be."""
        random = self.random
        self._do(
            "begin",
            rows=random.randint(1, 4),
            spare=random.randint(0, 12),
            block_tokens=random.choice([1, 3, 4, 16]),
            cache_tokens=random.randint(24, 60),
            eos=random.choice([None, *range(5)]),
            loads=[random.randrange(3) for _ in range(random.randint(0, 2))],
        )
        self._count_events()
        for name in random.choices(list(OPERATIONS), OPERATIONS.values(), k=random.randint(1, LONGEST_SCHEDULE)):
            if name != "cancel" or self.machine.alive():
                self._do(name, **self._arguments(name))
                self.machine.whatever_must_hold_holds()
        self._do("teardown")

    def _arguments(self, name: str) -> dict[str, Any]:
        """What the operation is told."""
        random = self.random
        if name == "step":
            return {"steps": random.randint(1, 4)}
        if name == "add":
            wishes = [self._wish() for _ in range(random.randint(1, 5))]
            return {"wishes": wishes, "data": Draws(random, self.log)}
        if name == "cancel":
            return {"data": Draws(random, self.log)}
        if name == "change_adapter":
            return {"name": random.choice("ab"), "kind": random.randrange(3)}
        return {"wrong": random.choice(WRONG)}

    def _wish(self) -> tuple[list[int], int, int]:
        """A prompt that begins like others, a budget and the number of a sampling."""
        ending = [self.random.randint(1, 2) for _ in range(self.random.randint(0, 2))]
        prompt = self.random.choice(BEGINNINGS) + ending
        return prompt, self.random.randint(1, LONGEST), self.random.randrange(len(SAMPLINGS))

    def _do(self, operation: str, /, **arguments: Any) -> None:
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if key != "data")
        self.log.append(f"{operation}({shown})")
        getattr(self.machine, operation)(**arguments)

    def _count_events(self) -> None:
        """Watch the engine's steps for what is counted."""
        step = self.machine.engine.step

        def counted() -> list[Event]:
            events = step()
            ended = [event.request for event in events if event.finish_reason]
            SEEN["steps"] += 1
            SEEN["requests"] += len(ended)
            SEEN["prefix hits"] += sum(bool(request.cached_tokens) for request in ended)
            return events

        self.machine.engine.step = counted


@dataclass
class Tally:
    """What some schedules have seen: how many were run, what was counted, and the first that went wrong, in words."""

    done: int
    counts: Counter
    failure: str = ""

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.done + other.done, self.counts + other.counts, self.failure or other.failure)


def run_schedules(numbers: range) -> Tally:
    """Run these schedules, up to the first that goes wrong."""
    SEEN.clear()
    for done, number in enumerate(numbers):
        schedule = Schedule(number)
        try:
            schedule.run()
        except (Exception, pytest.fail.Exception):
            operations = "\n".join(schedule.log)
            where = f"schedule {number} went wrong, on {schedule.architecture}:\n{operations}"
            return Tally(done, Counter(SEEN), f"{where}\n\n{traceback.format_exc()}\n{again(number, 1)}")
    return Tally(len(numbers), Counter(SEEN))


def again(first: int, schedules: int) -> str:
    """How to run these schedules."""
    return f'run from there: make soak SOAK_OPTIONS="--first {first} --schedules {schedules}"'


def tallies(numbers: range, processes: int) -> Iterator[Tally]:
    """The tallies of all schedules in their order, several processes at work."""
    chunks = [numbers[start : start + CHUNK] for start in range(0, len(numbers), CHUNK)]
    if processes == 1:
        yield from map(run_schedules, chunks)
        return
    with TemporaryDirectory(prefix="soak-") as folder, mock.patch.dict(os.environ, TMPDIR=folder):
        executor = ProcessPoolExecutor(processes, get_context("spawn"), initializer=be_quiet)
        try:
            yield from executor.map(run_schedules, chunks)
        finally:
            executor.shutdown(cancel_futures=True)  # what is running ends within seconds


def be_quiet() -> None:
    """Leave Ctrl-C to the first process, which then asks for no more; libraries have no warnings that matter here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")


def summary(tally: Tally) -> str:
    """What was run and seen."""
    width = max(13, len(f"{tally.done:,}"))
    lines = [f"{tally.done:{width},} schedules without a fault"]
    return "\n".join(lines + [f"{tally.counts[key]:{width},} {words}" for key, words in COUNTED.items()])


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Random schedules of the engine, each compared with requests alone.")
    parser.add_argument("--schedules", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (default 0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="(default: as many as processors)")
    options = parser.parse_args(arguments)
    for name, least in (("schedules", 1), ("first", 0), ("processes", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} is {getattr(options, name)}; it must be {least} or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 1 if a schedule went wrong, or if somebody interrupted it."""
    options = parse_arguments(arguments)
    numbers = range(options.first, options.first + options.schedules)
    total = Tally(0, Counter())
    try:
        with (
            closing(tallies(numbers, options.processes)) as results,
            tqdm(total=len(numbers), unit=" schedules", desc="soak") as bar,
        ):
            for tally in results:
                total += tally
                bar.update(tally.done)
                bar.set_postfix_str(f"{total.counts['compared']:,} tokens compared")
                if total.failure:
                    break
    except KeyboardInterrupt:
        print(f"\nInterrupted.\n{summary(total)}\n{again(options.first + total.done, len(numbers) - total.done)}")
        return 1
    print(summary(total))
    if total.failure:
        print(f"\n{total.failure}")
    return 1 if total.failure else 0


if __name__ == "__main__":
    sys.exit(main())
