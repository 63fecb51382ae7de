"""Another project's load generator, `vllm bench serve`, run against a server as it is."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from load_servers import VLLM_COMMAND, Place, vllm_environment

WITHIN_S = 900


class ToolError(Exception):
    """A load generator failed."""


@dataclass(frozen=True)
class Load:
    """So many requests, `at_a_time` under way, each of `prompt_tokens` random tokens in and `max_tokens` out."""

    requests: int = 128
    at_a_time: int = 8
    prompt_tokens: int = 32
    max_tokens: int = 32


def vllm_bench(place: Place, tokenizer: Path, load: Load, folder: Path, python: Path) -> dict[str, float]:
    """What `vllm bench serve` measures: tokens per second, and medians of TTFT and TPOT in seconds."""
    name = f"bench-{place.model}.json"
    run(
        [
            *(str(python), str(VLLM_COMMAND), "bench", "serve", "--backend", "openai", "--base-url", place.url),
            *("--endpoint", "/v1/completions", "--model", place.model, "--tokenizer", str(tokenizer)),
            *("--dataset-name", "random", "--random-input-len", str(load.prompt_tokens)),
            *("--random-output-len", str(load.max_tokens), "--num-prompts", str(load.requests)),
            *("--max-concurrency", str(load.at_a_time), "--num-warmups", str(load.at_a_time)),
            *("--ignore-eos", "--temperature", "0", "--seed", "1", "--disable-tqdm"),
            *("--save-result", "--result-dir", str(folder), "--result-filename", name),
        ],
        vllm_environment(1, folder),
    )
    said = json.loads((folder / name).read_text())
    if said["completed"] != load.requests:
        raise ToolError(f"vllm bench serve got {said['completed']} of {load.requests} answers from {place.url}")
    return {
        "tokens_per_s": said["output_throughput"],
        "ttft_s": said["median_ttft_ms"] / 1e3,
        "tpot_s": said["median_tpot_ms"] / 1e3,
    }


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run a load generator; what it printed. Raises ToolError, with its last lines, if it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    if done.returncode:
        last = (done.stdout + done.stderr).strip()[-600:]
        raise ToolError(f"{Path(command[0]).name} ended with status {done.returncode}: {last}")
    return done.stdout
