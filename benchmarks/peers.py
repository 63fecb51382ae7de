"""Peers: the same weights and requests served by others' software and by ours, on this machine, in turn.

    python benchmarks/peers.py             measure, write benchmarks/results/peers-cpu.json and print the table
    python benchmarks/peers.py --quick     the same on a tiny model, in under a minute; the numbers mean little

transformers and the course run in this environment, CTranslate2 and OpenVINO GenAI in one of their own, made from
benchmarks/requirements.txt. Each library has a process of its own (peer_worker.py), which loads its systems once and
times nothing but the serving; only one computes at a time, all with the same number of threads. Round after round
every system serves the workload once, so that a machine that drifts slows all of them alike; a short round before
warms up and does not count. A system that is not installed, or fails, is named with the reason and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "code"))

import psutil
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from helpers import Request, gpt2_sized
from ladder import COURSE, QUICK, RESULTS, Workload, check_device, tiny_gpt2, write_json
from measure import Comparison, Timing, machine
from report import BASELINES

BUILD = ROOT / "build"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
ANSWER_WITHIN_S = 900
SETTLE_S = 0.3  # threads that have just computed may wait for more work, spinning, for up to 0.2 s
DISTURBED = 0.1  # a share of the machine's processors that other programs do not use on a quiet machine


@dataclass(frozen=True)
class System:
    """One way to serve the workload.

    Attributes:
        library: the worker that runs it, `peer_LIBRARY.py`.
        variant: what the worker calls it.
        label: as in the table.
        precision: of the weights. Only fp32 systems must find our tokens.
        batching: `"static"` or `"continuous"`.
    """

    library: str
    variant: str
    label: str
    precision: str
    batching: str

    @property
    def key(self) -> str:
        """Its name on the command line and in the JSON."""
        return f"{self.library}-{self.variant}"


SYSTEMS = (
    System("transformers", "static", "transformers generate", "fp32", "static"),
    System("transformers", "manager", "transformers manager", "fp32", "continuous"),
    System("transformers", "manager-open", "transformers manager, any slots", "fp32", "continuous"),
    System("ctranslate2", "fp32", "CTranslate2", "fp32", "static"),
    System("ctranslate2", "int8", "CTranslate2", "int8", "static"),
    System("openvino", "fp32", "OpenVINO GenAI", "fp32", "continuous"),
    System("openvino", "bf16", "OpenVINO GenAI", "bf16", "continuous"),
    System("openvino", "int8", "OpenVINO GenAI", "int8", "continuous"),
    System("ours", "static", "ours", "fp32", "static"),
    System("ours", "continuous", "ours", "fp32", "continuous"),
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


# --- Workers -----------------------------------------------------------------------------------------


class WorkerError(Exception):
    """A worker has ended, or does not answer."""


class Worker:
    """One library's process. It computes only while it is asked; idle, it waits for a line to read."""

    def __init__(
        self, python: Path, library: str, variants: list[str], folder: Path, slots: int, threads: int, device: str
    ) -> None:
        self.log: IO[bytes] = (folder / f"{library}.log").open("w+b")
        arguments = [library, folder / "model", slots, threads, device, *variants]
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("peer_worker.py"), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment(threads),
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the workers
        )

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a line, and read the one that comes back."""
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self.last_words()) from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Read one line."""
        if not select.select([self.process.stdout], [], [], ANSWER_WITHIN_S)[0]:
            raise WorkerError(f"no answer within {ANSWER_WITHIN_S} s")
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(self.last_words())
        return json.loads(line)

    def busy_elsewhere(self) -> tuple[float, float]:
        """Processor seconds since the machine started: those that went to other programs, and all there were."""
        try:
            own = sum(psutil.Process(self.process.pid).cpu_times()[:2])
        except psutil.NoSuchProcess:
            raise WorkerError(self.last_words()) from None
        times = psutil.cpu_times()
        return sum(times[:3]) - own, sum(times[:4])  # user, nice, system; idle

    def last_words(self) -> str:
        """Why it has ended."""
        status = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").replace(str(ROOT), ".").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"the process ended with status {status}: {last}"[:300]

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with suppress(BrokenPipeError):  # something was still to be written to it
                stream.close()


