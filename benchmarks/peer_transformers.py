"""transformers' own `generate` and continuous batching manager, as systems for `peers.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, PreTrainedModel

from peer_worker import RequestIds, Serve

PACKAGES = ("torch", "transformers")


def load(variant: str, folder: Path, slots: int, threads: int, device: str) -> Serve:
    """`static`: `generate`. `manager`: continuous batching, `manager-open` with as many slots as requests."""
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    model.generation_config.do_sample = False
    if variant == "static":
        return partial(serve_static, model, slots)
    return partial(serve_continuous, start_manager(model, slots if variant == "manager" else None))


@torch.inference_mode()
def serve_static(model: PreTrainedModel, slots: int, requests: list[RequestIds]) -> list[list[int]]:
    """Serve batches of `slots` requests, each until its largest budget is reached."""
    tokens = []
    for start in range(0, len(requests), slots):
        batch = requests[start : start + slots]
        width = max(len(prompt) for prompt, _ in batch)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in batch])  # (B, T)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in batch])  # (B, T)
        longest = max(budget for _, budget in batch)
        output = model.generate(ids.to(model.device), attention_mask=mask.to(model.device), max_new_tokens=longest)
        answers = output[:, width:].tolist()
        tokens += [row[:budget] for row, (_, budget) in zip(answers, batch, strict=True)]
    return tokens


def start_manager(model: PreTrainedModel, slots: int | None):
    """A running manager. While it has no requests, its thread looks for new ones about ten times a second."""
    config = ContinuousBatchingConfig(page_size=64, num_blocks=128, max_batch_tokens=256, max_requests_per_batch=slots)
    manager = model.init_continuous_batching(continuous_batching_config=config)
    manager.start()
    return manager


def serve_continuous(manager, requests: list[RequestIds]) -> list[list[int]]:
    """Put all requests into the manager's queue at once."""
    names = [manager.add_request(prompt, max_new_tokens=budget, eos_token_id=-1) for prompt, budget in requests]
    tokens: dict[str, list[int]] = {}
    while len(tokens) < len(names):
        result = manager.get_result(timeout=1)
        if result is None and not manager.is_running():
            raise RuntimeError("the manager's thread has ended")
        if result is not None and result.error is not None:
            raise RuntimeError(result.error)
        if result is not None and result.is_finished():
            tokens[result.request_id] = result.generated_tokens
    return [tokens[name] for name in names]
