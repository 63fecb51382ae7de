"""The parts of the book that Sphinx does not have: chapters, links, terms, papers, and words for plots."""

from __future__ import annotations

import pytest

pytest.importorskip("sphinx", reason="the book needs Sphinx, which `make book` installs")

import chapters
import docstrings
import links
import papers
import pictures
import terms
from book_pages import contrast


def test_chapter_goes_on_with_notebook_and_solutions() -> None:
    documents = ["notebooks/Lesson_1-A", "notebooks/Lesson_10-B", "notebooks/solutions/Lesson_1-Solutions"]
    documents += ["notebooks/further/Lesson_6-C", "notebooks/solutions/Lesson_6-Solutions"]
    expected = [("The notebook", documents[0]), ("The solutions", documents[2])]
    assert chapters.rest_of_chapter("notes/Lesson_1", documents) == expected
    assert chapters.rest_of_chapter("notes/Lesson_0", documents) == []
    assert chapters.rest_of_chapter("notes/Glossary", documents) == []
    expected = [("The notebook", documents[3]), ("The solutions", documents[4])]
    assert chapters.rest_of_chapter("notes/further/Lesson_6", documents) == expected


def test_what_is_drawn_in_a_docstring_is_kept_and_lists_of_arguments_are_not_touched() -> None:
    drawn = ["A cache:", "", "    k k . .", "", "    v v . .", "", "Args:", "    x: (B, S).", "        More.", ""]
    assert docstrings.with_literal_blocks(drawn) == [*drawn[:2], "::", "", *drawn[2:]]
    assert docstrings.with_literal_blocks([]) == []


def test_colon_in_what_is_returned_ends_no_type() -> None:
    lines = ["Returns:", "    The cache: it has grown.", "    Twice: yes.", "", "Raises:", "    ValueError: no."]
    assert docstrings.without_types(lines) == [lines[0], "    : The cache: it has grown.", *lines[2:]]


def test_what_a_dataclass_makes_anew_is_written_as_dots() -> None:
    def shown(arguments: str | None) -> tuple[str | None, str | None]:
        return docstrings.without_factories(None, "class", "Batch", None, None, arguments, None)

    assert shown("(ids: list[int] = <factory>, n: int = 1)") == ("(ids: list[int] = ..., n: int = 1)", None)
    assert shown(None) == (None, None)


def test_name_means_what_its_module_means_by_it() -> None:
    from engine.request import Request as EngineRequest
    from engine.scheduler import Scheduler  # noqa: F401 (its module is asked)
    from helpers import Request

    assert docstrings.thing_named("Request", "engine.scheduler") is EngineRequest
    assert docstrings.thing_named("Request", "helpers") is Request
    assert docstrings.thing_named("Request", "checks") is Request  # which imports it for type checkers only
    assert docstrings.thing_named("MISSING", "engine.scheduler") is None


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("code/helpers.py", "helpers"),
        ("code/engine/adapters.py", "engine.adapters"),
        ("code/engine/__init__.py", "engine"),
        ("code/figures/charts.py", "figures.charts"),
        ("code/exercises/__init__.py", "exercises"),
        ("serving/app.py", None),
        ("benchmarks/ladder.py", None),
    ],
)
def test_files_of_modules_have_a_place_in_the_book(path: str, module: str | None) -> None:
    assert links.module_of(path) == module


def test_folder_leads_to_its_first_document() -> None:
    assert links.first_document("a/b", ["a/c", "a/b/2", "a/b/1", "a/bc/0"]) == "a/b/1"
    assert links.first_document("d", ["a/b"]) is None


def test_papers_are_collected_once_and_in_order() -> None:
    one = "[LoRA](https://x.org/2) (Hu et al., 2021) and [Orca](https://x.org/1) (Yu et\nal., 2022)"
    two = "again [The LoRA paper](https://x.org/2) (Hu et al., 2021), and [a page](https://x.org/3) (no year)"
    lora = papers.Paper("2021", "Hu et al.", "LoRA", "https://x.org/2")
    found = papers.papers_in({"A.md": one, "B.md": two})
    assert list(found)[0] == lora
    assert [paper.authors for paper in found] == ["Hu et al.", "Yu et al."]
    assert found[lora] == ["A.md", "B.md"]
    line = "- Hu et al. (2021): [LoRA](https://x.org/2). Cited in: [](../notes/A.md), [](../notes/B.md)"
    assert papers.as_markdown(found, "../notes").splitlines()[0] == line


def test_plot_is_described_by_the_function_that_draws_it() -> None:
    assert pictures.drawn_by("figures.use_style()\nfigures.timing_bars(bars)").startswith("One horizontal bar")
    assert pictures.drawn_by("figures.lesson_3.gains(a, b)\nplt.show()").startswith("How many times as long")
    assert pictures.drawn_by("plt.plot([1, 2])") is None


def test_glossary_is_read_as_terms() -> None:
    glossary = "| **KV cache** | x | 1 |\n| **admit, merge** | y | 3 |\n| **TTFT**, time | z | 0 |\n| **row** | | |\n"
    assert terms.terms_of(glossary) == {
        "kv cache": "term-kv-cache",
        "admit": "term-admit-merge",
        "merge": "term-admit-merge",
        "ttft": "term-ttft",
        "row": "term-row",
    }
    assert terms.sure_names(glossary).findall("A row, the KV cache, TTFT, to merge, kv caches") == ["KV cache", "TTFT"]


def test_contrast_is_that_of_the_guidelines() -> None:
    assert contrast("rgb(0, 0, 0) on rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(255, 255, 255) on rgb(118, 118, 118)") == pytest.approx(4.54, abs=0.005)  # the palest grey
    with pytest.raises(ValueError, match="no opaque colour"):
        contrast("rgba(0, 0, 0, 0.5) on rgb(255, 255, 255)")
