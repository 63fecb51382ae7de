"""Text with a memory: books of several stories with questions on them, letters that refer back, notes, and sums.

A document of `corpus.py` has some 130 tokens; nothing in it asks for more than the sentences just before. Here an
answer stands hundreds of tokens earlier, and nothing but the text tells it. Whether a model reads its whole context,
and whether a cache keeps what it should, can therefore be seen in the answer.

    book     two to nine stories, then questions on them                       300 to 1,800 tokens
    letters  two friends write in turn; each letter takes up the one before    300 to 1,800 tokens
    notes    single facts about a few characters, then questions                80 to 300 tokens: recall in small
    sums     sums and differences up to twenty                                  40 to 300 tokens

Hero, place and object of every story, letter and note decide the split: a hash puts one combination in twenty into
the held-out documents and all others into the training documents, so the two never share one. (The short stories of
`corpus.py` are split by their whole text, and know nothing of this.)

    python models/training/corpus_books.py --count 3 --kind book
"""

import argparse
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from corpus import Scene, capitalise, is_held_out
from corpus_facts import NUMBER_WORDS
from corpus_plots import ENDINGS, LETTER_CLOSINGS, LETTER_OPENINGS, LETTER_REQUESTS, OPENINGS, PLOTS
from corpus_words import WORDS

TOKENS_PER_WORD = 1.35  # of the bundled tokenizer on these documents, rounded up; a test holds the lengths in tokens
FEWEST_WORDS, MOST_WORDS = 255, 1380  # of a book and of letters: 300 to 1,800 tokens
SHORTEST_FOR_BOOKS = 512  # tokens; shorter windows get notes and sums only
MEMORY_SHARES = {"book": 0.5, "letters": 0.15, "notes": 0.2, "sums": 0.15}  # of the documents
BOOK_TITLES = ("A book of stories", "Stories for a long evening", "The story book", "A handful of stories")


class FactKind(NamedTuple):
    """What can be told of a character, and how one asks for it. The answer's last words stand in every statement."""

    statements: tuple[str, ...]
    question: str
    answer: str
    key: str  # the slot that the question names


FACTS: dict[str, FactKind] = {
    "home": FactKind(
        ("{name} lived {where}.", "{name} lived {where}, and liked it there."),
        "where did {name} live?",
        "{name} lived {where}.",
        "name",
    ),
    "loss": FactKind(
        (
            "{name} lost the {obj}.",
            "{name} lost the {obj}, and nobody knew how.",
            "one {season} day {name} lost the {obj}.",
            "on {town_event} {name} lost the {obj}.",
        ),
        "who lost the {obj}?",
        "{name} lost the {obj}.",
        "obj",
    ),
    "finding": FactKind(
        (
            "the {obj} was {hiding}.",
            "all the time the {obj} was {hiding}.",
            "would you believe it? The {obj} was {hiding}.",
        ),
        "where was the {obj}?",
        "the {obj} was {hiding}.",
        "obj",
    ),
    "food": FactKind(
        (
            "{name} liked to eat {food}.",
            "more than anything {name} liked to eat {food}.",
            "in the {season} {name} liked to eat {food}.",
        ),
        "what did {name} like to eat?",
        "{name} liked to eat {food}.",
        "name",
    ),
    "fear": FactKind(
        (
            "{name} was afraid of {fear}.",
            "everybody knew that {name} was afraid of {fear}.",
            "only {friend} knew that {name} was afraid of {fear}.",
        ),
        "what was {name} afraid of?",
        "{name} was afraid of {fear}.",
        "name",
    ),
    "gift": FactKind(
        (
            "{friend} bought {gift} for {name}.",
            "on {weekday} {friend} bought {gift} for {name}.",
            "{friend} bought {gift} for {name} and wished {him} luck.",
        ),
        "what did {friend} buy for {name}?",
        "{friend} bought {gift} for {name}.",
        "name",
    ),
    "friend": FactKind(
        (
            "the best friend of {name} was {friend}.",
            "far and wide the best friend of {name} was {friend}.",
        ),
        "who was the best friend of {name}?",
        "the best friend of {name} was {friend}.",
        "name",
    ),
}
OBJECT_FACTS = ("loss", "finding")
# The openings tell where the hero lives, so "home" needs no statement of its own in a story.
PLOTS_WITHOUT_OBJECT = tuple(
    name
    for name, beats in PLOTS.items()
    if not any(re.search(r"\{(?:a )?(?:obj|thing)", line, re.IGNORECASE) for beat in beats for line in beat)
)
# What one letter tells, and how the answer to it takes it up.
LETTER_FACTS: tuple[tuple[str, str], ...] = (
    ("yesterday I lost the {obj} near {spot}.", "I am sorry that you lost the {obj} near {spot}."),
    ("today I found the {obj} {hiding}.", "how good that you found the {obj} {hiding}!"),
    ("for a few weeks we are staying {where}.", "I can hardly believe that you are staying {where}."),
    ("my {relative} gave me {gift}.", "it was kind of your {relative} to give you {gift}."),
    ("on {weekday} we ate {food}, and then we ate {fruit}.", "I wish I had eaten {food} and {fruit} with you."),
    ("I must tell you that I am afraid of {fear}.", "nobody needs to be ashamed of being afraid of {fear}."),
    ("in front of the house I have planted {a plant}.", "please water the {plant} that you have planted."),
    ("{elder} told me that {lesson}.", "I often think of what {elder} told you, that {lesson}."),
    (
        "on {weekday} I shall travel to {destination}.",
        "I hope that on {weekday} you will arrive safely at {destination}.",
    ),
)
RECALLS = ("in your letter you told me so much.", "I read your letter twice.", "thank you for your letter.")


