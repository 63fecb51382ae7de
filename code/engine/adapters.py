"""Many LoRA adapters in one step: the tokens are grouped by adapter, and each group gets its own low-rank update.

    y = layer(x)                                     all tokens
    y[rows] += (x[rows] A^T) (scaling B)^T           the tokens of one adapter, whatever its rank

The tokens of nobody's adapter are not touched: they stay what they were, bit for bit. Adapters are read from PEFT's
own files or from the state that `utils.lora_state_dict` returns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from linear import shape_of
from packed import PackedLayer

from .request import LARGEST, check_number
from .scheduler import Work

Pair = tuple[Tensor, Tensor]  # A (r, in) and B (out, r)
Groups = list[tuple["Adapter", Tensor]]  # each adapter with its tokens among those of the step, (n,) int64
CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."

# What PEFT can do beyond plain LoRA. An adapter that uses it would compute something else here.
NOT_COMPUTED = (
    *("alora_invocation_tokens", "alpha_pattern", "arrow_config", "corda_config", "kasa_config", "layer_replication"),
    *("lora_bias", "lora_ga_config", "modules_to_save", "monteclora_config", "rank_pattern", "target_parameters"),
    *("trainable_token_indices", "use_bdlora", "use_dora", "use_qalora", "velora_config"),
)
PLAIN_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")  # others change the base weights


@dataclass(eq=False)
class Adapter:
    """One loading of an adapter."""

    name: str
    identity: int  # no other loading has it, were it of the same name: part of the keys of cached blocks
    weights: dict[nn.Module, Pair]  # of the layers it changes, the scaling in B


def grouped(work: Iterable[Work], device: torch.device) -> Groups:
    """Which tokens belong to which adapter, the rows of `work` standing one after the other."""
    rows: dict[Adapter, list[int]] = {}
    start = 0
    for request, tokens in work:
        if request.adapter is not None:
            rows.setdefault(request.adapter, []).extend(range(start, start + tokens))
        start += tokens
    return [(adapter, torch.tensor(tokens, device=device)) for adapter, tokens in rows.items()]


def read_adapter(source: str | Path | Mapping[str, Tensor], alpha: float | None) -> dict[str, Pair]:
    """A (r, in) and B (out, r), the scaling in B, of every layer by name; arguments and errors as `load_adapter`'s."""
    if isinstance(source, Mapping):
        check_number("alpha", 1 if alpha is None else alpha, 0, LARGEST, kind=float)
        pairs, root = _pairs(source, (".lora_a", ".lora_b")), 1.0
    else:
        if alpha is not None:
            raise ValueError(f"alpha is {alpha}, but {source} is a folder, whose {CONFIG} says it")
        config, state = _peft_config(Path(source)), _peft_weights(Path(source))
        pairs = _pairs({name.removeprefix(PREFIX): state[name] for name in state}, (".lora_A.weight", ".lora_B.weight"))
        alpha, root = config["lora_alpha"], 0.5 if config.get("use_rslora") else 1.0
    return {
        name: (a, b if alpha is None else b.double() * (alpha / max(1, len(a)) ** root))
        for name, (a, b) in pairs.items()
    }


def fitted(pairs: dict[str, Pair], layers: dict[str, nn.Module], like: dict[str, Any]) -> dict[nn.Module, Pair]:
    """Copies of the weights, dtype and device as in `like`, by the layers of the model that they belong to.

    Raises ValueError if the adapter is of another model, or holds NaN or infinity.
    """
    for name, (a, b) in pairs.items():
        if name not in layers:
            known = sorted({known.rpartition(".")[2] for known in layers})
            raise ValueError(f"the adapter changes {name!r}; layers of this model that can be changed: {known}")
        (out_features, in_features), rank = _shape(layers[name]), len(a)
        if not rank or (a.shape, b.shape) != ((rank, in_features), (out_features, rank)):
            given = f"the adapter's A and B of {name!r} are {tuple(a.shape)} and {tuple(b.shape)}"
            raise ValueError(f"{given}; the model's layer takes (rank, {in_features}) and ({out_features}, rank)")
        if not (a.isfinite().all() and b.isfinite().all()):
            raise ValueError(f"the adapter's {name!r} holds NaN or infinity: it is damaged")
    return {layers[name]: (a.to(**like, copy=True), b.to(**like, copy=True)) for name, (a, b) in pairs.items()}


def _shape(layer: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear layer of any kind, packed ones and those with an adapter inside included."""
    layer = getattr(layer, "base_layer", layer)
    return (layer.out_features, layer.in_features) if isinstance(layer, PackedLayer) else shape_of(layer)


def _pairs(state: Mapping[str, Tensor], ends: tuple[str, str]) -> dict[str, Pair]:
    """A and B of every layer, if there is nothing else beside."""
    names = sorted({key.removesuffix(end) for key in state for end in ends if key.endswith(end)})
    expected = {name + end for name in names for end in ends}
    if not names or expected != state.keys() or any(weight.ndim != 2 for weight in state.values()):
        given = f"missing {sorted(expected - state.keys())}, not understood {sorted(state.keys() - expected)}"
        raise ValueError(f"an adapter is two matrices for every layer it changes, {' and '.join(ends)}, only; {given}")
    return {name: (state[name + ends[0]], state[name + ends[1]]) for name in names}


def _peft_config(folder: Path) -> dict[str, Any]:
    """What PEFT wrote about the adapter, if it is plain LoRA."""
    try:
        config = dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{CONFIG} in {folder} cannot be read: {error}") from error
    beyond = [name for name in NOT_COMPUTED if config.get(name)]
    beyond += ["bias"] if config.get("bias", "none") != "none" else []
    beyond += ["init_lora_weights"] if config.get("init_lora_weights") not in PLAIN_BEGINNINGS else []
    kind, alpha = config.get("peft_type"), config.get("lora_alpha")
    if kind != "LORA" or beyond or type(alpha) not in (int, float):
        given = f"{CONFIG} in {folder}: peft_type is {kind!r}, lora_alpha {alpha!r}, further settings {beyond}"
        raise ValueError(f"{given}; the engine computes plain LoRA, lora_alpha a number, and none of these settings")
    return config


def _peft_weights(folder: Path) -> dict[str, Tensor]:
    """The adapter's weights. Only safetensors are read: a pickle could run any code."""
    file = folder / WEIGHTS
    if not file.is_file():
        pickled = [f"; {other.name} is a pickle and not read" for other in folder.glob("*.bin")]
        raise ValueError(f"{folder} has no {WEIGHTS}{''.join(pickled)}")
    try:
        return load(file.read_bytes())  # not mapped into memory: the file may change while the adapter is in use
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
