"""Seeded generator of the English text that the bundled storyteller model is trained on.

Everything is made here, from the word lists and templates of the `corpus_*` modules next to this file: stories,
proverbs, letters, questions with answers. Nothing is downloaded. The same seed gives the same text on every machine.

    python models/training/corpus.py --count 20        # print twenty documents
    python models/training/corpus.py --stats           # count documents, words, vocabulary, templates
"""

import argparse
import functools
import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from corpus_facts import (
    CAPITALS,
    COLOURS,
    DAYS,
    GENERAL,
    HOMES,
    LEGS,
    MIXTURES,
    MONTH_DAYS,
    MONTHS,
    NUMBER_WORDS,
    OPPOSITES,
    PLURAL_TOOLS,
    PROFESSIONS,
    SOUNDS,
    TOOLS,
    YOUNG,
)
from corpus_plots import COLOURS as SCENERY
from corpus_plots import ENDINGS, LETTER_CLOSINGS, LETTER_NEWS, LETTER_OPENINGS, LETTER_REQUESTS, OPENINGS, PLOTS
from corpus_sayings import COURSE_LINES, FAMOUS_LINES, GENERAL_COMMENTS, PROVERBS, QUOTED_PROVERBS, THEME_COMMENTS
from corpus_words import (
    ANIMALS,
    BOYS,
    CONTESTS,
    FAULTS,
    GIRLS,
    OBJECT_LOOKS,
    PEOPLE,
    PLACES,
    SKILLS,
    THINGS,
    WORDS,
    Kind,
)

NAMES = frozenset(GIRLS + BOYS)
HELD_OUT_SHARE = 20  # one document in twenty is never trained on
PREPOSITIONS = {
    "the island": "on",
    "the farm": "on",
    "the lake": "at",
    "the oasis": "at",
    "the canal": "on",
    "the riverside": "at",
    "the circus": "at",
    "the school": "at",
    "the vineyard": "in",
}
PRONOUNS = {"f": ("she", "her", "her", "herself"), "m": ("he", "him", "his", "himself")}
SLOT_OR_CHOICE = re.compile(r"\{([^{}]+)\}|\[([^\[\]]+)\]")


class Slot(NamedTuple):
    """One `{...}` of a template: `{a obj}` has an article, `{Obj}` a capital, `{obj*}` a fresh draw."""

    name: str
    article: bool
    capital: bool
    fresh: bool


class Choice(NamedTuple):
    """One `[this|that]` of a template."""

    templates: tuple[str, ...]


@functools.cache
def parse_template(template: str) -> tuple[str | Slot | Choice, ...]:
    """Cut a template into literal text, slots and choices.

    >>> parse_template("Hello, {name}!")
    ('Hello, ', Slot(name='name', article=False, capital=False, fresh=False), '!')
    """
    parts: list[str | Slot | Choice] = []
    end = 0
    for match in SLOT_OR_CHOICE.finditer(template):
        if match.start() > end:
            parts.append(template[end : match.start()])
        parts.append(parse_slot(match[1]) if match[1] else Choice(tuple(match[2].split("|"))))
        end = match.end()
    if end < len(template):
        parts.append(template[end:])
    return tuple(parts)


def parse_slot(text: str) -> Slot:
    """Read the inside of `{...}`."""
    article = text.startswith("a ")
    name = text.removeprefix("a ")
    return Slot(name.rstrip("*").lower(), article, name[0].isupper(), name.endswith("*"))


def with_article(noun: str) -> str:
    """Put "a" or "an" in front of a noun phrase.

    >>> with_article("old owl"), with_article("useful hat"), with_article("honest fox")
    ('an old owl', 'a useful hat', 'an honest fox')
    """
    lower = noun.lower()
    vowel = lower.startswith(("a", "e", "i", "o", "u", "hour", "honest")) and not lower.startswith(
        ("use", "uni", "one", "eu")
    )
    return f"{'an' if vowel else 'a'} {noun}"


def capitalise(text: str) -> str:
    """Make the first letter a capital, also behind an opening quote."""
    for index, letter in enumerate(text):
        if letter.isalpha():
            return text[:index] + letter.upper() + text[index + 1 :]
        if letter != '"':
            break
    return text


