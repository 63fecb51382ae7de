"""Other projects' load generators, run against a server as it is: `vllm bench serve`, guidellm and aiperf."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

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
    check_completed("vllm bench serve", said["completed"], load, place)
    return {
        "tokens_per_s": said["output_throughput"],
        "ttft_s": said["median_ttft_ms"] / 1e3,
        "tpot_s": said["median_tpot_ms"] / 1e3,
    }


def guidellm(place: Place, tokenizer: Path, load: Load, folder: Path, python: Path) -> dict[str, float]:
    """What guidellm measures, in the same units; `python` is that of the environment it is installed in."""
    saved = folder / "guidellm.json"
    run(
        [
            *(str(python.with_name("guidellm")), "run", "--disable-progress", "--output", f"kind=json,path={saved}"),
            *("--backend", f"kind=openai_http,target={place.url},model={place.model},request_format=/v1/completions"),
            *("--profile", f"kind=concurrent,streams={load.at_a_time}"),
            *("--constraint", f"kind=max_requests,count={load.requests}"),
            *("--tokenizer", f"kind=hf_auto,model={tokenizer}", "--data"),
            f"kind=synthetic_text,prompt_tokens={load.prompt_tokens},output_tokens={load.max_tokens}",
        ],
        worker_environment(1),
    )
    said = json.loads(saved.read_text())["benchmarks"][0]["metrics"]
    check_completed("guidellm", said["request_totals"]["successful"], load, place)
    return {
        "tokens_per_s": said["output_tokens_per_second"]["successful"]["mean"],
        "ttft_s": said["time_to_first_token_ms"]["successful"]["median"] / 1e3,
        "tpot_s": said["inter_token_latency_ms"]["successful"]["median"] / 1e3,
    }


def aiperf(place: Place, tokenizer: Path, load: Load, folder: Path, python: Path) -> dict[str, float]:
    """What aiperf measures, in the same units.

    It takes a folder as a tokenizer only when it may ask the hub for others, so it is not told to stay offline.
    """
    environment = {key: value for key, value in worker_environment(1).items() if key != "HF_HUB_OFFLINE"}
    run(
        [
            *(str(python.with_name("aiperf")), "profile", "--ui", "none", "--artifact-dir", str(folder / "aiperf")),
            *("--url", place.url, "--model", place.model, "--tokenizer", str(tokenizer.resolve())),
            *("--endpoint-type", "completions", "--streaming", "--use-server-token-count"),
            *("--concurrency", str(load.at_a_time), "--request-count", str(load.requests)),
            *("--synthetic-input-tokens-mean", str(load.prompt_tokens), "--synthetic-input-tokens-stddev", "0"),
            *("--output-tokens-mean", str(load.max_tokens), "--output-tokens-stddev", "0"),
            *("--extra-inputs", "ignore_eos:true"),
        ],
        environment,
    )
    said = json.loads((folder / "aiperf" / "profile_export_aiperf.json").read_text())
    failed = sum(error["count"] for error in said["error_summary"])
    check_completed("aiperf", round(said["request_count"]["avg"]) - failed, load, place)
    return {
        "tokens_per_s": said["output_token_throughput"]["avg"],
        "ttft_s": said["time_to_first_token"]["p50"] / 1e3,
        "tpot_s": said["inter_token_latency"]["p50"] / 1e3,
    }


def check_completed(tool: str, completed: int, load: Load, place: Place) -> None:
    """Raise ToolError unless every request was answered."""
    if completed != load.requests:
        raise ToolError(f"{tool} got {completed} of {load.requests} answers from {place.url}")


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run a load generator; what it printed. Raises ToolError, with its last lines, if it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    if done.returncode:
        last = (done.stdout + done.stderr).strip()[-600:]
        raise ToolError(f"{Path(command[0]).name} ended with status {done.returncode}: {last}")
    return done.stdout
