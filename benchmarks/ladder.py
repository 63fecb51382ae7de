"""The ladder: one workload at the size of GPT-2, rung by rung, each of which removes one waste.

    python benchmarks/ladder.py            measure, write benchmarks/results/ladder-<device>.json and print the table
    python benchmarks/ladder.py --quick    the same in under a minute, on a smaller workload; the numbers mean little

The workload is the course's: 32 requests with prompts of 7 tokens, of which every 8th asks for 100 tokens and the
others for 10. Eight are served at a time, and no answer ends before it has all its tokens. Every rung uses the public
functions of code/ (rungs.py), the last ones its engine. The rungs are timed in turn, round after round, so that a
machine that becomes slower slows all of them alike. The memory of each is measured in a process of its own
(rung_memory.py). A rung whose weights cannot be packed on this machine is left out, and the result says so. A whole run
on a CPU has one rung more, the engine behind HTTP (rung_server.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "code"), str(ROOT / "models" / "training")]

from tqdm.auto import tqdm
from transformers import PreTrainedModel

from helpers import Request, gpt2_sized, load_model
from measure import Comparison, Timing, Trace, interleaved, machine, memory_bandwidth
from packed import packed_layers
from results_file import BUILD, RESULTS, check_device, check_rounds, where_to_write, write_json
from rung_memory import memory_of
from rung_quality import storyteller_quality
from rung_server import ENGINE_BESIDE, SERVER_RUNG, Ask, server_of
from rung_steps import bytes_read, decode_steps, time_outside
from rungs import Rung, prepare_models, rungs_for
from utils import size_in_bytes
from workload import COURSE, QUICK, Workload, tiny_gpt2

STEPS_PER_ROUND = 6  # single decode steps are short, so more of them are timed


def climb(
    model: PreTrainedModel,
    workload: Workload,
    device: str,
    repeats: int,
    *,
    quality: bool = True,
    memory: bool = True,
    server: bool = False,
    queue_lengths: Sequence[int] = (32, 1000, 10_000),
) -> dict[str, Any]:
    """Serve the workload on every rung and time it. Returns what the JSON file holds."""
    requests = workload.make(model.get_input_embeddings().num_embeddings)
    models, left_out = prepare_models(rungs_for(device), model)
    rungs = [rung for rung in rungs_for(device) if rung.name in models]
    with server_of(model, requests, workload.slots) if server else nullcontext() as ask:
        measured = measure_rungs(rungs, models, requests, workload.slots, repeats, device, ask)
    result = {
        "machine": machine(),
        "device": device,
        "workload": asdict(workload),
        "requests": len(requests),
        "tokens": sum(request.max_tokens for request in requests),
        "rounds": len(measured.timings[rungs[0].name].seconds),
        "bandwidth_bytes_per_s": measured.bandwidth,
        "bandwidth_before_and_after_bytes_per_s": list(measured.bandwidths),
        "rungs": [row_of(rung, rungs, models[rung.name], requests, measured) for rung in rungs],
        "left_out": left_out,
    }
    if server:
        result["server"] = speed_of(SERVER_RUNG, ENGINE_BESIDE, rungs[0].name, requests, measured)
    models.clear()  # what follows needs the memory
    if quality:
        result["storyteller_sample"], qualities = storyteller_quality(rungs, device)
        for row, quality_of_rung in zip(result["rungs"], qualities, strict=True):
            row |= quality_of_rung
    if memory:
        for row in tqdm(result["rungs"], desc="memory"):
            row |= memory_of(row["name"], device)
    result["queues"] = [
        time_outside(tiny_gpt2().to(device), [Request([1, 2, 3], 4)] * length, workload.slots)
        for length in tqdm(queue_lengths, desc="queues")
    ]
    return result


@dataclass(frozen=True)
class Measured:
    """Everything that was measured, by the name of the rung.

    Attributes:
        answers: the tokens of every request.
        forwards: how many forwards it took to serve them all.
        timings: the seconds of every round.
        steps: a decode step's timing, by the number of rows.
        outside: what serving costs besides the model's forwards.
        bandwidths: of the memory, in bytes per second, before and after.
    """

    answers: dict[str, list[list[int]]]
    forwards: dict[str, int]
    timings: dict[str, Timing]
    steps: dict[str, dict[int, Timing]]
    outside: dict[str, dict[str, float]]
    bandwidths: tuple[float, float]

    @property
    def bandwidth(self) -> float:
        """The better of the two measurements: what the memory of this machine can do."""
        return max(self.bandwidths)


def measure_rungs(
    rungs: Sequence[Rung],
    models: dict[str, PreTrainedModel],
    requests: list[Request],
    slots: int,
    repeats: int,
    device: str,
    ask: Ask | None = None,
) -> Measured:
    """Serve the requests once to get the tokens, then in timed rounds, and then time single decode steps.

    `ask` asks the server on the engine, which is timed among the rungs.
    """
    answers, forwards = serve_once(rungs, models, requests, slots)
    calls = {rung.name: partial(rung.serve, models[rung.name], requests, slots, None) for rung in rungs}
    if ask:
        answers[SERVER_RUNG], calls[SERVER_RUNG] = ask(), ask
    before = memory_bandwidth(device=device)
    timings = interleaved(
        calls,
        repeats=repeats,
        warmup=0,
        progress="rounds",
    )
    keys = {rung.name: (id(models[rung.name]), rung.loop) for rung in rungs}  # several rungs share the float32 model
    distinct = {keys[rung.name]: (rung.loop, models[rung.name]) for rung in rungs}
    steps = decode_steps(distinct, (1, slots), STEPS_PER_ROUND * repeats)
    outside = {key: loop.time_outside(model, requests, slots) for key, (loop, model) in distinct.items()}
    return Measured(
        answers,
        forwards,
        timings,
        {name: steps[key] for name, key in keys.items()},
        {name: outside[key] for name, key in keys.items()},
        (before, memory_bandwidth(device=device)),
    )


def serve_once(
    rungs: Sequence[Rung], models: dict[str, PreTrainedModel], requests: list[Request], slots: int
) -> tuple[dict[str, list[list[int]]], dict[str, int]]:
    """The tokens of every request on every rung, and the number of forwards. This also warms up the timed rounds."""
    answers, forwards = {}, {}
    for rung in tqdm(rungs, desc="warm-up and tokens"):
        trace = Trace()
        served = rung.serve(models[rung.name], requests, slots, trace)
        answers[rung.name] = [request.output_ids for request in served]
        forwards[rung.name] = trace.forwards or sum(request.max_tokens for request in requests)
    return answers, forwards


def row_of(
    rung: Rung, rungs: Sequence[Rung], model: PreTrainedModel, requests: list[Request], measured: Measured
) -> dict[str, Any]:
    """What the JSON says about one rung."""
    first, before = rungs[0].name, rung.beside or rungs[max(0, rungs.index(rung) - 1)].name
    floor_s, forwards = bytes_read(model) / measured.bandwidth, measured.forwards[rung.name]
    steps = measured.steps[rung.name]
    return speed_of(rung.name, before, first, requests, measured) | {
        "forwards": forwards,
        "engine": rung.engine,
        "packed_layers": len(packed_layers(model)),
        "weight_bytes": size_in_bytes(model),
        "bytes_read_per_forward": bytes_read(model),
        "floor_of_a_forward_s": floor_s,
        "times_the_floor": measured.timings[rung.name].median_s / (forwards * floor_s),
        "decode_step_s": {rows: step.median_s for rows, step in steps.items()},
        "decode_steps_timed": len(steps[1].seconds),
        "outside_the_model": measured.outside[rung.name],
        "exact": rung.exact,
    }


def speed_of(name: str, before: str, first: str, requests: list[Request], measured: Measured) -> dict[str, Any]:
    """How long a rung takes, how much less than two others, and how many answers are those of the first."""
    timing, tokens = measured.timings[name], sum(request.max_tokens for request in requests)
    return {
        "name": name,
        "seconds": list(timing.seconds),
        "median_s": timing.median_s,
        "quartiles_s": list(timing.quartiles_s),
        "tokens_per_s": tokens / timing.median_s,
        "rung_before": before,
        "times_the_rung_before": Comparison(measured.timings[before], timing).ratio,
        "times_the_first": Comparison(measured.timings[first], timing).ratio,
        "same_answers": sum(
            one == other for one, other in zip(measured.answers[name], measured.answers[first], strict=True)
        ),
    }


# --- The command -------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """The ladder as text, with the time and floor of single decode steps and what serving adds to the model's time."""
    slots = result["workload"]["slots"]
    lines = [
        f"{'':26}{'seconds':>9}{'tokens/s':>10}{'forwards':>10}{'x before':>10}{'x first':>9}{'x floor':>9}{'MB':>7}"
        f"{'1 row ms':>10}{f'{slots} rows ms':>11}{'floor ms':>10}{'besides':>9}"
    ]
    for row in result["rungs"]:
        step = {int(rows): seconds for rows, seconds in row["decode_step_s"].items()}
        lines.append(
            f"{row['name']:26}{row['median_s']:9.2f}{row['tokens_per_s']:10.0f}{row['forwards']:10}"
            f"{row['times_the_rung_before']:10.2f}{row['times_the_first']:9.1f}{row['times_the_floor']:9.2f}"
            f"{row['weight_bytes'] / 1e6:7.0f}{step[1] * 1e3:10.1f}{step[slots] * 1e3:11.1f}"
            f"{row['floor_of_a_forward_s'] * 1e3:10.1f}{row['outside_the_model']['share_of_the_time']:9.1%}"
        )
    if row := result.get("server"):
        lines.append(
            f"{row['name']:26}{row['median_s']:9.2f}{row['tokens_per_s']:10.0f}{'':10}"
            f"{row['times_the_rung_before']:10.2f}{row['times_the_first']:9.1f}; {row['same_answers']} of "
            f"{result['requests']} answers are the same"
        )
    lines.append(
        "besides: the share of the time of continuous batching, or of the engine, that is not spent in the model's "
        "forward; x before: on the engine's rungs, beside the rung of the same weights"
    )
    lines += [
        f"{queue['requests']:6} requests queued: {queue['seconds_per_forward'] * 1e6:.0f} us besides, per forward"
        for queue in result["queues"]
    ]
    return "\n".join([*lines, *remarks(result)])


