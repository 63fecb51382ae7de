"""Predictions beside measurements: what a lesson computed first and measured afterwards, and by how much it missed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

MISS = 1.5  # a prediction that is off by more than this factor is called a miss


@dataclass(frozen=True)
class Prediction:
    """One number that was computed first and measured afterwards. `str()` gives its row in one line.

    Attributes:
        what: the quantity, with its workload and model, such as "step of 8 rows, GPT-2's size, packed fp32".
        predicted: what the formula gives. measured: what the run gave. Both in `unit`.
        unit: such as "ms", "bytes", "forwards", or "times" for a ratio.
        exact: for counts and bytes, which miss by nothing.
        tested: why it misses where it misses, as an experiment in the lesson has shown.
        guess: the same, for an explanation that nobody has tested.
    """

    what: str
    predicted: float
    measured: float
    unit: str
    exact: bool = False
    tested: str = ""
    guess: str = ""

    @property
    def factor(self) -> float:
        """How far the two are apart, as a ratio of 1 or more."""
        return max(self.predicted / self.measured, self.measured / self.predicted)

    @property
    def missed(self) -> bool:
        """Whether they are further apart than the factor that counts as a miss."""
        return self.factor > MISS

    @property
    def verdict(self) -> str:
        """What came of the prediction, in a few words; a miss comes with its explanation."""
        if self.exact:
            return "exact"
        if not self.missed:
            return f"within {self.factor:.2f} times"
        why = f"tested: {self.tested}" if self.tested else f"a guess: {self.guess}" if self.guess else "unexplained"
        factor = f"{self.factor:.2f}" if self.factor < 2 else f"{self.factor:.1f}"  # 1.54 is a miss, 1.5 is none
        return f"missed by {factor} times; {why}"

    def __str__(self) -> str:
        predicted, measured = (quantity(value, self.exact) for value in (self.predicted, self.measured))
        return f"{self.what}: predicted {predicted}, measured {measured} {self.unit} ({self.verdict})"


@dataclass
class Scoreboard:
    """The predictions of one lesson, each beside its measurement, in the order in which they were made.

        scores = Scoreboard("Lesson 1")
        print(scores.add("KV cache of 246 tokens", 246 * 12288, size_in_bytes(cache), "bytes", exact=True))
        scores                       # the table, as the last line of a cell

    A prediction that is off by more than a factor of 1.5 shows the explanation it was given. An explanation
    stands in the lesson's text, so it must be true of any run: it says what an experiment in the lesson
    blames (`tested`) or is called a guess (`guess`).
    """

    lesson: str
    rows: list[Prediction] = field(default_factory=list)

    def add(
        self,
        what: str,
        predicted: float,
        measured: float,
        unit: str,
        *,
        exact: bool = False,
        tested: str = "",
        guess: str = "",
    ) -> Prediction:
        """Record one prediction and return it, ready to be printed. Arguments as for `Prediction`.

        A cell that runs again replaces its row: there is one row for each `what`.

        Raises:
            ValueError: a number is not positive and finite, or `exact` and the two differ.
        """
        predicted, measured = float(predicted), float(measured)
        if not (0 < predicted < math.inf and 0 < measured < math.inf):
            raise ValueError(
                f"{what}: predicted {predicted} and measured {measured}; a scoreboard takes positive, finite "
                "numbers, since it compares them by their ratio"
            )
        if exact and predicted != measured:
            raise ValueError(f"{what}: predicted {predicted:,.0f}, measured {measured:,.0f} {unit}; these must agree")
        row = Prediction(what, predicted, measured, unit, exact, tested, guess)
        places = {old.what: place for place, old in enumerate(self.rows)}
        self.rows[places.get(what, len(self.rows)) : places.get(what, len(self.rows)) + 1] = [row]
        return row

    @property
    def misses(self) -> list[Prediction]:
        """The predictions that are off by more than a factor of 1.5."""
        return [row for row in self.rows if row.missed]

    def __str__(self) -> str:
        width = max((len(row.what) for row in self.rows), default=0)
        lines = [f"{'':>3}  {self.lesson:{width}}{'predicted':>13}{'measured':>13}  unit"]
        for number, row in enumerate(self.rows, 1):
            values = "".join(f"{quantity(value, row.exact):>13}" for value in (row.predicted, row.measured))
            lines.append(f"{number:>3}  {row.what:{width}}{values}  {row.unit:9} {row.verdict.partition(';')[0]}")
        why = [f"{self.rows.index(row) + 1:>3}  {row.verdict}" for row in self.misses]
        return "\n".join([*lines, "", *why] if why else lines)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What a notebook saves: the table to read, and the rows as data for whoever collects them."""
        rows = [asdict(row) for row in self.rows]
        return {"text/plain": str(self), SCOREBOARD_MIME: {"lesson": self.lesson, "rows": rows}}


SCOREBOARD_MIME = "application/vnd.scoreboard+json"


def quantity(value: float, exact: bool) -> str:
    """Counts in full, other numbers to three digits."""
    return f"{value:,.0f}" if exact or value >= 1000 else f"{value:.3g}"