@dataclass(frozen=True)
class Quiz:
    """A text and the questions on it with their answers; `keys` are the words that the questions turn on."""

    text: str
    questions: tuple[tuple[str, str], ...]
    keys: tuple[str, ...] = ()


@dataclass
class Taken:
    """Names, places and objects that a document has used up, so that each of them means one thing in it."""

    values: set[str] = field(default_factory=set)

    def claim(self, scene: Scene) -> bool:
        """Take the scene's names, place and object, unless one of them is taken."""
        wanted = {scene.bound[slot] for slot in ("name", "friend", "where", "thing")}
        if self.values & wanted:
            return False
        self.values |= wanted
        return True


def combination(scene: Scene) -> str:
    """Hero, place and object of a scene as one text."""
    return " | ".join(scene.bound[slot] for slot in ("name", "place", "thing"))


def draw_scene(rng: random.Random, taken: Taken, held_out: bool) -> Scene:
    """A scene of the wanted split that shares no name, place or object with the scenes before it."""
    while True:
        scene = Scene(rng)
        if is_held_out(combination(scene)) == held_out and taken.claim(scene):
            gifts = [gift for gift in WORDS["present"] if gift != scene.draw("present", fresh=False)]
            scene.bound["gift"] = scene.pick(tuple(gifts))
            return scene


def ask(scene: Scene, kinds: list[str]) -> Iterator[tuple[str, str, str]]:
    """(question, answer, key) of the facts of a scene."""
    for kind in kinds:
        fact = FACTS[kind]
        yield scene.sentence((fact.question,)), scene.sentence((fact.answer,)), scene.bound[fact.key]


def make_chapter(scene: Scene) -> Quiz:
    """A story of the corpus's own plots with two to four facts told in it, and the questions on them."""
    plot = scene.pick(tuple(PLOTS))
    about_object = plot in PLOTS_WITHOUT_OBJECT or plot == "lost and found"
    kinds = [kind for kind in FACTS if kind != "home" and (about_object or kind not in OBJECT_FACTS)]
    kinds = scene.rng.sample(kinds, scene.rng.randrange(2, 5))
    if "finding" in kinds and "loss" not in kinds:
        kinds.append("loss")
    beats = [scene.sentence(templates) for templates in PLOTS[plot]]
    told = {kind: scene.sentence(FACTS[kind].statements) for kind in kinds}
    for kind in kinds:
        if kind not in OBJECT_FACTS:
            beats.insert(scene.rng.randrange(len(beats) + 1), told[kind])
    first = min(2, len(beats)) if plot == "lost and found" else 0
    beats[first:first] = [told["loss"]] if "loss" in told else []
    beats += [told["finding"]] if "finding" in told else []
    text = " ".join([scene.sentence(OPENINGS), *beats, scene.sentence(ENDINGS)])
    questions, answers, keys = zip(*ask(scene, ["home", *kinds]), strict=True)
    return Quiz(text, tuple(zip(questions, answers, strict=True)), keys)