def environment(threads: int) -> dict[str, str]:
    """What every worker sees: the same number of threads, and no network."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | dict.fromkeys(names, str(threads)) | offline


@dataclass(frozen=True)
class Served:
    """What serving the requests once gave.

    Attributes:
        tokens: of every request.
        seconds: it took.
        elsewhere: the share of the machine's processors that other programs used meanwhile, 0 to 1.
    """

    tokens: list[list[int]]
    seconds: float
    elsewhere: float


class Company:
    """All workers, with the systems that work and the reasons why the others do not."""

    def __init__(self, systems: Sequence[System], settle_s: float = SETTLE_S) -> None:
        self.systems, self.settle_s = list(systems), settle_s
        self.workers: dict[str, Worker] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.skipped: dict[str, str] = {}

    def __enter__(self) -> Company:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.stop()

    def load(self, folder: Path, slots: int, threads: int, device: str, peers_python: Path) -> None:
        """Start every library's worker, and wait until all have loaded their systems."""
        for library in dict.fromkeys(system.library for system in self.systems):
            python = Path(sys.executable) if library in IN_THIS_ENVIRONMENT else peers_python
            variants = [system.variant for system in self.systems if system.library == library]
            if python.exists():
                self.workers[library] = Worker(python, library, variants, folder, slots, threads, device)
            else:
                self.drop(library, variants, "not installed: there is no environment for the peers (make peers)")
        for library, worker in tqdm(list(self.workers.items()), desc="loading"):
            try:
                greeting = worker.answer()
            except WorkerError as error:
                self.lose(library, error)
                continue
            self.versions[library] = greeting["versions"]
            for variant, why in greeting["failed"].items():
                self.drop(library, [variant], why)

    def drop(self, library: str, variants: Sequence[str], why: str) -> None:
        """Leave these out from now on."""
        gone = [s for s in self.systems if s.library == library and s.variant in variants]
        self.systems = [system for system in self.systems if system not in gone]
        self.skipped |= {system.key: why for system in gone}

    def lose(self, library: str, error: WorkerError) -> None:
        """Leave a whole library out from now on, and end its worker: it may still be computing."""
        self.drop(library, [system.variant for system in self.systems], str(error))
        self.workers.pop(library).stop()

    def serve(self, system: System, requests: Sequence[Request]) -> Served | None:
        """The tokens of every request and how long they took; `None` if that failed."""
        order = [(request.prompt, request.max_tokens) for request in requests]
        worker = self.workers[system.library]
        try:
            before = worker.busy_elsewhere()
            answer = worker.ask({"variant": system.variant, "requests": order})
            after = worker.busy_elsewhere()
        except WorkerError as error:
            self.lose(system.library, error)
            return None
        if "failed" in answer:
            self.drop(system.library, [system.variant], answer["failed"])
            return None
        sleep(self.settle_s)
        elsewhere, total = (now - then for now, then in zip(after, before, strict=True))
        return Served(answer["tokens"], answer["seconds"], max(0.0, elsewhere / total) if total else 0.0)


# --- Measuring ---------------------------------------------------------------------------------------


def measure(company: Company, requests: Sequence[Request], repeats: int) -> dict[str, list[Served]]:
    """What every system gave in each of `repeats` rounds, after a short one that does not count."""
    shortest = min(request.max_tokens for request in requests)
    rounds = [[replace(request, max_tokens=shortest) for request in requests]] + [list(requests)] * repeats
    given: dict[str, list[Served]] = {system.key: [] for system in company.systems}
    with tqdm(total=len(rounds) * len(company.systems), desc="serving") as bar:
        for turn, requests_now in enumerate(rounds):
            for system in list(company.systems):
                bar.set_postfix_str(system.key)
                served = company.serve(system, requests_now) if system in company.systems else None
                bar.update()
                if served is None:
                    continue
                before = given[system.key]
                fault = fault_in(served.tokens, before[0].tokens if before else served.tokens, requests_now)
                if fault:
                    company.drop(system.library, [system.variant], fault)
                elif turn > 0:
                    before.append(served)
    return {system.key: given[system.key] for system in company.systems}


def fault_in(tokens: list[list[int]], before: list[list[int]], requests: Sequence[Request]) -> str | None:
    """What is wrong with these answers as a benchmark; `None` if nothing is."""
    if [len(row) for row in tokens] != [request.max_tokens for request in requests]:
        return "some answers are not as long as they were asked to be"
    return "the tokens change from round to round" if tokens != before else None


def report(company: Company, given: dict[str, list[Served]], requests: Sequence[Request]) -> dict[str, Any]:
    """What the JSON says about the systems."""
    reference = given[REFERENCE][0].tokens
    count = sum(request.max_tokens for request in requests)
    timings = {key: Timing(tuple(served.seconds for served in rounds)) for key, rounds in given.items()}
    ours = [key for key in given if key.startswith("ours-")]
    rows = []
    for system in company.systems:
        timing = timings[system.key]
        rows.append(
            {"key": system.key}
            | asdict(system)
            | {
                "seconds": list(timing.seconds),
                "median_s": timing.median_s,
                "quartiles_s": list(timing.quartiles_s),
                "used_by_other_programs": [served.elsewhere for served in given[system.key]],
                "tokens_per_s": count / timing.median_s,
                "times_ours": {key: Comparison(timing, timings[key]).ratio for key in ours},
                "tokens": compare_tokens(given[system.key][0].tokens, reference),
            }
        )
    skipped = [{"key": s.key, "label": s.label, "precision": s.precision} for s in SYSTEMS if s.key in company.skipped]
    return {
        "versions": company.versions,
        "systems": rows,
        "skipped": [row | {"reason": company.skipped[row["key"]]} for row in skipped],
    }


