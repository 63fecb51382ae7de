"""Books with questions, letters that refer back, notes and sums: text whose answers stand far back in it."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import corpus
import corpus_books
import evaluate
from corpus_words import PLACES, WORDS

STORYTELLER = Path(__file__).resolve().parent.parent / "models" / "storyteller"
# What a fact's statement looks like, with the value in a group: every character may have one of each.
VALUES = (
    r"{name} liked to eat ([a-z ]+?)(?= and drink|[.,;!])",
    r"{name} was afraid of ([a-z ]+?)(?=[.,;!])",
    r"[bB]est friend of {name} was ([A-Z][a-z]+)",
    r"[A-Z][a-z]+ (?:had )?bought (.+?) for {name}",
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(STORYTELLER / "tokenizer.json"))


def take(count: int, seed: str = "tests", tokens: int = 2048, held_out: bool = False) -> list[tuple[str, str]]:
    return list(itertools.islice(corpus_books.memories(seed, tokens, held_out), count))


@pytest.fixture(scope="module")
def books() -> list[corpus_books.Quiz]:
    rng = random.Random("books")
    return [corpus_books.make_book(rng, rng.randrange(200, 1200)) for _ in range(100)]


def test_the_same_seed_gives_the_same_documents() -> None:
    assert take(20) == take(20)
    assert take(20) != take(20, seed="other")
    assert take(20) != take(20, held_out=True)


def test_books_and_letters_have_300_to_1800_tokens(tokenizer: Tokenizer) -> None:
    lengths = [len(tokenizer.encode(text).ids) for kind, text in take(400) if kind in ("book", "letters")]
    assert len(lengths) > 150
    assert min(lengths) >= 300 and max(lengths) <= 1800
    assert sum(length > 1200 for length in lengths) > 0.2 * len(lengths)
    assert sum(length < 600 for length in lengths) > 0.1 * len(lengths)


@pytest.mark.parametrize("window", [256, 512, 1024, 2048])
def test_a_document_fits_into_its_window(window: int, tokenizer: Tokenizer) -> None:
    documents = take(300, tokens=window)
    encoded = tokenizer.encode_batch([text for _, text in documents])
    too_long = sum(len(encoding.ids) > window for encoding in encoded)
    assert too_long <= (0.05 * len(documents) if window == 256 else 0)  # notes are drawn without a look at the window
    assert ("book" in {kind for kind, _ in documents}) == (window >= corpus_books.SHORTEST_FOR_BOOKS)


def test_kinds_have_their_shares() -> None:
    kinds = [kind for kind, _ in take(1000)]
    for kind, share in corpus_books.MEMORY_SHARES.items():
        assert abs(kinds.count(kind) / len(kinds) - share) < 0.05


def stands_in(answer: str, text: str) -> bool:
    """Whether the text states an answer: the sentence itself, or for a home the name and the place."""
    if match := re.fullmatch(r"([A-Z][a-z]+) lived (.+)\.", answer):
        chapters = [chapter for chapter in text.split("\n\n") if corpus_books.mentions(chapter, match[1])]
        return any(match[2] in chapter or corpus.capitalise(match[2]) in chapter for chapter in chapters)
    return answer[1:].rstrip(".") in text


def test_answers_stand_in_the_book(books: list[corpus_books.Quiz]) -> None:
    for book in books:
        assert len(book.questions) >= 3
        for question, answer in book.questions:
            assert stands_in(answer, book.text), (question, answer, book.text)


def test_answers_stand_in_the_notes() -> None:
    rng = random.Random("notes")
    for _ in range(200):
        notes = corpus_books.make_notes(rng)
        assert all(answer[1:].rstrip(".") in notes.text for _, answer in notes.questions), notes


def test_every_kind_of_fact_is_asked(books: list[corpus_books.Quiz]) -> None:
    asked = [question for book in books for question, _ in book.questions]
    for fact in corpus_books.FACTS.values():
        pattern = re.sub(r"\\\{[a-z]+\\\}", ".+", re.escape(corpus.capitalise(fact.question)))
        assert sum(bool(re.fullmatch(pattern, question)) for question in asked) > 10, fact.question


def test_a_question_has_one_answer(books: list[corpus_books.Quiz]) -> None:
    for book in books:
        questions = [question for question, _ in book.questions]
        assert len(set(questions)) == len(questions)
        names = set(evaluate.names_in(book.text))
        for pattern in VALUES:
            for name in names:
                values = re.findall(pattern.format(name=name), book.text)
                assert len(set(values)) <= 1, (name, values, book.text)


def test_an_object_or_place_of_a_question_belongs_to_one_story(books: list[corpus_books.Quiz]) -> None:
    for book in books:
        chapters = book.text.split("\n\n")
        for question, answer in book.questions:
            if match := re.fullmatch(r"(?:Who lost|Where was) the (.+)\?", question):
                assert sum(corpus_books.mentions(chapter, match[1]) for chapter in chapters) == 1, (answer, book.text)
            if match := re.fullmatch(r"Where did ([A-Z][a-z]+) live\?", question):
                homes = [chapter for chapter in chapters if corpus_books.mentions(chapter, match[1])]
                assert len(homes) == 1
                places = {place.where for place in PLACES if place.where in homes[0][0].lower() + homes[0][1:]}
                assert places == {answer.removeprefix(f"{match[1]} lived ").rstrip(".")}


def test_the_check_for_one_answer_can_fail() -> None:
    pattern = VALUES[0].format(name="Anna")
    assert set(re.findall(pattern, "Anna liked to eat pancakes. Anna liked to eat pea soup.")) == {
        "pancakes",
        "pea soup",
    }
    chapters = [corpus_books.Quiz("Anna lost the key.", (("Who lost the key?", "Anna."),), ("key",))]
    assert corpus_books.clear_questions(chapters) == [[("Who lost the key?", "Anna.")]]
    chapters.append(corpus_books.Quiz("Tom found a key.", (), ()))
    assert corpus_books.clear_questions(chapters) == [[], []]
    assert not corpus_books.mentions("a monkey", "key")


def combinations_of(held_out: bool, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Hero, place and object of every story, letter and note in 300 documents of one split."""
    used: set[str] = set()

    def recorded(draw: Callable[..., corpus.Scene]) -> Callable[..., corpus.Scene]:
        def recording(*arguments: object) -> corpus.Scene:
            scene = draw(*arguments)
            used.add(corpus_books.combination(scene))
            return scene

        return recording

    with monkeypatch.context() as patch:
        for name in ("draw_scene", "draw_letter_scene"):
            patch.setattr(corpus_books, name, recorded(getattr(corpus_books, name)))
        take(300, held_out=held_out)
    return used


