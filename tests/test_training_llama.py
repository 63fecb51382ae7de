"""One training program for two architectures: sizes, windows, the weighted loss, and checkpoints that keep the best."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

import architectures
import batches
import evaluate
import plans
import train

ROOT = Path(__file__).resolve().parent.parent
TINY = dataclasses.replace(
    plans.SMOKE_PLANS["llama"],
    tokens=8 * 512,
    tokens_per_step=512,
    tokenizer_documents=60,
    held_out_documents=3,
    held_out_memories=2,
    held_out_interval=2,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(ROOT / "models" / "storyteller", local_files_only=True)


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    """The second model's shape with random weights."""
    return architectures.build_model(plans.LLAMA, 0)


# The shape


@pytest.mark.parametrize("name", [*plans.PLANS, "smoke gpt2", "smoke llama"])
def test_parameters_are_counted_by_arithmetic(name: str) -> None:
    plan = plans.SMOKE_PLANS[name.removeprefix("smoke ")] if "smoke" in name else plans.PLANS[name]
    assert architectures.count_parameters(plan) == architectures.build_model(plan, 0).num_parameters()


def test_the_second_model_keeps_to_its_limits(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    config = llama.config
    assert llama.num_parameters() <= 8_000_000
    assert config.num_attention_heads >= 2 * config.num_key_value_heads
    assert config.hidden_size // config.num_attention_heads == 64
    assert config.max_position_embeddings == 2048
    assert llama.get_input_embeddings().weight is llama.get_output_embeddings().weight
    saved = architectures.build_model(plans.LLAMA, 0).half()
    saved.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 16e6
    assert "5,180,672 parameters, 10.36 MB" in architectures.describe_size(plans.LLAMA)


def test_the_second_model_uses_the_bundled_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    own = train.bundled_tokenizer(plans.LLAMA)
    assert own.get_vocab() == tokenizer.get_vocab()
    assert own.model_max_length == 2048
    assert len(own) == plans.LLAMA.vocabulary


# The first model's batches: these hashes were taken before the program knew a second architecture


def short_hash(batch: torch.Tensor) -> str:
    return hashlib.blake2b(batch.numpy().tobytes(), digest_size=8).hexdigest()


@pytest.mark.parametrize(
    ("step", "shape", "expected"),
    [
        (0, (16, 257), "b78ebe8acc1e2b0f"),
        (2, (8, 513), "fa57821c9ed6ccb6"),
        (1264, (32, 129), "5c9f5a5726ae6f3b"),
        (1345, (16, 257), "8ce579fe257fe200"),
    ],
)
def test_the_first_model_reads_the_same_batches(
    step: int, shape: tuple[int, int], expected: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    batch = batches.make_batch(plans.Plan(), tokenizer, step)
    assert batch.shape == shape
    assert short_hash(batch) == expected


def test_the_first_model_keeps_its_held_out_windows(tokenizer: PreTrainedTokenizerBase) -> None:
    digest = hashlib.blake2b(digest_size=8)
    for batch in batches.held_out_batches(plans.Plan(), tokenizer):
        digest.update(batch.numpy().tobytes())
    assert digest.hexdigest() == "1635ebdc5650a8fe"


# Windows


def test_windows_grow_and_half_of_the_last_ones_are_whole() -> None:
    plan = plans.LLAMA
    steps = plan.tokens // plan.tokens_per_step
    lengths = [plan.window_length(step) for step in range(steps)]
    assert max(lengths[: steps // 5 - 1]) == 512
    late = lengths[-(steps * 2 // 5) + 1 :]
    assert late.count(2048) / len(late) == pytest.approx(0.5, abs=0.01)
    assert max(lengths) == plan.context == plan.window_length(10 * steps)
    assert all(plan.tokens_per_step % length == 0 for length in lengths)


@pytest.mark.parametrize("step", [0, 3, 4000, 6000, 6001])
def test_a_batch_depends_on_seed_and_step_only(step: int, tokenizer: PreTrainedTokenizerBase) -> None:
    batch = batches.make_batch(plans.LLAMA, tokenizer, step)
    assert torch.equal(batch, batches.make_batch(plans.LLAMA, tokenizer, step))
    assert batch.shape[0] * (batch.shape[1] - 1) == plans.LLAMA.tokens_per_step


def test_the_longest_document_comes_first() -> None:
    stream = iter([[1] * 3, [2] * 9, [3] * 4, [4] * 5])
    assert list(batches.longest_first(stream, 15)) == [[2] * 9, [3] * 4, [1] * 3]
    assert next(stream) == [4] * 5
    window, _ = batches.pack_window(batches.longest_first(iter([[1] * 3, [2] * 9]), 12), [], 0, True, 12)
    assert window == [2] * 9 + [0, 1, 1]


def test_no_question_on_a_book_stands_in_a_window_without_the_book(tokenizer: PreTrainedTokenizerBase) -> None:
    plan = dataclasses.replace(plans.LLAMA, drill_start=10**9)
    long_steps = [step for step in range(6000, 6020) if plan.window_length(step) == 2048]
    asked = 0
    for step in long_steps:
        for row in batches.make_batch(plan, tokenizer, step).tolist():
            for text in tokenizer.decode(row).split("<|endoftext|>"):
                before, *questions = text.split("Question: Who lost")
                for name in re.findall(r"Answer: ([A-Z][a-z]+) lost the ", " ".join(questions)):
                    asked += 1
                    assert name in before, text
    assert asked > 10


# The loss


def test_answers_are_marked(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "Tom ran.\nAnswer: it is\nno.\n\nQuestion: why?\nAnswer: so"
    ids = torch.tensor([[*tokenizer.encode(text), tokenizer.eos_token_id, *tokenizer.encode("Tom")]])
    marked = tokenizer.decode(ids[batches.answer_mask(tokenizer, ids)])
    assert marked == " it is\n so<|endoftext|>"
    plain = torch.tensor([tokenizer.encode("What does it answer? Nothing.\n")])
    assert not batches.answer_mask(tokenizer, plain).any()


def test_answers_weigh_more(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = torch.tensor([tokenizer.encode("Question: Who?\nAnswer: Anna")])
    weights = batches.token_weights(plans.LLAMA, tokenizer, 0, ids)
    assert set(weights.flatten().tolist()) == {1.0, plans.LLAMA.answer_weight}
    focus = plans.LLAMA.drill_end + 1
    weights = batches.token_weights(plans.LLAMA, tokenizer, focus, ids).flatten().tolist()
    assert weights[0] == pytest.approx(plans.LLAMA.focus_weight)
    assert weights[-1] == pytest.approx(plans.LLAMA.answer_weight)  # Anna is a name


def test_the_weighted_loss_is_cross_entropy_with_class_weights() -> None:
    model = architectures.build_model(plans.SMOKE_PLANS["llama"], 0)
    ids = torch.randint(512, (2, 17), generator=torch.Generator().manual_seed(0))
    by_class = torch.rand(512, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids[:, :-1]).logits.float()
    expected = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), weight=by_class)
    with torch.no_grad():
        loss = train.next_token_loss(model, ids, by_class[ids[:, 1:]])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_drill_starts_early_and_takes_turns_with_text(tokenizer: PreTrainedTokenizerBase) -> None:
    plan = plans.LLAMA
    steps = plan.tokens // plan.tokens_per_step
    drills = [step for step in range(steps) if plan.is_drill(step)]
    assert len(drills) == plan.drill_steps
    assert drills[-1] < 0.1 * steps
    assert {after - before for before, after in itertools.pairwise(drills)} == {2}
    assert plan.warm_up * steps <= drills[0] + 1
    names = set(batches.name_ids(tokenizer).tolist())
    assert set(batches.make_batch(plan, tokenizer, drills[0]).flatten().tolist()) <= names
    assert not set(batches.make_batch(plan, tokenizer, drills[0] + 1).flatten().tolist()) <= names


# Runs


def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = train.start_trainer(TINY, tmp_path / "whole", "cpu")
    whole.run()
    first = train.start_trainer(TINY, tmp_path / "parts", "cpu")
    first.run(stop_after=3)
    first.save_checkpoint()
    log = json.loads((tmp_path / "parts" / "training_log.json").read_text())
    assert log["steps"] == 3 and log["held_out_losses"]
    second = train.resume_trainer(tmp_path / "parts", "cpu")
    assert second.plan == TINY
    second.run()
    assert second.step == whole.step == 8
    assert second.best_loss == whole.best_loss
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, second.model.state_dict()[name]), name


def test_a_resumed_run_can_get_another_budget(tmp_path: Path) -> None:
    first = train.start_trainer(TINY, tmp_path, "cpu")
    first.run(stop_after=3)
    first.save_checkpoint()
    second = train.resume_trainer(tmp_path, "cpu", tokens=5 * TINY.tokens_per_step)
    second.run()
    assert second.step == 5
    assert f"to {5 * TINY.tokens_per_step:,} tokens at step 3" in second.log()["events"][-1]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_compiled_blocks_keep_their_parameters(name: str) -> None:
    """What is compiled is compiled at the first forward, for which a machine needs a C++ compiler: not here."""
    model = architectures.build_model(plans.SMOKE_PLANS[name], 0)
    names = list(model.state_dict())
    train.compile_blocks(model)
    assert list(model.state_dict()) == names
    compiled = [part for part in model.modules() if part._compiled_call_impl is not None]
    assert len(compiled) == plans.SMOKE_PLANS[name].layers


def test_the_best_weights_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = train.start_trainer(TINY, tmp_path / "checkpoint", "cpu")
    losses = iter([5.0, 4.0, 6.0])  # each beside a loss of the drill
    monkeypatch.setattr(train, "held_out_loss", lambda model, parts: next(losses) if len(parts) != 1 else 0.0)
    parts = [torch.zeros(1, 2), torch.zeros(1, 2)]
    kept = {}
    for step in (1, 2, 3):
        trainer.step = step
        with torch.no_grad():
            trainer.model.model.norm.weight.fill_(step)
        trainer.record_held_out(parts)
        kept[step] = trainer.held_out[-1]["loss"]
    assert kept == {1: 5.0, 2: 4.0, 3: 6.0} and trainer.best_loss == 4.0
    train.export(trainer, tmp_path / "out", tmp_path / "log.json")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert saved.model.norm.weight.unique().tolist() == [2.0]
    assert "step 2" in json.loads((tmp_path / "log.json").read_text())["events"][-1]


def test_the_log_tells_whether_the_model_copies(tmp_path: Path) -> None:
    trainer = train.start_trainer(TINY, tmp_path, "cpu")
    trainer.record_held_out(batches.held_out_batches(TINY, trainer.tokenizer))
    assert trainer.held_out[-1]["drill_loss"] == pytest.approx(math.log(512), abs=0.5)  # at random, of 512 tokens


def test_smoke_training_writes_a_llama_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train.py", "--architecture", "llama", "--smoke", "--threads", "1", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    train.main()
    model, tokenizer = evaluate.load_storyteller(tmp_path)
    assert isinstance(model, LlamaForCausalLM)
    inputs = tokenizer(["Once upon a time", "Dear Anna,"], return_tensors="pt", padding=True)
    assert model.generate(**inputs, max_new_tokens=4).shape[0] == 2
    log = json.loads((tmp_path / "training_log.json").read_text())
    assert log["plan"]["architecture"] == "llama"
    assert log["losses"][-1]["loss"] < log["losses"][0]["loss"]


@pytest.mark.parametrize("smoke", [True, False])
def test_no_run_writes_over_the_other_model(smoke: bool) -> None:
    flags = ["--smoke", "--out", "/somewhere"] if smoke else []
    first, second = (
        train.choose_paths(train.parse_arguments([*flags, "--architecture", name])) for name in ("gpt2", "llama")
    )
    if smoke:
        assert not any(path.is_relative_to(ROOT) for path in first)
    else:
        assert first[0].name == "storyteller" and second[0].name == "storyteller-llama"
        assert set(first).isdisjoint(second)
        assert all(path.is_relative_to(ROOT / "models" / "training" / "checkpoints") for path in (first[1], second[1]))
