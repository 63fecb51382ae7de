"""Exercise 5.6: a LoRA layer, tried on small layers and then trained inside the storyteller's attention."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from exercises.checking import NotAttempted, Wrong, difference, exercise, normal, running, short
from models import load_model

from .parts import as_linear

RANK, ALPHA, STEPS, LEARNING_RATE = 8, 32.0, 8, 5e-3  # of the training in the storyteller

PIRATE_SENTENCES = (
    "The old fox growled, and the mouse ran to the ship. Arr!",
    "Once upon a time there was a matey who lived by the sea. Arr!",
    "One morning the owl went to the port. Arr!",
    '"Where is me lamp?" growled the rabbit. Arr!',
)

# (x A B (..., out), base(x) (..., out), alpha / rank, rank) -> y (..., out)
Mistake = Callable[[Tensor, Tensor, float, int], Tensor]


@exercise("a new adapter changes nothing, only A and B learn, and merged into its layer it costs nothing per token")
def check_lora_layer(adapter_class: Any) -> str:
    """Exercise 5.6: a LoRA layer that starts as its base, trains its two factors alone, and can be merged."""
    if not inspect.isclass(adapter_class):
        raise Wrong(f"expected a class, got {short(adapter_class)}")
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(0)
        cases = {
            "a layer of 6 to 4": (nn.Linear(6, 4), 2, 6.0),
            "a square layer": (nn.Linear(5, 5), 3, 1.5),
            "a layer without a bias": (nn.Linear(7, 3, bias=False), 1, 4.0),
        }
        for case, (base, rank, alpha) in cases.items():
            _check_small_layer(adapter_class, base, rank, alpha, case)
        return _check_in_the_storyteller(adapter_class)


def _check_small_layer(adapter_class: type, base: nn.Linear, rank: int, alpha: float, case: str) -> None:
    """Complain about a layer around this base, step by step from its making to its merging."""
    original = _state(base)
    layer = _made(adapter_class, base, rank, alpha, case)
    _check_factors(layer, base, rank, case)
    _check_what_is_trained(layer, base, case)
    with running(adapter_class, case):
        again = adapter_class(base, rank, alpha)
    if torch.equal(layer.lora_a, again.lora_a):
        raise Wrong(f"wrong for {case}: two new layers have the same lora_a; it is to be drawn at random")
    _check_forward(layer, base, alpha / rank, case)
    _check_gradients(layer, case)
    _check_base(base, original, f"wrong for {case}: the base layer's weights were changed; only the factors may change")
    _check_merge(layer, base, alpha / rank, case)
    _check_shared_base(layer, base, case)


def _state(base: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in base.named_parameters()}


def _check_base(base: nn.Module, original: Mapping[str, Tensor], complaint: str) -> None:
    if not all(torch.equal(tensor, original[name]) for name, tensor in base.named_parameters()):
        raise Wrong(complaint)


def _made(adapter_class: type, base: nn.Linear, rank: int, alpha: float, case: str) -> nn.Module:
    """A layer of the learner's around this base; a blank class counts as not attempted."""
    with running(adapter_class, case):
        layer = adapter_class(base, rank, alpha)
    if not isinstance(layer, nn.Module):
        raise Wrong("the class must be an nn.Module")
    missing = [name for name in ("lora_a", "lora_b") if not isinstance(getattr(layer, name, None), Tensor)]
    if missing:
        if len(missing) == 2 and _is_blank(layer, normal(2, base.in_features)):
            raise NotAttempted
        raise Wrong(f"wrong for {case}: the layer has no {' and no '.join(missing)}")
    return layer


def _is_blank(layer: nn.Module, x: Tensor) -> bool:
    """Whether the forward, too, has not been written yet."""
    try:
        return layer.forward(x) is None
    except NotImplementedError:
        return True
    except Exception:
        return False


def _check_factors(layer: nn.Module, base: nn.Linear, rank: int, case: str) -> None:
    """Complain unless both factors are parameters of the right shapes, A random and B zero."""
    shapes = {"lora_a": (base.in_features, rank), "lora_b": (rank, base.out_features)}
    for name, shape in shapes.items():
        factor = getattr(layer, name)
        if not isinstance(factor, nn.Parameter):
            raise Wrong(f"{name} is a plain tensor; an optimizer finds only what is an nn.Parameter")
        if tuple(factor.shape) != shape:
            raise Wrong(f"wrong for {case}: {name} has the shape {tuple(factor.shape)}, {shape} is asked for")
        if factor.dtype != torch.float32 or not torch.isfinite(factor).all():
            raise Wrong(f"wrong for {case}: {name} must hold finite float32 numbers")
    if layer.lora_b.any():
        raise Wrong(f"wrong for {case}: lora_b does not start as zeros, so a new adapter changes the answers")
    if not layer.lora_a.any():
        raise Wrong(f"wrong for {case}: where both factors are zero, neither ever gets a gradient")
    if layer.lora_a.numel() > 1 and (layer.lora_a == layer.lora_a.flatten()[0]).all():
        raise Wrong(f"wrong for {case}: all numbers of lora_a are the same; they are to be random")