def test_splits_share_no_hero_place_and_object(monkeypatch: pytest.MonkeyPatch) -> None:
    training, held_out = (combinations_of(flag, monkeypatch) for flag in (False, True))
    assert len(training) > 500 and len(held_out) > 500
    assert training.isdisjoint(held_out)
    assert all(map(corpus.is_held_out, held_out)) and not any(map(corpus.is_held_out, training))
    assert all(any(name in text for name in corpus.NAMES) and text.count(" | ") == 2 for text in training)


def test_the_split_of_a_scene_is_asked_for() -> None:
    rng, taken = random.Random(0), corpus_books.Taken()
    for flag in (True, False, True):
        scene = corpus_books.draw_scene(rng, taken, flag)
        assert corpus.is_held_out(corpus_books.combination(scene)) is flag
        letter = corpus_books.draw_letter_scene(rng, taken, flag, "Anna", "Tom")
        assert corpus.is_held_out(corpus_books.combination(letter)) is flag
        assert letter.bound["name"] == "Anna"


def test_letters_take_up_the_letter_before() -> None:
    rng = random.Random("letters")
    for _ in range(40):
        letters = re.split(r"\n\n(?=Dear )", corpus_books.make_letters(rng, 500))
        assert len(letters) >= 4
        writers = [letter.splitlines()[-1].split(", ")[-1] for letter in letters]
        readers = [re.match(r"Dear ([A-Z][a-z]+),", letter)[1] for letter in letters]
        assert writers[0] == readers[1] and writers[1] == readers[0]
        assert set(writers) == set(readers) == set(writers[:2])
        for before, letter in itertools.pairwise(letters):
            recalled = [value for value in (*WORDS["destination"], *WORDS["elder"]) if value in before]
            assert len(before.splitlines()) == len(letter.splitlines()) == 3
            assert all(value in letter for value in recalled if f"travel to {value}" in before)


def test_sums_are_right_and_complete() -> None:
    problems = corpus_books.every_sum()
    assert len(problems) == len(set(problems)) == 2 * 190
    for first, operation, second, result in problems:
        assert first + second * (1 if operation == "plus" else -1) == result
        assert 1 <= second <= 20 and 1 <= result <= 20
    assert corpus_books.ask_sum((7, "plus", 5, 12), True) == ("What is 7 plus 5?", "7 plus 5 is 12.")
    assert corpus_books.ask_sum((12, "minus", 5, 7), False)[1] == "Twelve minus five is seven."


@pytest.mark.parametrize(
    "pattern",
    [r"[{}\[\]|*]", r"  ", r"\ba [aeiAEIO][a-z]", r"\ban [bcdfgjklmnpqrstvwxyz]", r"[a-z][.?!] [a-z]", r"[.!?,][.,]"],
)
def test_text_is_free_of(pattern: str) -> None:
    found = [match.group() for _, text in take(300) if (match := re.search(pattern, text))]
    assert not found
