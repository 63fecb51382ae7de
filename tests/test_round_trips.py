"""What is saved comes back as it was; what is damaged is refused. Weights are read as safetensors only."""

from __future__ import annotations

import copy
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

import helpers
import models
from conftest import ARCHITECTURES, tiny_model
from utils import LoraLayer, add_lora, load_lora, lora_state_dict, quantize_model

IDS = torch.tensor([[5, 100, 7, 42, 9]])
EVERY_ARCHITECTURE = pytest.mark.parametrize("architecture", ARCHITECTURES)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def adapted(model: nn.Module, seed: int) -> nn.Module:
    """The model with adapters of rank 3 whose weights are all random."""
    torch.manual_seed(seed)
    for layer in add_lora(model, 3, alpha=5).modules():
        if isinstance(layer, LoraLayer):
            nn.init.normal_(layer.lora_b)
    return model


@EVERY_ARCHITECTURE
def test_an_adapter_saved_and_loaded_gives_the_same_logits(architecture, tmp_path):
    trained = adapted(tiny_model(architecture), seed=1)
    save_file(lora_state_dict(trained), tmp_path / "adapter.safetensors")
    other = adapted(tiny_model(architecture), seed=2)
    assert not torch.allclose(logits(other), logits(trained), atol=1e-3)
    load_lora(other, load_file(tmp_path / "adapter.safetensors"))
    assert torch.equal(logits(other), logits(trained))


@EVERY_ARCHITECTURE
@pytest.mark.parametrize(("bits", "group_size"), [(8, None), (4, 16)])
def test_a_quantized_model_saved_and_loaded_gives_the_same_logits(architecture, bits, group_size, tmp_path):
    quantized = quantize_model(tiny_model(architecture), bits=bits, group_size=group_size)
    save_model(quantized, str(tmp_path / "model.safetensors"))
    other = quantize_model(tiny_model(architecture, seed=1), bits=bits, group_size=group_size)
    assert not torch.allclose(logits(other), logits(quantized), atol=1e-3)
    load_model(other, tmp_path / "model.safetensors")
    assert torch.equal(logits(other), logits(quantized))


def test_an_adapter_over_a_quantized_base_comes_back(tmp_path, gpt2):
    quantized = quantize_model(gpt2)
    trained = adapted(copy.deepcopy(quantized), seed=1)
    save_file(lora_state_dict(trained), tmp_path / "adapter.safetensors")
    other = load_lora(adapted(quantized, seed=2), load_file(tmp_path / "adapter.safetensors"))
    assert torch.equal(logits(other), logits(trained))


@EVERY_ARCHITECTURE
def test_a_model_saved_and_loaded_gives_the_same_logits(architecture, tmp_path, tokenizer):
    model = tiny_model(architecture)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = helpers.load_model(tmp_path, dtype=torch.float64, device="cpu")
    assert torch.equal(logits(loaded), logits(model))


# --- Damage ------------------------------------------------------------------------------------------


def edit_config(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return damage


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def flip_a_byte_of_the_header(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[20] ^= 0xFF
    weights.write_bytes(content)


class Trap:
    """Unpickling this leaves a file behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.folder / "sprung",))


def pickle_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder)))


LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}

DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated weights": (truncate, "incomplete metadata, file not fully covered"),
    "empty weights": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "header too small"),
    "corrupt weights": (flip_a_byte_of_the_header, "deserializing header"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "pickled weights": (pickle_the_weights, "model.safetensors"),
    "no tokenizer": (
        lambda folder: [file.unlink() for file in folder.glob("tokenizer*")],
        "the tokenizer has no vocabulary; its files are missing",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "model_type"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON"),
    "another architecture": (
        edit_config(**LLAMA),
        r"the config asks for lm_head.weight \(and 11 more\), and the weights",
    ),
    "more layers": (edit_config(n_layer=7), r"the config asks for transformer.h.6.attn.c_attn.bias \(and 11 more\)"),
    "another width": (edit_config(n_embd=128), r"the config asks for .* the weights hold none of that name and shape"),
    "no causal model": (lambda folder: (folder / "config.json").write_text('{"model_type": "t5"}'), "T5Config"),
}


@pytest.fixture
def copied_storyteller(tmp_path: Path) -> Path:
    return Path(shutil.copytree(helpers.STORYTELLER, tmp_path / "storyteller"))


def test_a_copied_folder_loads(copied_storyteller):
    model, tokenizer = helpers.load_model(copied_storyteller, device="cpu")
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused(name, copied_storyteller):
    damage, cause = DAMAGES[name]
    damage(copied_storyteller)
    with pytest.raises(OSError, match=f"cannot load '.*storyteller' from its folder.* The cause was: .*{cause}"):
        helpers.load_model(copied_storyteller, device="cpu")
    assert not (copied_storyteller / "sprung").exists()


def test_the_trap_works(tmp_path):
    """Loading the pickle would have been seen."""
    pickle.loads(pickle.dumps(Trap(tmp_path)))
    assert (tmp_path / "sprung").exists()


def test_nothing_of_ours_unpickles():
    for module in Path(helpers.__file__).parent.rglob("*.py"):
        text = module.read_text()
        assert not re.search(r"\btorch\.load\b|\bimport pickle\b|\bpickle\.", text), module.name
    assert "use_safetensors=True" in Path(models.__file__).read_text()