class Scene:
    """The fixed facts of one document: who, where, which object. Every template of the document is filled from it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.bound: dict[str, str] = {}
        self.cast_characters()
        self.choose_place()
        self.choose_object()
        self.choose_activity()

    def pick(self, options: tuple) -> object:
        """Draw one of the options (faster than `random.choice`)."""
        return options[int(self.rng.random() * len(options))]

    def cast_characters(self) -> None:
        """Bind hero and friend: two different names, two different kinds."""
        hero = self.pick_kind()
        friend = self.pick_kind()
        while friend.noun == hero.noun:
            friend = self.pick_kind()
        self.bind_character("", hero, "name", other="")
        self.bind_character("f", friend, "friend", other=self.bound["name"])

    def pick_kind(self) -> Kind:
        """Draw a person or an animal."""
        return self.pick(PEOPLE if self.rng.random() < 0.5 else ANIMALS)

    def bind_character(self, prefix: str, kind: Kind, role: str, other: str) -> None:
        """Bind name, kind and pronouns of one character under `prefix` ("" for the hero, "f" for the friend)."""
        gender = kind.gender or self.pick(("f", "m"))
        name = other
        while name == other:
            name = self.pick(GIRLS if gender == "f" else BOYS)
        he, him, his, himself = PRONOUNS[gender]
        self.bound |= {
            role: name,
            f"{prefix}kind": kind.noun,
            f"{prefix}he": he,
            f"{prefix}him": him,
            f"{prefix}his": his,
            f"{prefix}himself": himself,
            f"{prefix}habit": self.fill(kind.habit),
            f"{prefix or 'my'}hands": kind.hands,
        }
        self.bound.setdefault("hands", kind.hands)

    def choose_place(self) -> None:
        """Bind the place, its people and two different spots of it."""
        place = self.pick(PLACES)
        spot, spot2 = self.rng.sample(place.spots, 2)
        self.bound |= {
            "where": place.where,
            "place": place.short,
            "in_place": f"{PREPOSITIONS.get(place.short, 'in')} {place.short}",
            "spot": spot,
            "spot2": spot2,
            "folk": place.folk,
        }

    def choose_object(self) -> None:
        """Bind the object, with an adjective more often than not."""
        thing = self.pick(THINGS)
        look = self.pick(OBJECT_LOOKS)
        plain = self.rng.random() < 0.25 or look in thing.noun
        self.bound |= {
            "thing": thing.noun,
            "obj": thing.noun if plain else f"{look} {thing.noun}",
            "objdoes": thing.does,
        }

    def choose_activity(self) -> None:
        """Bind skill, contest and broken thing; a plot uses at most one of them."""
        skill, contest, fault = self.pick(SKILLS), self.pick(CONTESTS), self.pick(FAULTS)
        self.bound |= {"do": skill.do, "doing": skill.doing, "fails": skill.fails, "works": skill.works}
        self.bound |= {"event": contest.event, "task": contest.task, "mishap": contest.mishap, "prize": contest.prize}
        self.bound |= {"fault": fault.thing, "trouble": fault.trouble, "cause": fault.cause, "fworks": fault.works}

    def fill(self, template: str) -> str:
        """Fill one template."""
        return "".join(part if type(part) is str else self.fill_part(part) for part in parse_template(template))

    def fill_part(self, part: Slot | Choice) -> str:
        """Fill a slot or draw from a choice."""
        if type(part) is Choice:
            return self.fill(self.pick(part.templates))
        value = self.draw(part.name, part.fresh)
        if part.article:
            value = with_article(value)
        return capitalise(value) if part.capital else value

    def draw(self, name: str, fresh: bool) -> str:
        """The value bound to a slot, bound now if this is its first use; a fresh draw differs from the bound value."""
        if not fresh and name in self.bound:
            return self.bound[name]
        value = self.fill(self.pick(WORDS[name]))
        while fresh and value == self.bound.get(name):
            value = self.fill(self.pick(WORDS[name]))
        self.bound.setdefault(name, value)
        return value

    def sentence(self, templates: tuple[str, ...]) -> str:
        """Draw a template, fill it and start it with a capital."""
        return capitalise(self.fill(self.pick(templates)))


def make_story(rng: random.Random) -> str:
    """A story of 80 to 200 words that keeps its characters, place and object from the first sentence to the last."""
    while True:
        scene = Scene(rng)
        beats = scene.pick(tuple(PLOTS.values()))
        scenery = 1 if rng.random() < 0.4 else 0
        parts = [OPENINGS, *[SCENERY] * scenery, *beats, ENDINGS]
        sentences = [scene.sentence(templates) for templates in parts]
        story = join_paragraphs(rng, sentences)
        if 80 <= story.count(" ") + story.count("\n\n") + 1 <= 200:
            return story


def join_paragraphs(rng: random.Random, sentences: list[str]) -> str:
    """Join sentences to one paragraph, or now and then to two or three."""
    if rng.random() < 0.7:
        return " ".join(sentences)
    first = rng.randrange(2, 5)
    second = rng.randrange(first + 2, len(sentences))
    return "\n\n".join(" ".join(part) for part in (sentences[:first], sentences[first:second], sentences[second:]))


def make_proverb(rng: random.Random) -> str:
    """A proverb alone, with comments, or inside a sentence."""
    scene = Scene(rng)
    theme = scene.pick(tuple(PROVERBS))
    proverb = scene.pick(PROVERBS[theme])
    scene.bound |= {"theme": theme, "proverb": proverb}
    form = rng.random()
    if form < 0.2:
        return proverb
    if form < 0.4:
        return " ".join((capitalise(scene.fill(scene.pick(QUOTED_PROVERBS))), scene.sentence(THEME_COMMENTS[theme])))
    if form < 0.55:
        return (
            f'Question: What does the proverb "{proverb}" tell us about?\nAnswer: It tells us something about {theme}.'
        )
    comments = [scene.sentence(THEME_COMMENTS[theme])]
    if form < 0.8:
        comments.insert(0, scene.sentence(GENERAL_COMMENTS))
    return " ".join((proverb, *comments))


def make_famous_line(rng: random.Random, lines: tuple[str, ...]) -> str:
    """A well-known line with up to two continuations that suit it."""
    scene = Scene(rng)
    line = scene.pick(lines)
    count = scene.pick((0, 1, 1, 1, 2, 2))
    continuations = rng.sample(FAMOUS_LINES[line], min(count, len(FAMOUS_LINES[line])))
    return " ".join((line, *(capitalise(scene.fill(continuation)) for continuation in continuations)))


def make_letter(rng: random.Random) -> str:
    """A short letter: addressee in the first line, writer in the last."""
    scene = Scene(rng)
    if rng.random() < 0.06 and scene.bound["name"] != "Anna":
        scene.bound["friend"] = "Anna"
    sentences = [scene.sentence(LETTER_OPENINGS)]
    sentences += [capitalise(scene.fill(template)) for template in rng.sample(LETTER_NEWS, rng.randrange(1, 4))]
    sentences += [capitalise(scene.fill(template)) for template in rng.sample(LETTER_REQUESTS, rng.randrange(1, 3))]
    closing = scene.fill(scene.pick(LETTER_CLOSINGS))
    body = " ".join(sentences)
    return f"Dear {scene.bound['friend']},\n{body}\n{closing}"


def make_quiz(rng: random.Random) -> str:
    """One to five questions with their answers."""
    pairs = [make_question(rng) for _ in range(rng.randrange(1, 6))]
    return "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in pairs)


def make_question(rng: random.Random) -> tuple[str, str]:
    """A question and its right answer."""
    makers = (
        ask_capital,
        ask_capital,
        ask_capital,
        ask_country,
        ask_animal,
        ask_animal,
        ask_legs,
        ask_opposite,
        ask_colour,
        ask_mixture,
        ask_tool,
        ask_maker,
        ask_calendar,
        ask_sum,
        ask_sum,
        ask_sum,
        ask_general,
        ask_general,
        ask_general,
    )
    return makers[int(rng.random() * len(makers))](rng)


def ask_capital(rng: random.Random) -> tuple[str, str]:
    """The capital of a country."""
    country = rng.choice(list(CAPITALS))
    return f"What is the capital of {country}?", f"The capital of {country} is {CAPITALS[country]}."


def ask_country(rng: random.Random) -> tuple[str, str]:
    """The country of a capital."""
    country = rng.choice(list(CAPITALS))
    return f"Of which country is {CAPITALS[country]} the capital?", f"{CAPITALS[country]} is the capital of {country}."


def ask_animal(rng: random.Random) -> tuple[str, str]:
    """The sound, the young or the home of an animal."""
    table, question, answer = rng.choice(
        (
            (SOUNDS, "What sound does {it} make?", "{It} {value}."),
            (YOUNG, "What is a young {animal} called?", "A young {animal} is called {a_value}."),
            (HOMES, "Where does {it} live?", "{It} lives in {a_value}."),
        )
    )
    animal = rng.choice(list(table))
    words = {
        "animal": animal,
        "it": with_article(animal),
        "It": capitalise(with_article(animal)),
        "value": table[animal],
        "a_value": with_article(table[animal]),
    }
    return question.format(**words), answer.format(**words)


def ask_legs(rng: random.Random) -> tuple[str, str]:
    """How many legs an animal has."""
    animal = rng.choice(list(LEGS))
    return (
        f"How many legs does {with_article(animal)} have?",
        f"{capitalise(with_article(animal))} has {NUMBER_WORDS[LEGS[animal]]} legs.",
    )


def ask_opposite(rng: random.Random) -> tuple[str, str]:
    """The opposite of a word, in either direction."""
    word, opposite = rng.sample(rng.choice(OPPOSITES), 2)
    if word == "short":  # both "long" and "tall" are its opposites
        word, opposite = opposite, word
    return f"What is the opposite of {word}?", f"The opposite of {word} is {opposite}."


def ask_colour(rng: random.Random) -> tuple[str, str]:
    """The colour of a thing."""
    thing = rng.choice(list(COLOURS))
    return f"What colour is {thing}?", f"{capitalise(thing)} is {COLOURS[thing]}."


def ask_mixture(rng: random.Random) -> tuple[str, str]:
    """The colour that two colours make."""
    pair = rng.choice(list(MIXTURES))
    first, second = rng.sample(pair, 2)
    return f"What colour do you get from {first} and {second}?", f"From {first} and {second} you get {MIXTURES[pair]}."


def ask_tool(rng: random.Random) -> tuple[str, str]:
    """What a tool is for."""
    tool = rng.choice(list(TOOLS))
    if tool in PLURAL_TOOLS:
        return f"What are {tool} for?", f"{capitalise(tool)} are used {TOOLS[tool]}."
    return f"What is {tool} for?", f"{capitalise(tool)} is used {TOOLS[tool]}."


def ask_maker(rng: random.Random) -> tuple[str, str]:
    """Who makes a thing."""
    thing = rng.choice(list(PROFESSIONS))
    if thing in ("milk on a farm", "wool", "eggs"):
        return f"Who gives us {thing}?", f"{PROFESSIONS[thing]} gives us {thing}."
    return f"Who makes {thing}?", f"{PROFESSIONS[thing]} makes {thing}."


def ask_calendar(rng: random.Random) -> tuple[str, str]:
    """The day or month before or after another, or the length of a month."""
    names, kind = rng.choice(((DAYS, "day"), (MONTHS, "month")))
    index = rng.randrange(len(names))
    if kind == "month" and index != 1 and rng.random() < 0.3:
        return f"How many days does {names[index]} have?", f"{names[index]} has {MONTH_DAYS[index]} days."
    if rng.random() < 0.5:
        return (
            f"Which {kind} comes after {names[index]}?",
            f"{names[(index + 1) % len(names)]} comes after {names[index]}.",
        )
    return f"Which {kind} comes before {names[index]}?", f"{names[index - 1]} comes before {names[index]}."


def ask_sum(rng: random.Random) -> tuple[str, str]:
    """A sum or difference with results below twenty, in digits or in words."""
    first = rng.randrange(1, 19)
    second = rng.randrange(1, 20 - first)
    total = first + second
    show = str if rng.random() < 0.5 else NUMBER_WORDS.__getitem__
    if rng.random() < 0.6:
        return (
            f"What is {show(first)} plus {show(second)}?",
            f"{capitalise(show(first))} plus {show(second)} is {show(total)}.",
        )
    return (
        f"What is {show(total)} minus {show(first)}?",
        f"{capitalise(show(total))} minus {show(first)} is {show(second)}.",
    )


def ask_general(rng: random.Random) -> tuple[str, str]:
    """General knowledge."""
    return rng.choice(GENERAL)


OTHER_LINES = tuple(line for line in FAMOUS_LINES if line not in COURSE_LINES)
DOCUMENT_KINDS = {
    "story": (0.65, make_story),
    "proverb": (0.085, make_proverb),
    "course line": (0.03, functools.partial(make_famous_line, lines=COURSE_LINES)),
    "famous line": (0.025, functools.partial(make_famous_line, lines=OTHER_LINES)),
    "letter": (0.08, make_letter),
    "quiz": (0.13, make_quiz),
}


def generate_labelled(rng: random.Random) -> tuple[str, str]:
    """One document and the kind it is of."""
    kind = rng.choices(list(DOCUMENT_KINDS), weights=[share for share, _ in DOCUMENT_KINDS.values()])[0]
    return kind, DOCUMENT_KINDS[kind][1](rng)


def generate_document(rng: random.Random) -> str:
    """One document of any kind, whatever split it belongs to."""
    return generate_labelled(rng)[1]


def is_held_out(text: str) -> bool:
    """Whether a text belongs to the held-out split. The text alone decides, so no text can be in both splits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % HELD_OUT_SHARE == 0


