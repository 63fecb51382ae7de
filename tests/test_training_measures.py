"""The measures of memory and sums, on tiny models of both architectures and on answers that are known."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from string import Template

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import cards
import corpus_books
import evaluate
import measures
import plans
from tiny_models import random_model

ROOT = Path(__file__).resolve().parent.parent
STORYTELLER = ROOT / "models" / "storyteller"
LITTLE = measures.MemorySettings(
    books=2, book_tokens=(200, 440), long_documents=2, positions=((0, 100), (100, 300)), memories=6, batch=200
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(STORYTELLER, local_files_only=True)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return random_model(request.param)


def oracle(book: corpus_books.Quiz) -> list[str]:
    return [answer for _, answer in book.questions]


def test_an_answer_is_the_first_line() -> None:
    assert measures.answer_of(" Anna lost the kite.\n\nQuestion: Who?") == "Anna lost the kite."
    assert measures.answer_of("") == ""


def test_every_question_has_a_kind() -> None:
    assert measures.kind_of_question("Who lost the red kite?") == "loss"
    assert measures.kind_of_question("Where did Anna live?") == "home"
    assert measures.kind_of_question("Where was the red kite?") == "finding"
    assert measures.kind_of_question("What did Anna buy for Tom?") == "gift"
    with pytest.raises(ValueError, match="Why"):
        measures.kind_of_question("Why?")


def test_books_have_the_wanted_length_and_are_held_out(tokenizer: PreTrainedTokenizerBase) -> None:
    settings = measures.MemorySettings(books=5)
    books = measures.held_out_books(tokenizer, settings, 2048)
    assert len(books) == 5
    assert books == measures.held_out_books(tokenizer, settings, 2048)
    for book in books:
        assert 1000 <= len(tokenizer.encode(book.text)) <= 1800
    for book in measures.held_out_books(tokenizer, settings, 512):
        assert 256 <= len(tokenizer.encode(book.text)) <= 512 - 60


def test_right_answers_are_counted(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "answer_book", lambda model, tokenizer, book: oracle(book))
    whole = measures.measure_books(model, tokenizer, LITTLE)
    assert whole["right"] == whole["asked"] > 5 and whole["right_percent"] == 100
    assert sum(row["asked"] for row in whole["kinds"].values()) == whole["asked"]
    monkeypatch.setattr(
        measures, "answer_book", lambda model, tokenizer, book: [oracle(book)[0][:-1], *oracle(book)[1:]]
    )
    assert measures.measure_books(model, tokenizer, LITTLE)["right"] == whole["asked"] - LITTLE.books


def test_a_random_model_answers_nothing(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    found = measures.measure_books(model, tokenizer, LITTLE)
    assert found["right"] == 0 and found["most_tokens"] <= 440


def test_a_question_is_asked_alone_behind_the_book(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []

    def listen(model: object, tokenizer: object, texts: list[str], new_tokens: int, **sampling: object) -> list[dict]:
        prompts.extend(texts)
        return [{"continuation": " x"}] * len(texts)

    monkeypatch.setattr(measures, "continue_prompts", listen)
    book = corpus_books.Quiz("A book", (("Who?", "Anna."), ("Where?", "At home.")))
    assert measures.answer_book(model, tokenizer, book) == ["x", "x"]
    assert prompts == ["A book\n\nQuestion: Who?\nAnswer:", "A book\n\nQuestion: Where?\nAnswer:"]
    assert corpus_books.quiz_document(book).startswith(prompts[0] + " Anna.")


def test_loss_per_position_is_cross_entropy(model: PreTrainedModel) -> None:
    documents = torch.randint(1, 4096, (3, 40), generator=torch.Generator().manual_seed(0))
    losses = measures.position_losses(model, documents.tolist(), 0)
    ids = F.pad(documents, (1, 0), value=0)
    with torch.no_grad():
        logits = model(input_ids=ids[:, :-1]).logits
    expected = F.cross_entropy(logits.flatten(0, 1), documents.flatten(), reduction="none").view(3, 40)
    torch.testing.assert_close(losses, expected, atol=1e-4, rtol=1e-4)


def test_positions_beyond_the_context_are_left_out(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    settings = dataclasses.replace(LITTLE, positions=(*LITTLE.positions, (400, 600)))
    found = measures.measure_positions(model, tokenizer, settings)
    assert list(found) == ["0 to 100", "100 to 300"]
    for losses in found.values():  # the mean over all tokens lies between those over the two parts
        assert min(losses.values()) <= losses["all"] <= max(losses.values())


def test_the_first_tokens_of_paragraphs_are_found(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer.encode("A book\n\nOnce there was\n\nLong ago\nand")
    opening = measures.opens_paragraph([ids], tokenizer.encode("\n")[0])
    assert tokenizer.decode(torch.tensor(ids)[opening[0]]) == "OnceLongand"


def test_a_long_document_holds_no_questions(tokenizer: PreTrainedTokenizerBase) -> None:
    for ids in measures.long_documents(tokenizer, LITTLE, 2000):
        assert len(ids) == 2000
        assert "Question:" not in tokenizer.decode(ids)


def test_sums_are_all_asked(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reckon(model: object, tokenizer: object, texts: list[str], new_tokens: int, **sampling: object) -> list[dict]:
        return [{"continuation": solve(text)} for text in texts]

    def solve(text: str) -> str:
        if not (match := re.search(r"(\d+) (plus|minus) (\d+)\?\nAnswer:$", text)):
            return " Five."
        first, operation, second = int(match[1]), match[2], int(match[3])
        return f" {first} {operation} {second} is {first + second * (1 if operation == 'plus' else -1)}.\n\nQuestion"

    monkeypatch.setattr(measures, "continue_prompts", reckon)
    found = measures.measure_sums(model, tokenizer, LITTLE)
    assert found["asked"] == 2 * 380 and found["right"] == 380
    assert found["plus"] == found["minus"] == {"asked": 380, "right": 190, "right_percent": 50.0}


def fake_log(plan: plans.Plan) -> dict:
    held_out = [
        {"step": step, "tokens": 4096 * step, "loss": loss, "drill_loss": 0.9, "answer_loss": 0.3}
        for step, loss in ((300, 1.2), (600, 1.1), (900, 1.3))
    ]
    return json.loads(
        json.dumps(
            {
                "plan": dataclasses.asdict(plan),
                "steps": 900,
                "tokens": 900 * 4096,
                "seconds": 60.0,
                "tokens_per_second": 1,
                "hardware": "CPU",
                "ended_by": "tokens",
                "events": [],
                "losses": [{"loss": 8.0}, {"loss": 1.0}],
                "held_out_losses": held_out,
            }
        )
    )


def test_the_training_is_described_by_what_the_log_says() -> None:
    described = evaluate.describe_training(fake_log(plans.LLAMA))
    assert (described["best_held_out_loss"], described["best_step"]) == (1.1, 600)
    assert described["command"].startswith(
        "python models/training/train.py --architecture llama --tokens 600000000 --seed 2024"
    )
    elsewhere = evaluate.describe_training(fake_log(plans.LLAMA) | {"hardware": "a GPU"})
    assert "--device cuda" in elsewhere["command"] and "cuda" not in described["command"]
    plain = evaluate.describe_training(fake_log(plans.Plan()))
    assert "best_step" not in plain and "--architecture" not in plain["command"]


def test_the_second_card_is_filled_from_the_numbers(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model = random_model("llama")
    model.save_pretrained(tmp_path)
    evaluation = json.loads((STORYTELLER / "evaluation.json").read_text())
    evaluation["model"] = evaluate.describe_model(model, tmp_path)
    evaluation["training"] = evaluate.describe_training(fake_log(plans.LLAMA))
    evaluation |= {"first_storyteller": {"held_out": evaluation["held_out"]}, "loading": {"repeats": 5, "seconds": 0.5}}
    evaluation["memory"] = evaluate.measure_memory(model, tokenizer, dataclasses.replace(LITTLE, memories=12))
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    evaluate.write_card(tmp_path)
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert f"{evaluation['memory']['positions']['100 to 300']['within_paragraphs']} |" in card
    assert f"of {evaluation['memory']['books']['asked']} are (" in card
    assert "1.1 (step 600)" in card and "$" not in card
    assert set(evaluation["memory"]["held_out"]) > {"all", "book"}


def test_losses_on_different_documents_are_not_put_side_by_side() -> None:
    here, there = {"all": {"documents": 3, "loss": 1.0}}, {"all": {"documents": 4, "loss": 2.0}}
    assert "different documents" in cards.beside_table(here, there)
    assert "| all | 3 | 1.0 | 2.0 |" in cards.beside_table(here, {"all": {"documents": 3, "loss": 2.0}})


def test_a_placeholder_without_a_number_is_an_error() -> None:
    with pytest.raises(KeyError):
        Template("$nothing_like_it").substitute(cards.flatten({"stories": {"ended": 9}}))
    assert cards.flatten({"stories": {"ended": 9}}) == {"stories_ended": "9"}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_whole_evaluation_runs_on_either_architecture(
    architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    random_model(architecture).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    settings = evaluate.Settings(
        held_out_documents=8,
        trigram_tokens=3000,
        trigram_tuning_documents=4,
        stories=2,
        story_tokens=8,
        batch=2,
        continuation_tokens=4,
        corpus_documents=30,
    )
    evaluation = evaluate.evaluate(tmp_path, fake_log(plans.PLANS[architecture]), settings, LITTLE)
    assert ("memory" in evaluation) == (architecture == "llama")
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    evaluate.write_card(tmp_path)
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert card.lstrip().startswith({"gpt2": "# storyteller\n", "llama": "# storyteller-llama\n"}[architecture])
    assert ("The two were measured on different documents" in card) == (architecture == "llama")
