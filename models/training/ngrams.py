"""Unigram and interpolated trigram models over token ids: the baselines that the storyteller has to beat."""

from dataclasses import dataclass

import numpy as np


def count_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct keys and how often each occurs."""
    return np.unique(keys, return_counts=True)


def look_up(table: tuple[np.ndarray, np.ndarray], keys: np.ndarray) -> np.ndarray:
    """Counts of the keys, 0 where a key was never seen."""
    known, counts = table
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, counts[places], 0)


def context_keys(
    documents: list[list[int]], end_of_text: int, vocabulary: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per predicted token the keys of its trigram, bigram and unigram.

    A document a b is padded to E E a b E and predicts a, b and the final E.
    """
    trigrams, bigrams, unigrams = [], [], []
    for document in documents:
        ids = np.array([end_of_text, end_of_text, *document, end_of_text], dtype=np.int64)
        unigrams.append(ids[2:])
        bigrams.append(ids[1:-1] * vocabulary + ids[2:])
        trigrams.append(ids[:-2] * vocabulary**2 + bigrams[-1])
    return np.concatenate(trigrams), np.concatenate(bigrams), np.concatenate(unigrams)


@dataclass
class TrigramModel:
    """p(c | a b) = w3 n(abc) / n(ab) + w2 n(bc) / n(b) + w1 n(c) / n + w0 / V  (Jelinek and Mercer, 1980)."""

    end_of_text: int
    vocabulary: int
    tables: dict[str, tuple[np.ndarray, np.ndarray]]
    total: int
    weights: np.ndarray

    @classmethod
    def fit(
        cls, documents: list[list[int]], tuning: list[list[int]], end_of_text: int, vocabulary: int, rounds: int = 20
    ) -> "TrigramModel":
        """Count the documents and set the four weights by expectation maximisation on the tuning documents."""
        trigrams, bigrams, unigrams = context_keys(documents, end_of_text, vocabulary)
        tables = {
            "abc": count_keys(trigrams),
            "ab": count_keys(trigrams // vocabulary),
            "bc": count_keys(bigrams),
            "b": count_keys(bigrams // vocabulary),
            "c": count_keys(unigrams),
        }
        model = cls(end_of_text, vocabulary, tables, len(unigrams), np.full(4, 0.25))
        parts = model.parts(tuning)  # (N, 4)
        for _ in range(rounds):
            shares = parts * model.weights
            model.weights = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        return model

    def parts(self, documents: list[list[int]]) -> np.ndarray:
        """The four probabilities of each predicted token: trigram, bigram, unigram, uniform; (N, 4)."""
        trigrams, bigrams, unigrams = context_keys(documents, self.end_of_text, self.vocabulary)
        counts = {
            name: look_up(self.tables[name], keys)
            for name, keys in (("abc", trigrams), ("bc", bigrams), ("c", unigrams))
        }
        before2 = np.maximum(look_up(self.tables["ab"], trigrams // self.vocabulary), 1)
        before1 = np.maximum(look_up(self.tables["b"], bigrams // self.vocabulary), 1)
        uniform = np.full(len(unigrams), 1 / self.vocabulary)
        return np.stack([counts["abc"] / before2, counts["bc"] / before1, counts["c"] / self.total, uniform], axis=1)

    def loss(self, documents: list[list[int]]) -> float:
        """Mean negative log likelihood per token, in nats."""
        return float(-np.log(self.parts(documents) @ self.weights).mean())

    def unigram_loss(self, documents: list[list[int]]) -> float:
        """The same for the unigram model with add-one smoothing."""
        _, _, unigrams = context_keys(documents, self.end_of_text, self.vocabulary)
        counts = look_up(self.tables["c"], unigrams)
        return float(-np.log((counts + 1) / (self.total + self.vocabulary)).mean())
