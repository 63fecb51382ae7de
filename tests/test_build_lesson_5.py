"""The check of Exercise 5.6 takes right LoRA layers of any style, and says of wrong ones what is wrong."""

from __future__ import annotations

import copy
import linecache
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from build_it import check_lora_layer, lesson_5

PLAIN = """
class LoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(base.in_features, rank) / base.in_features**0.5)
        self.lora_b = nn.Parameter(torch.zeros(rank, base.out_features))
        self.scaling = alpha / rank

    def forward(self, x):
        return self.base(x) + self.scaling * (x @ self.lora_a @ self.lora_b)

    def merge(self):
        merged = copy.deepcopy(self.base)
        merged.weight += self.scaling * (self.lora_a.detach() @ self.lora_b.detach()).T
        return merged
"""


def defined(source: str) -> type:
    """The class of this source, whose lines a message can name."""
    names = {"torch": torch, "nn": nn, "F": F, "copy": copy, "math": math}
    linecache.cache["<learner>"] = (len(source), None, source.splitlines(keepends=True), "<learner>")
    exec(compile(source, "<learner>", "exec"), names)
    return names["LoRALinear"]


def changed(old: str, new: str) -> type:
    """The plain layer with one piece of its source changed."""
    assert PLAIN.count(old) == 1
    return defined(PLAIN.replace(old, new))


class ByWeights(nn.Module):
    """Another style: the whole weight is made at every forward, and the merged layer is built from its parts."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.rank, self.alpha = rank, alpha
        self.linear = base
        for parameter in self.linear.parameters():
            parameter.requires_grad = False
        self.register_parameter("lora_a", nn.Parameter(torch.empty(base.weight.shape[1], rank)))
        self.lora_b = nn.Parameter(torch.zeros((rank, base.weight.shape[0])))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def weight(self) -> torch.Tensor:
        return self.linear.weight + (self.alpha / self.rank * self.lora_a @ self.lora_b).t()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight(), self.linear.bias)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        out_features, in_features = self.linear.weight.shape
        layer = nn.Linear(in_features, out_features, bias=self.linear.bias is not None)
        layer.weight = nn.Parameter(self.weight())
        layer.bias = self.linear.bias
        return layer


class Subclass(nn.Linear):
    """Another style: the layer is itself an nn.Linear that borrows the parameters of its base."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.weight, self.bias = base.weight, base.bias
        self.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(base.in_features, rank))
        self.lora_b = nn.Parameter(self.lora_a.new_zeros(rank, base.out_features))
        self.strength = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return torch.add(y, torch.einsum("...i,ir,ro->...o", x, self.lora_a, self.lora_b), alpha=self.strength)

    def merge(self) -> nn.Linear:
        merged = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        delta = torch.einsum("ir,ro->oi", self.lora_a, self.lora_b)
        merged.load_state_dict(
            {"weight": self.weight + self.strength * delta} | ({} if self.bias is None else {"bias": self.bias})
        )
        return merged


RIGHT = [
    defined(PLAIN),
    ByWeights,
    Subclass,
    changed("torch.randn(base.in_features, rank)", "torch.rand(base.in_features, rank)"),
]


@pytest.mark.parametrize("answer", RIGHT)
def test_right_layers_of_any_style_are_taken(answer: type) -> None:
    state = torch.get_rng_state()
    result = check_lora_layer(answer)
    assert result, result
    assert "sentences of pirates" in repr(result)
    assert torch.equal(torch.get_rng_state(), state), "the learner's random state is left alone"


def test_what_is_said_of_a_right_layer_does_not_change() -> None:
    assert repr(check_lora_layer(RIGHT[0])) == repr(check_lora_layer(RIGHT[0]))


