"""Peers: other software and ours serve the same requests with the same weights, in turn, on this machine.

    python benchmarks/peers.py             measure, write benchmarks/results/peers-cpu.json and print the table
    python benchmarks/peers.py --quick     the same on a tiny model, in under a minute; the numbers mean little
    python benchmarks/peers.py --model models/storyteller-llama    the same on the model of a folder

transformers and this project run in this environment, CTranslate2 and OpenVINO GenAI in one of their own, made from
benchmarks/requirements.txt, and vLLM in another, made from benchmarks/requirements-vllm.txt. Each library has a process
of its own (peer_worker.py), which loads its systems once and times nothing but the serving; only one computes at a
time, all with the same number of threads. Round after round every system serves the workload once, so that a machine
that drifts slows all of them alike; a short round before warms up and does not count. A system that is not installed,
or fails, is named with the reason and left out.

llama.cpp is not among them: its Python package, llama-cpp-python, comes as source that every machine has to compile,
and `make peers` compiles nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "code"))

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from helpers import Request, gpt2_sized
from measure import Comparison, Timing, machine
from peer_processes import SETTLE_S, Served, Setting, System, WorkerError, WorkerPool, python_of
from report import BASELINES
from results_file import BUILD, RESULTS, check_device, check_rounds, where_to_write, write_json
from workload import COURSE, QUICK, Workload, tiny_gpt2

THREADS = 2  # for every system
PEERS_PYTHON = python_of(ROOT / ".venv-peers")
VLLM_PYTHON = python_of(ROOT / ".venv-vllm")
DISTURBED = 0.1  # on a quiet machine other programs take less than this share of the processors' time

# What is compared with what. OpenVINO compiles a model before it serves it, which is where it arranges the weights for
# the processor, and vLLM has oneDNN arrange them when it loads a model; both are engines. So these two are compared
# with our engine on packed models; transformers and CTranslate2 with our functions on those as they are.
SYSTEMS = (
    System("transformers", "static", "transformers generate", "fp32", "static", like="ours-static"),
    System("transformers", "manager", "transformers manager", "fp32", "continuous", like="ours-continuous"),
    System("transformers", "manager-open", "transformers manager, any slots", "fp32", "continuous"),
    System("ctranslate2", "fp32", "CTranslate2", "fp32", "static", like="ours-static"),
    System("ctranslate2", "int8", "CTranslate2", "int8", "static"),
    System("openvino", "fp32", "OpenVINO GenAI", "fp32", "continuous", like="ours-engine"),
    System("openvino", "bf16", "OpenVINO GenAI", "bf16", "continuous", like="ours-engine-bf16"),
    System("openvino", "int8", "OpenVINO GenAI", "int8", "continuous", like="ours-engine-int8-head"),
    System("vllm", "fp32", "vLLM, eager", "fp32", "continuous", like="ours-engine"),
    System("vllm", "bf16", "vLLM, eager", "bf16", "continuous", like="ours-engine-bf16"),
    System("ours", "static", "ours", "fp32", "static"),
    System("ours", "continuous", "ours", "fp32", "continuous"),
    System("ours", "engine", "ours, packed, by the engine", "fp32", "continuous", like="ours-packed"),
    System("ours", "engine-bf16", "ours, packed, by the engine", "bf16", "continuous", like="ours-packed-bf16"),
    System(
        "ours", "engine-int8-head", "ours, head too, by the engine", "int8", "continuous", like="ours-packed-int8-head"
    ),
    System("ours", "packed", "ours, packed", "fp32", "continuous"),
    System("ours", "packed-bf16", "ours, packed", "bf16", "continuous"),
    System("ours", "packed-int8", "ours, packed", "int8", "continuous"),
    System("ours", "packed-int8-head", "ours, packed, head too", "int8", "continuous"),
)
IN_THIS_ENVIRONMENT = ("transformers", "ours")
REFERENCE = "ours-continuous"  # its tokens are what the others' are compared with


# --- The workload ------------------------------------------------------------------------------------


def requests_of(kind: str, workload: Workload, vocabulary: int) -> list[Request]:
    """The course's requests; or with long and short budgets mixed at random; or with the same budget each."""
    requests = workload.make(vocabulary)
    if kind == "random":
        draws = torch.rand(len(requests), generator=torch.Generator().manual_seed(0)).tolist()
        budgets = [workload.long_tokens if draw < 0.5 else workload.short_tokens for draw in draws]
    elif kind == "equal":
        budgets = [round(sum(request.max_tokens for request in requests) / len(requests))] * len(requests)
    else:
        return requests
    return [replace(request, max_tokens=budget) for request, budget in zip(requests, budgets, strict=True)]