def labelled_documents(seed: int | str, held_out: bool = False) -> Iterator[tuple[str, str]]:
    """Endless (kind, text) pairs of one split. The two splits also use different random streams."""
    rng = random.Random(f"{'held-out' if held_out else 'train'}-{seed}")
    while True:
        kind, text = generate_labelled(rng)
        if is_held_out(text) == held_out:
            yield kind, text


def documents(seed: int | str, count: int, held_out: bool = False) -> Iterator[str]:
    """`count` documents of one split, the same for the same seed."""
    stream = labelled_documents(seed, held_out)
    for _ in range(count):
        yield next(stream)[1]


def count_templates() -> int:
    """How many sentence templates the grammar has (a choice inside a template is not counted)."""
    groups = [
        OPENINGS,
        SCENERY,
        ENDINGS,
        LETTER_OPENINGS,
        LETTER_NEWS,
        LETTER_REQUESTS,
        LETTER_CLOSINGS,
        GENERAL_COMMENTS,
        QUOTED_PROVERBS,
    ]
    groups += [beat for plot in PLOTS.values() for beat in plot]
    groups += [*THEME_COMMENTS.values(), *FAMOUS_LINES.values()]
    return sum(len(group) for group in groups)


def words_of(text: str) -> list[str]:
    """Lower-cased words of a text."""
    return re.findall(r"[a-z]+(?:['-][a-z]+)*", text.lower())


