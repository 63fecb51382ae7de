"""CTranslate2 for `peers.py`. Its `generate_batch` is static: a batch ends when its slowest row does."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import ctranslate2  # before torch: each brings an OpenMP of its own
import transformers

from peer_worker import RequestIds, Serve

PACKAGES = ("ctranslate2", "torch", "transformers")
COMPUTE_TYPES = {"fp32": "float32", "int8": "int8"}


class NumberTokens:
    """Stands in for a tokenizer: the token with id 7 is called "7"."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.bos_token = self.eos_token = self.unk_token = str(vocabulary - 1)

    def get_vocab(self) -> dict[str, int]:
        """Names and ids."""
        return {str(token): token for token in range(self.vocabulary)}


class Converter(ctranslate2.converters.TransformersConverter):
    """Reads weights and config; the folder has no tokenizer."""

    def load_tokenizer(self, tokenizer_class: type, folder: str, **options: object) -> NumberTokens:
        """A stand-in instead of the tokenizer."""
        return NumberTokens(transformers.AutoConfig.from_pretrained(folder).vocab_size)


def load(variant: str, folder: Path, slots: int, threads: int, device: str) -> Serve:
    """`fp32` or `int8`; the latter quantizes while it loads."""
    converted = folder / "ctranslate2"
    if not converted.exists():
        Converter(str(folder)).convert(str(converted))
    generator = ctranslate2.Generator(
        str(converted), device, compute_type=COMPUTE_TYPES[variant], inter_threads=1, intra_threads=threads
    )
    return partial(serve, generator, slots)


def serve(generator: ctranslate2.Generator, slots: int, requests: list[RequestIds]) -> list[list[int]]:
    """Serve batches of `slots` requests, each until its largest budget is reached."""
    tokens = []
    for start in range(0, len(requests), slots):
        batch = requests[start : start + slots]
        longest = max(budget for _, budget in batch)
        results = generator.generate_batch(
            [list(map(str, prompt)) for prompt, _ in batch],
            max_length=longest,
            end_token=[],  # nothing ends early
            include_prompt_in_result=False,
        )
        tokens += [list(result.sequences_ids[0][:budget]) for result, (_, budget) in zip(results, batch, strict=True)]
    return tokens
