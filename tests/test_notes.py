"""The notes: their drawings, excerpts, references, numbers and words are what they claim to be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest

import lessons

ROOT = Path(__file__).resolve().parent.parent
NOTES = ROOT / "notes"
FIGURES = NOTES / "figures"

FURTHER = sorted((NOTES / "further").glob("Lesson_*.md"))
LESSONS = [*sorted(NOTES.glob("Lesson_*.md")), *FURTHER]
NOTEBOOKS = [*lessons.find_lessons(), *sorted((lessons.NOTEBOOKS / "solutions").glob("*.ipynb"))]
SECTIONS = (
    "The idea in one drawing",
    "Derivation",
    "How the code does it",
    "What the notebook measures",
    "Questions people ask",
    "On today's transformers",
    "In production",
    "Further reading",
    "Notebook",
)
FIRST_STEPS = (  # only Lesson 0 has these, before all others: they are for whoever has never served a model
    "What a language model does with a prompt",
    "What a server is asked to do",
    "What is scarce",
)
# Pages behind the lessons, where each sends its reader at its end, and the longest that its running text may be.
LADDER, APPENDIX = NOTES / "Ladder.md", NOTES / "Appendix_transformers_4.md"
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)

each_lesson = pytest.mark.parametrize("note", LESSONS, ids=lambda path: path.stem)


def text_of(note: Path) -> str:
    return note.read_text(encoding="utf-8")


def section(note: Path, title: str) -> str:
    """What stands under a heading of the second level."""
    return re.split(rf"^## {title}.*$", text_of(note), flags=re.MULTILINE)[1].split("\n## ")[0]


def test_there_is_a_note_for_the_introduction_and_for_each_lesson():
    assert [note.stem for note in LESSONS] == [f"Lesson_{number}" for number in range(9)]
    assert [note.stem for note in FURTHER] == ["Lesson_6", "Lesson_7", "Lesson_8"]


# --- Structure ---------------------------------------------------------------------------------------


@each_lesson
def test_note_has_all_sections_in_order(note):
    headings = re.findall(r"^## (.+)$", text_of(note), flags=re.MULTILINE)
    required = (*FIRST_STEPS, *SECTIONS) if note.stem == "Lesson_0" else SECTIONS
    assert len(headings) == len(required)
    assert all(heading.startswith(title) for heading, title in zip(headings, required, strict=True)), headings


def words(markdown: str) -> int:
    """Words of running text: tables, code, displayed formulas, drawings and addresses do not count."""
    for left_out in (BLOCK, re.compile(r"\$\$.*?\$\$", re.DOTALL), re.compile(r"^\|.*$", re.MULTILINE), IMAGE):
        markdown = left_out.sub("", markdown)
    return len(re.sub(r"\]\([^)]*\)", "]", markdown).split())


def test_only_running_text_is_counted():
    assert words("One [two](three four)\n\n| no |\n\n$$n o$$\n\n![no no](a.svg)\n\n```\nno\n```\nthree.") == 3


@each_lesson
def test_note_is_neither_thin_nor_long(note):
    assert 900 <= words(text_of(note)) <= 2000


@each_lesson
def test_note_ends_with_its_notebook_and_an_assignment(note):
    end = section(note, "Notebook")
    number = note.stem[-1]
    assert "**Assignment:**" in end and "exercises" in end
    notebooks = "../../notebooks" if note in FURTHER else "../notebooks"
    lesson = f"{notebooks}/further" if note in FURTHER else notebooks
    assert number == "0" or re.search(rf"\({re.escape(lesson)}/Lesson_{number}-\w", end)
    assert number == "0" or f"({notebooks}/solutions/Lesson_{number}-Solutions.ipynb" in end


def test_lesson_0_says_every_word_of_serving_before_it_is_used_to_explain_the_lessons():
    """Each of these stands in italics where it first comes, and it first comes before the map of the lessons."""
    text = text_of(NOTES / "Lesson_0.md")
    first_steps = text[: text.index(f"## {SECTIONS[0]}")]
    terms = ("prompt", "answer", "token", "forward", "prefill", "decode", "request", "TTFT", "TPOT", "latency")
    for term in (*terms, "throughput"):
        said = re.search(rf"\*{term}s?\*", first_steps)
        assert said, f"{term} is not introduced"
        before = IMAGE.sub("", first_steps[: said.start()]).partition("\n## ")[2]
        assert not re.search(rf"\b{term}s?\b", before.partition("\n")[2]), f"{term} is used before it is said"


@pytest.mark.parametrize("page", [LADDER, APPENDIX], ids=lambda path: path.stem)
def test_a_page_behind_the_lessons_is_linked_short_and_says_where_to_go_next(page):
    for start in (ROOT / "README.md", NOTES / "Lesson_0.md"):
        assert re.search(rf"\]\((?:notes/)?{page.name}[)#]", text_of(start)), (
            f"{start.name} does not lead to {page.name}"
        )
    assert 150 <= words(text_of(page)) <= 2500
    last = text_of(page).strip().split("\n\n")[-1]
    assert "](../README.md" in last and re.search(r"\]\((Lesson_\d|\.\./notebooks/)", last)


OLD_VERSION = re.compile(r"transformers 4|\b4\.x\b|\bversion 4\b", re.IGNORECASE)


def test_only_the_appendix_speaks_of_the_old_transformers():
    """Whoever never used version 4 need not read about it."""
    pages = {path.name: text_of(path) for path in [ROOT / "README.md", *NOTES.glob("*.md")]}
    for notebook in NOTEBOOKS:
        cells = nbformat.read(notebook, as_version=4).cells
        pages[notebook.name] = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    link = re.compile(r"for readers of code that was written for transformers 4\b")  # what the README says of it
    found = [name for name, text in pages.items() if OLD_VERSION.search(link.sub("", " ".join(text.split())))]
    assert found == [APPENDIX.name]


@each_lesson
def test_further_reading_is_a_choice(note):
    assert 4 <= len(re.findall(r"^- \[", section(note, "Further reading"), flags=re.MULTILINE)) <= 8


@each_lesson
def test_formulas_render_on_github_and_in_jupyter(note):
    """On GitHub a backslash before punctuation is Markdown's, and a `$` beside a letter or digit opens nothing."""
    prose = BLOCK.sub("", text_of(note))
    displayed = re.findall(r"\$\$(.*?)\$\$", prose, flags=re.DOTALL)
    running = re.sub(r"\$\$.*?\$\$", "", prose, flags=re.DOTALL)
    inline = list(re.finditer(r"\$([^$]+)\$", running))
    assert running.count("$") == 2 * len(inline)
    for match in inline:
        assert match[1] == match[1].strip() and "\n\n" not in match[1], match[0]
        around = running[match.start() - 1] + running[match.end() : match.end() + 1]
        assert not re.search(r"\w", around), match[0]
    for formula in [*displayed, *(match[1] for match in inline)]:
        assert not re.search(r"\\[,;:!{}\\]", formula), formula


