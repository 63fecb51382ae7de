"""The models that the servers are given, each as a folder with a tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers import gpt2_sized
from models import STORYTELLER


def write_storyteller(parent: Path) -> Path:
    """The bundled model."""
    return Path(shutil.copytree(STORYTELLER, parent / "storyteller"))


def write_gpt2_sized(parent: Path) -> Path:
    """GPT-2 small's shape with random weights, and a tokenizer whose every token is a word: "w0 w1 w2"."""
    folder, model = parent / "gpt2-sized", gpt2_sized()
    model.save_pretrained(folder)
    word_tokenizer(model.config.vocab_size).save_pretrained(folder)
    return folder


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """`size` tokens, written "w0", "w1" and so on, with spaces between them; the last one ends a text."""
    vocabulary = {f"w{index}": index for index in range(size)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    last = f"w{size - 1}"
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=last, pad_token=last, padding_side="left")
