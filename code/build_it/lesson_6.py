"""Exercise 6.6: a linear layer for a batch of several adapters, tried on small layers and then in storyteller-llama."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from engine import Engine, Sampling
from engine.adapters import read_adapter
from engine.architectures import adaptable_layers
from exercises.checking import NotAttempted, Wrong, difference, exercise, normal, running, short
from models import MODELS, load_model

VOICES = ("pirate", "whisper", "telegram", "verse")
PROMPT, NEW_TOKENS = "Once upon a time there was a", 16
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv")  # what PyTorch calls the products that do the work

Adapter = tuple[Tensor, Tensor, float]  # a (r, in), b (out, r) and the scaling
Names = list[str | None]  # of the adapter of each row
# (base(x) (B, T, out), each row's own a b scaling x (B, T, out), zeros where it has none) -> y (B, T, out)
Mistake = Callable[[Tensor, Tensor], Tensor]


@exercise("one product with the base serves all rows, and each adapter adds its own to the rows that asked for it")
def check_grouped_layer(layer_class: Any) -> str:
    """Exercise 6.6: a linear layer that keeps adapters by name, and computes a batch of rows of any of them."""
    if not inspect.isclass(layer_class):
        raise Wrong(f"expected a class, got {short(layer_class)}")
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(0)
        for case, base in (
            ("a layer of 6 to 4", nn.Linear(6, 4)),
            ("a square layer", nn.Linear(5, 5)),
            ("a layer without a bias", nn.Linear(3, 7, bias=False)),
        ):
            _check_small_layer(layer_class, base, case)
    return _check_in_the_storyteller(layer_class)


def _adapters(base: nn.Linear, ranks: Mapping[str, int]) -> dict[str, Adapter]:
    """An adapter for each name, of this rank and with a scaling of its own."""
    return {
        name: (
            normal(rank, base.in_features, seed=2 * seed),
            normal(base.out_features, rank, seed=2 * seed + 1),
            0.5 + seed,
        )
        for seed, (name, rank) in enumerate(ranks.items(), start=1)
    }


def _check_small_layer(layer_class: type, base: nn.Linear, case: str) -> None:
    """Complain about a layer around this base, from its making to the removal of an adapter."""
    with running(layer_class, case):
        layer = layer_class(base)
    if not isinstance(layer, nn.Module):
        raise Wrong("the class must be an nn.Module")
    original = {name: tensor.detach().clone() for name, tensor in base.named_parameters()}
    _check_rows(layer, base, {}, [None, None], f"{case} without adapters")
    adapters = _adapters(base, {"pirate": 1, "whisper": 3, "verse": 2})
    with running(layer_class, f"adding adapters to {case}"):
        for name, (a, b, scaling) in adapters.items():
            layer.add(name, a, b, scaling)
    for names in (
        ["pirate"],
        ["whisper", "whisper"],
        ["pirate", None, "whisper", "pirate", "verse", None],
        ["verse", "pirate", "verse"],
        ["nobody", "pirate"],
    ):
        _check_rows(layer, base, adapters, names, f"{case} and the rows {names}")
    _check_products(layer, base, case)
    _check_bits(layer, base, case)
    with running(layer_class, f"removing an adapter from {case}"):
        layer.remove("whisper")
    del adapters["whisper"]
    _check_rows(layer, base, adapters, ["whisper", "pirate", None], f"{case} after whisper was removed")
    if not all(torch.equal(tensor, original[name]) for name, tensor in base.named_parameters()):
        raise Wrong(f"wrong for {case}: the base layer's weights were changed; all adapters share them")
    _check_shared_base(layer, base, case)


MISTAKES: dict[str, Mistake] = {
    "the adapters' updates are missing": lambda base, update: base,
    "the base layer's own answer is missing": lambda base, update: update,
    "the updates are subtracted": lambda base, update: base - update,
    "the base layer's answer is added twice": lambda base, update: 2 * base + update,
}


def _check_rows(layer: nn.Module, base: nn.Linear, adapters: Mapping[str, Adapter], names: Names, case: str) -> None:
    """Complain unless every row gets its own adapter's update, and a row without one the base's answer."""
    for tokens in (1, 3):
        x = normal(len(names), tokens, base.in_features)
        given = x.clone()
        with torch.no_grad():
            right, update = base(x), _updates(x, adapters, names, base.out_features)
            y = _answer(layer, x, names, case)
        if not torch.equal(x, given):
            raise Wrong(f"wrong for {case}: x was changed; other layers read it too")
        complaint = difference(y, right + update)
        if complaint is not None:
            hints = [why for why, mistaken in MISTAKES.items() if difference(y, mistaken(right, update)) is None]
            unscaled = {name: (a, b, 1.0) for name, (a, b, _) in adapters.items()}
            if difference(y, right + _updates(x, unscaled, names, base.out_features)) is None:
                hints.append("the updates are not scaled")
            raise Wrong(f"wrong for {case}: {hints[0] if len(hints) == 1 else complaint}")


def _updates(x: Tensor, adapters: Mapping[str, Adapter], names: Names, out_features: int) -> Tensor:
    """Row by row, (B, T, out): what each row's adapter adds."""
    rows = []
    for row, name in zip(x, names, strict=True):
        if name in adapters:
            a, b, scaling = adapters[name]
            rows.append(scaling * (row @ a.T @ b.T))
        else:
            rows.append(row.new_zeros(len(row), out_features))
    return torch.stack(rows)


