"""Load: this project's server and vLLM's, on this machine's processor, on the same models.

    python benchmarks/load.py             measure, write benchmarks/results/load-cpu.json and print it
    python benchmarks/load.py --smoke     the same with few requests, to build/; the numbers mean little

    closed   `vllm bench serve` at both servers, 8 requests at a time, 32 tokens in and 32 out; how long a
             server takes to start
    http     the same requests given to the engine in this process, and sent to the server
    open     requests that arrive at random at six rates, whatever becomes of those before them: static batches,
             continuous batching, this project's server, and vLLM's

Only one of them computes at a time, all have the same number of threads, and they take turns: in `closed` and `http`
round after round, in `open` rate after rate. vLLM is in an environment of its own (`make load` makes it).
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "code"), str(ROOT)]

import torch
from serving.loading import Served
from serving.loading import load as load_served
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from engine import Sampling
from load_answers import Ask, Promise, poisson, summary
from load_client import ask_all
from load_loops import serve_arrivals
from load_models import write_gpt2_sized, write_storyteller
from load_servers import Place, ServerError, ours, vllm
from load_tools import Load, ToolError, vllm_bench
from measure import Comparison, Timing, machine, now_s, timed
from peer_processes import python_of
from results_file import BUILD, RESULTS, check_rounds, write_json
from workload import COURSE, Workload

VLLM_PYTHON = python_of(ROOT / ".venv-vllm")
PROMISE = Promise(ttft_s=0.5, tpot_s=0.1)


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        small, large: the closed loop's requests on the storyteller and at GPT-2's size.
        rates: requests per second that arrive, on average.
        http_requests: of the comparison with the engine alone, all sent at once.
    """

    rounds: int = 3
    rates: tuple[float, ...] = (2, 4, 6, 8, 12, 16)
    small: Load = Load(256)
    large: Load = Load(64)
    http_requests: int = 64
    arrivals: Workload = replace(COURSE, requests=48)
    rows: int = 8
    threads: int = 2


FULL = Sizes()
FEW = Load(8, 4, 8, 4)
SMOKE = Sizes(1, (4, 8), small=FEW, large=FEW, http_requests=4, arrivals=replace(COURSE, requests=4))


# --- A closed loop, and what HTTP costs ---------------------------------------------------------------


def measure_closed(places: dict[str, Place], folder: Path, load: Load, rounds: int) -> dict[str, Any]:
    """`vllm bench serve` at each server in turn; each time some requests before the others warm up."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in places}
    for name in tqdm(list(places) * rounds, desc=f"closed loop, {folder.name}"):
        runs[name].append(vllm_bench(places[name], folder, load, folder.parent, VLLM_PYTHON))
    return {
        name: {"ready_s": places[name].ready_s, "rounds": said}
        | {key: median(run[key] for run in said) for key in said[0]}
        for name, said in runs.items()
    }


def measure_http(place: Place, served: Served, sizes: Sizes) -> dict[str, Any]:
    """The engine alone beside the server, in turn: all requests at once, as long as it takes."""
    asks = asks_of(served.engine.model.config.vocab_size, sizes)

    def engine_alone() -> None:
        for ask in asks:
            served.engine.add(ask.prompt, Sampling(ask.max_tokens, ignore_eos=True))
        served.engine.run()

    runs: dict[str, list[float]] = {"engine": [], "server": []}
    for _ in tqdm(range(sizes.rounds), desc="what HTTP costs"):
        runs["engine"] += timed(engine_alone, repeats=1, warmup=0).seconds
        runs["server"] += timed(partial(ask_all, place.url, place.model, asks), repeats=1, warmup=0).seconds
    timings = {name: Timing(tuple(seconds)) for name, seconds in runs.items()}
    tokens = sum(ask.max_tokens for ask in asks)
    return {
        "seconds": runs,
        "tokens_per_s": {name: tokens / timing.median_s for name, timing in timings.items()},
        "server_by_engine": Comparison(timings["engine"], timings["server"]).ratio,
    }


def asks_of(vocabulary: int, sizes: Sizes) -> list[Ask]:
    """Requests of the closed loop's sizes, all at the time 0."""
    generator, load = torch.Generator().manual_seed(1), sizes.large
    prompts = torch.randint(vocabulary, (sizes.http_requests, load.prompt_tokens), generator=generator).tolist()
    return [Ask(prompt, load.max_tokens) for prompt in prompts]