def _check_what_is_trained(layer: nn.Module, base: nn.Linear, case: str) -> None:
    """Complain unless the two factors, and nothing else, require a gradient."""
    if any(parameter.requires_grad for parameter in base.parameters()):
        raise Wrong(f"wrong for {case}: the base layer still asks for gradients; it is to be frozen")
    trained = {name for name, parameter in layer.named_parameters() if parameter.requires_grad}
    if missing := {"lora_a", "lora_b"} - trained:
        raise Wrong(f"wrong for {case}: {' and '.join(sorted(missing))} cannot be trained")
    if other := trained - {"lora_a", "lora_b"}:
        raise Wrong(f"wrong for {case}: something else than the two factors would be trained: {sorted(other)[0]}")


# --- Forward, gradients, merging ------------------------------------------------------------------------

FORWARD_MISTAKES: dict[str, Mistake] = {
    "the update is missing": lambda update, base, scaling, rank: base,
    "the base layer's own answer is missing": lambda update, base, scaling, rank: scaling * update,
    "the update is not scaled": lambda update, base, scaling, rank: base + update,
    "the scaling is applied to the base layer's answer too": lambda update, base, scaling, rank: (
        scaling * (base + update)
    ),
    "the base layer's answer is added twice": lambda update, base, scaling, rank: 2 * base + scaling * update,
    "the update is subtracted": lambda update, base, scaling, rank: base - scaling * update,
    "alpha is not divided by the rank": lambda update, base, scaling, rank: base + scaling * rank * update,
    "alpha is divided by the root of the rank": lambda update, base, scaling, rank: base + scaling * rank**0.5 * update,
    "the update is scaled twice": lambda update, base, scaling, rank: base + scaling**2 * update,
}


def _check_forward(layer: nn.Module, base: nn.Linear, scaling: float, case: str) -> None:
    """Complain unless the layer starts as its base, and answers by the formula once its factors are set."""
    inputs = [normal(base.in_features), normal(5, base.in_features), normal(2, 3, base.in_features)]
    for x in inputs:
        complaint = difference(_answer(layer, x, case), base(x))
        if complaint is not None:
            raise Wrong(f"wrong for {case}: a new layer does not answer as its base does: {complaint}")
    _set_factors(layer)
    for x in inputs:
        y, right = _answer(layer, x, case), base(x)
        update = x @ layer.lora_a.detach() @ layer.lora_b.detach()  # (..., in) -> (..., rank) -> (..., out)
        complaint = difference(y, right + scaling * update)
        if complaint is not None:
            hint = _only_hint(
                {
                    why: mistaken(update, right, scaling, layer.lora_b.shape[0])
                    for why, mistaken in FORWARD_MISTAKES.items()
                },
                y,
            )
            raise Wrong(f"wrong for {case} with lora_a and lora_b as after a training: {hint or complaint}")


def _only_hint(mistakes: Mapping[str, Tensor], answer: Any) -> str | None:
    """The explanation of the one mistake that leads to this answer; `None` if none does, or more than one."""
    hints = [why for why, mistaken in mistakes.items() if difference(answer, mistaken) is None]
    return hints[0] if len(hints) == 1 else None


def _set_factors(layer: nn.Module) -> None:
    """Give both factors the values that a training could have left there."""
    layer.lora_a.data.copy_(normal(*layer.lora_a.shape, seed=1))
    layer.lora_b.data.copy_(normal(*layer.lora_b.shape, seed=2))


def _answer(layer: nn.Module, x: Tensor, case: str) -> Tensor:
    """What the layer returns for x (..., in); nothing means that its forward has not been written yet."""
    with running(type(layer), f"{case} and an input of shape {tuple(x.shape)}"):
        y = layer(x)
    if y is None or y is Ellipsis:
        raise NotAttempted("forward returns nothing")
    return y


