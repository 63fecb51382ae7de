"""The learner's own server: read from saved notebooks, put together, and compared with ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import lessons
from build_it import assembly
from exercises import Result
from exercises.checking import Wrong, running
from helpers import load_model
from utils import add_lora, lora_state_dict

IMPORTS = "%matplotlib inline\nimport torch\nfrom torch import nn\nfrom torch.nn import functional as F"

RIGHT = {
    "KVCache": """
class KVCache:
    def __init__(self):
        self.parts = []

    def append(self, keys, values):
        self.parts.append((keys, values))
        return tuple(torch.cat(tensors, dim=2) for tensors in zip(*self.parts))
""",
    "batch_step": """
def batch_step(model, new_tokens, attention_mask, cache):
    width = max(map(len, new_tokens))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in new_tokens])
    new = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in new_tokens])
    mask = torch.cat([attention_mask, new], dim=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -width:]
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache)
    return out.logits[:, -1].argmax(dim=-1), mask
""",
    "serve": """
def serve(requests, slots, room, engine):
    waiting, running = list(requests), engine.empty()
    while waiting or len(running):
        count = admitted(waiting, running.requests, slots, room)
        newcomers, waiting = waiting[:count], waiting[count:]
        if newcomers:
            running = engine.merge(running, engine.filter(engine.prefill(newcomers)))
        running = engine.filter(engine.decode(running))
""",
    "QuantizedLinear8": """
class QuantizedLinear8(nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        self.scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        self.codes = (weight / self.scale).round().to(torch.int8)
        self.bias = bias

    def forward(self, x):
        return F.linear(x, self.codes * self.scale, self.bias)
""",
    "LoRALinear": """
class LoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scaling = base.requires_grad_(False), alpha / rank
        self.lora_a = nn.Parameter(torch.randn(base.in_features, rank) / rank)
        self.lora_b = nn.Parameter(torch.zeros(rank, base.out_features))

    def forward(self, x):
        return self.base(x) + x @ self.lora_a @ self.lora_b * self.scaling

    def merge(self):
        merged = nn.Linear(self.base.in_features, self.base.out_features)
        merged.weight.data = self.base.weight + (self.lora_a @ self.lora_b).T * self.scaling
        merged.bias.data = self.base.bias.clone()
        return merged
""",
}
# part 3 uses an answer to an earlier exercise
ADMITTED = """
def admitted(waiting, running, slots, room):
    needed = lambda request: len(request.prompt_ids) + request.max_tokens
    room -= sum(map(needed, running))
    count = 0
    while count < len(waiting) and len(running) + count < slots and needed(waiting[count]) <= room:
        room -= needed(waiting[count])
        count += ONE
    return count


an_error_that_does_not_matter = missing
ONE = 1
result = check_admitted_count(admitted)
"""


def tried(value: Any) -> Result:
    """A check that takes everything but a blank."""
    return Result("not attempted", "not attempted yet") if value is None else Result("correct", "correct: yes")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The five parts with checks that do not look closely: those of the lessons have tests of their own."""

    def check_like(part: assembly.Part) -> Any:
        def check(value: Any) -> Result:
            return tried(value)

        check.__name__ = part.check.__name__
        return check

    monkeypatch.setattr(assembly, "PARTS", tuple(replace(part, check=check_like(part)) for part in assembly.PARTS))
    monkeypatch.setattr(assembly, "REPEATS", 1)


def write_notebooks(folder: Path, sources: dict[str, str], suffix: str = "Text") -> None:
    """One notebook for each part, as a learner's editor saves it."""
    for part in assembly.PARTS:
        call = (
            f"from build_it import {part.check.__name__}\n\n{sources[part.name]}\n\n{part.check.__name__}({part.name})"
        )
        cells = [new_markdown_cell("# Lesson"), new_code_cell(IMPORTS), new_code_cell("model, cells = unknown()")]
        cells += [new_code_cell("this is not Python"), new_markdown_cell("## Exercises"), new_code_cell(ADMITTED)]
        cells += [new_code_cell(call)]
        lessons.write_notebook(new_notebook(cells=cells), folder / f"Lesson_{part.lesson}-{suffix}.ipynb")


BLANK = {name: f"{name} = None" for name in RIGHT}


def test_five_right_parts_answer_as_run_continuous_does(parts: None, tmp_path: Path) -> None:
    write_notebooks(tmp_path, RIGHT)
    report = assembly.own_server(folder=tmp_path)
    assert report, report
    assert "32 requests, 680 tokens, every answer the same" in repr(report)
    assert repr(report).count("tokens/s") == 2
    assert "its first answer: Once upon a time there was a" in repr(report)


def test_a_voice_is_merged_into_the_learners_model(parts: None, tmp_path: Path) -> None:
    write_notebooks(tmp_path, RIGHT)
    spoken = repr(assembly.own_server(folder=tmp_path)).splitlines()[-1]
    model, _ = load_model()
    add_lora(model, r=4)
    generator = torch.Generator().manual_seed(0)
    voice = {name: torch.randn(w.shape, generator=generator) * 0.1 for name, w in lora_state_dict(model).items()}
    report = assembly.own_server(voice, alpha=8, folder=tmp_path)
    assert report, report
    assert repr(report).splitlines()[-1] != spoken


def test_the_model_that_the_parts_make_is_the_one_with_the_adapter(parts: None, tmp_path: Path) -> None:
    """Without the rounding of part 4, the converted storyteller computes what `add_lora` computes."""
    write_notebooks(tmp_path, RIGHT)
    adapter = assembly.definitions_of(tmp_path / "Lesson_5-Text.ipynb", assembly.PARTS[4])["LoRALinear"]
    model, tokenizer = load_model()
    ours = add_lora(load_model()[0], r=4, alpha=8)
    for weight in ours.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.05)

    def exact(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Module:
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        linear.weight.data, linear.bias.data = weight, bias
        return linear

    made = assembly.converted(model, adapter, exact, lora_state_dict(ours), 8)
    ids = torch.tensor([tokenizer("Once upon a time")["input_ids"]])
    with torch.no_grad():
        assert torch.allclose(made(ids).logits, ours(ids).logits, atol=1e-3)
        assert not torch.allclose(made(ids).logits, model(ids).logits, atol=1e-1)


def test_with_blanks_it_says_which_part_is_missing(parts: None, tmp_path: Path) -> None:
    write_notebooks(tmp_path, RIGHT | {"serve": "serve = None"})
    report = assembly.own_server(folder=tmp_path)
    assert not report
    lines = repr(report).splitlines()
    assert lines[2] == "part 3, serve (Exercise 3.6): not attempted yet"
    assert [("correct" in line) for line in lines[:5]] == [True, True, False, True, True]
    assert lines[5].startswith("1 of 5 parts to go.")


def test_without_notebooks_it_says_where_it_looked(tmp_path: Path) -> None:
    report = assembly.own_server(folder=tmp_path)
    assert "there is no notebook Lesson_1-*.ipynb in " in repr(report).splitlines()[0]
    assert tmp_path.name in repr(report).splitlines()[0]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def serve(:", "raised SyntaxError"),
        ("from nowhere import serve", "raised ModuleNotFoundError"),
        ("schedule = print", "has no serve before check_scheduler"),
    ],
)
def test_a_cell_that_cannot_run_is_named(parts: None, tmp_path: Path, source: str, words: str) -> None:
    write_notebooks(tmp_path, BLANK | {"serve": source})
    assert words in repr(assembly.own_server(folder=tmp_path)).splitlines()[2]


