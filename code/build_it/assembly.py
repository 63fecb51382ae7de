"""The learner's own server: the five parts, read from the five notebooks, put together and compared with ours.

    from build_it import own_server
    own_server()        says of every part whether it is missing, not yet right or correct; when all five are correct,
                        serves the course's requests with them

What counts is a notebook as it was saved.
"""

from __future__ import annotations

import ast
import copy
import json
import linecache
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import measure
from exercises import Result
from exercises.checking import NotAttempted, Wrong, running
from helpers import Request, fresh_copy, load_model, run_continuous

from .lesson_1 import check_cache
from .lesson_2 import check_batch_step
from .lesson_3 import check_scheduler
from .lesson_4 import check_quantized_linear
from .lesson_5 import check_lora_layer
from .parts import OwnEngine, as_linear, block_layers
from .workload import ROOM, SLOTS, course_requests

REPEATS = 3
IMPORTS = (ast.Import, ast.ImportFrom)


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
        alpha: the strength that the adapter was trained with; a voice needs it.
        folder: where the notebooks lie.

    Raises:
        ValueError: a voice without its `alpha`.
    """
    if voice is not None and alpha is None:
        raise ValueError("a voice was given without alpha; pass the alpha that it was trained with, such as alpha=32")
    found, lines = {}, []
    for part in tqdm(PARTS, desc="trying your parts", leave=False):
        value, result = saved_part(part, Path(folder))
        lines.append(f"part {part.lesson}, {part.name} (Exercise {part.lesson}.6): {'correct' if result else result}")
        if result:
            found[part.name] = value
    missing = len(PARTS) - len(found)
    if missing:
        end = "Write or mend them, save their notebooks, and run this cell again."
        return ServerReport("\n".join([*lines, f"{missing} of {len(PARTS)} parts to go. {end}"]), right=False)
    try:
        model, tokenizer = load_model()
        model = converted(model, found["LoRALinear"], found["QuantizedLinear8"], voice, alpha)
        lines += _served(found, model, tokenizer)
    except (Wrong, NotAttempted) as complaint:
        return ServerReport("\n".join([*lines, str(complaint)]), right=False)
    return ServerReport("\n".join(lines), right=True)


def _served(found: Mapping[str, Any], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Serve the course's requests with parts 1, 2 and 3, and with ours; what there is to say of it.

    Raises:
        Wrong: a part raised an error, or the answers differ.
    """
    requests = course_requests(tokenizer)

    def own() -> list[Request]:
        served = [fresh_request(request) for request in requests]
        engine = OwnEngine(model, found["batch_step"], found["KVCache"])
        with running(found["serve"], "the course's requests with your cache and your batch step"):
            found["serve"](list(served), SLOTS, ROOM, engine)
        return served

    def ours() -> list[Request]:
        return run_continuous(requests, SLOTS, model=model)

    answers = own()
    _check_same(answers, ours())
    both = {"your server": own, "run_continuous": ours}
    timings = measure.interleaved(both, repeats=REPEATS, progress="both servers")
    tokens = sum(len(request.output_ids) for request in answers)
    return [
        f"your server: {len(requests)} requests, {tokens} tokens, every answer the same as run_continuous gives",
        f"it reserves at most {ROOM} tokens of cache at a time; run_continuous only counts its {SLOTS} slots",
        *(f"{name:15} {timing}, {tokens / timing.median_s:.0f} tokens/s" for name, timing in timings.items()),
        textwrap.fill(f"its first answer: {tokenizer.decode(answers[0].prompt_ids + answers[0].output_ids)}", 100),
    ]


def _check_same(answers: Sequence[Request], expected: Sequence[Request]) -> None:
    pairs = enumerate(zip(answers, expected, strict=True))
    different = [number for number, (one, other) in pairs if not same(one, other)]
    if different:
        raise Wrong(
            f"{len(different)} of {len(answers)} answers differ from those of run_continuous on the same model; the "
            f"first of them is the answer to request {different[0]}. Each part is right alone: look where two meet."
        )


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
            with running(adapter_class, f"the voice in {name}"):
                plain = with_voice(plain, adapter_class, voice[f"{name}.lora_a"], voice[f"{name}.lora_b"], alpha)
        bias = None if plain.bias is None else plain.bias.detach()
        with running(linear_class, name):
            model.set_submodule(name, linear_class(plain.weight.detach(), bias))
    return model.eval().requires_grad_(False)


def with_voice(
    linear: nn.Linear, adapter_class: Callable[..., Any], lora_a: Tensor, lora_b: Tensor, alpha: float
) -> nn.Linear:
    """The layer with an adapter of ours, A (r, in) and B (out, r), merged into it by the learner's class."""
    adapter = adapter_class(linear, lora_a.shape[0], alpha)
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
        reason = str(error).replace("<unknown>, ", "")
        return None, Result("wrong", f"its cell in {path.name} raised {type(error).__name__}: {reason}")
    return value, part.check(value)


def definitions_of(path: Path, part: Part) -> dict[str, Any]:
    """What the cell of the part defines, with what it may use: all imports, and what the exercises' cells define.

    Raises:
        Exception: whatever the part's own cell raises. Statements before it that fail are passed over.
    """
    names: dict[str, Any] = {"__name__": "learner"}
    for source, is_exercise in python_cells(path):
        if f"{part.check.__name__}(" in source:
            _run(definitions(ast.parse(source)), source, f"{path.name}, the cell of {part.name}", names)
            return names
        with suppress(SyntaxError):
            for statement in definitions(ast.parse(source)):
                if is_exercise or isinstance(statement, IMPORTS):
                    with suppress(Exception):
                        _run([statement], source, path.name, names)
    return names


def python_cells(path: Path) -> Iterator[tuple[str, bool]]:
    """(source, whether it stands among the exercises) of the code cells of a notebook as it was saved.

    Lines that are commands to Jupyter are left empty.
    """
    is_exercise = False
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            yield re.sub(r"^[ \t]*[%!].*$", "", source, flags=re.MULTILINE), is_exercise
        elif source.startswith(("## Exercises", "### Exercise ")):
            is_exercise = True


def definitions(tree: ast.Module) -> list[ast.stmt]:
    """The imports, functions, classes and constants of a cell."""
    kinds = (*IMPORTS, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return [node for node in tree.body if isinstance(node, kinds) and not _calls_a_check(node)]


def _calls_a_check(statement: ast.stmt) -> bool:
    """Whether a statement such as `result = check_cache(KVCache)` would run a check."""
    value = getattr(statement, "value", None)
    function = getattr(value, "func", None)
    return isinstance(function, ast.Name) and function.id.startswith("check_")


def _run(statements: Sequence[ast.stmt], source: str, file: str, names: dict[str, Any]) -> None:
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # for messages with lines
    exec(compile(ast.Module(list(statements), type_ignores=[]), file, "exec"), names)
