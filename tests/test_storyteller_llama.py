"""The second bundled model and its four voices: found by name, small, as good as their cards say, and served."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

import evaluate
import helpers
import measures
import train_adapters
import voices
from engine import Engine, Sampling
from helpers import Request, load_model, run_continuous

ROOT = Path(__file__).resolve().parent.parent
FOLDER, ADAPTERS = ROOT / "models" / "storyteller-llama", ROOT / "models" / "adapters"
TALKING = [story for story in evaluate.STORY_OPENINGS if "{name}" not in story]


@pytest.fixture(scope="module")
def bundled() -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    return load_model("storyteller-llama", device="cpu")


@pytest.fixture(scope="module")
def evaluation() -> dict:
    return json.loads((FOLDER / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def spoken() -> dict:
    """The numbers of the four voices."""
    return json.loads((ADAPTERS / "evaluation.json").read_text())["voices"]


# Loading


def test_the_model_is_found_by_its_name(bundled: tuple, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, tokenizer = bundled
    assert isinstance(model, LlamaForCausalLM) and tokenizer.padding_side == "left" and not model.training
    monkeypatch.chdir(tmp_path)  # wherever the caller stands
    monkeypatch.setenv("COURSE_MODEL", "storyteller-llama")
    course, _ = helpers.course_model()
    assert torch.equal(course.lm_head.weight.cpu(), model.lm_head.weight)
    assert load_model("storyteller", device="cpu")[0].config.model_type == "gpt2"


def test_it_loads_without_a_network() -> None:
    folders = [ROOT / "tests" / "no_network", ROOT / "code"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders)), "COURSE_MODEL": "storyteller-llama"}
    script = "import helpers; print(helpers.run_static([('Once upon a time', 4)], 1)[0].output_ids)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=200)
    assert run.returncode == 0, run.stderr
    assert len(json.loads(run.stdout)) == 4


def test_it_is_small_and_of_todays_architecture(bundled: tuple) -> None:
    model, tokenizer = bundled
    assert (FOLDER / "model.safetensors").stat().st_size < 16e6
    assert model.num_parameters() <= 8e6
    assert model.config.num_attention_heads >= 2 * model.config.num_key_value_heads
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 2048
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert {weight.dtype for weight in load_file(FOLDER / "model.safetensors").values()} == {torch.float16}


def test_both_models_share_a_tokenizer(bundled: tuple) -> None:
    _, tokenizer = bundled
    _, first = load_model("storyteller", device="cpu")
    assert tokenizer.get_vocab() == first.get_vocab()
    text = "Dear Anna,\nLena lost the red kite. Où ? 你好 \U0001f98a"
    assert tokenizer.encode(text) == first.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


# What the cards say


def test_the_card_holds_the_numbers_of_the_evaluation(evaluation: dict) -> None:
    assert (FOLDER / "MODEL_CARD.md").read_text() == evaluate.render_card(
        evaluation, evaluate.LONG_CARD_TEMPLATE.read_text()
    )


def test_the_evaluation_is_about_this_model(bundled: tuple, evaluation: dict) -> None:
    model, _ = bundled
    log = json.loads((ROOT / "models" / "training" / "training_log_llama.json").read_text())
    assert evaluation["training"] == evaluate.describe_training(log)
    assert evaluation["model"] == evaluate.describe_model(model, FOLDER)
    assert evaluation["settings"] == vars(evaluate.Settings())  # the whole of it, not `--quick`
    first = json.loads((ROOT / "models" / "storyteller" / "evaluation.json").read_text())
    assert evaluation["first_storyteller"]["held_out"] == first["held_out"]


def test_the_losses_are_those_of_a_sample(bundled: tuple, evaluation: dict) -> None:
    model, tokenizer = bundled
    kinds, texts = zip(*evaluate.held_out_documents(evaluate.Settings(), 60), strict=True)
    held_out = evaluate.measure_held_out(model, evaluate.encode(tokenizer, list(texts)), list(kinds))
    assert held_out["all"]["loss"] == pytest.approx(evaluation["held_out"]["all"]["loss"], rel=0.1)


def test_it_answers_questions_on_books_as_often_as_the_card_says(bundled: tuple, evaluation: dict) -> None:
    found = measures.measure_books(*bundled, measures.MemorySettings(books=4))
    assert found["right_percent"] == pytest.approx(evaluation["memory"]["books"]["right_percent"], abs=15)


def test_the_adapters_card_holds_their_numbers() -> None:
    numbers = json.loads((ADAPTERS / "evaluation.json").read_text())
    card = train_adapters.render_card(numbers, train_adapters.CARD_TEMPLATE.read_text())
    assert (ADAPTERS / "MODEL_CARD.md").read_text() == card


@pytest.mark.parametrize("folder", [FOLDER, ADAPTERS, *(ADAPTERS / name for name in voices.VOICES)])
def test_no_paths_of_machines_in_the_files(folder: Path) -> None:
    for path in folder.iterdir():
        if path.suffix in {".json", ".md"} and path.name != "tokenizer.json":
            assert not re.search(r"(?<![\w.])/(?:home|work|tmp|root|Users)/", path.read_text()), path
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir() if path.is_file())


# The voices


def test_the_four_adapters_are_small_and_of_different_shapes(spoken: dict) -> None:
    configs = {name: json.loads((ADAPTERS / name / "adapter_config.json").read_text()) for name in voices.VOICES}
    assert sorted(config["r"] for config in configs.values()) == [4, 8, 8, 16]
    assert len({tuple(config["target_modules"]) for config in configs.values()}) >= 2
    assert {config["base_model_name_or_path"] for config in configs.values()} == {"storyteller-llama"}
    for name in voices.VOICES:
        assert sum(path.stat().st_size for path in (ADAPTERS / name).iterdir()) < 1e6
        assert configs[name]["r"] == spoken[name]["rank"]


@pytest.mark.parametrize("voice", list(voices.VOICES))
def test_peft_and_the_engine_speak_in_the_same_voice(voice: str, bundled: tuple) -> None:
    peft = pytest.importorskip("peft")
    model, tokenizer = bundled
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(model), ADAPTERS / voice).eval()
    engine = Engine(model, tokenizer)
    engine.load_adapter(voice, ADAPTERS / voice)
    numbers = [engine.add(text, Sampling(max_tokens=40), adapter=voice) for text in TALKING]
    requests = {request.number: request for request in engine.run()}
    for number, text in zip(numbers, TALKING, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
        assert requests[number].output_ids == expected[0, ids.shape[1] :].tolist()
    speaking = sum(voice in voices.voices_in(requests[number].text) for number in numbers)
    assert speaking >= len(numbers) - 1
    assert sum(len(voices.voices_in(requests[number].text)) for number in numbers) <= len(numbers) + 1  # no other


def test_the_plain_model_has_none_of_the_voices(bundled: tuple) -> None:
    model, tokenizer = bundled
    served = run_continuous([(text, 60) for text in TALKING], 4, model=model, tokenizer=tokenizer)
    assert not any(voices.voices_in(tokenizer.decode(request.output_ids)) for request in served)


# Long prompts


def test_questions_on_one_book_are_answered_as_each_alone(bundled: tuple) -> None:
    """A book of over 1,000 tokens, all its questions in one batch, and by the engine, which keeps the book once."""
    model, tokenizer = bundled
    settings = measures.MemorySettings(books=1)
    book = measures.held_out_books(tokenizer, settings, model.config.max_position_embeddings)[0]
    prompts = [book.text + measures.question_text(question) for question, _ in book.questions]
    alone = [answer_alone(model, tokenizer, prompt) for prompt in prompts]
    batched = run_continuous([Request(prompt, 16) for prompt in prompts], 4, model=model, tokenizer=tokenizer)
    assert [request.output_ids for request in batched] == alone
    engine = Engine(model, tokenizer, max_rows=4)
    for prompt in prompts:
        engine.add(prompt, Sampling(max_tokens=16))
    ended = engine.run()
    assert [request.output_ids for request in ended] == alone
    assert min(request.cached_tokens for request in ended[4:]) >= 1000


def answer_alone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """The greedy answer that `model.generate` gives to one prompt."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    assert ids.shape[1] >= 1000
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
    return answer[0, ids.shape[1] :].tolist()