# --- Measuring ---------------------------------------------------------------------------------------


def measure(pool: WorkerPool, requests: Sequence[Request], repeats: int) -> dict[str, list[Served]]:
    """The answers and times of every system in each of `repeats` rounds, after a short round that does not count."""
    shortest = min(request.max_tokens for request in requests)
    rounds = [[replace(request, max_tokens=shortest) for request in requests]] + [list(requests)] * repeats
    given: dict[str, list[Served]] = {system.key: [] for system in pool.systems}
    with tqdm(total=len(rounds) * len(pool.systems), desc="serving") as bar:
        for turn, requests_now in enumerate(rounds):
            for system in list(pool.systems):
                bar.set_postfix_str(system.key)
                served = pool.serve(system, requests_now) if system in pool.systems else None
                bar.update()
                if served is None:
                    continue
                before = given[system.key]
                fault = fault_in(served.tokens, before[0].tokens if before else served.tokens, requests_now)
                if fault:
                    pool.drop(system.library, [system.variant], fault)
                elif turn > 0:
                    before.append(served)
    return {system.key: given[system.key] for system in pool.systems}


def fault_in(tokens: list[list[int]], before: list[list[int]], requests: Sequence[Request]) -> str | None:
    """Why these answers must not be compared; `None` if nothing is wrong with them."""
    if [len(row) for row in tokens] != [request.max_tokens for request in requests]:
        return "some answers are not as long as they were asked to be"
    return "the tokens change from round to round" if tokens != before else None


def report(pool: WorkerPool, given: dict[str, list[Served]], requests: Sequence[Request]) -> dict[str, Any]:
    """What the JSON says about the systems, those that were served and those that were skipped."""
    skipped = [{"key": s.key, "label": s.label, "precision": s.precision} for s in SYSTEMS if s.key in pool.skipped]
    return {
        "rounds": len(given[REFERENCE]),
        "versions": pool.versions,
        "systems": [row_of(system, given, requests) for system in pool.systems],
        "skipped": [row | {"reason": pool.skipped[row["key"]]} for row in skipped],
    }


def row_of(system: System, given: dict[str, list[Served]], requests: Sequence[Request]) -> dict[str, Any]:
    """What the JSON says about one system."""
    timing = timing_of(given[system.key])
    ours = [key for key in given if key.startswith("ours-")]
    return {
        "key": system.key,
        **asdict(system),
        "seconds": list(timing.seconds),
        "median_s": timing.median_s,
        "quartiles_s": list(timing.quartiles_s),
        "used_by_other_programs": [served.used_by_others for served in given[system.key]],
        "tokens_per_s": sum(request.max_tokens for request in requests) / timing.median_s,
        "times_ours": {key: Comparison(timing, timing_of(given[key])).ratio for key in ours},
        "tokens": compare_tokens(given[system.key][0].tokens, given[REFERENCE][0].tokens),
    }


def timing_of(rounds: Sequence[Served]) -> Timing:
    """The seconds of every round."""
    return Timing(tuple(served.seconds for served in rounds))


def compare_tokens(tokens: list[list[int]], reference: list[list[int]]) -> dict[str, Any]:
    """How many requests got the tokens of the reference, what share of all tokens did, and where the first differs."""
    pairs = [list(zip(row, other, strict=False)) for row, other in zip(tokens, reference, strict=True)]
    equal = sum(one == other for pair in pairs for one, other in pair)
    first = next(
        (
            {"request": index, "token": next((i for i, (a, b) in enumerate(pair) if a != b), len(pair))}
            for index, pair in enumerate(pairs)
            if tokens[index] != reference[index]
        ),
        None,
    )
    return {
        "equal_requests": sum(map(list.__eq__, tokens, reference)),
        "requests": len(reference),
        "agreement": equal / sum(map(len, reference)),
        "first_difference": first,
    }