def remarks(result: dict[str, Any]) -> list[str]:
    """What a reader of the table must know: which rungs are missing, and which give other tokens than the first."""
    lines = [f"left out: {rung['name']} ({rung['reason']})" for rung in result["left_out"]]
    for row in result["rungs"]:
        if row["same_answers"] < result["requests"]:
            why = "sums in another order" if row["exact"] else "rounded weights"
            lines.append(f"{row['name']}: {row['same_answers']} of {result['requests']} answers are the same ({why})")
    return lines


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `out` is where the result goes."""
    parser = argparse.ArgumentParser(description="Measure the ladder.")
    parser.add_argument("--model", help="a hub id or folder instead of GPT-2's shape with random weights")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="(default cpu)")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--quick", action="store_true", help="a small workload, one round, neither memory nor quality")
    parser.add_argument(
        "--out",
        type=Path,
        help="the JSON file (default: benchmarks/results/ladder-DEVICE.json; in build/ with --quick or --model)",
    )
    options = parser.parse_args(arguments)
    check_device(parser, options.device)
    options.out = options.out or default_out(options)
    check_rounds(parser, options.out, 1 if options.quick else options.repeats)
    return options


def default_out(options: argparse.Namespace) -> Path:
    """A whole run of the course's workload on GPT-2's shape goes to results/, anything else to build/."""
    if options.quick:
        return BUILD / f"ladder-quick-{options.device}.json"
    return (BUILD if options.model else RESULTS) / f"ladder-{options.device}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    options = parse_arguments(arguments)
    model = load_model(options.model, device=options.device)[0] if options.model else gpt2_sized().to(options.device)
    workload, repeats = (QUICK, 1) if options.quick else (COURSE, options.repeats)
    whole = not (options.quick or options.model)
    queue_lengths = (32, 1000) if options.quick else (32, 1000, 10_000)
    result = {"model": options.model or "GPT-2 small's shape, random weights"}
    result |= climb(
        model,
        workload,
        options.device,
        repeats,
        quality=whole,
        memory=whole,
        server=whole and options.device == "cpu",
        queue_lengths=queue_lengths,
    )
    print(table(result))
    write_json(result, where_to_write(options.out, [rung["name"] for rung in result["left_out"]]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was written.")