A, B = "torch.randn(base.in_features, rank) / base.in_features**0.5", "torch.zeros(rank, base.out_features)"
MERGED = "merged.weight += self.scaling * (self.lora_a.detach() @ self.lora_b.detach()).T"
FORWARD = "self.base(x) + self.scaling * (x @ self.lora_a @ self.lora_b)"
WRONG = [
    # what is made
    (lambda base, rank, alpha: base, "expected a class"),
    (defined(PLAIN.replace("nn.Module", "object").replace("        super().__init__()\n", "")), "must be an nn.Module"),
    (changed("        super().__init__()\n", ""), "before Module.__init__() call"),
    (changed("self.lora_b = nn", "self.lora_c = nn"), "the layer has no lora_b"),
    (changed(f"nn.Parameter({A})", A), "lora_a is a plain tensor"),
    (changed(f"nn.Parameter({B})", B), "lora_b is a plain tensor"),
    (changed("torch.zeros(rank, base.out_features)", "torch.zeros(base.out_features, rank)"), "lora_b has the shape"),
    (changed(A, "torch.randn(rank, base.in_features)"), "lora_a has the shape (2, 6)"),
    (changed(A, "torch.randn(base.in_features, rank, dtype=torch.float64)"), "float32"),
    (changed("torch.zeros(rank", "torch.randn(rank"), "does not start as zeros"),
    (changed(A, "torch.zeros(base.in_features, rank)"), "neither ever gets a gradient"),
    (changed(A, "torch.ones(base.in_features, rank)"), "all numbers of lora_a are the same"),
    (changed(A, "torch.eye(base.in_features, rank)"), "two new layers have the same lora_a"),
    # what is trained
    (changed("base.requires_grad_(False)", "base"), "it is to be frozen"),
    (changed("base.requires_grad_(False)", "base\n        base.weight.requires_grad = False"), "it is to be frozen"),
    (changed("self.scaling =", "self.requires_grad_(False)\n        self.scaling ="), "cannot be trained"),
    (changed("= alpha / rank", "= nn.Parameter(torch.tensor(alpha / rank))"), "would be trained: scaling"),
    # forward
    (changed("        return self.base(x) +", "        self.base(x) +"), "forward returns nothing"),
    (changed(FORWARD, "self.base(x)"), "the update is missing"),
    (changed(FORWARD, "self.scaling * (x @ self.lora_a @ self.lora_b)"), "does not answer as its base does"),
    (changed("= alpha / rank", "= 1.0"), "the update is not scaled"),
    (changed("= alpha / rank", "= alpha"), "not divided by the rank"),
    (changed("= alpha / rank", "= alpha / rank**0.5"), "the root of the rank"),
    (changed("= alpha / rank", "= (alpha / rank) ** 2"), "scaled twice"),
    (changed("= alpha / rank", "= -alpha / rank"), "subtracted"),
    (changed(FORWARD, "self.scaling * (self.base(x) + x @ self.lora_a @ self.lora_b)"), "answer as its base does"),
    (changed("x @ self.lora_a @ self.lora_b", "x.mT @ self.lora_a @ self.lora_b"), "in line 11"),
    (changed("self.base = base.requires", "self.base = copy.deepcopy(base.requires_grad_(False)).requires"), "a copy"),
    # gradients
    (changed("x @ self.lora_a @ self.lora_b", "x @ self.lora_a.detach() @ self.lora_b"), "lora_a gets no gradient"),
    (changed("x @ self.lora_a @ self.lora_b", "x @ self.lora_a.data @ self.lora_b.data"), "no gradient comes back"),
    (changed("    def forward", "    @torch.no_grad()\n    def forward"), "no gradient comes back"),
    # merge
    (changed("        return merged", "        pass"), "merge returns nothing"),
    (changed(MERGED, "pass"), "merge: the update is missing"),
    (changed("merged.weight +=", "merged.weight.data ="), "the base layer's weight is missing"),
    (changed("merged.weight += self.scaling * ", "merged.weight += "), "merge: the update is not scaled"),
    (changed("copy.deepcopy(self.base)", "self.base"), "changed the base layer"),
    (changed("        return merged", "        return merged.weight"), "not an nn.Linear"),
    (changed(MERGED, MERGED.removesuffix(".T")), "raised RuntimeError for merging a layer of 6 to 4, in line 15"),
    (changed("        return merged", "        merged.bias = None\n        return merged"), "bias is missing"),
    (changed("        return merged", "        merged.bias.data += 1\n        return merged"), "bias is not that of"),
    (changed("        return merged", "        self.lora_b.data.zero_()\n        return merged"), "the adapter itself"),
    # a layer that is right for the small cases, and learns nothing in the storyteller
    (changed("self.scaling * (x", "(x.shape[-1] < 99) * self.scaling * (x"), "do not lower the loss"),
    (changed("self.scaling * (self", "(self.lora_a.shape[0] < 99) * self.scaling * (self"), "gives other logits"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_layers_are_refused_with_what_is_wrong(answer: type, words: str) -> None:
    result = check_lora_layer(answer)
    assert not result
    assert words in repr(result) and "\n" not in repr(result)
    missing = "returns nothing" in words
    assert result.outcome == ("not attempted" if missing else "wrong")


BLANK = """
class LoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        # your code
        ...

    def forward(self, x):
        # your code
        ...

    def merge(self):
        # your code
        ...
"""


@pytest.mark.parametrize(
    "blank",
    [
        ...,
        None,
        defined(BLANK),
        defined(BLANK.replace("        super().__init__()\n", "")),
        defined(BLANK.replace("...", "raise NotImplementedError")),
    ],
)
def test_a_blank_is_not_attempted_yet_and_loads_no_model(blank: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson_5, "load_model", lambda **_: pytest.fail("a model was loaded"))
    assert repr(check_lora_layer(blank)) == "not attempted yet"
