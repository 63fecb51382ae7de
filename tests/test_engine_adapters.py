"""Many adapters in one step, beside PEFT's own computation; files that are no adapter of this model."""

from __future__ import annotations

import copy
import json
import shutil
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load, save_file
from torch import nn

from conftest import tiny_model
from engine import Engine, Sampling
from engine.adapters import CONFIG, WEIGHTS
from helpers import load_model
from test_engine_sampling import alone
from utils import add_lora, lora_state_dict, pack_model, packed_layers, quantize_model

FOLDERS = TemporaryDirectory()
TARGETS = {
    "gpt2": (["c_attn"], ["c_attn", "attn.c_proj"], ["c_attn", "c_proj", "c_fc"]),
    "llama": (["q_proj", "v_proj"], ["k_proj", "o_proj", "down_proj"], ["q_proj", "gate_proj", "up_proj"]),
}
TARGETS["qwen3"] = TARGETS["llama"]


def trained(config: LoraConfig, model: nn.Module, seed: int) -> PeftModel:
    """PEFT's adapter on a copy of the model, with weights that change its answers."""
    generator = torch.Generator().manual_seed(seed)
    adapted = get_peft_model(copy.deepcopy(model), config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter) * 0.3
    return adapted.double().eval() if model.dtype == torch.float64 else adapted.eval()


@lru_cache(maxsize=32)
def adapter(architecture: str, kind: int) -> tuple[PeftModel, Path]:
    """One of three adapters, each of another rank and on other layers: PEFT's model and the folder it has saved."""
    config = LoraConfig(
        r=(2, 5, 3)[kind], lora_alpha=(4, 5, 8)[kind], target_modules=TARGETS[architecture][kind], use_rslora=kind == 2
    )
    model = trained(config, tiny_model(architecture), seed=kind)
    folder = Path(FOLDERS.name) / f"{architecture}-{kind}"
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
def test_every_row_gets_its_own_adapter(architecture):
    base, prompts = tiny_model(architecture), [[5, 6, 7], list(range(20)), [9]]
    kinds = [None, 0, 1, 2]
    engine = Engine(base, None, max_rows=6, step_tokens=9, block_tokens=4)
    for kind in kinds[1:]:
        engine.load_adapter(f"number {kind}", adapter(architecture, kind)[1])
    wanted = []
    for prompt in prompts:
        for kind in kinds:
            engine.add(prompt, Sampling(10), adapter=None if kind is None else f"number {kind}")
            wanted.append(alone(base if kind is None else adapter(architecture, kind)[0], prompt, Sampling(10)))
    assert [request.output_ids for request in engine.run()] == wanted
    assert len({tuple(answer) for answer in wanted}) > 9


@pytest.mark.parametrize("how", ["plain", "packed", "quantized"])
def test_rows_without_an_adapter_are_the_same_to_the_last_bit(how):
    base = tiny_model("gpt2").float()
    base = quantize_model(base) if how == "quantized" else pack_model(base) if how == "packed" else base
    assert bool(packed_layers(base)) == (how == "packed")

    def logprobs(names: list[str | None]) -> list:
        engine = Engine(base, None, max_rows=8, step_tokens=20)
        if any(names):
            for kind in range(3):
                engine.load_adapter(str(kind), adapter("gpt2", kind)[1])
        for row, name in enumerate(names):
            engine.add(list(range(row + 1, row + 9)), Sampling(9, logprobs=2), adapter=name)
        return [request.logprobs for request in engine.run()]

    without, with_some = logprobs([None] * 8), logprobs([None, "0", None, "1", None, "2", None, "0"])
    assert without[::2] == with_some[::2]
    assert all(one != other for one, other in zip(without[1::2], with_some[1::2], strict=True))


def test_an_adapter_over_packed_and_quantized_weights_is_the_same_update():
    base = load_model()[0]
    folder = Path(FOLDERS.name) / "storyteller"
    trained(LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn", "c_fc"]), base, 3).save_pretrained(folder)
    answers = []
    for model in (base, pack_model(base), quantize_model(base), pack_model(quantize_model(base))):
        engine = Engine(model, None)
        engine.load_adapter("a", folder)
        for name in ("a", None):
            engine.add([5, 6, 7, 8], Sampling(12), adapter=name)
        answers.append([request.output_ids for request in engine.run()])
    assert answers[0] == answers[1] and all(one != other for one, other in answers)


def test_a_lora_state_dict_is_an_adapter_too():
    base = tiny_model("llama")
    adapted = add_lora(copy.deepcopy(base), 3, alpha=6, targets=("q_proj", "down_proj"))
    for parameter in (p for name, p in adapted.named_parameters() if "lora_" in name):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).to(parameter)
    engine = Engine(base, None)
    engine.load_adapter("strong", lora_state_dict(adapted), alpha=6)
    engine.load_adapter("weak", lora_state_dict(adapted))
    for name in ("strong", "weak"):
        engine.add([1, 2, 3], Sampling(10), adapter=name)
    strong, weak = (request.output_ids for request in engine.run())
    assert strong == alone(adapted, [1, 2, 3], Sampling(10)) != weak


