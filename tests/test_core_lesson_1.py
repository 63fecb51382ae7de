"""The attention that Lesson 1 writes out, and the model around it, are those of the library."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

import lessons
from conftest import tiny_model
from exercise_answers import lesson_path

WRITTEN_OUT = ("CausalSelfAttention", "WrittenOutModel")


def written_out() -> dict[str, ast.ClassDef]:
    """The classes as the lesson has them."""
    cells = lessons.code_cells(lessons.read_notebook(lesson_path(1)))
    nodes = [node for cell in cells for node in ast.parse(cell.source).body]
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef) and node.name in WRITTEN_OUT}


def defined(changes: dict[str, str] | None = None) -> dict[str, Any]:
    """What the lesson's definitions define, with these changes made to their source."""
    source = "\n\n".join(ast.unparse(node) for node in written_out().values())
    for old, new in (changes or {}).items():
        assert source.count(old) >= 1, f"the lesson does not say {old!r}"
        source = source.replace(old, new)
    names: dict[str, Any] = {"torch": torch}
    exec(compile(source, "Lesson 1", "exec"), names)
    return names


def gpt2(heads: int, width: int) -> GPT2LMHeadModel:
    sizes = {"n_layer": 3, "n_head": heads, "n_embd": width, "vocab_size": 50, "n_positions": 40}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(heads)
        config = GPT2Config(**sizes, initializer_range=0.4, bos_token_id=0, eos_token_id=0)
        return GPT2LMHeadModel(config).eval()


MODELS = {"one head": (1, 8), "four heads": (4, 32), "as many heads as numbers in each": (3, 9)}
# How many tokens are read in each forward: a prefill and decode steps, token by token, and several chunks.
FORWARDS = [[7, 1, 1, 1], [1] * 6, [3, 4, 2, 1, 5], [12]]


def ids_for(forwards: list[int], rows: int) -> torch.Tensor:
    return torch.randint(50, (rows, sum(forwards)), generator=torch.Generator().manual_seed(len(forwards)))


def read_in_pieces(names: dict[str, Any], model: GPT2LMHeadModel, ids: torch.Tensor, forwards: list[int]) -> list:
    """The logits (B, V) after each piece, of the model as the lesson writes it out."""
    own = names["WrittenOutModel"](model)
    return [own.read(piece) for piece in ids.split(forwards, dim=1)]


def largest_difference(names: dict[str, Any], model: GPT2LMHeadModel, ids: torch.Tensor, forwards: list[int]) -> float:
    """Of the logits after every piece, between the written-out model and the library's forward over all tokens."""
    with torch.inference_mode():
        whole = model(ids).logits  # (B, S, V)
    ends = torch.tensor(forwards).cumsum(0).tolist()
    ours = read_in_pieces(names, model, ids, forwards)
    return max(float((mine - whole[:, end - 1]).abs().max()) for mine, end in zip(ours, ends, strict=True))


@pytest.mark.parametrize("forwards", FORWARDS, ids=str)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kind", MODELS)
def test_the_written_out_model_says_what_the_library_says(kind: str, rows: int, forwards: list[int]) -> None:
    model, ids = gpt2(*MODELS[kind]), ids_for(forwards, rows)
    assert largest_difference(defined(), model, ids, forwards) < 1e-3


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("kind", MODELS)
def test_the_attention_is_the_layer_of_the_library_in_prefill_and_in_decode(kind: str, layer: int) -> None:
    attn = gpt2(*MODELS[kind]).transformer.h[layer].attn
    width = attn.embed_dim
    x = torch.randn(2, 9, width, generator=torch.Generator().manual_seed(layer))
    ours, cache = defined()["CausalSelfAttention"](attn), DynamicCache()
    with torch.inference_mode():
        for _ in range(layer):  # the library's layers have their places in the cache
            cache.update(x[:, None, :0], x[:, None, :0], len(cache.layers))
        for piece in x.split([5, 1, 1, 1, 1], dim=1):
            piece = piece.contiguous()  # what the library's Conv1D asks for
            theirs, _ = attn(piece, past_key_values=cache)
            torch.testing.assert_close(ours(piece), theirs, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours.keys, cache.layers[layer].keys)
            torch.testing.assert_close(ours.values, cache.layers[layer].values)
    assert ours.keys.shape == (2, attn.num_heads, 9, width // attn.num_heads)


def test_no_weight_falls_on_a_later_token_and_the_others_add_up_to_1() -> None:
    model, ids = gpt2(4, 32), ids_for([6, 3], rows=2)
    own = defined()["WrittenOutModel"](model)
    for piece, cached in zip(ids.split([6, 3], dim=1), (0, 6), strict=True):
        own.read(piece)
        weights = own.attentions[-1].weights  # (B, H, T, S+T)
        assert not weights.triu(diagonal=cached + 1).any()
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


MISTAKES = {
    "the cache is not used": {"if self.keys is not None:": "if False:"},
    "new keys come first": {"torch.cat([self.keys, k], dim=2)": "torch.cat([k, self.keys], dim=2)"},
    "the values are not appended": {
        "torch.cat([self.values, v], dim=2)": "torch.cat([v, v], dim=2)[:, :, :k.shape[2]]"
    },
    "a token may look at the next one": {
        "positions > new_positions[:, None]": "positions > new_positions[:, None] + 1"
    },
    "the mask begins at position 0 in every forward": {"positions[-x.shape[1]:]": "positions[:x.shape[1]]"},
    "the scores are not scaled": {" / q.shape[-1] ** 0.5": ""},
    "the softmax goes over the new tokens": {"softmax(dim=-1)": "softmax(dim=-2)"},
    "heads are not put side by side again": {"mixed.transpose(1, 2).flatten(2)": "mixed.flatten(1).view(x.shape)"},
    "every forward begins at position 0": {"self.tokens_read = end": "self.tokens_read = 0"},
    "the norm before the attention is missing": {"attention(block.ln_1(x))": "attention(x)"},
    "the MLP replaces what it should be added to": {"x = x + block.mlp": "x = block.mlp"},
    "the first position's logits": {"x[:, -1]": "x[:, 0]"},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_lesson_would_be_seen(mistake: str) -> None:
    model, ids = gpt2(4, 32), ids_for([5, 3, 1, 1], rows=2)
    changed = defined(MISTAKES[mistake])
    try:
        difference = largest_difference(changed, model, ids, [5, 3, 1, 1])
    except (RuntimeError, ValueError):
        return
    assert not difference < 1e-2


def test_the_course_model_has_what_the_lesson_reads() -> None:
    """The lesson names parts of the library's GPT-2, which every model of this architecture has."""
    model = tiny_model("gpt2")
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    assert largest_difference(defined(), model, ids, [6, 1, 1]) < 1e-3


def test_the_attention_fits_on_a_screen() -> None:
    attention = written_out()["CausalSelfAttention"]
    lines = {node.lineno for node in ast.walk(attention) if hasattr(node, "lineno")}
    assert len(lines) <= 30
