"""The ladder: one workload on GPT-2's shape, and on every rung one waste less.

    python benchmarks/ladder.py            measure, write benchmarks/results/ladder-<device>.json and print the table
    python benchmarks/ladder.py --quick    the same in under a minute, on a smaller workload; the numbers mean little

The workload is the course's: 32 requests with prompts of 7 tokens; every 8th asks for 100 tokens, the others for 10;
8 slots; nothing ends early. Every rung runs through the public functions of code/. Rungs are timed in turn, round
after round, so that a machine that drifts slows all of them alike; the memory of each is measured in a process of
its own.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "code"), str(ROOT / "models" / "training")]

import psutil
import torch
from tqdm.auto import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from corpus import documents
from evaluate import document_losses, encode
from helpers import (
    STORYTELLER,
    Request,
    generate_next_token,
    generate_tokens,
    gpt2_sized,
    init_batch,
    load_model,
    run_continuous,
    run_static,
)
from measure import Comparison, Trace, interleaved, machine, memory_bandwidth, seconds_inside, timed
from utils import pack_model, quantize_model, size_in_bytes

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Workload:
    """How many requests, how long, and how many of them at a time."""

    requests: int = 32
    prompt_tokens: int = 7
    long_tokens: int = 100
    short_tokens: int = 10
    every: int = 8
    slots: int = 8

    def make(self, vocabulary: int) -> list[Request]:
        """The requests, each with a prompt of its own, from a seed."""
        generator = torch.Generator().manual_seed(0)
        prompts = torch.randint(vocabulary, (self.requests, self.prompt_tokens), generator=generator).tolist()
        budgets = [self.long_tokens if i % self.every == 0 else self.short_tokens for i in range(self.requests)]
        return [Request(prompt, budget, ignore_eos=True) for prompt, budget in zip(prompts, budgets, strict=True)]


def tiny_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """GPT-2's architecture at a size that every library loads and runs in no time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"vocab_size": 512, "n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4}
        model = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.4, bos_token_id=511, eos_token_id=511))
    return model.eval()


COURSE = Workload()
QUICK = Workload(requests=8, long_tokens=12, short_tokens=3, every=4, slots=4)

Serve = Callable[[PreTrainedModel, list[Request], int, Trace | None], list[Request]]


@dataclass(frozen=True)
class Rung:
    """One way to serve the workload.

    Attributes:
        name: as in the table and the figure.
        prepare: makes this rung's model from the float32 one.
        serve: runs the requests on it.
        exact: whether the tokens must be those of the first rung.
    """

    name: str
    prepare: Callable[[PreTrainedModel], PreTrainedModel]
    serve: Serve
    exact: bool = True


def _as_it_is(model: PreTrainedModel) -> PreTrainedModel:
    return model


def _bf16(model: PreTrainedModel) -> PreTrainedModel:
    return pack_model(_copy_in(model, torch.bfloat16))


def _int8(model: PreTrainedModel) -> PreTrainedModel:
    return pack_model(quantize_model(model, quantize_head=True))


