"""The page "Your machine": which numbers it compares, and what it says of their difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

import comparison
import lessons
import machine_facts
import machine_page
from comparison import Lesson
from machine_facts import ARITHMETIC, MEMORY, Machine
from notebook_runs import Failure, Outcome
from scoreboards import Scoreboard

FACTS = "python 3.11.7, torch 2.13.0+cpu, processor AMD EPYC, cpu threads 2, gpu none\n"
SPEEDS = "498 MB to read at 34 GB/s; 225 billion operations per second\n"
DESCRIBED = {"python": "3.11.7", "torch": "2.13.0+cpu", "processor": "AMD EPYC", "cpu threads": "2", "gpu": "none"}
MACHINE = Machine(DESCRIBED, 34e9, processors=4, load=0.2)
PATH = Path("Lesson_1-Toys.ipynb")


def notebook(
    headline: str, *measured: float, facts: str = FACTS, speeds: str = SPEEDS, clocked: bool = True
) -> NotebookNode:
    """An executed lesson with this headline, and with a scoreboard of these measurements, each predicted as 10 ms."""
    board = Scoreboard("Lesson 1")
    for number, value in enumerate(measured):
        board.add(f"step {number}", 10, value, "ms")
    texts = [new_output("stream", text=text) for text in (facts, speeds, f"Headline: {headline}\n")]
    outputs = [*texts, new_output("display_data", data=board._repr_mimebundle_())]
    cells = [new_code_cell("model, tokenizer = load_model()", outputs=[output]) for output in outputs]
    cells[2].metadata["tags"] = ["timing"] if clocked else []
    return new_notebook(cells=cells)


def lesson(here: NotebookNode, committed: NotebookNode) -> Lesson:
    return Lesson(PATH, committed, Outcome(PATH, here, seconds=4.2))


def said(one: Lesson, machine: Machine = MACHINE) -> str:
    """What the page says of the difference."""
    return comparison.sentence(one, machine, comparison.speeds(one, machine))


# ---------------------------------------------------------------------------------------------------
# What is compared


@pytest.mark.parametrize(
    ("sentence", "numbers"),
    [
        ("48 tokens: 3.7x as fast", [48, 3.7]),
        ("a book of 1,528 tokens, 197 kB, 0.8%", [1528, 197, 0.8]),
        ("GPT-2's size in int8 and bf16", []),
        ("takes 8.1 ms; in bf16 12.0 ms", [8.1, 12.0]),
        ("from 2 to 3 to 4", [2, 3, 4]),
        ("1, 2, 3, 4", [1, 4]),  # the places of 2 and 3 are alike
    ],
)
def test_numbers_are_known_by_the_words_around_them(sentence: str, numbers: list[float]) -> None:
    assert list(comparison.numbers_in_place(sentence).values()) == numbers


@pytest.mark.parametrize(
    ("here", "committed", "far"),
    [
        ("9.4x the throughput at 1.7x the latency", "2.0x the throughput at 1.7x the latency", [(9.4, 2.0)]),
        ("2.0x the throughput", "4.0x the throughput", []),  # a factor of two is not more than that
        ("gpt2, 48 tokens: 20.0x as fast", "storyteller, 240 tokens: 3.7x as fast", [(20.0, 3.7)]),
        ("124 MB of weights", "124 kB of weights", []),
        ("0 misses", "3 misses", [(0, 3)]),
        ("0 misses", "0 misses", []),
    ],
)
def test_headlines_are_compared_where_their_words_are_the_same(
    here: str, committed: str, far: list[tuple[float, float]]
) -> None:
    assert comparison.far_in_headlines(lesson(notebook(here), notebook(committed))) == far


def test_scoreboards_are_compared_where_they_measure_the_same() -> None:
    assert comparison.far_on_boards(lesson(notebook("", 30, 10), notebook("", 10, 10, 10))) == [True, False]
    assert comparison.far_on_boards(lesson(new_notebook(), notebook("", 10))) == []


# ---------------------------------------------------------------------------------------------------
# Why


def test_nothing_is_said_of_runs_that_are_alike() -> None:
    assert said(lesson(notebook("2.0x", 10), notebook("3.9x", 19))) == ""
    assert said(Lesson(PATH, notebook("2.0x"), None)) == ""


def test_difference_that_nothing_measured_explains_gets_no_reason() -> None:
    text = said(lesson(notebook("9.0x", 10), notebook("2.0x", 10)))
    assert text.startswith(
        "9 in the headline (committed: 2) differs from the committed run by more than a factor of two"
    )
    assert "nothing that was measured of the two machines says why" in text
    assert "likely" not in text


SLOW = FACTS.replace("threads 2", "threads 1")
CAUSES = {
    "PyTorch used 1 thread here and 2 there": (SLOW, SPEEDS, {}),
    "this machine reads its memory at 10 GB/s and the other one read it at 34 GB/s": (
        FACTS,
        SPEEDS,
        {"bandwidth": 1e10},
    ),
    "Lesson 1 counted 50 billion operations per second here and 225 billion there": (
        FACTS,
        SPEEDS.replace("225", "50"),
        {},
    ),
    "processor is Arm here and was AMD EPYC there": (FACTS.replace("AMD EPYC", "Arm"), SPEEDS, {}),
    "torch is 2.9.0 here and was 2.13.0+cpu there": (FACTS.replace("2.13.0+cpu", "2.9.0"), SPEEDS, {}),
    "it ran on another model (COURSE_MODEL=gpt2)": (FACTS, SPEEDS, {"model": "gpt2"}),
    "no timing was repeated more often than COURSE_REPEATS=1 allows": (FACTS, SPEEDS, {"repeats": "1"}),
    "this machine was busy before the first lesson (a load of 3.5 with 4 processors)": (FACTS, SPEEDS, {"load": 3.5}),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_measured_difference_of_the_machines_is_named_and_no_other(cause: str) -> None:
    facts, speeds, changes = CAUSES[cause]
    one = lesson(notebook("9.0x", 10, facts=facts, speeds=speeds), notebook("2.0x", 10))
    text = said(one, replace(MACHINE, **changes))
    assert f"most likely because {cause}" in text
    assert not any(other in text for other in CAUSES if other != cause)


def test_a_clock_explains_nothing_where_no_clock_was_read() -> None:
    slow = notebook("9 nats", 10, facts=SLOW, clocked=False)
    assert "threads" not in said(lesson(slow, notebook("2 nats", 10, clocked=False)))


def test_a_lesson_with_a_model_of_its_own_is_not_explained_by_another_model() -> None:
    one = lesson(notebook("9.0x"), notebook("2.0x"))
    for cell in one.here.notebook.cells:
        cell.source = 'model, tokenizer = load_model("storyteller-llama")'
    assert "COURSE_MODEL" not in said(one, replace(MACHINE, model="gpt2"))


# ---------------------------------------------------------------------------------------------------
# The page


def test_a_lesson_that_was_not_run_is_named_as_such() -> None:
    two = Lesson(Path("Lesson_2-More.ipynb"), notebook("5.0x"), None)
    page = machine_page.machine_page(
        MACHINE, [lesson(notebook("3.0x", 10), notebook("2.0x", 10)), two], lambda _: "x.md"
    )
    assert "ran Lesson 1 on this machine" in page
    assert "The other lessons were not run: their notebooks are shown as they were committed." in page
    assert "### Lesson 2: More\n\n- **Here:** not run\n- **Committed:** 5.0x" in page
    assert "- **Here** (4 s, [the notebook](x.md)): 3.0x\n- **Committed:** 2.0x" in page
    assert "| Lesson 1 | 1 | 0 | 1 | 0 | 0 |" in page


def test_a_failure_is_named_and_its_text_is_shown_as_it_is() -> None:
    failed = Outcome(PATH, new_notebook(), 1.0, Failure(3, "x = d['a'] | *b*", "KeyError: <a>"))
    page = machine_page.machine_page(MACHINE, [Lesson(PATH, notebook("2.0x"), failed)], lambda _: "")
    assert r"**Lesson 1 failed** in code cell 3, `` x = d['a'] | *b* ``: KeyError: \<a\>." in page
    assert "- **Here** (1 s): FAILED in code cell 3\n" in page


def test_facts_on_which_committed_lessons_disagree_come_with_their_lessons() -> None:
    three = [notebook("", facts=facts) for facts in (FACTS, SLOW, FACTS)]
    of = [Lesson(Path(f"Lesson_{number}-L.ipynb"), nb, None) for number, nb in enumerate(three, start=1)]
    assert machine_page.committed_fact("cpu threads", MACHINE, of) == "2 (Lessons 1, 3); 1 (Lesson 2)"
    assert machine_page.committed_fact("gpu", MACHINE, of) == "none"
    assert machine_page.committed_fact("instruction set", MACHINE, of) == "not recorded"


def test_committed_lessons_tell_what_the_page_reads_from_them() -> None:
    committed = [lessons.read_notebook(path) for path in lessons.find_lessons()]
    for nb in committed:
        assert machine_facts.printed_facts(nb, DESCRIBED).keys() == DESCRIBED.keys()
        assert lessons.headline(nb)
    assert machine_facts.printed_speed(committed[0], MEMORY) > 1
    assert machine_facts.printed_speed(committed[0], ARITHMETIC) > 1


def test_machine_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    small = "memory_bandwidth(size_bytes=2**24, repeats=1)"
    monkeypatch.setattr(machine_facts, "MEASURE", machine_facts.MEASURE.replace("memory_bandwidth()", small))
    monkeypatch.setenv("COURSE_MODEL", "gpt2")
    machine = machine_facts.measure_machine()
    assert machine.described.keys() > DESCRIBED.keys()
    assert machine.described["instruction set"]
    assert machine.bandwidth > 1e8
    assert machine.model == "gpt2"
    monkeypatch.setattr(machine_facts, "MEASURE", "raise ValueError('no torch')")
    with pytest.raises(lessons.LessonError, match="this machine could not be measured: ValueError: no torch"):
        machine_facts.measure_machine()
