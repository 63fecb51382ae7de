"""Other people's load generators: `vllm bench serve`, guidellm and aiperf, each run against one server as it is."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_servers import VLLM_COMMAND, Place, vllm_environment
from peer_processes import worker_environment

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


def guidellm(place: Place, tokenizer: Path, load: Load, folder: Path, python: Path) -> dict[str, Any]:
    """What guidellm says of a server: how many requests succeeded, and tokens per second."""
    out = folder / "guidellm.json"
    run(
        [
            *(str(python.with_name("guidellm")), "benchmark", "run", "--target", place.url, "--model", place.model),
            *("--processor", str(tokenizer), "--profile", "concurrent", "--rate", str(load.at_a_time)),
            *("--data", f"prompt_tokens={load.prompt_tokens},output_tokens={load.max_tokens}"),
            *("--max-requests", str(load.requests), "--output-path", str(out)),
        ],
        worker_environment(1),
    )
    return json.loads(out.read_text())


def aiperf(place: Place, tokenizer: Path, load: Load, folder: Path, python: Path) -> dict[str, Any]:
    """What aiperf says of a server."""
    out = folder / "aiperf"
    run(
        [
            *(str(python.with_name("aiperf")), "profile", "--model", place.model, "--url", place.url),
            *("--endpoint-type", "completions", "--streaming", "--tokenizer", str(tokenizer)),
            *("--concurrency", str(load.at_a_time), "--request-count", str(load.requests)),
            *("--synthetic-input-tokens-mean", str(load.prompt_tokens), "--output-tokens-mean", str(load.max_tokens)),
            *("--extra-inputs", "ignore_eos:true", "--artifact-dir", str(out), "--ui", "none"),
        ],
        worker_environment(1),
    )
    return json.loads(next(out.rglob("profile_export_aiperf.json")).read_text())


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run a load generator; what it printed. Raises ToolError, with its last lines, if it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    if done.returncode:
        last = (done.stdout + done.stderr).strip()[-600:]
        raise ToolError(f"{Path(command[0]).name} ended with status {done.returncode}: {last}")
    return done.stdout
