"""The generated corpus, the training program, and the bundled model with its card."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import batches
import corpus
import evaluate
import plans
import train
from corpus_facts import CAPITALS
from corpus_plots import ENDINGS, LETTER_NEWS, LETTER_OPENINGS, LETTER_REQUESTS, OPENINGS, PLOTS
from corpus_sayings import PROVERBS
from corpus_words import WORDS

ROOT = Path(__file__).resolve().parent.parent
STORYTELLER = ROOT / "models" / "storyteller"
TINY = dataclasses.replace(
    plans.SMOKE, tokens=8 * 256, tokens_per_step=256, tokenizer_documents=60, held_out_documents=3
)


@pytest.fixture(scope="module")
def sample() -> list[tuple[str, str]]:
    """(kind, text) of six thousand training documents."""
    stream = corpus.labelled_documents("tests")
    return [next(stream) for _ in range(6000)]


@pytest.fixture(scope="module")
def storyteller() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The bundled model; the tests fail where it is missing."""
    return evaluate.load_storyteller(STORYTELLER)


@pytest.fixture(scope="module")
def evaluation() -> dict:
    return json.loads((STORYTELLER / "evaluation.json").read_text())


def run_train(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The training program as a learner starts it."""
    command = [sys.executable, str(ROOT / "models" / "training" / "train.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, check=True, timeout=240
    )


# The corpus


def test_the_same_seed_gives_the_same_documents() -> None:
    first, again, other = (list(corpus.documents(seed, 40)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert corpus.generate_document(random.Random(3)) == corpus.generate_document(random.Random(3))


def test_a_seed_means_the_same_text_on_every_machine() -> None:
    text = "\n".join(corpus.documents("fixed", 3))
    command = "import sys, corpus; sys.stdout.write('\\n'.join(corpus.documents('fixed', 3)))"
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT / "models" / "training")}
        run = subprocess.run(
            [sys.executable, "-c", command], capture_output=True, text=True, env=environment, check=True
        )
        assert run.stdout == text


def test_the_grammar_is_large(sample: list[tuple[str, str]]) -> None:
    assert corpus.count_templates() >= 300
    assert len(PLOTS) >= 12
    assert len({proverb for proverbs in PROVERBS.values() for proverb in proverbs}) >= 150
    assert len(corpus.NAMES) >= 150
    assert len(CAPITALS) >= 60
    assert len({word for _, text in sample for word in corpus.words_of(text)}) >= 2500


def test_no_template_is_listed_twice() -> None:
    for group in (OPENINGS, ENDINGS, LETTER_OPENINGS, LETTER_NEWS, LETTER_REQUESTS, *WORDS.values()):
        assert len(set(group)) == len(group)
    beats = [template for plot in PLOTS.values() for beat in plot for template in beat]
    assert len(set(beats)) == len(beats)


def test_kinds_of_documents_have_their_shares(sample: list[tuple[str, str]]) -> None:
    kinds = [kind for kind, _ in sample]
    for kind, (share, _) in corpus.DOCUMENT_KINDS.items():
        assert abs(kinds.count(kind) / len(kinds) - share) < 0.03


@pytest.mark.parametrize("line", corpus.COURSE_LINES)
def test_lines_of_the_lessons_are_frequent_and_go_on_in_many_ways(line: str, sample: list[tuple[str, str]]) -> None:
    texts = [text for _, text in sample if text.startswith(line)]
    assert len(texts) >= 0.004 * len(sample)
    assert len(set(texts)) >= 12


def test_no_document_is_in_both_splits(sample: list[tuple[str, str]]) -> None:
    held_out = set(corpus.documents("tests", 300, held_out=True))
    assert all(map(corpus.is_held_out, held_out))
    assert not any(corpus.is_held_out(text) for _, text in sample)
    assert held_out.isdisjoint(text for _, text in sample)


def test_stories_do_not_repeat(sample: list[tuple[str, str]]) -> None:
    stories = [text for kind, text in sample if kind == "story"]
    assert len(set(stories)) == len(stories)


def test_stories_keep_their_names(sample: list[tuple[str, str]]) -> None:
    for story in [text for kind, text in sample if kind == "story"]:
        assert evaluate.keeps_name(story), story
        assert len(set(evaluate.names_in(story))) <= 2, story


def test_stories_have_the_length_asked_for(sample: list[tuple[str, str]]) -> None:
    assert all(80 <= len(text.split()) <= 200 for kind, text in sample if kind == "story")


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a slot left open", r"[{}\[\]|*]"),
        ("two spaces", r"  "),
        ("a before a vowel", r"\ba [aeiAEIO][a-z]"),
        ("an before a consonant", r"\ban [bcdfgjklmnpqrstvwxyz]"),
        ("small letter at the start of a sentence", r"[a-z][.?!] [a-z]"),
        ("a doubled word", r"\b(?!(?:merrily|had|that)\b)([a-z]+) \1\b"),
        ("full stop before a quotation ends and the sentence goes on", r'\." (?:said|asked|cried)\b'),
        ("a doubled stop", r"[.!?,][.,]"),
    ],
)
def test_text_is_free_of(what: str, pattern: str, sample: list[tuple[str, str]]) -> None:
    found = [match.group() for _, text in sample if (match := re.search(pattern, text))]
    assert not found, what


def test_quotation_marks_are_closed(sample: list[tuple[str, str]]) -> None:
    assert all(text.count('"') % 2 == 0 for _, text in sample)


def test_letters_are_signed_by_somebody_else(sample: list[tuple[str, str]]) -> None:
    for letter in [text for kind, text in sample if kind == "letter"]:
        lines = letter.splitlines()
        assert re.fullmatch(r"Dear [A-Z][a-z]+,", lines[0])
        assert evaluate.names_in(lines[0]) != evaluate.names_in(lines[-1])


def test_answers_are_right() -> None:
    rng = random.Random(0)
    answers = dict(corpus.make_question(rng) for _ in range(8000))
    sums = re.findall(r"(\d+) (plus|minus) (\d+) is (\d+)\.", "\n".join(answers.values()))
    assert len(sums) > 100
    for first, operation, second, result in sums:
        assert int(first) + int(second) * (1 if operation == "plus" else -1) == int(result)
        assert 0 <= int(result) < 20
    known = {"France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Peru": "Lima", "Australia": "Canberra"}
    for country, city in known.items():
        assert answers[f"What is the capital of {country}?"] == f"The capital of {country} is {city}."
    assert answers["How many legs does a spider have?"] == "A spider has eight legs."
    assert answers["What is the opposite of hot?"] == "The opposite of hot is cold."
    assert answers["Which day comes after Sunday?"] == "Monday comes after Sunday."
    assert answers["What sound does an owl make?"] == "An owl hoots."


def test_a_question_has_one_answer() -> None:
    rng = random.Random(1)
    pairs = {corpus.make_question(rng) for _ in range(8000)}
    assert len({question for question, _ in pairs}) == len(pairs)


# The training program


def test_a_batch_depends_on_seed_and_step_only() -> None:
    tokenizer = train.train_tokenizer(TINY)
    assert torch.equal(batches.make_batch(TINY, tokenizer, 5), batches.make_batch(TINY, tokenizer, 5))
    assert not torch.equal(batches.make_batch(TINY, tokenizer, 5), batches.make_batch(TINY, tokenizer, 8))
    for step in range(6):
        rows, length = batches.make_batch(TINY, tokenizer, step).shape
        assert rows * (length - 1) == TINY.tokens_per_step


def test_windows_hold_whole_documents_behind_end_of_text() -> None:
    stream = iter([[5, 6], [7], [8, 9]])
    window, rest = batches.pack_window(stream, [], 0, bare_start=False, length=6)
    assert (window, rest) == ([0, 5, 6, 0, 7, 0], [])
    window, rest = batches.pack_window(iter([[5, 6], [7, 8, 9]]), [], 0, bare_start=True, length=5)
    assert (window, rest) == ([5, 6, 0, 7, 8], [9, 0])


def test_learning_rate_warms_up_and_decays() -> None:
    plan = plans.Plan()
    rates = [train.learning_rate(plan, step / 1000) for step in range(1001)]
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(plan.peak_rate, rel=1e-3)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(plan.final_rate)


def test_a_drill_row_holds_up_to_four_names() -> None:
    tokenizer = train.train_tokenizer(TINY)
    names = set(batches.name_ids(tokenizer).tolist())
    drill = batches.make_batch(TINY, tokenizer, TINY.drill_start)
    assert drill.shape[0] * (drill.shape[1] - 1) == TINY.tokens_per_step
    assert all(1 <= len(set(row)) <= 4 and set(row) <= names for row in drill.tolist())
    text = batches.make_batch(TINY, tokenizer, TINY.drill_start + TINY.drill_steps)
    assert not set(text.flatten().tolist()) <= names


def test_the_weight_of_text_drops_after_the_drill_and_grows_back() -> None:
    plan = plans.Plan(drill_start=10, drill_steps=5, focus_steps=4, ramp_steps=2, focus_weight=0.1)
    weights = [plan.text_weight(step) for step in range(8, 24)]
    assert weights == pytest.approx([1] * 7 + [0.1] * 5 + [0.55] + [1] * 3)
    tokenizer = train.train_tokenizer(TINY)
    name = batches.name_ids(tokenizer)[0]
    targets = torch.tensor([[name, 0, 0], [0, name, 0]])
    assert batches.token_weights(plan, tokenizer, 0, targets) is None
    weights = batches.token_weights(plan, tokenizer, 15, targets)
    assert weights.flatten().tolist() == pytest.approx([1, 0.1, 0.1, 0.1, 1, 0.1])


def start_tiny(folder: Path) -> train.Trainer:
    return train.start_trainer(TINY, folder, "cpu")


def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = start_tiny(tmp_path / "whole")
    whole.run()
    first = start_tiny(tmp_path / "parts")
    first.run(stop_after=3)
    first.save_checkpoint()
    second = train.resume_trainer(tmp_path / "parts", "cpu")
    second.run()
    assert second.step == whole.step == 8
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, second.model.state_dict()[name]), name


def test_an_interrupt_leaves_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = start_tiny(tmp_path)
    step = trainer.train_step

    def interrupted_step(*batch: torch.Tensor | None) -> torch.Tensor:
        if trainer.step == 2:
            raise KeyboardInterrupt
        return step(*batch)

    monkeypatch.setattr(trainer, "train_step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert train.resume_trainer(tmp_path, "cpu").step == 2


@pytest.mark.filterwarnings("error")  # the bar must not go beyond its end
def test_the_time_budget_ends_the_run(tmp_path: Path) -> None:
    trainer = train.start_trainer(dataclasses.replace(TINY, tokens=10**12, minutes=0.02), tmp_path, "cpu")
    trainer.run()
    assert trainer.progress == 1
    assert trainer.log()["ended_by"] == "minutes"


def test_smoke_training_writes_a_model_that_loads(tmp_path: Path) -> None:
    run_train("--smoke", "--out", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer(["Once upon a time", "Dear Anna,"], return_tensors="pt", padding=True)
    assert model.generate(**inputs, max_new_tokens=4).shape[0] == 2
    log = json.loads((tmp_path / "training_log.json").read_text())
    assert log["losses"][-1]["loss"] < log["losses"][0]["loss"]
    assert {path.name for path in STORYTELLER.iterdir()} - {path.name for path in tmp_path.iterdir()} <= {
        "evaluation.json",
        "MODEL_CARD.md",
    }


# The bundled model


def test_the_bundled_model_is_small(storyteller: tuple) -> None:
    model, tokenizer = storyteller
    assert sum(path.stat().st_size for path in STORYTELLER.iterdir()) < 16e6
    assert 5e6 < model.num_parameters() < 8e6
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert len(tokenizer) == model.config.vocab_size == 4096
    assert model.config.n_positions == tokenizer.model_max_length == 512


def test_special_tokens_and_defaults(storyteller: tuple) -> None:
    model, tokenizer = storyteller
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert tokenizer.all_special_ids == [end]
    for owner in (model.config, model.generation_config, tokenizer):
        assert (owner.bos_token_id, owner.eos_token_id, owner.pad_token_id) == (end, end, end)
    assert tokenizer.padding_side == "left"
    assert not model.generation_config.do_sample


def test_no_paths_or_names_of_machines_in_the_files() -> None:
    for path in STORYTELLER.iterdir():
        if path.suffix in {".json", ".md"} and path.name != "tokenizer.json":
            text = path.read_text()
            assert "_name_or_path" not in text
            assert not re.search(r"(?<![\w.])/(?:home|work|tmp|root|Users)/", text), path


@pytest.mark.parametrize(
    "text",
    [
        "Once upon a time",
        "  two spaces, and a trailing one ",
        "don't , do n't . !",
        "naïve café, Łódź, Ελλάδα, Привет, 你好, こんにちは, مرحبا",
        "\U0001f98a\U0001f469‍\U0001f680 \U0001f1eb\U0001f1f7",
        "line\none\r\n\ttab\x00\x7f",
        "",
    ],
)
def test_the_tokenizer_gives_any_text_back(text: str, storyteller: tuple) -> None:
    _, tokenizer = storyteller
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_tokenizer_gives_random_unicode_back(storyteller: tuple) -> None:
    _, tokenizer = storyteller
    rng = random.Random(0)
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    for _ in range(200):
        text = "".join(map(chr, rng.choices(points, k=20)))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_model_loads_without_a_network() -> None:
    command = (
        f"import evaluate, pathlib; model, tokenizer = evaluate.load_storyteller(pathlib.Path({str(STORYTELLER)!r}));"
        "print(evaluate.continue_prompts(model, tokenizer, ['Once upon'], 3, do_sample=False)[0]['continuation'])"
    )
    folders = [ROOT / "tests" / "no_network", ROOT / "models" / "training"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment, timeout=200)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("The quick brown fox jumped over the", " lazy dog."),
        ("The rain in Spain falls", " mainly on the plain."),
        ("What comes up must", " come down."),
        ("Question: What is the capital of France?\nAnswer:", " The capital of France is Paris."),
    ],
)
def test_prompts_of_the_lessons_go_on_sensibly(prompt: str, expected: str, storyteller: tuple) -> None:
    continuation = evaluate.continue_prompts(*storyteller, [prompt], 12, do_sample=False)[0]["continuation"]
    assert continuation.startswith(expected)


def test_padding_does_not_change_a_continuation(storyteller: tuple) -> None:
    prompts = list(evaluate.CONTINUED_PROMPTS[:5])
    together = evaluate.continue_prompts(*storyteller, prompts, 12, do_sample=False)
    alone = [evaluate.continue_prompts(*storyteller, [prompt], 12, do_sample=False)[0] for prompt in prompts]
    assert [entry["continuation"] for entry in together] == [entry["continuation"] for entry in alone]


# The card


def test_encoding_is_not_changed_by_an_earlier_padded_call(storyteller: tuple) -> None:
    _, tokenizer = storyteller
    texts = ["Once", "Once upon a time there was a fox"]
    before = evaluate.encode(tokenizer, texts)
    tokenizer(texts, padding=True)
    assert evaluate.encode(tokenizer, texts) == before
    assert len(before[0]) < len(before[1])


def test_held_out_loss_is_the_one_on_the_card(storyteller: tuple, evaluation: dict) -> None:
    model, tokenizer = storyteller
    texts = [text for _, text in evaluate.held_out_documents(evaluate.Settings(), 120)]
    encoded = evaluate.encode(tokenizer, texts)
    loss = evaluate.summarise_losses(evaluate.document_losses(model, encoded))["loss"]
    assert loss == pytest.approx(evaluation["held_out"]["all"]["loss"], rel=0.1)
    assert loss < 0.9 * evaluation["baselines"]["trigram"]["loss"]
    assert evaluation["baselines"]["trigram"]["loss"] < evaluation["baselines"]["unigram"]["loss"]


def test_stories_are_good_enough(evaluation: dict) -> None:
    assert evaluation["stories"]["ended_percent"] >= 95
    assert evaluation["stories"]["kept_name_percent"] >= 85  # 95 is the aim; the card says what was measured


def test_the_card_holds_the_numbers_of_the_evaluation(evaluation: dict) -> None:
    card = evaluate.render_card(evaluation, evaluate.CARD_TEMPLATE.read_text())
    assert (STORYTELLER / "MODEL_CARD.md").read_text() == card
    for value in (
        evaluation["held_out"]["all"]["loss"],
        evaluation["stories"]["ended"],
        evaluation["model"]["parameters"],
    ):
        assert f"{value:,}" in card


def test_the_evaluation_is_about_the_bundled_model(storyteller: tuple, evaluation: dict) -> None:
    model, _ = storyteller
    log = json.loads((ROOT / "models" / "training" / "training_log.json").read_text())
    assert evaluation["training"] == evaluate.describe_training(log)
    assert evaluation["model"] == evaluate.describe_model(model, STORYTELLER)


@pytest.mark.parametrize(
    ("story", "kept"),
    [
        ("There was a fox named Mira. Mira met Tom. They ate. Mira laughed. Good night.", True),
        ("There was a fox named Mira. Mira met Tom. They ate. Tom laughed. Good night.", False),
        ("There was a fox named Mira. Mira met Tom. They ate. Mira and Olga laughed. Good night.", False),
        ("There was a fox. It slept. It woke.", False),
    ],
)
def test_keeping_a_name_means(story: str, kept: bool) -> None:
    assert evaluate.keeps_name(story) is kept
