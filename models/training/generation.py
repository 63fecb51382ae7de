"""A trained model with its tokenizer: loading it, encoding texts, and continuing prompts."""

from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def load_storyteller(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A bundled model in float32, ready to run, and its tokenizer; nothing is looked up on a network."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, without padding: an earlier call may have left it switched on."""
    tokenizer.backend_tokenizer.no_padding()
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(texts)]


def chunks(items: list, size: int) -> Iterator[list]:
    """Cut a list into pieces of `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


@torch.no_grad()
def continue_prompts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], new_tokens: int, **sampling
) -> list[dict]:
    """The continuations of some prompts as one batch: text, and whether it ended by itself."""
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    ids = model.generate(**inputs, max_new_tokens=new_tokens, **sampling)[:, inputs["input_ids"].shape[1] :]  # (B, new)
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    ended = (ids == tokenizer.eos_token_id).any(dim=1).tolist()
    return [
        {"prompt": prompt, "continuation": text, "ended": end}
        for prompt, text, end in zip(prompts, texts, ended, strict=True)
    ]