def _copy_in(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.to(dtype).to(model.device).eval()


def one_at_a_time_without_cache(
    model: PreTrainedModel, requests: list[Request], slots: int, trace: Trace | None
) -> list[Request]:
    """Every request alone, every forward over everything so far."""
    del slots, trace
    return [
        Request(
            r.prompt, r.max_tokens, output_ids=list(generate_tokens(model, r.prompt, r.max_tokens, use_cache=False))
        )
        for r in requests
    ]


def one_at_a_time(model: PreTrainedModel, requests: list[Request], slots: int, trace: Trace | None) -> list[Request]:
    """Every request alone, with its cache."""
    del slots
    return run_static(requests, 1, model=model, trace=trace)


def static(model: PreTrainedModel, requests: list[Request], slots: int, trace: Trace | None) -> list[Request]:
    """Batches that stay together until the slowest row is done."""
    return run_static(requests, slots, model=model, trace=trace)


def continuous(model: PreTrainedModel, requests: list[Request], slots: int, trace: Trace | None) -> list[Request]:
    """Slots that are refilled at once."""
    return run_continuous(requests, slots, model=model, trace=trace)


RUNGS = (
    Rung("one at a time, no cache", _as_it_is, one_at_a_time_without_cache),
    Rung("KV cache", _as_it_is, one_at_a_time),
    Rung("static batches", _as_it_is, static),
    Rung("continuous batching", _as_it_is, continuous),
    Rung("packed weights, fp32", pack_model, continuous),
    Rung("packed weights, bf16", _bf16, continuous, exact=False),
    Rung("packed int8, head too", _int8, continuous, exact=False),
)


def rungs_for(device: str) -> tuple[Rung, ...]:
    """The rungs that make sense there: weights are packed for a CPU's kernels only."""
    if device == "cpu":
        return RUNGS
    half = Rung("bf16", lambda model: _copy_in(model, torch.bfloat16), continuous, exact=False)
    return (*RUNGS[:4], half)


# --- Measuring ---------------------------------------------------------------------------------------


def climb(
    model: PreTrainedModel,
    workload: Workload,
    device: str,
    repeats: int,
    *,
    quality: bool = True,
    memory: bool = True,
    queue_lengths: Sequence[int] = (32, 1000, 10_000),
) -> dict[str, Any]:
    """Serve the workload on every rung and time it; see `main` for what the result is written to."""
    requests = workload.make(model.get_input_embeddings().num_embeddings)
    rungs = rungs_for(device)
    models = {rung.name: rung.prepare(model) for rung in rungs}
    answers, forwards = serve_once(rungs, models, requests, workload.slots)
    bandwidths = [memory_bandwidth(device=device)]
    timings = interleaved(
        {rung.name: partial(rung.serve, models[rung.name], requests, workload.slots, None) for rung in rungs},
        repeats=repeats,
        warmup=0,
        progress="rounds",
    )
    distinct = {id(rung_model): rung_model for rung_model in models.values()}  # several rungs share the float32 one
    steps = decode_steps(distinct, (1, workload.slots), 6 * repeats)
    elsewhere = {key: time_elsewhere(served, requests, workload.slots) for key, served in distinct.items()}
    bandwidths.append(memory_bandwidth(device=device))
    bandwidth = max(bandwidths)  # the floor is what the machine could do, so the better measurement counts
    tokens = sum(request.max_tokens for request in requests)
    rows = []
    for rung in rungs:
        timing, model_of_rung = timings[rung.name], models[rung.name]
        floor_s = bytes_read(model_of_rung) / bandwidth
        rows.append(
            {
                "name": rung.name,
                "seconds": list(timing.seconds),
                "median_s": timing.median_s,
                "quartiles_s": list(timing.quartiles_s),
                "tokens_per_s": tokens / timing.median_s,
                "forwards": forwards[rung.name],
                "times_the_rung_before": Comparison(timings[rows[-1]["name"]], timing).ratio if rows else 1.0,
                "times_the_first": Comparison(timings[rungs[0].name], timing).ratio,
                "weight_bytes": size_in_bytes(model_of_rung),
                "bytes_read_per_forward": bytes_read(model_of_rung),
                "floor_of_a_forward_s": floor_s,
                "times_the_floor": timing.median_s / (forwards[rung.name] * floor_s),
                "decode_step_s": steps[id(model_of_rung)],
                "outside_the_model": elsewhere[id(model_of_rung)],
                "exact": rung.exact,
                "same_answers": sum(map(list.__eq__, answers[rung.name], answers[rungs[0].name])),
            }
        )
    del models, model_of_rung, distinct
    if quality:
        for row, quality_of_rung in zip(rows, storyteller_quality(rungs, device), strict=True):
            row |= quality_of_rung
    if memory:
        for row in tqdm(rows, desc="memory"):
            row |= memory_of(row["name"], device)
    return {
        "machine": machine(),
        "device": device,
        "workload": asdict(workload),
        "requests": len(requests),
        "tokens": tokens,
        "bandwidth_bytes_per_s": bandwidth,
        "bandwidth_before_and_after_bytes_per_s": bandwidths,
        "rungs": rows,
        "queues": [
            time_elsewhere(tiny_gpt2().to(device), [Request([1, 2, 3], 4)] * length, workload.slots)
            for length in tqdm(queue_lengths, desc="queues")
        ],
    }


def serve_once(
    rungs: Sequence[Rung], models: dict[str, PreTrainedModel], requests: list[Request], slots: int
) -> tuple[dict[str, list[list[int]]], dict[str, int]]:
    """Every rung's tokens of every request, and its number of forwards. It warms up what is timed afterwards.

    Raises AssertionError if a rung that may not change a token does.
    """
    answers, forwards = {}, {}
    for rung in tqdm(rungs, desc="warm-up and tokens"):
        trace = Trace()
        served = rung.serve(models[rung.name], requests, slots, trace)
        answers[rung.name] = [request.output_ids for request in served]
        forwards[rung.name] = trace.forwards or sum(request.max_tokens for request in requests)
        same = answers[rung.name] == answers[rungs[0].name]
        assert same or not rung.exact, f"{rung.name!r} changes a token"
    return answers, forwards


def decode_steps(
    models: dict[int, PreTrainedModel], row_counts: Sequence[int], repeats: int
) -> dict[int, dict[int, float]]:
    """Seconds of one decode step of every model, with so many rows in the batch; the median, all timed in turn."""
    warmup = 2
    steps = {
        (key, rows): stepper(model, rows, warmup + repeats + 1) for key, model in models.items() for rows in row_counts
    }
    timings = interleaved(steps, repeats=repeats, warmup=warmup, progress="decode steps")
    return {key: {rows: timings[key, rows].median_s for rows in row_counts} for key in models}


def stepper(model: PreTrainedModel, rows: int, max_tokens: int) -> Callable[[], None]:
    """What takes one decode step further at every call, after the prefill."""
    batch = generate_next_token(init_batch([Request([1 + row] * 7, max_tokens) for row in range(rows)]), model)

    def step() -> None:
        nonlocal batch
        batch = generate_next_token(batch, model)

    return step


def time_elsewhere(model: PreTrainedModel, requests: list[Request], slots: int) -> dict[str, float]:
    """What serving costs besides the model's forwards: queue, masks, argmax, merging and filtering the cache."""
    with seconds_inside(model) as forwards:
        timing = timed(lambda: run_continuous(requests, slots, model=model), repeats=1, warmup=0)
    outside_s = timing.median_s - sum(forwards)
    return {
        "requests": len(requests),
        "forwards": len(forwards),
        "seconds_per_forward": outside_s / len(forwards),
        "share_of_the_time": outside_s / timing.median_s,
    }


def bytes_read(model: PreTrainedModel) -> int:
    """Bytes of weights that one forward reads: all but an embedding that is only looked up."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tensors = [{id(t) for t in (*layer.parameters(), *layer.buffers())} for layer in (embedding, head)]
    tied = bool(tensors[0] & tensors[1])
    return size_in_bytes(model) - (0 if tied else size_in_bytes(embedding))


def perplexity(model: PreTrainedModel, encoded: list[list[int]]) -> float:
    """Of these documents: exp of the mean loss over their tokens."""
    losses, counts = zip(*document_losses(model, encoded), strict=True)
    return math.exp(sum(losses) / sum(counts))


def storyteller_quality(rungs: Sequence[Rung], device: str) -> list[dict[str, Any]]:
    """What each rung does to a real model: perplexity on held-out text, and how many answers stay the same."""
    model, tokenizer = load_model(STORYTELLER, device=device)
    texts = list(documents("ladder", 60, held_out=True))
    encoded = encode(tokenizer, texts)
    prompts = [Request(ids[:12], 40) for ids in encoded[:32]]
    first = [request.output_ids for request in run_continuous(prompts, 8, model=model)]
    rows = []
    for rung in tqdm(rungs, desc="storyteller"):
        changed = rung.prepare(model)
        answers = [request.output_ids for request in run_continuous(prompts, 8, model=changed)]
        rows.append(
            {
                "storyteller_perplexity": perplexity(changed, encoded),
                "storyteller_same_answers": sum(map(list.__eq__, answers, first)),
                "storyteller_answers": len(first),
            }
        )
    return rows


# --- Memory, each rung in a process of its own -------------------------------------------------------


def memory_of(name: str, device: str) -> dict[str, int]:
    """What the process grows by when it holds the rung's model, and at most while it serves."""
    command = [sys.executable, __file__, "--memory", name, "--device", device]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def print_memory(name: str, device: str) -> None:
    """Runs in the process of its own: prints bytes of the process, or of the GPU, as JSON."""
    if device == "cuda":
        print(json.dumps(memory_on_gpu(find_rung(name, device))))
        return
    process = psutil.Process()
    warm = gpt2_sized()  # what the libraries allocate once is not the model's
    warm(input_ids=torch.zeros(1, 2, dtype=torch.long))
    del warm
    release_memory()
    before = process.memory_info().rss
    rung = find_rung(name, device)
    model = gpt2_sized()
    prepared = rung.prepare(model)
    del model
    release_memory()
    resident = process.memory_info().rss - before
    requests = QUICK.make(prepared.get_input_embeddings().num_embeddings)
    with PeakMemory(process) as peak:
        rung.serve(prepared, requests, QUICK.slots, None)
    print(json.dumps({"resident_bytes": resident, "peak_bytes": peak.rss - before}))


def memory_on_gpu(rung: Rung) -> dict[str, int]:
    """What PyTorch holds on the GPU with the rung's model, and at most while it serves."""
    prepared = rung.prepare(gpt2_sized().to("cuda"))
    gc.collect()
    resident = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    rung.serve(prepared, QUICK.make(prepared.get_input_embeddings().num_embeddings), QUICK.slots, None)
    return {"resident_bytes": resident, "peak_bytes": torch.cuda.max_memory_allocated()}


def find_rung(name: str, device: str) -> Rung:
    """The rung of this name."""
    return next(rung for rung in rungs_for(device) if rung.name == name)


def release_memory() -> None:
    """Give what was freed back to the system, so that resident memory tells what is in use."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class PeakMemory:
    """The highest resident memory of a process while the block runs, sampled every 5 ms."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.rss, self._done = process, 0, threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while True:
            self.rss = max(self.rss, self.process.memory_info().rss)
            if self._done.wait(0.005):
                return

    def __enter__(self) -> PeakMemory:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._sampler.join()


# --- The command -------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """The ladder as text; and single decode steps, with their floor and what serving adds to the model's time."""
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
    lines.append("besides: the share of the time of continuous batching that is not spent in the model's forward")
    lines += [
        f"{queue['requests']:6} requests queued: {queue['seconds_per_forward'] * 1e6:.0f} us besides, per forward"
        for queue in result["queues"]
    ]
    return "\n".join(lines)


def write_json(result: dict[str, Any], path: Path) -> None:
    """All at once: whoever reads the file finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the ladder.")
    parser.add_argument("--model", help="a hub id or folder instead of GPT-2's shape with random weights")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="(default cpu)")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--quick", action="store_true", help="a small workload, one round, neither memory nor quality")
    parser.add_argument("--out", type=Path, help="the JSON file (default: benchmarks/results/ladder-DEVICE.json)")
    parser.add_argument("--memory", metavar="RUNG", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be 1 or more")
    check_device(parser, options.device)
    return options


def check_device(parser: argparse.ArgumentParser, device: str) -> None:
    """Say at once that there is no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but PyTorch finds no CUDA GPU here; leave it out to measure on the CPU")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    options = parse_arguments(arguments)
    if options.memory:
        print_memory(options.memory, options.device)
        return 0
    model = load_model(options.model, device=options.device)[0] if options.model else gpt2_sized().to(options.device)
    workload, repeats = (QUICK, 1) if options.quick else (COURSE, options.repeats)
    full = not (options.quick or options.model)
    result = {"model": options.model or "GPT-2 small's shape, random weights"}
    result |= climb(
        model,
        workload,
        options.device,
        repeats,
        quality=full,
        memory=full,
        queue_lengths=(32, 1000) if options.quick else (32, 1000, 10_000),
    )
    print(table(result))
    name = f"ladder-{'quick-' if options.quick else ''}{options.device}.json"
    out = options.out or (ROOT / "build" / name if options.quick else RESULTS / name)
    write_json(result, out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was written.")