def test_a_model_that_has_adapters_inside_is_served_with_them():
    base = tiny_model("gpt2")
    adapted = add_lora(copy.deepcopy(base), 2)
    for parameter in (p for name, p in adapted.named_parameters() if "lora_" in name):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).to(parameter) * 0.3
    engine = Engine(adapted, None)
    engine.add([1, 2, 3], Sampling(10))
    assert engine.run()[0].output_ids == alone(adapted, [1, 2, 3], Sampling(10)) != alone(base, [1, 2, 3], Sampling(10))


# --- Adapters and the cache --------------------------------------------------------------------------


def test_a_prefix_is_shared_within_an_adapter_only():
    base, prompt = tiny_model("gpt2"), list(range(40))
    engine = Engine(base, None)
    engine.load_adapter("a", adapter("gpt2", 0)[1])
    found = []
    for name in (None, "a", None, "a"):
        engine.add(prompt, Sampling(3), adapter=name)
        (request,) = engine.run()
        found.append(request.cached_tokens)
        assert request.output_ids == alone(adapter("gpt2", 0)[0] if name else base, prompt, Sampling(3))
    assert found == [0, 0, 32, 32]


def test_other_weights_under_the_same_name_find_nothing_of_the_old_ones():
    prompt = list(range(40))
    engine = Engine(tiny_model("gpt2"), None)
    for kind in (0, 1, 0):
        engine.load_adapter("a", adapter("gpt2", kind)[1])
        engine.add(prompt, Sampling(3), adapter="a")
        (request,) = engine.run()
        assert request.cached_tokens == 0
        assert request.output_ids == alone(adapter("gpt2", kind)[0], prompt, Sampling(3))
        engine.unload_adapter("a")


def test_an_adapter_in_use_stays_until_the_last_request_is_gone():
    engine = Engine(tiny_model("gpt2"), None, max_rows=1)
    engine.load_adapter("a", adapter("gpt2", 0)[1])
    engine.add([1], Sampling(3))
    running, waiting = (engine.add([1], Sampling(3), adapter="a") for _ in range(2))
    for step in range(12):
        if engine.requests.keys() & {running, waiting}:
            with pytest.raises(ValueError, match="adapter 'a' is in use by [12] requests, first [12]"):
                engine.unload_adapter("a")
        engine.step()
        if step == 4:
            engine.cancel(waiting)
    engine.unload_adapter("a")
    with pytest.raises(ValueError, match=r"there is no adapter 'a'; loaded are \[\]"):
        engine.add([1], adapter="a")


def test_an_adapter_is_a_copy_of_what_it_was_loaded_from(tmp_path):
    base, folder = tiny_model("gpt2"), tmp_path / "adapter"
    shutil.copytree(adapter("gpt2", 0)[1], folder)
    state = lora_state_dict(trained_inside(base))
    engine = Engine(base, None)
    engine.load_adapter("file", folder)
    engine.load_adapter("state", state)
    before = answers_with(engine, ["file", "state"])
    (folder / WEIGHTS).write_bytes(b"")
    for weight in state.values():
        weight.zero_()
    assert answers_with(engine, ["file", "state"]) == before


def answers_with(engine: Engine, names: list[str | None]) -> list[list[int]]:
    for name in names:
        engine.add([1, 2, 3], Sampling(10), adapter=name)
    return [request.output_ids for request in engine.run()]


def trained_inside(base: nn.Module, r: int = 2) -> nn.Module:
    """A copy of the model with an adapter of ours in it."""
    adapted = add_lora(copy.deepcopy(base), r)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = (
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).to(parameter) * 0.3
            )
    return adapted


# --- What is refused ---------------------------------------------------------------------------------


