"""Lessons, solutions and notes as HTML pages that need no network, and the page that lists the lessons."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

import formulas
from notebook_files import files_of, lesson_number, lesson_title, notebooks_of, read_notebook
from notebook_runs import Outcome

MARKDOWN_PAGES = ("README.md", "notes/**/*.md", "models/*/MODEL_CARD.md")

# nbconvert's page without what it would fetch from the web. Code, tables and drawings that are too wide scroll: a
# drawing that shrank with the window could not be read.
TEMPLATE = """{% extends "lab/index.html.j2" %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}
<link rel="icon" href="data:,">
<style>
main { max-width: 64rem; margin: 0 auto; }
.jp-InputArea-editor, .jp-OutputArea-output, .jp-RenderedMarkdown pre { overflow-x: auto; }
.jp-RenderedMarkdown pre, .jp-RenderedMarkdown pre code { white-space: pre; }
.jp-OutputArea-output pre { word-break: normal; overflow-wrap: anywhere; }
.jp-RenderedMarkdown div.highlight { margin-bottom: 1em; }
.jp-RenderedMarkdown { overflow-wrap: break-word; min-width: 0; }
.jp-RenderedMarkdown table { display: block; overflow-x: auto; max-width: 100%; }
.jp-RenderedMarkdown img, .jp-RenderedSVG svg { max-width: 100%; height: auto; }
.jp-RenderedMarkdown p:has(> img) { overflow-x: auto; }
.jp-RenderedMarkdown p > img[src$=".svg"] { max-width: none; }
.jp-Cell-inputWrapper, .jp-Cell-outputWrapper, .jp-OutputArea-child { min-width: 0; }
.jp-RenderedMarkdown svg.formula { display: inline; max-width: none; font-size: 1.15em; }
.display-formula { overflow-x: auto; text-align: center; padding: 0.5em 0; }
@media (max-width: 800px) {
  body.jp-Notebook { padding: 0.25rem; }
  .jp-InputPrompt, .jp-OutputPrompt { display: none; }
  .jp-RenderedImage img { max-width: none; width: 720px; }
  .jp-OutputArea-output pre { width: max-content; max-width: 100ch; overflow: visible; }
}
</style>
{% endblock %}
"""


class PageRenderer(IPythonRenderer):
    """Markdown to HTML with drawn formulas, and with the headings' anchors that GitHub gives them."""

    def heading(self, text: str, level: int, **_: object) -> str:
        """A heading that the links between the notes find."""
        return f'<h{level} id="{anchor(text)}">{text}</h{level}>\n'

    def inline_math(self, body: str) -> str:
        """A formula within a line."""
        return formulas.formula_svg(body)

    def block_math(self, body: str) -> str:
        """A formula on its own line; it scrolls where it is wider than the page."""
        return f'<span class="display-formula" style="display:block">{formulas.formula_svg(body, display=True)}</span>'


class PageExporter(HTMLExporter):
    """nbconvert's exporter with the template and the renderer of this file."""

    def __init__(self) -> None:
        super().__init__(raw_template=TEMPLATE)

    @pass_context
    def markdown2html(self, context: object, source: str) -> str:
        """The HTML of a Markdown cell."""
        return MarkdownWithMath(renderer=PageRenderer(escape=False)).render(source)


@cache
def page_exporter() -> PageExporter:
    """One exporter for all pages: reading its templates takes time."""
    return PageExporter()


def anchor(heading: str) -> str:
    """`The <em>ladder</em>, measured` -> "the-ladder-measured"."""
    text = html.unescape(re.sub(r"<[^>]+>", "", heading))
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


# ---------------------------------------------------------------------------------------------------
# From files to pages


def pages_of(notebooks: Path, out: Path) -> dict[Path, Path]:
    """Which file below the folder `out` shows which notebook or text of the project that `notebooks` belongs to."""
    notebooks = absolute(notebooks)
    root, out = notebooks.parent, absolute(out)
    pages = {path: out / path.relative_to(notebooks) for path in notebooks_of(notebooks)}
    pages |= {path: out / path.relative_to(root) for path in files_of(root, *MARKDOWN_PAGES)}
    return {source: page.with_suffix(".html") for source, page in pages.items()}


