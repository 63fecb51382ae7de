"""Loading models: a bundled one, any causal language model by name, and GPT-2's exact size for timing.

Nothing here knows how text is generated. Importing this file loads no model.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from huggingface_hub import HfApi
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

MODELS = Path(__file__).resolve().parent.parent / "models"
BUNDLED = {name: MODELS / name for name in ("storyteller", "storyteller-llama")}  # by the names that `load_model` takes
STORYTELLER = BUNDLED["storyteller"]  # the model of the lessons


def load_model(
    name: str | Path | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, ready for batched generation.

    Args:
        name: a bundled model (`"storyteller"`, `"storyteller-llama"`), which needs no network; a local folder; or a
            model id on the Hugging Face hub such as `"gpt2"` (its local cache is tried first). `None` takes the
            environment variable `COURSE_MODEL`, and without it the storyteller. A folder that is called like a
            bundled model is meant by `"./storyteller"`.
        dtype: of the weights in memory.
        device: `None` takes the GPU when CUDA has one, else the CPU. `"mps"` only on request.

    Returns:
        The model in eval mode, and a tokenizer that pads on the left and has a pad token.

    Raises:
        OSError: the folder is missing, incomplete or damaged, its weights are of another architecture than
            its config, or the model is neither cached nor reachable. Weights are read as safetensors only.
    """
    name = str(name or os.environ.get("COURSE_MODEL") or STORYTELLER)
    name = str(BUNDLED.get(name, name))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = _from_pretrained(AutoTokenizer, name, padding_side="left", truncation_side="left")
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a folder without one
        raise _cannot_load(name, "the tokenizer has no vocabulary; its files are missing")
    model = _read_model(name, dtype)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to(device).eval(), tokenizer


def gpt2_sized(seed: int = 0, dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    """GPT-2 small's exact shape (124 M parameters) with seeded random weights, on the CPU, in eval mode.

    For timing: how long a forward takes depends on the shapes, not on the values. Nothing is
    downloaded, and the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(GPT2Config())
    model.generation_config.pad_token_id = model.config.eos_token_id
    return model.to(dtype).eval()


def vocabulary_size(model: PreTrainedModel) -> int:
    """How many token ids the model can read: the rows of its input embedding."""
    return model.get_input_embeddings().num_embeddings


def eos_token_ids(model: PreTrainedModel) -> frozenset[int]:
    """The ids at which `model.generate` would stop, so that we stop there too."""
    return token_id_set(model.generation_config.eos_token_id)


def token_id_set(ids: int | Collection[int] | None) -> frozenset[int]:
    """One id, several or none, as a set."""
    if ids is None:
        return frozenset()
    return frozenset([ids] if isinstance(ids, int) else ids)


def course_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A copy of the course model and of its tokenizer: what `model=None` and `tokenizer=None` stand for.

    The files are read on first use only. The copy is the caller's own: an adapter that is put into it
    changes nothing for anybody else.
    """
    model, tokenizer = shared_course_model()
    return copy.deepcopy(model), copy.deepcopy(tokenizer)


def shared_course_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The one course model that all calls with `model=None` compute with. It must not be changed or handed out."""
    with _LOADING:  # two first calls at once load it once
        return _load_once(os.environ.get("COURSE_MODEL") or str(STORYTELLER))


_LOADING = Lock()


@lru_cache(maxsize=1)
def _load_once(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_model(name)


# --- Reading from a folder, from the local cache, from the hub ---------------------------------------

LOADED_AT_ONCE_BYTES = 200 * 2**20  # weights that are read in well under two seconds need no progress bar
HUB_ID = re.compile(r"([\w.-]+/)?[\w.-]+")


def _read_model(name: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model with every weight read from its file; transformers would fill those that do not fit with noise."""
    report = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, info = _from_pretrained(AutoModelForCausalLM, name, dtype=dtype, use_safetensors=True, **report)
    unfit = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if unfit:
        asked = f"{unfit[0]} (and {len(unfit) - 1} more)" if len(unfit) > 1 else unfit[0]
        raise _cannot_load(name, f"the config asks for {asked}, and the weights hold none of that name and shape")
    return model


def _from_pretrained(auto_class: Any, name: str, **options: Any) -> Any:
    """Read from disk or the local hub cache; ask the network only when that fails and the name can be a hub id.

    Only errors of reading become "cannot load": running out of memory, for example, is reported as what it is.
    """
    try:
        with _no_bar_for_little(name):
            return auto_class.from_pretrained(name, local_files_only=True, **options)
    except (OSError, ValueError, SafetensorError) as error:
        if _is_folder(name):
            raise _cannot_load(name, _first_line(error)) from error
    _check_hub_has(name)
    try:
        return auto_class.from_pretrained(name, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise _cannot_load(name, _first_line(error)) from error


def _is_folder(name: str) -> bool:
    """Whether the name is a folder, or is written as only a folder's can be."""
    return Path(name).is_dir() or name.startswith((".", "~")) or not HUB_ID.fullmatch(name)


def _check_hub_has(name: str) -> None:
    """One quick question, since transformers would repeat it for most of a minute before it gives up.

    Raises:
        OSError: the hub cannot be reached, or knows no such model.
    """
    try:
        HfApi().model_info(name, timeout=10)
    except Exception as error:  # what is raised differs between versions of huggingface_hub and its HTTP client
        raise _cannot_load(name, _first_line(error)) from error


def _cannot_load(name: str, cause: str) -> OSError:
    if _is_folder(name):
        place = "its folder" if Path(name).is_dir() else f"a folder: {name!r} is none"
    else:
        place = "the local hub cache or the Hugging Face hub, and there is no folder of that name"
    return OSError(
        f"cannot load {name!r} from {place}. Use a folder or a hub id that holds a config, a tokenizer and "
        "safetensors weights; or unset COURSE_MODEL and call load_model() for the bundled storyteller, "
        f"which needs no network. The cause was: {cause}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _no_bar_for_little(name: str) -> Iterator[None]:
    """Keep transformers from drawing its progress bar for weights that are there at once."""
    size = sum(file.stat().st_size for file in Path(name).glob("*.safetensors")) if Path(name).is_dir() else None
    if size is None or size > LOADED_AT_ONCE_BYTES or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