@torch.inference_mode()
def explain_differences(
    rows: Sequence[dict[str, Any]], model: PreTrainedModel, requests: Sequence[Request], reference: list[list[int]]
) -> None:
    """Add how far the best logit led at each first difference; where the lead is tiny, rounding has decided."""
    for row in rows:
        first = row["tokens"]["first_difference"]
        if first is not None and first["token"] < len(reference[first["request"]]):
            context = requests[first["request"]].prompt + reference[first["request"]][: first["token"]]
            best, second = model(input_ids=torch.tensor([context])).logits[0, -1].topk(2).values.tolist()
            first["lead_of_the_best_logit"] = best - second


# --- The command -------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """The systems as text. A ratio is a system's time divided by ours."""
    rows = result["systems"]
    columns = {precision: key for precision, key in BASELINES.items() if any(row["key"] == key for row in rows)}
    lines = [
        f"{'':32}{'weights':8}{'batching':12}{'seconds':>8}{'quartiles':>16}{'tokens/s':>10}{'x like':>8}"
        + "".join(f"{'x ' + precision:>8}" for precision in columns)
        + f"{'same answers':>14}{'agreement':>11}"
    ]
    for row in rows:
        low, high = row["quartiles_s"]
        same = f"{row['tokens']['equal_requests']} of {row['tokens']['requests']}"
        like = row["times_ours"].get(row["like"])
        lines.append(
            f"{row['label']:32}{row['precision']:8}{row['batching']:12}{row['median_s']:8.2f}"
            f"{f'{low:.2f} to {high:.2f}':>16}{row['tokens_per_s']:10.0f}{f'{like:.2f}' if like else '':>8}"
            + "".join(f"{row['times_ours'][key]:8.2f}" for key in columns.values())
            + f"{same:>14}{row['tokens']['agreement']:11.1%}"
        )
    lines.append("x like: its time divided by that of our system with the same batching, precision and packing")
    if columns:
        lines.append(
            "x fp32 and so on: its time divided by that of our packed model in that precision; medians over the rounds"
        )
    long_enough = [row for row in rows if row["median_s"] > 1]  # to count processor time in hundredths of a second
    busiest = max((share for row in long_enough for share in row["used_by_other_programs"]), default=0)
    if busiest > DISTURBED:
        lines.append(f"other programs used up to {busiest:.0%} of the processors meanwhile: close them, and run again")
    lines += [f"skipped: {row['label']} {row['precision']} ({row['reason']})" for row in result["skipped"]]
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    keys = [system.key for system in SYSTEMS]
    parser = argparse.ArgumentParser(description="Serve the same requests with other libraries and with ours.")
    parser.add_argument("--workload", choices=["course", "random", "equal"], default="course", help="the budgets")
    parser.add_argument("--slots", type=int, help="rows at a time (default 8)")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--threads", type=int, default=THREADS, help="for every system (default 2)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="(default cpu)")
    parser.add_argument("--quick", action="store_true", help="a tiny model, a small workload, one round")
    parser.add_argument(
        "--model", type=Path, metavar="FOLDER", help="serve the model of this folder (default: GPT-2's shape)"
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        metavar="SYSTEM",
        help=f"only these, and ours to compare with; libraries, or systems of: {', '.join(keys)}",
    )
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON, help="the Python that has the peers")
    parser.add_argument("--vllm-python", type=Path, default=VLLM_PYTHON, help="the Python that has vLLM")
    parser.add_argument(
        "--out",
        type=Path,
        help="the JSON file (default: benchmarks/results/peers-DEVICE.json; in build/ for less than a whole run)",
    )
    options = parser.parse_args(arguments)
    check_options(parser, options)
    options.out = options.out or default_out(options)
    check_rounds(parser, options.out, 1 if options.quick else options.repeats)
    return options


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Say at once what does not exist or makes no sense."""
    for name in ("slots", "repeats", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; it must be 1 or more")
    check_device(parser, options.device)
    unknown = [peer for peer in options.peers or [] if not chosen([peer])]
    if unknown:
        keys = ", ".join(system.key for system in SYSTEMS)
        parser.error(f"no system or library is called {', '.join(unknown)}; there are {keys}")
    if options.model and not (options.model / "config.json").exists():
        parser.error(f"--model is {options.model}, which has no config.json; name a folder with a model in it")


def default_out(options: argparse.Namespace) -> Path:
    """results/ for a run of all systems with the rows and threads that the notes speak of, build/ for any other."""
    every = options.peers is None and options.slots is None and options.model is None
    whole = every and not options.quick and options.threads == THREADS
    model = f"{options.model.resolve().name}-" if options.model else ""
    quick, budgets = "quick-" if options.quick else "", "" if options.workload == "course" else f"{options.workload}-"
    return (RESULTS if whole else BUILD) / f"peers-{quick}{model}{budgets}{options.device}.json"


def chosen(peers: Sequence[str] | None) -> list[System]:
    """The systems with these names or of these libraries; all of them for `None`."""
    return [system for system in SYSTEMS if peers is None or system.key in peers or system.library in peers]


def with_baselines(systems: Sequence[System]) -> list[System]:
    """These systems, the one whose tokens count, and those of ours that they are compared with."""
    keys = {REFERENCE, *(system.key for system in systems), *(BASELINES[system.precision] for system in systems)}
    keys |= {system.like for system in systems}
    return [system for system in SYSTEMS if system.key in keys]


def pythons_of(systems: Sequence[System], peers_python: Path, vllm_python: Path) -> dict[str, Path]:
    """The interpreter that runs each library's worker."""
    elsewhere = {"vllm": vllm_python} | dict.fromkeys(IN_THIS_ENVIRONMENT, Path(sys.executable))
    return {system.library: elsewhere.get(system.library, peers_python) for system in systems}