# --- Drawings ----------------------------------------------------------------------------------------


def linked_drawings() -> list[tuple[str, str, str]]:
    """(note, words that stand for the drawing, path)."""
    pages = [*NOTES.glob("*.md"), *FURTHER]
    found = [(note, alt, note.parent / path) for note in pages for alt, path in IMAGE.findall(text_of(note))]
    return [(note.name, alt, os.path.relpath(path, NOTES)) for note, alt, path in found]


def own_words(drawing: Path) -> str:
    """What `notes/figures/draw.py` says of a drawing; it writes that into the file as its title."""
    return ElementTree.parse(drawing).find("{http://www.w3.org/2000/svg}title").text


def test_drawings_exist_and_are_described_by_their_own_words():
    for note, alt, path in linked_drawings():
        assert (NOTES / path).is_file(), f"{note} shows {path}"
        assert alt == own_words(NOTES / path), f"{note} describes {path} otherwise than notes/figures/draw.py"


def test_every_committed_drawing_is_used_once():
    """Only the README repeats one, the ladder."""
    used = sorted(Path(path).name for _, _, path in linked_drawings())
    assert used == sorted(path.name for path in FIGURES.glob("*.svg"))


@each_lesson
def test_the_drawing_of_the_idea_comes_first(note):
    assert section(note, "The idea in one drawing").lstrip().startswith("![")


