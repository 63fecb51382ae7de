"""What GPT-2 and Llama do differently, written out over flat tokens; `model.PagedModel` does what they have in common.

N tokens, H query heads, G key/value heads of size D. Each architecture has the same methods:

    embed(flat) -> x                                        (N, width), with what it needs of the positions
    queries_keys_values(layer, x, flat) -> q, k, v          (N, H, D), (N, G, D), (N, G, D)
    attention_output(layer, attended, flat) -> y            (N, H * D) -> (N, width), to be added to x
    mlp(layer, x, flat) -> y                                (N, width) -> (N, width), to be added to x

and `linear_names`, the layers that an adapter can change. All of these go through `flat.linear`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM

if TYPE_CHECKING:
    from .model import Flat


class GPT2:
    """Learned positions, layer norms, one matrix for queries, keys and values (Radford et al. 2019)."""

    linear_names = ("c_attn", "c_proj", "c_fc")

    def __init__(self, model: GPT2LMHeadModel) -> None:
        config, self.base = model.config, model.transformer
        self.layers, self.norm, self.head = list(self.base.h), self.base.ln_f, model.lm_head
        self.kv_heads, self.head_size = config.n_head, config.n_embd // config.n_head
        scale, by_layer = self.head_size**-0.5, config.scale_attn_by_inverse_layer_idx
        scale = scale if config.scale_attn_weights else 1.0
        self.scales = [scale / (index + 1 if by_layer else 1) for index in range(config.n_layer)]

    def embed(self, flat: Flat) -> Tensor:
        return self.base.wte(flat.ids) + self.base.wpe(flat.positions)

    def queries_keys_values(self, layer: nn.Module, x: Tensor, flat: Flat) -> tuple[Tensor, Tensor, Tensor]:
        together = flat.linear(layer.attn.c_attn, layer.ln_1(x))  # (N, 3 * width)
        return together.view(len(x), 3, -1, self.head_size).unbind(1)

    def attention_output(self, layer: nn.Module, attended: Tensor, flat: Flat) -> Tensor:
        return flat.linear(layer.attn.c_proj, attended)

    def mlp(self, layer: nn.Module, x: Tensor, flat: Flat) -> Tensor:
        inner = layer.mlp.act(flat.linear(layer.mlp.c_fc, layer.ln_2(x)))  # (N, 4 * width)
        return flat.linear(layer.mlp.c_proj, inner)


class Llama:
    """Rotary positions, RMS norms, gated MLP, fewer key/value heads (Touvron et al. 2023); Qwen3's norms of q and k."""

    linear_names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    def __init__(self, model: PreTrainedModel) -> None:
        config, self.base = model.config, model.model
        self.layers, self.norm, self.head = list(self.base.layers), self.base.norm, model.lm_head
        self.kv_heads = config.num_key_value_heads
        self.head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.scales = [self.head_size**-0.5] * len(self.layers)
        if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
            raise ValueError(f"the model's layers are {config.layer_types}; the engine computes full_attention only")
        if self.base.rotary_emb.rope_type in ("dynamic", "longrope"):
            raise ValueError(f"rotary positions of the kind {self.base.rotary_emb.rope_type!r} change with the length")

    def embed(self, flat: Flat) -> Tensor:
        x = self.base.embed_tokens(flat.ids)
        flat.rotation = [part[0, :, None] for part in self.base.rotary_emb(x, flat.positions[None])]  # 2 x (N, 1, D)
        return x

    def queries_keys_values(self, layer: nn.Module, x: Tensor, flat: Flat) -> tuple[Tensor, Tensor, Tensor]:
        attention, x = layer.self_attn, layer.input_layernorm(x)
        projections = attention.q_proj, attention.k_proj, attention.v_proj
        q, k, v = (flat.linear(projection, x).view(len(x), -1, self.head_size) for projection in projections)
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm(q), attention.k_norm(k)
        return rotated(q, *flat.rotation), rotated(k, *flat.rotation), v

    def attention_output(self, layer: nn.Module, attended: Tensor, flat: Flat) -> Tensor:
        return flat.linear(layer.self_attn.o_proj, attended)

    def mlp(self, layer: nn.Module, x: Tensor, flat: Flat) -> Tensor:
        mlp, x = layer.mlp, layer.post_attention_layernorm(x)
        return flat.linear(mlp.down_proj, mlp.act_fn(flat.linear(mlp.gate_proj, x)) * flat.linear(mlp.up_proj, x))


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Pairs (x[i], x[i + D / 2]) of (N, heads, D), turned by angles that grow with the position (Su et al. 2021)."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


KNOWN = {GPT2LMHeadModel: GPT2, LlamaForCausalLM: Llama, Qwen2ForCausalLM: Llama, Qwen3ForCausalLM: Llama}


def architecture_of(model: PreTrainedModel) -> GPT2 | Llama:
    """The forward that fits the model. Raises ValueError if there is none."""
    if type(model) not in KNOWN:
        raise ValueError(
            f"the model is a {type(model).__name__}; the engine's own forward computes "
            f"{', '.join(known.__name__ for known in KNOWN)}. helpers.run_continuous serves any decoder-only model"
        )
    return KNOWN[type(model)](model)


def adaptable_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The linear layers that an adapter can change, by their names in the model."""
    names = KNOWN[type(model)].linear_names
    return {name: layer for name, layer in model.named_modules() if name.rpartition(".")[2] in names}
