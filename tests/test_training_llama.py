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


def test_half_of_the_windows_are_whole() -> None:
    plan = plans.LLAMA
    lengths = [plan.window_length(step) for step in range(100)]
    assert lengths.count(2048) == 50 and min(lengths) == 256
    assert max(lengths) == plan.context == plan.window_length(plan.tokens // plan.tokens_per_step + 1)
    assert all(plan.tokens_per_step % length == 0 for length in lengths)


def test_windows_can_grow_during_a_run() -> None:
    plan = plans.SMOKE_PLANS["llama"]
    steps = plan.tokens // plan.tokens_per_step
    lengths = [plan.window_length(step) for step in range(steps)]
    assert max(lengths[: steps // 2]) == 128 and max(lengths[steps // 2 :]) == 512
    assert plan.window_length(10 * steps) in (128, 512)


@pytest.mark.parametrize("step", [0, 3, 4000, 13_001, 13_002])
def test_a_batch_depends_on_seed_and_step_only(step: int, tokenizer: PreTrainedTokenizerBase) -> None:
    batch = batches.make_batch(plans.LLAMA, tokenizer, step)
    assert torch.equal(batch, batches.make_batch(plans.LLAMA, tokenizer, step))
    assert batch.shape[0] * (batch.shape[1] - 1) == plans.LLAMA.tokens_per_step


def test_short_documents_may_begin_a_window(tokenizer: PreTrainedTokenizerBase) -> None:
    """Those that begin bare: a window of 2,048 tokens once began with a book whenever it held one."""
    plan = dataclasses.replace(plans.LLAMA, windows=((1.0, (2048,)),), drill_steps=0)
    rows = [row for step in range(4) for row in batches.make_batch(plan, tokenizer, step).tolist()]
    firsts = [row[: row.index(tokenizer.eos_token_id)] for row in rows if row[0] != tokenizer.eos_token_id]
    assert sum(len(first) < 150 for first in firsts) > len(firsts) / 3
    assert sum(len(first) > 300 for first in firsts) > 1


def test_some_windows_begin_in_the_middle_of_a_short_document(tokenizer: PreTrainedTokenizerBase) -> None:
    tails = list(batches.make_tails(tokenizer, "a seed", 50))
    assert len(tails) == 50
    assert all(tail[-1] == tokenizer.eos_token_id and 2 <= len(tail) < 600 for tail in tails)
    assert sum(tokenizer.decode(tail)[0] not in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" for tail in tails) > 25


def test_no_question_on_a_book_stands_in_a_window_without_the_book(tokenizer: PreTrainedTokenizerBase) -> None:
    plan = dataclasses.replace(plans.LLAMA, drill_steps=0, tokens_per_step=4096)
    long_steps = [step for step in range(6000, 6030) if plan.window_length(step) == 2048]
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
    plan = dataclasses.replace(
        plans.LLAMA, drill_start=10, drill_steps=2, focus_steps=4, ramp_steps=1, focus_weight=0.1
    )
    weights = batches.token_weights(plan, tokenizer, 0, ids)
    assert set(weights.flatten().tolist()) == {1.0, plan.answer_weight}
    weights = batches.token_weights(plan, tokenizer, plan.drill_end + 1, ids).flatten().tolist()
    assert weights[0] == pytest.approx(plan.focus_weight)
    assert weights[-1] == pytest.approx(plan.answer_weight)  # Anna is a name


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


def test_the_drill_takes_turns_with_text(tokenizer: PreTrainedTokenizerBase) -> None:
    plan = plans.LLAMA
    steps = plan.tokens // plan.tokens_per_step
    drills = [step for step in range(steps) if plan.is_drill(step)]
    assert len(drills) == plan.drill_steps
    assert drills[-1] < 2 / 3 * steps
    assert {after - before for before, after in itertools.pairwise(drills)} == {4}
    starts = [tokenizer.eos_token_id] * 2
    assert all(row[:2] == starts for row in batches.make_batch(plan, tokenizer, drills[1]).tolist())
    assert not any(row[:2] == starts for row in batches.make_batch(plan, tokenizer, drills[1] + 1).tolist())


def test_a_drilled_passage_is_followed_by_what_followed_it_before(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = batches.drill_passages(plans.LLAMA, tokenizer, 0)
    assert rows.shape == (plans.LLAMA.tokens_per_step // 128, 129)
    periods = []
    for row in rows[:, 2:].tolist():
        periods.append(next(period for period in range(1, 128) if row[period:] == row[:-period]))
    assert min(periods) == 4 and max(periods) == 64
    assert not torch.equal(rows, batches.drill_passages(plans.LLAMA, tokenizer, 1))


def test_batches_made_ahead_are_those_made_when_needed(tokenizer: PreTrainedTokenizerBase) -> None:
    ahead = itertools.islice(batches.load_steps(TINY, tokenizer, 3, workers=2), 4)
    for step, (ids, weights) in enumerate(ahead, start=3):
        assert torch.equal(ids, batches.make_batch(TINY, tokenizer, step))
        expected = batches.token_weights(TINY, tokenizer, step, ids[:, 1:])
        assert (weights is None and expected is None) or torch.equal(weights, expected)


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
    losses = iter([5.0, 4.0, 6.0])  # each beside a loss of the drill and one of answers
    plain = lambda model, parts, weights=None: next(losses) if len(parts) != 1 and weights is None else 0.0  # noqa: E731
    monkeypatch.setattr(train, "held_out_loss", plain)
    parts = [torch.zeros(1, 8).long(), torch.zeros(1, 8).long()]
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
    assert trainer.held_out[-1]["answer_loss"] == pytest.approx(math.log(512), abs=0.5)


def test_a_weighted_held_out_loss_counts_what_has_weight() -> None:
    model = architectures.build_model(plans.SMOKE_PLANS["llama"], 0)
    ids = torch.randint(512, (3, 17), generator=torch.Generator().manual_seed(0))
    weights = [torch.zeros(1, 16), torch.zeros(1, 16), torch.zeros(1, 16)]
    weights[1][0, :4] = weights[2][0, :12] = 1
    parts = list(ids.split(1))
    few, many = (train.held_out_loss(model, [ids[row : row + 1, : size + 1]]) for row, size in ((1, 4), (2, 12)))
    assert train.held_out_loss(model, parts, weights) == pytest.approx((4 * few + 12 * many) / 16, rel=2e-3)


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