def damaged(folder: Path, how: str) -> None:
    """Make the copy of a good adapter one that must be refused."""
    config, weights = json.loads((folder / CONFIG).read_text()), load((folder / WEIGHTS).read_bytes())
    first = next(iter(weights))
    if how == "cut short":
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-50])
    elif how == "pickled":
        torch.save(weights, folder / "adapter_model.bin")
        (folder / WEIGHTS).unlink()
    elif how == "a pickle under another name":
        torch.save(weights, folder / WEIGHTS)
    elif how == "no config":
        (folder / CONFIG).unlink()
    elif how == "config cut short":
        (folder / CONFIG).write_text((folder / CONFIG).read_text()[:40])
    elif how == "config of a list":
        (folder / CONFIG).write_text("[]")
    elif how in SETTINGS:
        (folder / CONFIG).write_text(json.dumps({**config, **SETTINGS[how]}))
    else:
        changed = {
            "half of a pair": {name: weight for name, weight in weights.items() if name != first},
            "no weights": {},
            "something else beside": {**weights, "base_model.model.lm_head.weight": torch.zeros(2, 2)},
            "not a number": {**weights, first: weights[first] * torch.nan},
            "another rank in B": {**weights, first: torch.zeros(7, weights[first].shape[1])},
            "another width": {name: w[:, :-1] if "lora_A" in name else w for name, w in weights.items()},
            "rank 0": {name: w[:0] if "lora_A" in name else w[:, :0] for name, w in weights.items()},
            "three dimensions": {name: w[None].contiguous() for name, w in weights.items()},
        }[how]
        save_file({name: weight.contiguous() for name, weight in changed.items()}, folder / WEIGHTS)


SETTINGS = {
    "dora": {"use_dora": True},
    "a trained bias": {"bias": "lora_only"},
    "a trained head": {"modules_to_save": ["lm_head"]},
    "ranks by pattern": {"rank_pattern": {"c_attn": 9}},
    "changed base weights": {"init_lora_weights": "pissa"},
    "another method": {"peft_type": "IA3"},
    "no strength": {"lora_alpha": None},
}
REFUSED = {
    "cut short": "is damaged",
    "pickled": "has no adapter_model.safetensors; adapter_model.bin is a pickle and not read",
    "a pickle under another name": "is damaged",
    "no config": "adapter_config.json in .* cannot be read",
    "config cut short": "cannot be read",
    "config of a list": "peft_type is None",
    "half of a pair": "missing .*lora_[AB]",
    "no weights": "two matrices for every layer it changes",
    "something else beside": "not understood .*lm_head.weight",
    "not a number": "NaN or infinity",
    "another rank in B": r"the model's layer takes \(rank, 32\) and \(96, rank\)",
    "rank 0": r"the model's layer takes \(rank, 32\) and \(96, rank\)",
    "three dimensions": "two matrices for every layer",
    "another width": r"the model's layer takes \(rank, 32\) and \(96, rank\)",
    **dict.fromkeys(SETTINGS, "the engine computes plain LoRA"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_files_that_are_no_adapter_are_refused_and_change_nothing(how, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(adapter("gpt2", 0)[1], folder)
    damaged(folder, how)
    engine = Engine(tiny_model("gpt2"), None)
    with pytest.raises(ValueError, match=REFUSED[how]):
        engine.load_adapter("a", folder)
    assert not engine.adapters
    engine.load_adapter("a", adapter("gpt2", 0)[1])


def test_nothing_in_a_pickle_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    folder = tmp_path / "adapter"
    shutil.copytree(adapter("gpt2", 0)[1], folder)
    torch.save(Trap(), folder / WEIGHTS)
    torch.save(Trap(), folder / "adapter_model.bin")
    with pytest.raises(ValueError, match="is damaged"):
        Engine(tiny_model("gpt2"), None).load_adapter("a", folder)
    assert not (tmp_path / "executed").exists()


def test_an_adapter_of_another_model_is_refused():
    engine = Engine(tiny_model("gpt2"), None)
    with pytest.raises(ValueError, match="'model.layers.0.*layers of this model that can be changed"):
        engine.load_adapter("a", adapter("llama", 0)[1])
    state = lora_state_dict(add_lora(tiny_model("gpt2"), 2, targets=["lm_head"]))
    with pytest.raises(ValueError, match="'lm_head'"):
        engine.load_adapter("a", state)


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_must_be_one(name):
    with pytest.raises(ValueError, match="the name is .*; it must be a text and none of the loaded"):
        Engine(tiny_model("gpt2"), None).load_adapter(name, adapter("gpt2", 0)[1])


def test_a_name_is_given_once():
    engine = Engine(tiny_model("gpt2"), None)
    engine.load_adapter("a", adapter("gpt2", 0)[1])
    with pytest.raises(ValueError, match=r"the name is 'a'; it must be a text and none of the loaded: \['a'\]"):
        engine.load_adapter("a", adapter("gpt2", 1)[1])
    with pytest.raises(ValueError, match=r"there is no adapter 'b'; loaded are \['a'\]"):
        engine.unload_adapter("b")


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -1])
def test_a_strength_must_be_a_number(alpha):
    state = lora_state_dict(add_lora(tiny_model("gpt2"), 2))
    with pytest.raises(ValueError, match="alpha is"):
        Engine(tiny_model("gpt2"), None).load_adapter("a", state, alpha=alpha)
    with pytest.raises(ValueError, match="alpha"):
        Engine(tiny_model("gpt2"), None).load_adapter("a", adapter("gpt2", 0)[1], alpha=2.0)