# --- Open loop ----------------------------------------------------------------------------------------


def measure_open(places: dict[str, Place], served: Served, sizes: Sizes) -> list[dict[str, Any]]:
    """A row for each rate and system: the same arrivals for all of them."""
    model, rows = served.engine.model, []
    requests = sizes.arrivals.make(model.config.vocab_size)
    systems = {
        "static batches": partial(serve_arrivals, model, slots=sizes.rows, together=True),
        "continuous batching": partial(serve_arrivals, model, slots=sizes.rows, together=False),
    }
    systems |= {name: partial(ask_all, place.url, place.model) for name, place in places.items()}
    turns = [(rate, name) for rate in sizes.rates for name in systems]
    for name in systems:  # they warm up
        systems[name](asks=poisson(requests[: sizes.rows], max(sizes.rates), seed=1))
    for rate, name in tqdm(turns, desc="open loop"):
        answers = systems[name](asks=poisson(requests, rate, seed=0))
        rows.append({"rate_per_s": rate, "system": name} | summary(answers, PROMISE))
    return rows


# --- The command --------------------------------------------------------------------------------------


def run(sizes: Sizes) -> dict[str, Any]:
    """All of it."""
    torch.set_num_threads(sizes.threads)
    disable_progress_bar()
    result: dict[str, Any] = {"machine": machine(), "sizes": asdict(sizes), "promise": asdict(PROMISE), "closed": {}}
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="load-", dir=BUILD) as name:
        for write, closed in ((write_storyteller, sizes.small), (write_gpt2_sized, sizes.large)):
            folder = write(Path(name))
            with ExitStack() as stack:
                places = {
                    "this server": stack.enter_context(ours(folder, sizes.rows, sizes.threads)),
                    "vLLM": stack.enter_context(
                        vllm(folder, sizes.rows, sizes.threads, python=VLLM_PYTHON, logs=folder.parent)
                    ),
                }
                result["closed"][folder.name] = measure_closed(places, folder, closed, sizes.rounds)
                if write is write_gpt2_sized:
                    served = load_served(folder, rows=sizes.rows)
                    result["http"] = measure_http(places["this server"], served, sizes)
                    result["open"] = measure_open(places, served, sizes)
    return result


def shown(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = []
    for model, systems in result["closed"].items():
        for name, row in systems.items():
            lines.append(
                f"closed  {model:14}{name:22}{row['tokens_per_s']:8.0f} tokens/s, TTFT {row['ttft_s'] * 1e3:.0f} ms, "
                f"TPOT {row['tpot_s'] * 1e3:.1f} ms, ready after {row['ready_s']:.1f} s"
            )
    http = result["http"]
    lines.append(f"http    the server serves {http['server_by_engine']:.1%} of what the engine alone does")
    for row in result["open"]:
        lines.append(
            f"open    {row['rate_per_s']:4g} per s  {row['system']:22}TTFT {row['ttft_s']['p50'] * 1e3:6.0f} / "
            f"{row['ttft_s']['p99'] * 1e3:6.0f} ms, TPOT {row['tpot_s']['p50'] * 1e3:5.0f} / "
            f"{row['tpot_s']['p99'] * 1e3:5.0f} ms (median / 99 %), in time {row['in_time']} of {row['asked']}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure this project's server beside vLLM's.")
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="timed rounds (default %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="few requests, one round: only to see that it runs")
    parser.add_argument("--out", type=Path, help="the JSON file (default: benchmarks/results/load-cpu.json, or build/)")
    options = parser.parse_args(arguments)
    out = options.out or (BUILD / "load-smoke-cpu.json" if options.smoke else RESULTS / "load-cpu.json")
    check_rounds(parser, out, 1 if options.smoke else options.rounds)
    if not VLLM_PYTHON.exists():
        parser.error("vLLM is not installed here: `make load` makes its environment, .venv-vllm")
    start_s = now_s()
    try:
        result = run(SMOKE if options.smoke else replace(FULL, rounds=options.rounds))
    except (ServerError, ToolError) as error:
        print(error, file=sys.stderr)
        return 1
    print(shown(result))
    print(f"measured in {(now_s() - start_s) / 60:.0f} minutes")
    write_json(result, out)
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # whatever ends this, the servers end with it
        signal.signal(number, _interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was written.")