def mentions(text: str, key: str) -> bool:
    """Whether a text holds a name or a noun phrase as whole words."""
    return re.search(rf"\b{re.escape(key)}\b", text) is not None


def clear_questions(chapters: list[Quiz]) -> list[list[tuple[str, str]]]:
    """Per chapter the questions whose key no other chapter mentions."""
    return [
        [
            pair
            for pair, key in zip(chapter.questions, chapter.keys, strict=True)
            if not any(mentions(other.text, key) for other in chapters if other is not chapter)
        ]
        for chapter in chapters
    ]


def make_book(rng: random.Random, words: int, held_out: bool = False) -> Quiz:
    """Stories of `words` words together and a little more, and four to nine questions on them (fewer if there are)."""
    taken, chapters, count = Taken(), [], 0
    while count < words:
        chapters.append(make_chapter(draw_scene(rng, taken, held_out)))
        count += len(chapters[-1].text.split())
    asked = [pair for pairs in clear_questions(chapters) for pair in pairs]
    questions = rng.sample(asked, min(len(asked), rng.randrange(4, 10)))
    title = rng.choice(BOOK_TITLES)
    return Quiz("\n\n".join([title, *(chapter.text for chapter in chapters)]), tuple(questions))


def make_notes(rng: random.Random, held_out: bool = False) -> Quiz:
    """Two to five characters with one to three facts each, in any order, and questions on them."""
    taken, told, asked = Taken(), [], []
    for _ in range(rng.randrange(2, 6)):
        scene = draw_scene(rng, taken, held_out)
        kinds = rng.sample(list(FACTS), rng.randrange(1, 4))
        told += [scene.sentence(FACTS[kind].statements) for kind in kinds]
        asked += [(question, answer) for question, answer, _ in ask(scene, kinds)]
    rng.shuffle(told)
    return Quiz(" ".join(told), tuple(rng.sample(asked, min(len(asked), rng.randrange(3, 8)))))


def question_text(question: str) -> str:
    """What stands between a text and the answer to a question on it."""
    return f"\n\nQuestion: {question}\nAnswer:"


def quiz_document(quiz: Quiz) -> str:
    """Text, questions and answers as one document."""
    return quiz.text + "".join(f"{question_text(question)} {answer}" for question, answer in quiz.questions)


def draw_letter_scene(rng: random.Random, taken: Taken, held_out: bool, writer: str, reader: str) -> Scene:
    """A scene for one letter: its own place and object, but the two friends stay the same."""
    while True:
        scene = Scene(rng)
        scene.bound |= {"name": writer, "friend": reader}
        wanted = {scene.bound["where"], scene.bound["thing"]}
        if is_held_out(combination(scene)) == held_out and taken.values.isdisjoint(wanted):
            taken.values |= wanted
            scene.bound["gift"] = scene.pick(WORDS["present"])
            return scene


def make_letter_of(scene: Scene, answer: list[str]) -> tuple[str, list[str]]:
    """One letter, which takes up `answer` first; and the sentences with which the next letter takes this one up."""
    facts = scene.rng.sample(LETTER_FACTS, scene.rng.randrange(2, 4))
    sentences = [scene.sentence(RECALLS), *answer] if answer else [scene.sentence(LETTER_OPENINGS)]
    sentences += [scene.sentence((told,)) for told, _ in facts]
    sentences.append(scene.sentence(LETTER_REQUESTS))
    letter = f"Dear {scene.bound['friend']},\n{' '.join(sentences)}\n{scene.fill(scene.pick(LETTER_CLOSINGS))}"
    return letter, [scene.sentence((recalled,)) for _, recalled in facts]