# --- Code --------------------------------------------------------------------------------------------


def python_blocks(note: Path) -> list[str]:
    return [code for language, code in BLOCK.findall(text_of(note)) if language == "python"]


def stands_in(excerpt: str, source: str) -> bool:
    """Whether these lines follow each other in the source, at any depth."""
    wanted, lines = textwrap.dedent(excerpt).splitlines(), source.splitlines()
    windows = (lines[start : start + len(wanted)] for start in range(len(lines) - len(wanted) + 1))
    return any(textwrap.dedent("\n".join(window)).splitlines() == wanted for window in windows)


@each_lesson
def test_excerpts_are_the_source(note):
    sources = [text_of(path) for folder in ("code", "code/engine", "serving") for path in (ROOT / folder).glob("*.py")]
    blocks = python_blocks(note)
    assert blocks
    for code in blocks:
        assert 2 <= len(code.splitlines()) <= 9, "an excerpt is short"
        assert any(stands_in(code, source) for source in sources), f"not in code/ as it is:\n{code}"


def test_an_excerpt_may_be_dedented_but_not_changed():
    source = "class A:\n    def f(x):\n        if x:\n            return 1\n"
    assert stands_in("if x:\n    return 1\n", source)
    assert not stands_in("if x:\n    return 2\n", source)
    assert not stands_in("if x:\nreturn 1\n", source)


# --- References --------------------------------------------------------------------------------------

# [Lesson 2](../notebooks/....ipynb), *the heading of a section*
PROOF = re.compile(r"\[Lesson (\d)\]\(((?:\.\./)+notebooks/[^)]+\.ipynb)\),\s+\*([^*]+)\*")
TO_NOTEBOOK = re.compile(r"\[Lesson \d\]\((?:\.\./)+notebooks/")


def headings_of(notebook: Path) -> set[str]:
    cells = nbformat.read(notebook, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return set(re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE))


@each_lesson
def test_questions_name_sections_that_exist(note):
    questions = section(note, "Questions people ask")
    proofs = PROOF.findall(questions)
    assert len(proofs) >= (1 if note.stem == "Lesson_0" else 4)
    assert len(proofs) == len(TO_NOTEBOOK.findall(questions)), "a link to a notebook names no section"
    for number, path, heading in proofs:
        assert Path(path).name.startswith(f"Lesson_{number}-")
        assert " ".join(heading.split()) in headings_of(note.parent / path), f"{path} has no section {heading!r}"


@each_lesson
def test_every_question_is_answered(note):
    paragraphs = [part for part in section(note, "Questions people ask").split("\n\n") if part.startswith("**")]
    assert 6 <= len(paragraphs) <= 12
    for paragraph in paragraphs:
        question, _, answer = paragraph[2:].partition("**")
        assert question.endswith(("?", ".")) and len(answer.split()) >= 5, question


@each_lesson
def test_names_of_code_exist(note):
    folders = ("code", "code/engine", "serving")
    sources = "\n".join(text_of(path) for folder in folders for path in (ROOT / folder).glob("*.py"))
    named = re.findall(r"`([A-Za-z_]\w{2,})", BLOCK.sub("", section(note, "How the code does it")))
    assert named
    for name in named:
        assert re.search(rf"\b{name}\b", sources) or (ROOT / "code" / f"{name}.py").exists(), f"{name} is not in code/"


@each_lesson
def test_exercises_that_are_named_exist(note):
    headings = {heading.partition(":")[0] for path in NOTEBOOKS for heading in headings_of(path)}
    for exercise in re.findall(r"Exercise \d\.\d", text_of(note)):
        assert exercise in headings


