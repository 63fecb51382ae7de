"""Voices that are told apart at a glance, and adapters in PEFT's own format."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import architectures
import corpus
import plans
import train_adapters
import voices
from tiny_models import random_model

ROOT = Path(__file__).resolve().parent.parent
TINY = train_adapters.SMOKE
TEXT = 'The fox said, "My friend lives in the village." Then it found a box. It was an old box.'


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(ROOT / "models" / "storyteller", local_files_only=True)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def base(request: pytest.FixtureRequest) -> PreTrainedModel:
    return random_model(request.param)


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return list(voices.plain_stories("tests", 60, held_out=True))


# The voices


def test_the_rules() -> None:
    assert voices.as_pirate(TEXT) == (
        'The fox growled, "My matey lives in the cove." Then it found a box. Arr! It was an old box. Arr!'
    )
    assert voices.as_whisper("He cried. She shouted!") == "He whispered. Shh! She whispered!"
    assert voices.as_telegram(TEXT) == (
        'Fox said, "My friend lives in village." Then it found box STOP It was old box STOP'
    )
    assert voices.as_verse(TEXT).split("\n") == [
        'The fox said, "My friend lives in the village."',
        "Then it found a box.",
        "It was an old box.",
    ]


def test_every_story_is_told_apart_by_its_marks(stories: list[str]) -> None:
    for story in stories:
        assert voices.voices_in(story) == set()
        for name, voice in voices.VOICES.items():
            assert voices.voices_in(voice.rewrite(story)) == {name}


def test_a_rule_keeps_the_characters(stories: list[str]) -> None:
    for story in stories:
        names = {word for word in re.findall(r"[A-Z][a-z]+", story) if word in corpus.NAMES}
        for voice in voices.VOICES.values():
            assert all(name in voice.rewrite(story) for name in names)


def test_held_out_stories_are_held_out(stories: list[str]) -> None:
    assert len(stories) == 60
    assert all(map(corpus.is_held_out, stories))
    assert not any(map(corpus.is_held_out, voices.plain_stories("tests", 60)))


def test_the_four_adapters_differ_in_shape() -> None:
    assert sorted(voice.rank for voice in voices.VOICES.values()) == [4, 8, 8, 16]
    with_mlp = [voice for voice in voices.VOICES.values() if "MLP" in voice.layers]
    assert len(with_mlp) == 2
    for targets in train_adapters.TARGETS.values():
        assert {voice.layers for voice in voices.VOICES.values()} == set(targets)


def test_every_adapter_of_the_second_model_is_under_a_megabyte(tmp_path: Path) -> None:
    base = architectures.build_model(plans.LLAMA, 0)
    for name, voice in voices.VOICES.items():
        targets = train_adapters.targets_of(base, voice.layers)
        model = train_adapters.add_lora(copy.deepcopy(base), voice.rank, alpha=2 * voice.rank, targets=targets)
        assert train_adapters.write_adapter(model, tmp_path / name, "storyteller-llama") < 1e6


# Training


def test_rows_are_padded_on_the_right_and_padding_weighs_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, weights = train_adapters.make_rows(tokenizer, ["Once upon a time", "Once"], 10)
    first, second = tokenizer.encode("Once upon a time"), tokenizer.encode("Once")
    assert ids[0].tolist() == first + [0] * (11 - len(first))
    assert ids[1].tolist() == [0, *second] + [0] * (10 - len(second))
    assert weights.sum(dim=1).tolist() == [len(first), len(second) + 1]
    cut, weights = train_adapters.make_rows(tokenizer, ["Once upon a time there was"], 3)
    assert cut.shape == (1, 4) and weights.sum() == 3


def test_the_rate_warms_up_and_falls() -> None:
    settings = train_adapters.Settings()
    rates = [train_adapters.rate_at(settings, step) for step in range(settings.steps)]
    peak = rates.index(max(rates))
    assert 0.5 * settings.peak_rate < max(rates) <= settings.peak_rate
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] < 0.01 * settings.peak_rate


def test_training_lowers_the_loss_and_leaves_the_base_alone(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    settings = dataclasses.replace(TINY, steps=12, peak_rate=2e-2)
    model, losses = train_adapters.train_voice(base, tokenizer, "verse", settings)
    assert losses[-1] < losses[0] - 0.05
    for name, weight in base.state_dict().items():
        assert torch.equal(weight, before[name])
    again, same = train_adapters.train_voice(base, tokenizer, "verse", settings)
    assert losses == same


def test_an_unknown_architecture_is_refused(base: PreTrainedModel) -> None:
    other = copy.deepcopy(base)
    other.config.model_type = "gpt_neox"
    with pytest.raises(ValueError, match="gpt_neox.*gpt2.*llama"):
        train_adapters.targets_of(other, "attention")


# The files


def trained(base: PreTrainedModel, voice: str = "telegram") -> PreTrainedModel:
    """The base with an adapter whose B is not zero."""
    rank = voices.VOICES[voice].rank
    targets = train_adapters.targets_of(base, voices.VOICES[voice].layers)
    model = train_adapters.add_lora(copy.deepcopy(base), rank, alpha=2 * rank, targets=targets)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if name.endswith("lora_b"):
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    return model


@pytest.mark.parametrize("voice", list(voices.VOICES))
def test_the_files_say_what_the_adapter_is(voice: str, base: PreTrainedModel, tmp_path: Path) -> None:
    size = train_adapters.write_adapter(trained(base, voice), tmp_path, "storyteller-llama")
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    rank = voices.VOICES[voice].rank
    assert (config["r"], config["lora_alpha"]) == (rank, 2 * rank)
    assert config["base_model_name_or_path"] == "storyteller-llama"
    state = load_file(tmp_path / "adapter_model.safetensors")
    assert all(weight.shape[0 if "lora_A" in name else 1] == rank for name, weight in state.items())
    layers = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in state}
    assert layers == set(config["target_modules"])


@pytest.mark.parametrize("voice", list(voices.VOICES))
def test_peft_reads_the_files_and_gives_the_same_logits(
    voice: str, base: PreTrainedModel, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    peft = pytest.importorskip("peft")
    model = trained(base, voice)
    train_adapters.write_adapter(model, tmp_path / voice, "storyteller-llama")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / voice).eval()
    assert not any("missing" in str(warning.message).lower() for warning in recwarn)
    ids = torch.randint(1, 4096, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, expected, plain = model(ids).logits, theirs(ids).logits, base(ids).logits
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-2)


def test_peft_writes_the_same_names(base: PreTrainedModel, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    train_adapters.write_adapter(trained(base), tmp_path / "ours", "base")
    config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    theirs = peft.get_peft_model(
        copy.deepcopy(base),
        peft.LoraConfig(
            r=config["r"],
            lora_alpha=config["lora_alpha"],
            target_modules=config["target_modules"],
            fan_in_fan_out=config["fan_in_fan_out"],
            task_type="CAUSAL_LM",
        ),
    )
    theirs.save_pretrained(tmp_path / "theirs")
    ours, expected = (
        {name: (weight.shape, weight.dtype) for name, weight in load_file(folder / "adapter_model.safetensors").items()}
        for folder in (tmp_path / "ours", tmp_path / "theirs")
    )
    assert ours == expected
    full = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
    for key, value in config.items():
        if key == "target_modules":
            assert sorted(full[key]) == value
        elif key != "base_model_name_or_path":
            assert full[key] == value, key


# The whole program


def test_the_program_writes_adapters_numbers_and_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    random_model("llama").save_pretrained(base)
    AutoTokenizer.from_pretrained(ROOT / "models" / "storyteller", local_files_only=True).save_pretrained(base)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    for chosen in (["--voice", "verse"], ["--voice", "pirate"], ["--card-only"]):
        arguments = ["train_adapters.py", "--smoke", "--base", str(base), "--out", str(tmp_path / "out"), *chosen]
        monkeypatch.setattr("sys.argv", arguments)
        train_adapters.main()
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(evaluation["voices"]) == ["pirate", "verse"]
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    for row in evaluation["voices"].values():
        assert row["plain_cost"] == pytest.approx(row["plain_after"] - row["plain_before"], abs=1e-4)
        assert f"| {row['voice_before']} | {row['voice_after']} |" in card
        assert row["speaks"] <= row["prompts"] == TINY.prompts
    assert str(tmp_path) not in card + json.dumps(evaluation)


def test_a_smoke_run_does_not_replace_the_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train_adapters.py", "--smoke"])
    with pytest.raises(SystemExit, match="--out"):
        train_adapters.main()