def compare_tokens(tokens: list[list[int]], reference: list[list[int]]) -> dict[str, Any]:
    """How many requests got the reference's tokens, what share of all tokens is equal, and where the first is not."""
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
    """Add to every first difference by how much the best logit led there: if by next to nothing, rounding decides."""
    for row in rows:
        first = row["tokens"]["first_difference"]
        if first is not None and first["token"] < len(reference[first["request"]]):
            context = requests[first["request"]].prompt + reference[first["request"]][: first["token"]]
            best, second = model(input_ids=torch.tensor([context])).logits[0, -1].topk(2).values.tolist()
            first["lead_of_the_best_logit"] = best - second


# --- The command -------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """The systems as text. A ratio is how many times as long as ours a system takes."""
    rows = result["systems"]
    columns = {precision: key for precision, key in BASELINES.items() if any(row["key"] == key for row in rows)}
    lines = [
        f"{'':32}{'weights':8}{'batching':12}{'seconds':>8}{'quartiles':>16}{'tokens/s':>10}"
        + "".join(f"{'x ' + precision:>8}" for precision in columns)
        + f"{'same answers':>14}{'agreement':>11}"
    ]
    for row in rows:
        low, high = row["quartiles_s"]
        same = f"{row['tokens']['equal_requests']} of {row['tokens']['requests']}"
        lines.append(
            f"{row['label']:32}{row['precision']:8}{row['batching']:12}{row['median_s']:8.2f}"
            f"{f'{low:.2f} to {high:.2f}':>16}{row['tokens_per_s']:10.0f}"
            + "".join(f"{row['times_ours'][key]:8.2f}" for key in columns.values())
            + f"{same:>14}{row['tokens']['agreement']:11.1%}"
        )
    if columns:
        lines.append("x: how many times as long as ours, packed, in that precision: the median over the rounds")
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
    parser.add_argument("--threads", type=int, default=2, help="for every system (default 2)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="(default cpu)")
    parser.add_argument("--quick", action="store_true", help="a tiny model, a small workload, one round")
    parser.add_argument(
        "--peers",
        nargs="+",
        metavar="SYSTEM",
        help=f"only these, and ours to compare with; libraries, or systems of: {', '.join(keys)}",
    )
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON, help="the Python that has the peers")
    parser.add_argument("--out", type=Path, help="the JSON file (default: benchmarks/results/peers-DEVICE.json)")
    options = parser.parse_args(arguments)
    for name in ("slots", "repeats", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; it must be 1 or more")
    check_device(parser, options.device)
    unknown = [peer for peer in options.peers or [] if not chosen([peer])]
    if unknown:
        parser.error(f"no system or library is called {', '.join(unknown)}; there are {', '.join(keys)}")
    return options


def chosen(peers: Sequence[str] | None) -> list[System]:
    """The systems with these names or of these libraries; all of them for `None`."""
    return [system for system in SYSTEMS if peers is None or system.key in peers or system.library in peers]


def with_baselines(systems: Sequence[System]) -> list[System]:
    """These, the system whose tokens count, and ours in every precision among them."""
    keys = {REFERENCE, *(system.key for system in systems), *(BASELINES[system.precision] for system in systems)}
    return [system for system in SYSTEMS if system.key in keys]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure; see `main` for what the result is written to."""
    torch.set_num_threads(options.threads)
    disable_progress_bar()  # of transformers: there are two bars here already
    workload, repeats = (QUICK, 1) if options.quick else (COURSE, options.repeats)
    workload = replace(workload, slots=options.slots or workload.slots)
    model = tiny_gpt2() if options.quick else gpt2_sized()
    requests = requests_of(options.workload, workload, model.config.vocab_size)
    systems = with_baselines(chosen(options.peers))
    settle_s = 0.0 if options.quick else SETTLE_S
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="peers-", dir=BUILD) as name, Company(systems, settle_s) as company:
        folder = Path(name)
        model.save_pretrained(folder / "model")
        company.load(folder, workload.slots, options.threads, options.device, options.peers_python)
        given = measure(company, requests, repeats)
    if REFERENCE not in given:
        raise WorkerError(f"{REFERENCE} must work, and it failed: {company.skipped[REFERENCE]}")
    result = {
        "machine": machine(),
        "device": options.device,
        "model": "a tiny GPT-2, random weights" if options.quick else "GPT-2 small's shape, random weights",
        "workload": asdict(workload) | {"budgets": options.workload},
        "requests": len(requests),
        "tokens": sum(request.max_tokens for request in requests),
        "threads": options.threads,
        "rounds": repeats,
        "reference": REFERENCE,
    } | report(company, given, requests)
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
    quick, budgets = "quick-" if options.quick else "", "" if options.workload == "course" else f"{options.workload}-"
    name = f"peers-{quick}{budgets}{options.device}.json"
    write_json(result, options.out or (BUILD if options.quick else RESULTS) / name)
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
