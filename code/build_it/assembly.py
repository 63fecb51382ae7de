"""The learner's own server: the five parts, read from the five notebooks, put together and compared with ours.

from build_it import own_server
own_server()        says of every part whether it is missing, not yet right or correct; when all five are correct,
                    serves the course's requests with them
"""

from __future__ import annotations

import ast
import copy
import json
import linecache
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

import measure
from exercises import Result
from helpers import Request, fresh_copy, load_model, run_continuous

from .lesson_1 import check_cache
from .lesson_2 import check_batch_step
from .lesson_3 import check_scheduler
from .lesson_4 import check_quantized_linear
from .lesson_5 import check_lora_layer
from .parts import OwnEngine, as_linear
from .workload import course_requests

SLOTS, ROOM = 8, 400  # rows at once, and tokens reserved at once
REPEATS = 3


@dataclass(frozen=True)
class Part:
    """One of the five: the lesson it is built in, its name in the notebook, and the check that tries it."""

    lesson: int
    name: str
    check: Callable[[Any], Result]


PARTS = (
    Part(1, "KVCache", check_cache),
    Part(2, "batch_step", check_batch_step),
    Part(3, "serve", check_scheduler),
    Part(4, "QuantizedLinear8", check_quantized_linear),
    Part(5, "LoRALinear", check_lora_layer),
)


@dataclass(frozen=True)
class ServerReport:
    """What became of the five parts: its text ends a notebook cell, and it is true when every answer was right."""

    text: str
    right: bool

    def __repr__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return self.right


def own_server(
    voice: Mapping[str, Tensor] | None = None, *, alpha: float | None = None, folder: str | Path = "."
) -> ServerReport:
    """Put the learner's five parts together and let them serve the course's requests.

    The parts are read from the notebooks as they were last saved. When all five are correct, the storyteller is
    converted with part 5 (if there is a voice) and part 4, its requests are served with parts 1, 2 and 3, and the
    answers are compared with those of `helpers.run_continuous` on the same converted model, timed in turn.

    Args:
        voice: an adapter of the storyteller as `utils.lora_state_dict` gives it; `None` serves without one.
        alpha: the strength that the adapter was trained with; `None` is its rank.
        folder: where the notebooks lie.
    """
    found = {}
    lines = []
    for part in tqdm(PARTS, desc="trying your parts", leave=False):
        found[part.name], result = saved_part(part, Path(folder))
        lines.append(f"part {part.lesson}, {part.name} (Exercise {part.lesson}.6): {result}")
        if not result:
            found.pop(part.name)
    if len(found) < len(PARTS):
        missing = len(PARTS) - len(found)
        lines.append(
            f"{missing} of {len(PARTS)} parts to go. Write them, save their notebooks, and run this cell again."
        )
        return ServerReport("\n".join(lines), right=False)
    return _served(found, voice, alpha, lines)


def _served(
    found: Mapping[str, Any], voice: Mapping[str, Tensor] | None, alpha: float | None, lines: list[str]
) -> ServerReport:
    """Serve the course's requests with all five parts, and with ours on the same model."""
    model, tokenizer = load_model()
    model = converted(model, found["LoRALinear"], found["QuantizedLinear8"], voice, alpha)
    requests = course_requests(tokenizer)

    def own() -> list[Request]:
        served = [fresh_request(request) for request in requests]
        found["serve"](list(served), SLOTS, ROOM, OwnEngine(model, found["batch_step"], found["KVCache"]))
        return served

    def ours() -> list[Request]:
        return run_continuous(requests, SLOTS, model=model)

    answers = own()
    different = [
        number for number, (one, other) in enumerate(zip(answers, ours(), strict=True)) if not same(one, other)
    ]
    if different:
        lines.append(
            f"{len(different)} of {len(requests)} answers differ from those of run_continuous on the same model; the "
            f"first of them is the answer to request {different[0]}. Each part is right alone: look where two meet."
        )
        return ServerReport("\n".join(lines), right=False)
    timings = measure.interleaved(
        {"your server": own, "run_continuous": ours}, repeats=REPEATS, progress="both servers"
    )
    tokens = sum(len(request.output_ids) for request in answers)
    lines.append(
        f"your server: {len(requests)} requests, {tokens} tokens, every answer the same as run_continuous gives"
    )
    lines += [f"{name:15} {timing}, {tokens / timing.median_s:.0f} tokens/s" for name, timing in timings.items()]
    lines.append(f"it says: {tokenizer.decode(answers[0].prompt_ids + answers[0].output_ids)}")
    return ServerReport("\n".join(lines), right=True)


def same(one: Request, other: Request) -> bool:
    """Whether two runs gave a request the same answer."""
    return one.output_ids == other.output_ids and one.finish_reason == other.finish_reason