def test_the_best_of_several_copies_counts(parts: None, tmp_path: Path) -> None:
    write_notebooks(tmp_path, RIGHT)
    write_notebooks(tmp_path, BLANK, suffix="Text-new")
    assert assembly.own_server(folder=tmp_path)


def test_parts_that_do_not_fit_together_are_told_apart(parts: None, tmp_path: Path) -> None:
    wrong = RIGHT | {"batch_step": RIGHT["batch_step"].replace("argmax", "argmin")}
    write_notebooks(tmp_path, wrong)
    report = assembly.own_server(folder=tmp_path)
    assert not report
    assert "32 of 32 answers differ" in repr(report)


def test_an_error_while_serving_is_the_learners_with_its_line(parts: None, tmp_path: Path) -> None:
    wrong = RIGHT | {"LoRALinear": RIGHT["LoRALinear"].replace("merged.bias.data", "merged.bias.dat.x")}
    write_notebooks(tmp_path, wrong)
    voice = lora_state_dict(add_lora(load_model()[0], r=2))
    report = assembly.own_server(voice, alpha=2, folder=tmp_path)
    assert not report
    assert "your class raised AttributeError for the voice in transformer.h.0.attn.c_attn, in line" in repr(report)
    wrong = RIGHT | {"serve": RIGHT["serve"].replace("engine.empty()", "engine.void()")}
    write_notebooks(tmp_path, wrong)
    assert "your function raised AttributeError for the course's requests" in repr(assembly.own_server(folder=tmp_path))


def test_a_voice_needs_its_alpha(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass the alpha that it was trained with"):
        assembly.own_server({}, folder=tmp_path)


def test_a_check_whose_result_is_kept_is_no_part(parts: None, tmp_path: Path) -> None:
    write_notebooks(tmp_path, RIGHT)
    path = tmp_path / "Lesson_3-Text.ipynb"
    nb = lessons.read_notebook(path)
    nb.cells[-1].source = nb.cells[-1].source.replace("check_scheduler(serve)", "result = check_scheduler(serve)")
    assert "result = check_scheduler(serve)" in nb.cells[-1].source
    lessons.write_notebook(nb, path)
    assert "part 3, serve (Exercise 3.6): correct" in repr(assembly.own_server(folder=tmp_path))


def test_an_error_is_found_with_its_line(tmp_path: Path) -> None:
    """The line numbers of a part are those of its cell, and the line itself can be shown."""
    write_notebooks(tmp_path, RIGHT | {"batch_step": "def batch_step(*_):\n    return misspelt"})
    function = assembly.definitions_of(tmp_path / "Lesson_2-Text.ipynb", assembly.PARTS[1])["batch_step"]
    with pytest.raises(Wrong, match=r"in line 4 \(`return misspelt`\): name 'misspelt'"), running(function, "a try"):
        function()


@pytest.mark.slow
def test_the_solutions_are_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The five parts as the solutions build them, each tried by the check of its lesson."""
    monkeypatch.setattr(assembly, "REPEATS", 1)
    report = assembly.own_server(folder=lessons.NOTEBOOKS / "solutions")
    assert report, report
    assert all(line.endswith(": correct") for line in repr(report).splitlines()[: len(assembly.PARTS)])


def test_the_lessons_as_they_are_committed_are_all_blanks() -> None:
    report = assembly.own_server(folder=lessons.NOTEBOOKS)
    assert repr(report).count("not attempted yet") == len(assembly.PARTS)