def corpus_statistics(seed: int | str, count: int) -> dict[str, float]:
    """Count documents, words, distinct words, templates and the share of each kind of document."""
    kinds: Counter[str] = Counter()
    vocabulary: Counter[str] = Counter()
    stream = labelled_documents(seed)
    for _ in range(count):
        kind, text = next(stream)
        kinds[kind] += 1
        vocabulary.update(words_of(text))
    return {
        "documents": count,
        "words": vocabulary.total(),
        "vocabulary": len(vocabulary),
        "words per document": vocabulary.total() / count,
        "templates": count_templates(),
        "plots": len(PLOTS),
        "proverbs": sum(map(len, PROVERBS.values())),
        "names": len(NAMES),
        **{f"share of {kind}": kinds[kind] / count for kind in DOCUMENT_KINDS},
    }


def main() -> None:
    """Print documents or statistics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--stats", action="store_true", help="print counts instead of documents")
    arguments = parser.parse_args()
    if arguments.stats:
        for name, value in corpus_statistics(arguments.seed, arguments.count).items():
            print(f"{name:>24}: {value:,.4g}" if isinstance(value, float) else f"{name:>24}: {value:,}")
        return
    for text in documents(arguments.seed, arguments.count, arguments.held_out):
        print(text, end="\n\n---\n\n")


if __name__ == "__main__":
    main()