def _answer(layer: nn.Module, x: Tensor, names: Names, case: str) -> Tensor:
    """What the layer returns for x (B, T, in); nothing means that its forward has not been written yet."""
    with running(type(layer), case):
        y = layer(x, list(names))
    if y is None or y is Ellipsis:
        raise NotAttempted("forward returns nothing")
    return y


class _Products(TorchDispatchMode):
    """Counts the matrix products that are computed while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += func.overloadpacket.__name__ in PRODUCTS
        return func(*args, **(kwargs or {}))


def _check_products(layer: nn.Module, base: nn.Linear, case: str) -> None:
    """Complain about more products than one for the base and two for each adapter."""
    names: Names = ["pirate", "whisper"] * 4
    with torch.no_grad(), _Products() as products:
        _answer(layer, normal(8, 2, base.in_features), names, case)
    if products.count > 5:
        raise Wrong(
            f"right for {case}, but 8 rows of two adapters took {products.count} matrix products; one for the base and "
            "two for each adapter are enough"
        )


def _check_bits(layer: nn.Module, base: nn.Linear, case: str) -> None:
    """Complain unless rows without an adapter are, beside others, bit for bit what the base gives."""
    names: Names = ["pirate", None, "verse", None, "nobody"]
    x = normal(len(names), 2, base.in_features)
    with torch.no_grad():
        y, right = _answer(layer, x, names, case), base(x)
    plain = [1, 3, 4]
    if not torch.equal(y[plain], right[plain]):
        raise Wrong(f"wrong for {case}: rows without an adapter are not bit for bit what the base layer gives")


def _check_shared_base(layer: nn.Module, base: nn.Linear, case: str) -> None:
    """Complain if the layer computes with a copy of its base. Changes the base, so this comes last."""
    x = normal(1, 2, base.in_features)
    with torch.no_grad():
        before = _answer(layer, x, [None], case).clone()
        base.weight += 1.0
        if difference(_answer(layer, x, [None], case), before) is None:
            raise Wrong(f"wrong for {case}: the layer computes with a copy of its base; all adapters are to share one")


# --- In storyteller-llama -------------------------------------------------------------------------------


class _Plugged(nn.Module):
    """A learner's layer in a model, which does not know whose row is whose: all of these share one list of names."""

    def __init__(self, layer: nn.Module, names: Names) -> None:
        super().__init__()
        self.layer, self.names = layer, names

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, in) -> (B, T, out)."""
        return self.layer(x, list(self.names))


def _check_in_the_storyteller(layer_class: type) -> str:
    """Complain unless five rows, one for each voice and one without, get the answers that the engine gives them."""
    model, tokenizer = load_model("storyteller-llama", device="cpu")
    ids, names = tokenizer(PROMPT)["input_ids"], [None, *VOICES]
    expected = _answers_of_the_engine(copy.deepcopy(model), ids, names)
    with running(layer_class, "storyteller-llama"):
        answers = _greedy(_plugged(model, layer_class, names), ids, len(names))
    wrong = [str(name) for name, one, other in zip(names, answers, expected, strict=True) if one != other]
    if wrong:
        raise Wrong(f"right for small layers, but in storyteller-llama other answers came from: {', '.join(wrong)}")
    return f"in storyteller-llama yours gives four voices and the plain model the engine's {NEW_TOKENS} tokens each"


def _plugged(model: PreTrainedModel, layer_class: type, names: Names) -> PreTrainedModel:
    """The model with a layer of the learner's in every place that an adapter can change, and the voices in them."""
    layers = {name: layer_class(layer) for name, layer in adaptable_layers(model).items()}
    for voice in VOICES:
        for name, (a, b) in read_adapter(MODELS / "adapters" / voice, None).items():
            layers[name].add(voice, a, b.float(), 1.0)  # the scaling is in b
    for name, layer in layers.items():
        model.set_submodule(name, _Plugged(layer, names))
    return model


@torch.inference_mode()
def _greedy(model: PreTrainedModel, ids: Sequence[int], rows: int) -> list[list[int]]:
    """The likeliest tokens after the prompt, in so many rows of one batch, everything recomputed at each step."""
    sequences = torch.tensor([list(ids)] * rows)  # (B, S)
    for _ in range(NEW_TOKENS):
        logits = model(input_ids=sequences, use_cache=False).logits[:, -1]  # (B, V)
        sequences = torch.cat([sequences, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return sequences[:, len(ids) :].tolist()


def _answers_of_the_engine(model: PreTrainedModel, ids: Sequence[int], names: Names) -> list[list[int]]:
    engine = Engine(model, None)
    for voice in VOICES:
        engine.load_adapter(voice, MODELS / "adapters" / voice)
    for name in names:
        engine.add(ids, Sampling(NEW_TOKENS, ignore_eos=True), adapter=name)
    return [request.output_ids for request in engine.run()]
