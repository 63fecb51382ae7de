"""What a model remembers and can reckon: questions on books, loss by position in a long document, sums.

Every measure works with either architecture. Where a model's context is too short for books of 1,000 tokens, it is
asked about books that fit.
"""

import itertools
import random
import re
from collections import defaultdict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from corpus import capitalise
from corpus_books import FACTS, Quiz, ask_sum, every_sum, make_book, memories, question_text
from generation import chunks, continue_prompts, encode


@dataclass(frozen=True)
class MemorySettings:
    """How much is measured, and with which seed."""

    seed: str = "evaluation"
    books: int = 60
    book_tokens: tuple[int, int] = (1000, 1800)
    long_documents: int = 60
    positions: tuple[tuple[int, int], ...] = ((100, 300), (300, 500), (500, 1000), (1000, 1500), (1500, 2000))
    memories: int = 300
    batch: int = 40


def answer_of(continuation: str) -> str:
    """The first line of a continuation, which is the model's answer."""
    return continuation.lstrip(" ").split("\n")[0].rstrip()


def kind_of_question(question: str) -> str:
    """Which kind of fact a question on a book asks for."""
    for kind, fact in FACTS.items():
        pattern = re.sub(r"\\\{[a-z]+\\\}", ".+", re.escape(capitalise(fact.question)))
        if re.fullmatch(pattern, question):
            return kind
    raise ValueError(f"no kind of fact is asked for by {question!r}")


def held_out_books(tokenizer: PreTrainedTokenizerBase, settings: MemorySettings, context: int) -> list[Quiz]:
    """Held-out books of the wanted number of tokens, questions not counted, that leave room for an answer."""
    fewest, most = settings.book_tokens if settings.book_tokens[1] + 60 <= context else (context // 2, context - 60)
    rng, books = random.Random(f"{settings.seed}-books"), []
    while len(books) < settings.books:
        book = make_book(rng, rng.randrange(min(150, fewest), int(most / 1.2)), held_out=True)
        if fewest <= len(encode(tokenizer, [book.text])[0]) <= most:
            books.append(book)
    return books


def answer_book(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, book: Quiz) -> list[str]:
    """The greedy answers to a book's questions, each asked alone behind the book."""
    prompts = [book.text + question_text(question) for question, _ in book.questions]
    longest = max(len(ids) for ids in encode(tokenizer, [answer for _, answer in book.questions]))
    found = continue_prompts(model, tokenizer, prompts, longest + 4, do_sample=False)
    return [answer_of(entry["continuation"]) for entry in found]


def share(right: list[bool]) -> dict[str, float]:
    """How many were asked, how many are right, and the share in percent."""
    return {"asked": len(right), "right": sum(right), "right_percent": round(100 * sum(right) / len(right), 1)}


def measure_books(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: MemorySettings
) -> dict[str, object]:
    """Questions on held-out books that are answered exactly, over all and by kind of fact."""
    books = held_out_books(tokenizer, settings, model.config.max_position_embeddings)
    right: dict[str, list[bool]] = defaultdict(list)
    for book in tqdm(books, desc="questions on books", unit="book"):
        answers = answer_book(model, tokenizer, book)
        for (question, expected), answer in zip(book.questions, answers, strict=True):
            right[kind_of_question(question)].append(answer == expected)
    lengths = [len(ids) for ids in encode(tokenizer, [book.text for book in books])]
    return {
        "books": len(books),
        "fewest_tokens": min(lengths),
        "most_tokens": max(lengths),
        **share([one for ones in right.values() for one in ones]),
        "kinds": {kind: share(right[kind]) for kind in FACTS if kind in right},
    }


def long_documents(tokenizer: PreTrainedTokenizerBase, settings: MemorySettings, tokens: int) -> list[list[int]]:
    """Held-out books of at least `tokens` tokens without their questions: every position holds text of one kind."""
    rng, encoded = random.Random(f"{settings.seed}-long"), []
    while len(encoded) < settings.long_documents:
        ids = encode(tokenizer, [make_book(rng, int(0.9 * tokens), held_out=True).text])[0]
        if len(ids) >= tokens:
            encoded.append(ids[:tokens])
    return encoded


@torch.no_grad()
def position_losses(
    model: PreTrainedModel, documents: list[list[int]], end_of_text: int, batch: int = 2
) -> torch.Tensor:
    """The loss (nats) of predicting the token at each position of equally long documents, (N, S)."""
    losses = []
    for part in tqdm(list(chunks(documents, batch)), desc="loss by position", unit="batch"):
        ids = torch.tensor([[end_of_text, *document] for document in part])  # (B, S + 1)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()  # (B, S, V)
        losses.append(F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none"))
    return torch.cat(losses)


def opens_paragraph(documents: list[list[int]], line_break: int) -> torch.Tensor:
    """Which tokens come first in a paragraph, (N, S): those behind a line's end, which are no line's end themselves."""
    ids = torch.tensor(documents)
    behind = F.pad(ids[:, :-1] == line_break, (1, 0))
    return behind & (ids != line_break)


def measure_positions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: MemorySettings
) -> dict[str, dict[str, float]]:
    """Mean loss (nats per token) over ranges of positions in long documents; those that the context holds.

    Once over all tokens, and once without the tokens that open a paragraph. In front of those a model weighs whether
    the book goes on at all, and no book that it has read went on behind 1,800 tokens.
    """
    context = model.config.max_position_embeddings
    ranges = [(start, end) for start, end in settings.positions if end <= context]
    documents = long_documents(tokenizer, settings, max(end for _, end in ranges))
    losses = position_losses(model, documents, tokenizer.eos_token_id)
    opens = opens_paragraph(documents, encode(tokenizer, ["\n"])[0][0])
    found = {}
    for start, end in ranges:
        part, opening = losses[:, start:end], opens[:, start:end]
        split = {"all": part, "within_paragraphs": part[~opening], "opening": part[opening]}
        found[f"{start} to {end}"] = {name: round(values.mean().item(), 4) for name, values in split.items()}
    return found


def measure_sums(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: MemorySettings
) -> dict[str, object]:
    """Sums and differences up to twenty that are answered exactly: all there are, in digits and in words."""
    asked = [(problem[1], ask_sum(problem, digits)) for digits in (True, False) for problem in every_sum()]
    right: dict[str, list[bool]] = defaultdict(list)
    for part in tqdm(list(chunks(asked, settings.batch)), desc="sums", unit="batch"):
        prompts = [question_text(question).lstrip("\n") for _, (question, _) in part]
        found = continue_prompts(model, tokenizer, prompts, 16, do_sample=False)
        for (operation, (_, expected)), entry in zip(part, found, strict=True):
            right[operation].append(answer_of(entry["continuation"]) == expected)
    return {**share([one for ones in right.values() for one in ones]), **{name: share(right[name]) for name in right}}


def held_out_memories(settings: MemorySettings, context: int) -> list[tuple[str, str]]:
    """(kind, text) of held-out books, letters, notes and sums that fit into the context."""
    return list(itertools.islice(memories(settings.seed, context, held_out=True), settings.memories))