def model_to_serve(options: argparse.Namespace) -> tuple[PreTrainedModel, str]:
    """The model, in fp32, and what the JSON says it is."""
    if options.model:
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
        return model.eval(), f"the model of the folder {options.model.resolve().name}"
    if options.quick:
        return tiny_gpt2(), "a tiny GPT-2, random weights"
    return gpt2_sized(), "GPT-2 small's shape, random weights"


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure; see `main` for what the result is written to."""
    torch.set_num_threads(options.threads)
    disable_progress_bar()  # of transformers: there are two bars here already
    workload, repeats = (QUICK, 1) if options.quick else (COURSE, options.repeats)
    workload = replace(workload, slots=options.slots or workload.slots)
    model, description = model_to_serve(options)
    requests = requests_of(options.workload, workload, model.config.vocab_size)
    systems = with_baselines(chosen(options.peers))
    settle_s = 0.0 if options.quick else SETTLE_S
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="peers-", dir=BUILD) as name, WorkerPool(systems, settle_s) as pool:
        setting = Setting(Path(name), workload.slots, options.threads, options.device)
        model.save_pretrained(setting.folder / "model")
        pool.load(pythons_of(systems, options.peers_python, options.vllm_python), setting)
        given = measure(pool, requests, repeats)
    if REFERENCE not in given:
        raise WorkerError(f"{REFERENCE} must work, and it failed: {pool.skipped[REFERENCE]}")
    result = {
        "machine": machine(),
        "device": options.device,
        "model": description,
        "workload": asdict(workload) | {"budgets": options.workload},
        "requests": len(requests),
        "tokens": sum(request.max_tokens for request in requests),
        "threads": options.threads,
        "reference": REFERENCE,
    } | report(pool, given, requests)
    fp32 = [row for row in result["systems"] if row["precision"] == "fp32"]
    explain_differences(fp32, model, requests, given[REFERENCE][0].tokens)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    options = parse_arguments(arguments)
    try:
        result = run(options)
    except WorkerError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(result))
    write_json(result, where_to_write(options.out, [row["key"] for row in result["skipped"]]))
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have told its background jobs to ignore the first
        signal.signal(number, _interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was written.")