# --- Numbers -----------------------------------------------------------------------------------------

# 1.61 ([measured](../models/storyteller/evaluation.json))
MEASURED = re.compile(r"([\d.,]*\d)(?: [^\s(]+)?\s+\(\[measured\]\(([^)]+)\)\)")


def numbers_in(results: Any) -> list[float]:
    if isinstance(results, dict | list):
        items = results.values() if isinstance(results, dict) else results
        return [number for item in items for number in numbers_in(item)]
    return [results] if isinstance(results, int | float) and not isinstance(results, bool) else []


def test_numbers_marked_as_measured_are_in_a_results_file():
    marked = [(note, *match) for note in NOTES.glob("*.md") for match in MEASURED.findall(text_of(note))]
    assert len(marked) == sum(text_of(note).count("[measured](") for note in NOTES.glob("*.md")) > 0
    for note, number, file in marked:
        digits = number.replace(",", "")
        decimals = len(digits.partition(".")[2])
        results = numbers_in(json.loads(text_of(note.parent / file)))
        assert any(f"{result:.{decimals}f}" == digits for result in results), f"{file} does not hold {number}"


# --- Glossary ----------------------------------------------------------------------------------------

GLOSSARY = {  # sections in order, and the lessons their terms come from
    "Requests and their times": "0127",
    "Generating text": "012",
    "Batches": "01238",
    "The machine": "012",
    "Quantization": "4",
    "Low-rank adaptation": "56",
}


def glossary() -> dict[str, list[tuple[str, str]]]:
    """Section -> (term, lesson) of every row."""
    parts = re.split(r"^## (.+)$", text_of(NOTES / "Glossary.md"), flags=re.MULTILINE)[1:]
    row = re.compile(r"^\| (\*\*.+?) \| .+ \| \[(\d)\]\((?:further/)?Lesson_\d\.md[^)]*\) \|$", flags=re.MULTILINE)
    return {title: row.findall(body) for title, body in zip(parts[::2], parts[1::2], strict=True)}


def test_glossary_has_its_sections_in_the_order_of_the_lessons():
    assert list(glossary()) == list(GLOSSARY)
    for title, rows in glossary().items():
        assert rows and {lesson for _, lesson in rows} <= set(GLOSSARY[title]), title


def test_glossary_defines_every_term_once():
    rows = [cell for rows in glossary().values() for cell, _ in rows]
    names = []
    for cell in rows:
        term, _, of_what = cell[2:].lower().partition("**")  # "**merge** (an adapter)" is another merge
        names += [f"{name.strip()} {of_what}" for name in term.split(",")]
    assert len(names) == len(set(names)) >= 60
    assert len(rows) == len(re.findall(r"^\| \*\*", text_of(NOTES / "Glossary.md"), re.MULTILINE))


def test_words_that_the_glossary_says_a_lesson_explains_are_there():
    for rows in glossary().values():
        for cell, lesson in rows:
            term = re.sub(
                r"^(\w+)s$", r"\1", re.split(r"[,(]", re.search(r"\*\*(.+?)\*\*", cell)[1])[0].strip().lower()
            )
            (note,) = (path for path in LESSONS if path.stem == f"Lesson_{lesson}")
            text = " ".join(text_of(note).lower().split())
            assert term in text, f"Lesson {lesson} does not mention {term!r}"


# --- Spelling ----------------------------------------------------------------------------------------


def test_spelling(tmp_path):
    for notebook in NOTEBOOKS:
        cells = nbformat.read(notebook, as_version=4).cells
        prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        (tmp_path / f"{notebook.stem}.md").write_text(prose, encoding="utf-8")
    files = [ROOT / "README.md", *NOTES.glob("*.md"), *FURTHER, *(ROOT / "code").glob("*.py"), *tmp_path.glob("*.md")]
    command = [sys.executable, "-m", "codespell_lib", *map(str, files)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
