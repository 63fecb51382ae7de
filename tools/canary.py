"""The same tokens under every supported version of transformers, and lessons that run: what `make canary` checks.

    python tools/canary.py                   print the tokens of a fixed workload as JSON
    python tools/canary.py --against PYTHON  compare them with those that another Python prints, and let that Python
                                             execute the lessons, every timing once

PYTHON is the interpreter of an environment with another transformers. The workload runs the bundled
model, whose weights are the same everywhere, through every way of generating in code/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = ROOT / "build" / "canary"  # the copies that another Python has executed
sys.path.insert(0, str(ROOT / "code"))

import transformers

from helpers import Request, course_model, generate_tokens, run_continuous, run_static
from utils import add_lora, quantize_model

PROMPTS = (
    "Once upon a time there was a",
    "The quick brown fox jumped over the",
    "Dear Anna,",
    "Question: What is the capital of France?\nAnswer:",
    "A river",
)


def tokens() -> dict[str, list[list[int]]]:
    """Token ids of every answer, by way of generating."""
    model, _ = course_model()
    requests = [Request(prompt, 5 + 9 * index) for index, prompt in enumerate(PROMPTS * 2)]
    static, continuous = run_static(requests, 3), run_continuous(requests, 3)
    quantized = run_continuous(requests, 3, model=quantize_model(model))
    adapted = run_continuous(requests, 3, model=add_lora(quantize_model(model), 4))
    return {
        "static": [request.output_ids for request in static],
        "continuous": [request.output_ids for request in continuous],
        "int8": [request.output_ids for request in quantized],
        "int8 with a fresh adapter": [request.output_ids for request in adapted],
        "no cache": [list(generate_tokens(model, r.prompt_ids, 12, use_cache=False)) for r in static[: len(PROMPTS)]],
    }


def differences(ours: dict[str, list[list[int]]], theirs: dict[str, list[list[int]]]) -> list[str]:
    """One line for every answer that is not the same; empty when all are."""
    if ours.keys() != theirs.keys():
        return [f"the ways of generating differ: {sorted(ours)} and {sorted(theirs)}"]
    return [
        f"{way}, request {index}: {one} here, {other} there"
        for way in ours
        for index, (one, other) in enumerate(zip(ours[way], theirs[way], strict=True))
        if one != other
    ]


def compare(python: str) -> int:
    """Compare tokens with another interpreter; say what was compared. Returns the exit status."""
    printed = subprocess.run([python, __file__], stdout=subprocess.PIPE, text=True, check=True).stdout
    theirs = json.loads(printed)
    ours = tokens()
    different = differences(ours, theirs["tokens"])
    count = sum(len(answers) for answers in ours.values())
    print("\n".join(different) or f"{count} answers, every token the same", end=": ")
    print(f"transformers {transformers.__version__} and {theirs['transformers']}", flush=True)
    return 1 if different else 0


def run_lessons(python: str, notebooks: Path = NOTEBOOKS) -> int:
    """Execute copies of the lessons with another interpreter, every timing once. Returns the exit status.

    What a lesson prints about where it failed, it prints here too.
    """
    command = [python, str(ROOT / "tools" / "lessons.py"), "run"]
    command += ["--notebooks", str(notebooks), "--out", str(EXECUTED)]
    return subprocess.run(command, env=os.environ | {"COURSE_REPEATS": "1"}).returncode


def main() -> int:
    """Run the command line. Returns the exit status: not 0 if a token differs or a lesson fails."""
    parser = argparse.ArgumentParser(description="Compare tokens between versions of transformers.")
    parser.add_argument("--against", metavar="PYTHON", help="the interpreter to compare with")
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="the folder of the lessons to execute there")
    options = parser.parse_args()
    if options.against:
        tokens_differ = compare(options.against)
        return run_lessons(options.against, options.notebooks) or tokens_differ
    print(json.dumps({"transformers": transformers.__version__, "tokens": tokens()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
