"""The rooms of `code/`: what is imported from where, which way imports go, how large files and functions are."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).resolve().parent.parent / "code"
FILES = sorted(CODE.rglob("*.py"))
PACKAGES = ("engine", "figures", "exercises", "build_it")
MODULES = sorted([*(path.stem for path in CODE.glob("*.py")), *PACKAGES])

# From the bottom up: a module may import those that stand before it.
ORDER = (
    *("models", "scoreboard", "linear"),
    *("checks", "kv_cache", "groups", "packed"),
    *("request", "helpers", "utils", "measure", "engine", "figures", "exercises", "build_it"),
)

HELPERS = """STORYTELLER load_model gpt2_sized course_model Inputs generate_token generate_token_with_past forward
positions_from_mask GrowingLayer new_cache cache_of generate_tokens Request RequestLike Batch empty_batch init_batch
generate_next_token merge_batches stack_rows pad_left filter_batch select_cache ForwardTrace run_static run_continuous
generate_batch eos_token_ids"""
UTILS = """generate QuantState quantize dequantize by_channel split_groups join_groups pack_int4 unpack_int4
QuantizedLinear QuantizedEmbedding quantize_model size_in_bytes ATTENTION_LAYERS LoraLayer add_lora merge_lora
unmerge_lora lora_state_dict load_lora linear_lora PackedWeight PackedLayer PackedLinear PackedInt8Linear pack_model
packed_layer"""


@pytest.mark.parametrize(("module", "names"), [("helpers", HELPERS), ("utils", UTILS)])
def test_every_public_name_can_be_imported_from_where_it_always_was(module, names):
    missing = [name for name in names.split() if not hasattr(importlib.import_module(module), name)]
    assert not missing


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports when it runs; imports for the sake of type hints do not count."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= set() if node.level else {node.module.partition(".")[0]}
    return names & set(MODULES)


def files_of(module: str) -> list[Path]:
    return sorted((CODE / module).glob("*.py")) if module in PACKAGES else [CODE / f"{module}.py"]


def test_every_module_has_its_place():
    assert set(ORDER) == set(MODULES)


@pytest.mark.parametrize("module", ORDER)
def test_modules_import_downwards_only(module):
    below = set(ORDER[: ORDER.index(module)])
    for path in files_of(module):
        assert imported(path) <= below, path.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CODE)))
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CODE)))
def test_a_function_does_one_thing(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            has_docstring = ast.get_docstring(node) is not None
            first = node.body[1] if has_docstring and len(node.body) > 1 else node.body[0]
            lines = node.end_lineno - first.lineno + 1
            assert lines <= 40, f"{node.name} has {lines} lines without its docstring"


def test_importing_the_modules_does_nothing():
    """No model, no socket, no output, and the random state as it was."""
    script = """
import random
import numpy, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, GPT2LMHeadModel  # theirs to answer for
before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
import helpers, utils, exercises, build_it, measure, engine, figures
after = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
import gc, transformers
assert not any(issubclass(type(thing), transformers.PreTrainedModel) for thing in gc.get_objects())
"""
    import helpers  # from the folder that the tests run on

    folders = [Path(helpers.__file__).parent, Path(__file__).parent / "no_network"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