def _check_gradients(layer: nn.Module, case: str) -> None:
    """Complain unless both factors, and they alone, get a gradient."""
    layer.zero_grad()
    y = _answer(layer, normal(5, layer.lora_a.shape[0]), case)
    if not y.requires_grad:
        raise Wrong(f"wrong for {case}: no gradient comes back from the answer to lora_a and lora_b")
    y.square().sum().backward()
    for name in ("lora_a", "lora_b"):
        gradient = getattr(layer, name).grad
        if gradient is None or not gradient.any():
            raise Wrong(f"wrong for {case}: {name} gets no gradient, so it would never learn")
    layer.zero_grad()


def _check_merge(layer: nn.Module, base: nn.Linear, scaling: float, case: str) -> None:
    """Complain unless `merge` returns one linear layer with the same answers, and leaves everything else alone."""
    x, original = normal(5, base.in_features), _state(base)
    before = _answer(layer, x, case).detach()
    with running(type(layer), f"merging {case}"):
        merged = layer.merge()
    if merged is None or merged is Ellipsis:
        raise NotAttempted("merge returns nothing; all before it is right")
    _check_base(base, original, f"merging {case} changed the base layer, which other adapters use as well")
    if not isinstance(merged, nn.Linear):
        raise Wrong(f"merge returns {short(merged)}, not an nn.Linear")
    with running(type(layer), f"using what merging {case} returns"):
        y = merged(x)
    if difference(y, before) is not None:
        product = layer.lora_a.detach() @ layer.lora_b.detach()  # (in, out)
        bias = 0 if base.bias is None else base.bias.detach()
        mistakes = {
            "the update is missing": base(x),
            "the base layer's weight is missing": x @ product * scaling + bias,
            "the update is not scaled": base(x) + x @ product,
        }
        if base.bias is not None:
            mistakes["the base layer's bias is missing"] = before - bias
            if merged.bias is not None and merged.bias.any():
                mistakes["the bias is not that of the base layer"] = before - bias + merged.bias.detach()
        if base.in_features == base.out_features:
            mistakes["an nn.Linear keeps its weight as (out, in)"] = base(x) + scaling * (x @ product.T)
        reason = _only_hint(mistakes, y) or "the merged layer answers otherwise than the adapter"
        raise Wrong(f"wrong for {case}: merge: {reason}")
    if difference(_answer(layer, x, case), before) is not None:
        raise Wrong(f"wrong for {case}: after merge the adapter itself answers otherwise")


def _check_shared_base(layer: nn.Module, base: nn.Linear, case: str) -> None:
    """Complain if the layer computes with a copy of its base. Changes the base, so this comes last."""
    x = normal(2, base.in_features)
    before = _answer(layer, x, case).detach()
    base.weight.data += 1.0
    if difference(_answer(layer, x, case), before) is None:
        raise Wrong(f"wrong for {case}: the layer computes with a copy of its base; all adapters are to share one")


# --- In the storyteller ---------------------------------------------------------------------------------


def _check_in_the_storyteller(adapter_class: type) -> str:
    """Complain unless adapters on the storyteller's attention learn a few sentences of pirates, and can be merged."""
    model, tokenizer = load_model(device="cpu")
    ids, mask = _padded(tokenizer)
    model.requires_grad_(False)
    names = [name for name, _ in model.named_modules() if name.endswith(".attn.c_attn")]
    with running(adapter_class, "the storyteller's attention"):
        for name in names:
            model.set_submodule(name, adapter_class(as_linear(model.get_submodule(name)), RANK, ALPHA))
        losses = _train(model, ids, mask)
    if not losses[-1] < 0.9 * losses[0]:
        raise Wrong(f"right for small layers, but in the storyteller {STEPS} steps of training do not lower the loss")
    with torch.no_grad():
        trained = model(input_ids=ids, attention_mask=mask).logits
        for name in names:
            model.set_submodule(name, model.get_submodule(name).merge())
        merged = model(input_ids=ids, attention_mask=mask).logits
    if not torch.allclose(trained, merged, atol=1e-2):
        raise Wrong("right for small layers, but the storyteller with merged layers gives other logits")
    return f"yours took the loss on {len(ids)} sentences of pirates from {losses[0]:.1f} to {losses[-1]:.1f} nats"


def _padded(tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """The sentences as ids and mask (N, S), padded on the right: nothing is generated here."""
    data = tokenizer(list(PIRATE_SENTENCES), return_tensors="pt", padding=True, padding_side="right")
    return data["input_ids"], data["attention_mask"]


def _train(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> list[float]:
    """A few steps with whatever asks for a gradient; the mean loss before each step and after the last (nats)."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    labels = ids.masked_fill(mask == 0, -100)[:, 1:]  # (N, S-1); -100: no loss on padding
    losses = []
    for step in range(STEPS + 1):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]  # (N, S-1, V)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        losses.append(loss.item())
        if step < STEPS:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses
