"""Many LoRA adapters in one step: the tokens are grouped by adapter, and each group gets its own low-rank update.

    y = layer(x)                                                    all tokens
    y[rows] += (x[rows] A^T) (scaling B)^T                          the tokens of one adapter, whatever its rank

The tokens of nobody's adapter are not touched: they stay what they were, bit for bit. Adapters are read from PEFT's
own files or from the state that `utils.lora_state_dict` returns.
"""

from __future__ import annotations

import json
import math
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

from .request import check_number
from .scheduler import Work

Pair = tuple[Tensor, Tensor]  # A (r, in) and B (out, r)
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."

# What PEFT can do beyond plain LoRA. An adapter that uses it would compute something else here.
NOT_COMPUTED = (
    *("alora_invocation_tokens", "alpha_pattern", "arrow_config", "corda_config", "kasa_config", "layer_replication"),
    *("lora_bias", "lora_ga_config", "modules_to_save", "monteclora_config", "rank_pattern", "target_parameters"),
    *("trainable_token_indices", "use_bdlora", "use_dora", "use_qalora", "velora_config"),
)
# Ways to begin a training that leave the base weights as they are.
PLAIN_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(eq=False)
class Adapter:
    """One loading of an adapter.

    Attributes:
        name: what requests ask for.
        identity: a number that no other loading has, were it of the same name: part of the keys of cached blocks.
        weights: A and B of the layers it changes, the scaling in B.
    """

    name: str
    identity: int
    weights: dict[nn.Module, Pair]


@dataclass
class AdapterRows:
    """The flat tokens of a step, (n,) int64, that belong to one adapter."""

    adapter: Adapter
    rows: Tensor

    def add_update(self, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        """Add the adapter's update of this layer to its own rows of y (N, out), given x (N, in)."""
        if layer in self.adapter.weights:
            a, b = self.adapter.weights[layer]
            y.index_add_(0, self.rows, (x[self.rows] @ a.T) @ b.T)  # (n, out)


def adapter_rows(work: Iterable[Work], device: torch.device) -> list[AdapterRows]:
    """Which flat tokens belong to which adapter, the rows of `work` standing one after the other."""
    rows: dict[Adapter, list[int]] = {}
    start = 0
    for request, tokens in work:
        if request.adapter is not None:
            rows.setdefault(request.adapter, []).extend(range(start, start + tokens))
        start += tokens
    return [AdapterRows(adapter, torch.tensor(tokens, device=device)) for adapter, tokens in rows.items()]


# --- Loading -----------------------------------------------------------------------------------------


def read_adapter(source: str | Path | Mapping[str, Tensor], alpha: float | None) -> dict[str, Pair]:
    """A (r, in) and B (out, r), the scaling in B, of every layer by name.

    Args:
        source: a folder that PEFT has saved, or the state that `utils.lora_state_dict` returns.
        alpha: the strength of such a state, which does not hold it; `None` is the rank. Folders say it.

    Raises:
        ValueError: files are missing, damaged, pickled or of something else than plain LoRA.
    """
    if isinstance(source, Mapping):
        if alpha is not None:
            check_number("alpha", alpha, "above 0, and finite", lambda number: 0 < number < math.inf)
        pairs, root = _pairs(source, (".lora_a", ".lora_b")), 1.0
    else:
        if alpha is not None:
            raise ValueError(f"alpha is {alpha}, but {source} is a folder, whose {CONFIG} says it")
        config, state = _peft_config(Path(source)), _peft_weights(Path(source))
        pairs = _pairs(
            {key.removeprefix(PEFT_PREFIX): state[key] for key in state}, (".lora_A.weight", ".lora_B.weight")
        )
        alpha, root = config["lora_alpha"], 0.5 if config.get("use_rslora") else 1.0
    return {layer: (a, b if alpha is None else b * (alpha / len(a) ** root)) for layer, (a, b) in pairs.items()}


def fitted(
    pairs: Mapping[str, Pair], layers: Mapping[str, nn.Module], like: Mapping[str, Any]
) -> dict[nn.Module, Pair]:
    """Copies of the weights, dtype and device as in `like`, by the layers of the model that they belong to.

    Raises:
        ValueError: the adapter is of another model, or holds numbers that are none.
    """
    for name, (a, b) in pairs.items():
        if name not in layers:
            known = sorted({known.rpartition(".")[2] for known in layers})
            raise ValueError(f"the adapter changes {name!r}; layers of this model that can be changed: {known}")
        out_features, in_features = _shape(layers[name])
        if (a.shape[1], b.shape[0]) != (in_features, out_features):
            raise ValueError(
                f"the adapter's A and B of {name!r} are {tuple(a.shape)} and {tuple(b.shape)}; "
                f"the model's layer takes (rank, {in_features}) and ({out_features}, rank)"
            )
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise ValueError(f"the adapter's {name!r} holds NaN or infinity: it is damaged")
    return {layers[name]: (a.to(**like, copy=True), b.to(**like, copy=True)) for name, (a, b) in pairs.items()}


def _shape(layer: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear layer of any kind, packed ones and those with an adapter inside included."""
    layer = getattr(layer, "base_layer", layer)
    return (layer.out_features, layer.in_features) if isinstance(layer, PackedLayer) else shape_of(layer)


def _pairs(state: Mapping[str, Tensor], ends: tuple[str, str]) -> dict[str, Pair]:
    """A and B of every layer, of one rank and nothing else beside."""
    layers = sorted({key.removesuffix(end) for key in state for end in ends if key.endswith(end)})
    expected = {layer + end for layer in layers for end in ends}
    if not layers or expected != state.keys():
        raise ValueError(
            f"an adapter holds {' and '.join(ends)} for every layer it changes, and nothing else; "
            f"missing {sorted(expected - state.keys())}, not understood {sorted(state.keys() - expected)}"
        )
    pairs = {layer: (state[layer + ends[0]], state[layer + ends[1]]) for layer in layers}
    for layer, (a, b) in pairs.items():
        if a.ndim != 2 or b.ndim != 2 or not len(a) or len(a) != b.shape[1]:
            raise ValueError(
                f"the adapter's A and B of {layer!r} are {tuple(a.shape)} and {tuple(b.shape)}; "
                "they must be (rank, in) and (out, rank) with a rank of 1 or more"
            )
    return pairs


def _peft_config(folder: Path) -> dict[str, Any]:
    """What PEFT wrote about the adapter, if it is plain LoRA."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, alpha = config.get("peft_type"), config.get("lora_alpha")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{CONFIG} in {folder} cannot be read: {error}") from error
    beyond = [field for field in NOT_COMPUTED if config.get(field)]
    beyond += ["bias"] if config.get("bias", "none") != "none" else []
    beyond += ["init_lora_weights"] if config.get("init_lora_weights") not in PLAIN_BEGINNINGS else []
    if kind != "LORA" or beyond or isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
        raise ValueError(
            f"{CONFIG} in {folder}: peft_type is {kind!r}, lora_alpha {alpha!r}, further settings {beyond}; "
            "the engine computes plain LoRA with a number as lora_alpha and none of these settings"
        )
    return config


def _peft_weights(folder: Path) -> dict[str, Tensor]:
    """The adapter's weights. Only safetensors are read: a pickle could run any code."""
    file = folder / WEIGHTS
    if not file.is_file():
        pickled = [other.name for other in folder.glob("*.bin")]
        raise ValueError(f"{folder} has no {WEIGHTS}" + (f"; {pickled[0]} is a pickle and not read" if pickled else ""))
    try:
        return load(file.read_bytes())  # not mapped into memory: the file may change while the adapter is in use
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
