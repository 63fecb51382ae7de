"""The check of Exercise 6.6 takes right layers of any style, and says of wrong ones what is wrong."""

from __future__ import annotations

import copy
import linecache

import pytest
import torch
from torch import nn

from build_it import check_grouped_layer, lesson_6

PLAIN = """
class GroupedLoRALinear(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base
        self.adapters = {}

    def add(self, name, a, b, scaling):
        self.adapters[name] = a, b, scaling

    def remove(self, name):
        del self.adapters[name]

    def forward(self, x, names):
        y = self.base(x)
        for name, (a, b, scaling) in self.adapters.items():
            rows = [row for row, own in enumerate(names) if own == name]
            if rows:
                y[rows] += scaling * (x[rows] @ a.T @ b.T)
        return y
"""


def defined(source: str) -> type:
    """The class of this source, whose lines a message can name."""
    names = {"torch": torch, "nn": nn, "copy": copy}
    linecache.cache["<learner>"] = (len(source), None, source.splitlines(keepends=True), "<learner>")
    exec(compile(source, "<learner>", "exec"), names)
    return names["GroupedLoRALinear"]


def changed(old: str, new: str) -> type:
    """The plain layer with one piece of its source changed."""
    assert PLAIN.count(old) == 1
    return defined(PLAIN.replace(old, new))


class ByGather(nn.Module):
    """Another style: padded stacks, gathered for the rows that have an adapter."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.linear, self.names, self.pairs = base, [], []

    def add(self, name: str, a: torch.Tensor, b: torch.Tensor, scaling: float) -> None:
        self.names.append(name)
        self.pairs.append((a, scaling * b.T))

    def remove(self, name: str) -> None:
        place = self.names.index(name)
        del self.names[place], self.pairs[place]

    def forward(self, x: torch.Tensor, names: list[str | None]) -> torch.Tensor:
        y = self.linear(x)
        rows = [row for row, name in enumerate(names) if name in self.names]
        if not rows:
            return y
        chosen = torch.tensor([self.names.index(names[row]) for row in rows])
        a, b = (nn.utils.rnn.pad_sequence(list(stack), batch_first=True) for stack in zip(*self.pairs, strict=True))
        return y.index_add(0, torch.tensor(rows), x[rows] @ a[chosen].mT @ b[chosen])


class Sorted(nn.Module):
    """Another style: the base is used by its weights, and the rows' updates are put together again at the end."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.layer, self.own = base, {}

    def add(self, name: str, a: torch.Tensor, b: torch.Tensor, scaling: float) -> None:
        self.own |= {name: (a.clone(), b * scaling)}

    def remove(self, name: str) -> None:
        self.own.pop(name)

    def forward(self, x: torch.Tensor, names: list[str | None]) -> torch.Tensor:
        y = nn.functional.linear(x, self.layer.weight, self.layer.bias).clone()
        for name in dict.fromkeys(names):
            if name in self.own:
                a, b = self.own[name]
                mask = torch.tensor([own == name for own in names])
                y[mask] = y[mask] + nn.functional.linear(nn.functional.linear(x[mask], a), b)
        return y


@pytest.mark.parametrize("answer", [defined(PLAIN), ByGather, Sorted])
def test_right_layers_of_any_style_are_taken(answer: type) -> None:
    state = torch.get_rng_state()
    result = check_grouped_layer(answer)
    assert result, result
    assert "the engine's 16 tokens each" in repr(result)
    assert torch.equal(torch.get_rng_state(), state), "the learner's random state is left alone"


UPDATE = "y[rows] += scaling * (x[rows] @ a.T @ b.T)"
WRONG = [
    (lambda base: base, "expected a class"),
    (defined(PLAIN.replace("nn.Module", "object").replace("        super().__init__()\n", "")), "must be an nn.Module"),
    (changed(UPDATE, "pass"), "the adapters' updates are missing"),
    (changed("y = self.base(x)", "y = 0 * self.base(x)"), "the base layer's own answer is missing"),
    (changed(UPDATE, UPDATE.replace("scaling * ", "")), "the updates are not scaled"),
    (changed("scaling * (x", "-scaling * (x"), "subtracted"),
    (changed("own == name", "own != name"), "values are wrong"),
    (changed("        return y", "        return y + 0.0 * y.sum() + 1e-7"), "bit for bit"),
    (changed("y = self.base(x)", "y = self.base(x)\n        x *= 1.5"), "wrong for"),
    (changed("        return y", "        x += 1.0\n        return y"), "x was changed"),
    (changed("del self.adapters[name]", "pass"), "after whisper was removed"),
    (changed("self.base = base", "self.base = copy.deepcopy(base)"), "a copy of its base"),
    (changed("self.adapters[name] = a", "self.base.weight.data += 1\n        self.adapters[name] = a"), "weights were"),
    (
        changed(UPDATE, "for row in rows:\n                    y[row] += scaling * (x[row] @ a.T @ b.T)"),
        "8 rows of two adapters took 17 matrix products",
    ),
    (changed("y = self.base(x)", "y = torch.stack([self.base(row) for row in x])"), "took 12 matrix products"),
    (changed("if rows:", "if rows and name != 'telegram':"), "other answers came from: telegram"),
    (changed("own == name", "own == nam"), "in line 17"),
    (changed("        return y", "        pass"), "forward returns nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_layers_are_refused_with_what_is_wrong(answer: type, words: str) -> None:
    result = check_grouped_layer(answer)
    assert not result
    assert words in repr(result) and "\n" not in repr(result)
    assert result.outcome == ("not attempted" if "returns nothing" in words else "wrong")


BLANK = """
class GroupedLoRALinear(nn.Module):
    def __init__(self, base):
        super().__init__()
        # your code
        ...

    def add(self, name, a, b, scaling):
        ...

    def remove(self, name):
        ...

    def forward(self, x, names):
        ...
"""


@pytest.mark.parametrize(
    "blank", [..., None, defined(BLANK), defined(BLANK.replace("...", "raise NotImplementedError"))]
)
def test_a_blank_is_not_attempted_yet_and_loads_no_model(blank: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson_6, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    assert repr(check_grouped_layer(blank)).startswith("not attempted yet")