def make_letters(rng: random.Random, words: int, held_out: bool = False) -> str:
    """Letters in turn between two friends, of `words` words together and a little more; each takes up the last one."""
    first = Scene(rng)
    writer, reader = first.bound["name"], first.bound["friend"]
    taken, letters, answer, count = Taken(), [], [], 0
    while count < words and len(letters) < 24:  # there are 28 places, each for one letter
        scene = draw_letter_scene(rng, taken, held_out, writer, reader)
        letter, answer = make_letter_of(scene, answer)
        letters.append(letter)
        count += len(letter.split())
        writer, reader = reader, writer
    return "\n\n".join(letters)


def every_sum() -> list[tuple[int, str, int, int]]:
    """(a, "plus", b, a + b) and (a + b, "minus", b, a) for all a and b of at least one with a sum up to twenty."""
    pairs = [(a, total - a) for total in range(2, 21) for a in range(1, total)]
    return [(a, "plus", b, a + b) for a, b in pairs] + [(a + b, "minus", b, a) for a, b in pairs]


def ask_sum(problem: tuple[int, str, int, int], in_digits: bool) -> tuple[str, str]:
    """The question of a sum or difference and its answer, as the quizzes of `corpus.py` put them."""
    first, operation, second, result = problem
    show = str if in_digits else NUMBER_WORDS.__getitem__
    text = f"{show(first)} {operation} {show(second)}"
    return f"What is {text}?", f"{capitalise(text)} is {show(result)}."


def make_sums(rng: random.Random) -> str:
    """Three to ten sums and differences."""
    problems = rng.sample(every_sum(), rng.randrange(3, 11))
    pairs = [ask_sum(problem, in_digits=rng.random() < 0.5) for problem in problems]
    return "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in pairs)


def make_long(rng: random.Random, kind: str, tokens: int, held_out: bool) -> str:
    """A book or letters that fit into a window of `tokens`; drawn again until they do."""
    most = min(MOST_WORDS, int(tokens / TOKENS_PER_WORD))
    while True:
        words = rng.randrange(FEWEST_WORDS - 105, most - 90)  # stories or letters; what is added makes up for it
        text = (
            make_letters(rng, words, held_out) if kind == "letters" else quiz_document(make_book(rng, words, held_out))
        )
        if FEWEST_WORDS <= len(text.split()) <= most:
            return text


def make_memory(rng: random.Random, tokens: int, held_out: bool = False) -> tuple[str, str]:
    """(kind, text) of one document that fits into a window of `tokens`."""
    shares = (
        MEMORY_SHARES if tokens >= SHORTEST_FOR_BOOKS else {kind: MEMORY_SHARES[kind] for kind in ("notes", "sums")}
    )
    kind = rng.choices(list(shares), weights=list(shares.values()))[0]
    if kind == "sums":
        return kind, make_sums(rng)
    if kind == "notes":
        return kind, quiz_document(make_notes(rng, held_out))
    return kind, make_long(rng, kind, tokens, held_out)


def memories(seed: int | str, tokens: int = 2048, held_out: bool = False) -> Iterator[tuple[str, str]]:
    """Endless (kind, text) pairs of one split, none longer than a window of `tokens`; the same for the same seed."""
    rng = random.Random(f"{'held-out' if held_out else 'train'}-memories-{seed}")
    while True:
        yield make_memory(rng, tokens, held_out)


def main() -> None:
    """Print documents."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--kind", choices=list(MEMORY_SHARES), help="print documents of this kind only")
    parser.add_argument("--held-out", action="store_true")
    arguments = parser.parse_args()
    stream = memories(arguments.seed, held_out=arguments.held_out)
    shown = (text for kind, text in stream if arguments.kind in (None, kind))
    for _ in range(arguments.count):
        print(next(shown), end="\n\n---\n\n")


if __name__ == "__main__":
    main()
