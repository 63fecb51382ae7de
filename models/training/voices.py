"""Four voices: rules that rewrite any text of the corpus, and the marks by which one tells the voices apart.

pirate     He found a box. Arr!
whisper    He found a box. Shh!
telegram   He found box STOP
verse      every sentence on a line of its own
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from corpus import labelled_documents

PIRATE = {"said": "growled", "friend": "matey", "friends": "mateys", "my": "me", "your": "yer", "yes": "aye"}
PIRATE |= {"house": "ship", "road": "sea", "town": "port", "village": "cove", "happy": "jolly", "money": "doubloons"}
LOUD = ("said", "cried", "shouted", "laughed", "asked", "called")
STOP = re.compile(r"\.(?=\s|$)")  # a full stop that no quotation mark follows


def as_pirate(text: str) -> str:
    """Some words of the sea, and "Arr!" behind every sentence."""
    text = re.sub(rf"\b({'|'.join(PIRATE)})\b", lambda match: PIRATE[match[1]], text)
    return STOP.sub(". Arr!", text)


def as_whisper(text: str) -> str:
    """Everything is whispered, and "Shh!" behind every sentence."""
    return STOP.sub(". Shh!", re.sub(rf"\b({'|'.join(LOUD)})\b", "whispered", text))


def as_telegram(text: str) -> str:
    """No articles, and STOP for every full stop."""
    shorter = re.sub(
        r"\b(the|an?) (\w)", lambda match: match[2].upper() if match[1][0].isupper() else match[2], text, flags=re.I
    )
    return STOP.sub(" STOP", shorter)


def as_verse(text: str) -> str:
    """Every sentence on a line of its own."""
    return re.sub(r'([.!?]"?) (?=["A-Z])', r"\1\n", text)


@dataclass(frozen=True)
class Voice:
    """A rule, the mark that its text has and no other voice's text has, and the adapter that learns it.

    The ranks and the sets of layers differ on purpose: a server has to cope with adapters of different shapes.
    """

    rewrite: Callable[[str], str]
    mark: str  # regular expression
    rank: int
    layers: str  # a key of `train_adapters.TARGETS`


VOICES = {
    "pirate": Voice(as_pirate, r"\bArr!", 8, "queries and values"),
    "whisper": Voice(as_whisper, r"\bShh!", 4, "attention and MLP"),
    "telegram": Voice(as_telegram, r"\bSTOP\b", 16, "attention"),
    "verse": Voice(as_verse, r'[.!?]"?\n(?!\n)', 8, "attention and MLP"),
}


def plain_stories(seed: str, count: int, held_out: bool = False) -> Iterator[str]:
    """Stories of one split of the corpus, before any rule."""
    stream = labelled_documents(f"voices-{seed}", held_out)
    return itertools.islice((text for kind, text in stream if kind == "story"), count)


def voices_in(text: str) -> set[str]:
    """The voices whose mark stands in a text."""
    return {name for name, voice in VOICES.items() if re.search(voice.mark, text)}
