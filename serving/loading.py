"""The model, its adapters and its chat template, read once at the start. Nothing else here opens a file of theirs.

Clients choose adapters by name, and a name is only ever looked up among those that were loaded: no name that comes
over the network reaches the file system.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import time

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from engine import Engine
from models import MODELS, load_model
from packed import pack_model
from utils import quantize_model

DEFAULT_MODEL, DEFAULT_ADAPTERS = MODELS / "storyteller-llama", MODELS / "adapters"
WEIGHTS = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}  # the dtype that files are read in
ADAPTER_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
STOP_IN_TEMPLATE = re.compile(r"stop = (\[.*?\])")  # in a comment of a chat template
STEP_TOKENS = 256


@dataclass
class Served:
    """What a server serves."""

    engine: Engine
    name: str  # of the model
    adapters: list[str]
    weights: str  # "fp32", "bf16" or "int8"
    tokenizer: PreTrainedTokenizerBase  # a copy for the prompts: the engine's belongs to the engine's thread
    chat_stop: tuple[str, ...]  # strings that end every answer in a chat
    created: int  # when it was loaded, in seconds since 1970

    @property
    def models(self) -> list[str]:
        """The names that a request may give: the model, then its adapters."""
        return [self.name, *self.adapters]

    @property
    def context(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        engine = self.engine
        positions = getattr(engine.model.config.get_text_config(), "max_position_embeddings", None)
        room = engine.scheduler.blocks.count * engine.scheduler.blocks.block_tokens + 1  # nobody reads the last token
        return room if positions is None else min(positions, room)


def load(
    model: str | Path | None = None,
    adapters: str | Path | None = None,
    *,
    weights: str = "fp32",
    rows: int = 8,
    cache_tokens: int = 8192,
    queue: int = 256,
) -> Served:
    """Read a model (a folder or a hub id; `None` is the bundled one) and all adapters of a folder.

    Args:
        weights: one of `WEIGHTS`.
        rows: so many requests run at a time; beside them, so many wait as `queue` says.
        cache_tokens: the KV cache has room for so many tokens.

    Raises:
        OSError: the model cannot be loaded. ValueError: something else is wrong, and the message says what.
    """
    name, shown, found = find(model, adapters)
    # OpenMP keeps worker threads for every thread that has computed. While all of them are more than there are cores,
    # they sleep between two operations instead of waiting awake, and a small model is half as fast. So whoever loads
    # the model ends afterwards, and the thread that will serve is the only one with workers.
    with ThreadPoolExecutor(1) as loader:
        engine = loader.submit(_engine, name, found, weights, rows, cache_tokens, queue).result()
    prompts = copy.deepcopy(engine.tokenizer)
    return Served(engine, shown, list(found), weights, prompts, stop_strings(prompts), int(time()))


def find(model: str | Path | None, adapters: str | Path | None) -> tuple[str, str, dict[str, Path]]:
    """What there is to load: the model's folder or hub id, the name that requests give it, and its adapters by name.

    Raises ValueError: something is wrong with the adapters' folder, or one of them has the model's name.
    """
    if model is None:
        model, adapters = DEFAULT_MODEL, adapters or DEFAULT_ADAPTERS
    shown = Path(model).resolve().name if Path(model).is_dir() else str(model)
    found = adapter_folders(adapters) if adapters else {}
    if shown in found:
        raise ValueError(f"an adapter in {adapters} has the model's name, {shown!r}; rename its folder")
    return str(model), shown, found


def _engine(model: str, adapters: Mapping[str, Path], weights: str, rows: int, cache_tokens: int, queue: int) -> Engine:
    """An engine with the model and the adapters."""
    transformer, tokenizer = load_model(model, dtype=WEIGHTS[weights])
    engine = Engine(
        fastest(transformer, weights),
        tokenizer,
        max_rows=rows,
        step_tokens=max(STEP_TOKENS, rows),
        cache_tokens=cache_tokens,
        max_waiting=rows + queue,
    )
    for name, folder in adapters.items():
        engine.load_adapter(name, folder)
    return engine


def fastest(model: PreTrainedModel, weights: str) -> PreTrainedModel:
    """The model with the wanted weights, packed for this CPU if it is on the CPU."""
    model = quantize_model(model) if weights == "int8" else model
    return pack_model(model) if model.device.type == "cpu" else model


def adapter_folders(parent: str | Path) -> dict[str, Path]:
    """The folders in `parent`, by name: each is to hold an adapter. Files and hidden folders are passed over.

    Raises:
        ValueError: there is no such folder; a name is none that can stand in a request; something is a link, which
            could lead out of the folder.
    """
    if not Path(parent).is_dir():
        raise ValueError(f"the adapters' folder is {str(parent)!r}; there is none")
    folders = {}
    for folder in sorted(Path(parent).iterdir()):
        if folder.name.startswith((".", "__")) or (folder.is_file() and not folder.is_symlink()):
            continue
        if not ADAPTER_NAME.fullmatch(folder.name):
            raise ValueError(f"adapter {folder.name!r}: a name has letters, digits, '-', '_' and '.' only")
        links = [str(path) for path in (folder, *folder.rglob("*")) if path.is_symlink()]
        if links:
            raise ValueError(f"adapter {folder.name!r} has links: {links}; put the files themselves there")
        folders[folder.name] = folder
    return folders


def stop_strings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Strings that end an answer in a chat. A template names them in a comment, in JSON: stop = ["Question:"]."""
    found = STOP_IN_TEMPLATE.search(tokenizer.chat_template) if isinstance(tokenizer.chat_template, str) else None
    return tuple(json.loads(found[1])) if found else ()