def absolute(path: Path) -> Path:
    """`path` from the root and without `..`; links in it stay, so that what lies beside a link is found there."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow links)


def write_page(nb: NotebookNode, source: Path, pages: Mapping[Path, Path]) -> None:
    """Write the page that shows `source` with the content `nb`."""
    target = pages[absolute(source)]
    page, _ = page_exporter().from_notebook_node(nb, resources={"metadata": {"name": page_title(source)}})
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(relocate_links(page, absolute(source), pages), encoding="utf-8")


def write_pages_as_they_are(pages: Mapping[Path, Path], but: Iterable[Path] = ()) -> None:
    """Write the page of every file with the content it has, except for the files in `but` and for newer pages."""
    for source in pages.keys() - {absolute(path) for path in but}:
        if not is_current(pages[source], source):
            write_page(content_of(source), source, pages)


def is_current(page: Path, source: Path) -> bool:
    """True if a page is newer than what it shows and than the programs that make it."""
    makers = (Path(__file__), Path(formulas.__file__), source)
    return page.exists() and page.stat().st_mtime > max(path.stat().st_mtime for path in makers)


def content_of(source: Path) -> NotebookNode:
    """A notebook as it is; a Markdown text as a notebook of one cell."""
    if source.suffix == ".ipynb":
        return read_notebook(source)
    return new_notebook(cells=[new_markdown_cell(source.read_text(encoding="utf-8"))])


def page_title(path: Path) -> str:
    """`Lesson_2-Batching.ipynb` -> "Lesson 2: Batching"; `Glossary.md` -> "Glossary"."""
    number = lesson_number(path)
    return f"Lesson {number}: {lesson_title(path)}" if number else lesson_title(path)


def relocate_links(page: str, source: Path, pages: Mapping[Path, Path]) -> str:
    """Make the links of `source` arrive from its page: at the target's page where it has one, else at the target."""
    here = pages[source].parent

    def relocated(match: re.Match[str]) -> str:
        attribute, url = match.groups()
        path, mark, place = url.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        target = absolute(source.parent / unquote(path))
        way = Path(os.path.relpath(pages.get(target, target), here)).as_posix()
        return f'{attribute}="{quote(way)}{mark}{place}"'

    return re.sub(r'\b(href|src)="([^"]*)"', relocated, page)


# ---------------------------------------------------------------------------------------------------
# The index

INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Lessons, executed</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
ol {{ list-style: none; padding: 0; }}
li {{ padding: .75rem 0; border-top: 1px solid #8886; }}
h2 {{ font-size: 1.1rem; margin: 0; }}
p {{ margin: .25rem 0; overflow-wrap: anywhere; }}
.seconds {{ opacity: .7; font-size: .9rem; }}
.failed {{ color: light-dark(#a30000, #ff8a80); }}
</style>
</head>
<body>
<h1>Lessons, executed</h1>
{introduction}<ol>
{lessons}
</ol>
</body>
</html>
"""

INTRODUCTION = """<p>If you have never served a language model, begin with the <a href="{link}">introduction</a>.
What the lessons gain together stands on the page of <a href="{ladder}">the ladder</a>, and every term in the
<a href="{glossary}">glossary</a>.</p>
"""

INDEX_ENTRY = """<li>
<h2><a href="{link}">{title}</a></h2>
<p{failed}>{summary}</p>
<p class="seconds">{details}</p>
</li>"""


def index_page(outcomes: Iterable[Outcome], links: Mapping[Path, str], notes: Mapping[str, str]) -> str:
    """A page that lists lessons: title, result, seconds, and links to page, notebook and note.

    `links` holds the link to a lesson's page by the lesson's path, `notes` that to its note by the lesson's number.
    """
    introduction = ""
    if "0" in notes:
        names = {"link": "Lesson_0", "ladder": "Ladder", "glossary": "Glossary"}  # pages of one folder
        first_pages = {name: html.escape(notes["0"].replace("Lesson_0", page)) for name, page in names.items()}
        introduction = INTRODUCTION.format(**first_pages)
    lessons = "\n".join(_index_entry(outcome, links[outcome.path], notes) for outcome in outcomes)
    return INDEX.format(introduction=introduction, lessons=lessons)


def _index_entry(outcome: Outcome, link: str, notes: Mapping[str, str]) -> str:
    details = ["as last run and saved"] if outcome.seconds is None else [f"{outcome.seconds:.0f} s"]
    if outcome.seconds is not None:
        notebook = Path(link).with_suffix(".ipynb").as_posix()
        details.append(f'<a href="{html.escape(notebook)}">executed notebook</a>')
    if note := notes.get(lesson_number(outcome.path)):
        details.append(f'<a href="{html.escape(note)}">notes</a>')
    return INDEX_ENTRY.format(
        link=html.escape(link),
        title=html.escape(page_title(outcome.path)),
        failed=' class="failed"' if outcome.failure else "",
        summary=html.escape(outcome.summary[:1].upper() + outcome.summary[1:]),
        details=" · ".join(details),
    )


def notes_by_lesson(pages: Mapping[Path, Path], out: Path) -> dict[str, str]:
    """`{"1": "notes/Lesson_1.html", ...}`: the links from the index to the notes."""
    found = {re.fullmatch(r"Lesson_(\d+)", source.stem): page for source, page in pages.items()}
    return {match[1]: page.relative_to(absolute(out)).as_posix() for match, page in found.items() if match}


def pages_by_lesson(outcomes: Iterable[Outcome], pages: Mapping[Path, Path], out: Path) -> dict[Path, str]:
    """`{notebooks/Lesson_1-L.ipynb: "Lesson_1-L.html", ...}`: the links from the index to the lessons."""
    found = {outcome.path: pages[absolute(outcome.path)] for outcome in outcomes}
    return {path: page.relative_to(absolute(out)).as_posix() for path, page in found.items()}