def fresh_request(request: Request) -> Request:
    """A copy that can run, with the prompt's ids in place."""
    copied = fresh_copy(request)
    copied.prompt_ids = list(request.prompt_ids)
    return copied


# --- The model that the parts make ----------------------------------------------------------------------


def converted(
    model: PreTrainedModel,
    adapter_class: Callable[..., nn.Module],
    linear_class: Callable[..., nn.Module],
    voice: Mapping[str, Tensor] | None,
    alpha: float | None,
) -> PreTrainedModel:
    """A copy of the model, first with the voice merged into its weights, then with its blocks' layers quantized."""
    model = copy.deepcopy(model)
    for name, layer in block_layers(model):
        plain = as_linear(layer)
        if voice is not None and f"{name}.lora_a" in voice:
            plain = with_voice(plain, adapter_class, voice[f"{name}.lora_a"], voice[f"{name}.lora_b"], alpha)
        bias = None if plain.bias is None else plain.bias.detach()
        model.set_submodule(name, linear_class(plain.weight.detach(), bias))
    return model.eval().requires_grad_(False)


def block_layers(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """(name, layer) of every linear layer but the output head."""
    head = model.get_output_embeddings()
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head
    ]


def with_voice(
    linear: nn.Linear, adapter_class: Callable[..., Any], lora_a: Tensor, lora_b: Tensor, alpha: float | None
) -> nn.Linear:
    """The layer with an adapter of ours, A (r, in) and B (out, r), merged into it by the learner's class."""
    rank = lora_a.shape[0]
    adapter = adapter_class(linear, rank, rank if alpha is None else alpha)
    adapter.lora_a.data.copy_(lora_a.T)  # (in, r)
    adapter.lora_b.data.copy_(lora_b.T)  # (r, out)
    return adapter.merge()


# --- The parts, from the notebooks as they were saved ---------------------------------------------------


def saved_part(part: Part, folder: Path) -> tuple[Any, Result]:
    """The part as it stands in the notebook of its lesson, and what its check says of it.

    Where a lesson has several notebooks (a newer version was put beside the learner's), the best one counts.
    """
    paths = sorted(folder.glob(f"Lesson_{part.lesson}-*.ipynb"))
    if not paths:
        return None, Result(
            "not attempted", f"there is no notebook Lesson_{part.lesson}-*.ipynb in {folder.resolve().name}/"
        )
    tried = [_tried(part, path) for path in paths]
    return max(tried, key=lambda one: ("not attempted", "not checked", "wrong", "correct").index(one[1].outcome))


def _tried(part: Part, path: Path) -> tuple[Any, Result]:
    try:
        value = definitions_of(path, part)[part.name]
    except KeyError:
        return None, Result("not attempted", f"{path.name} has no {part.name} before {part.check.__name__}(...)")
    except Exception as error:
        return None, Result("wrong", f"its cell in {path.name} raised {type(error).__name__}: {error}")
    return value, part.check(value)


def definitions_of(path: Path, part: Part) -> dict[str, Any]:
    """What the cell of the part defines, with what it may use: the notebook's imports and its exercises' functions.

    Raises:
        Exception: whatever the part's own cell raises. Cells before it that fail are passed over.
    """
    names: dict[str, Any] = {"__name__": "learner"}
    for source in python_cells(path):
        is_its_own = f"{part.check.__name__}(" in source
        try:
            tree = ast.parse(source)
            statements = imports(tree) + (definitions(tree) if calls(tree, "check_") else [])
            _run(statements, source, f"{path.name}, the cell of {part.name}" if is_its_own else path.name, names)
        except Exception:
            if is_its_own:
                raise
        if is_its_own:
            break
    return names


def python_cells(path: Path) -> Iterator[str]:
    """The code cells of a notebook as it was saved, without the lines that are commands to Jupyter."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield re.sub(r"^[ \t]*[%!].*$", "", "".join(cell["source"]), flags=re.MULTILINE)


def imports(tree: ast.Module) -> list[ast.stmt]:
    """The import statements of a cell."""
    return [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]


def definitions(tree: ast.Module) -> list[ast.stmt]:
    """The functions, classes and constants that a cell defines."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return [node for node in tree.body if isinstance(node, kinds)]


def calls(tree: ast.Module, prefix: str) -> bool:
    """Whether a statement of the cell calls a function whose name begins like this."""
    values = [node.value for node in tree.body if isinstance(node, ast.Expr)]
    names = [value.func.id for value in values if isinstance(value, ast.Call) and isinstance(value.func, ast.Name)]
    return any(name.startswith(prefix) for name in names)


def _run(statements: Sequence[ast.stmt], source: str, file: str, names: dict[str, Any]) -> None:
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # for messages with lines
    exec(compile(ast.Module(list(statements), type_ignores=[]), file, "exec"), names)
