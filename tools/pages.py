"""Lessons as HTML pages, and the page that lists them."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable
from pathlib import Path

from nbconvert import HTMLExporter

from notebook_files import lesson_number, lesson_title
from notebook_runs import Outcome


def lesson_page(outcome: Outcome, out: Path) -> str:
    """The executed lesson as one HTML page to be put into the folder `out`."""
    exporter = HTMLExporter(template_name="lab")
    exporter.require_js_url = "data:text/javascript,"  # the template asks for it, only widgets use it
    resources = {"metadata": {"name": page_title(outcome.path)}}
    page, _ = exporter.from_notebook_node(outcome.notebook, resources=resources)
    return relocate_links(page, outcome.path.parent, out)


def page_title(path: Path) -> str:
    """`Lesson_2-Batching.ipynb` -> "Lesson 2: Batching"."""
    number = lesson_number(path)
    return f"Lesson {number}: {lesson_title(path)}" if number else lesson_title(path)


def relocate_links(page: str, source: Path, out: Path) -> str:
    """Links between lessons lead to their pages; links out of `source` (../notes) still arrive from `out`."""
    way_back = Path(os.path.relpath(source.resolve(), out.resolve())).as_posix()
    page = re.sub(r'(href="[^":/]+)\.ipynb(["#])', r"\1.html\2", page)
    return re.sub(r'((?:href|src)=")\.\./', rf"\g<1>{way_back}/../", page)


INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
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
<ol>
{lessons}
</ol>
</body>
</html>
"""

INDEX_ENTRY = """<li>
<h2><a href="{link}">{title}</a></h2>
<p{failed}>{summary}</p>
<p class="seconds">{seconds:.0f} s · <a href="{notebook}">executed notebook</a></p>
</li>"""


def index_page(outcomes: Iterable[Outcome]) -> str:
    """A page that lists lessons: title, result, seconds, and links to the page and the notebook."""
    return INDEX.format(lessons="\n".join(_index_entry(outcome) for outcome in outcomes))


def _index_entry(outcome: Outcome) -> str:
    return INDEX_ENTRY.format(
        link=html.escape(f"{outcome.path.stem}.html"),
        title=html.escape(page_title(outcome.path)),
        failed=' class="failed"' if outcome.failure else "",
        summary=html.escape(outcome.summary),
        seconds=outcome.seconds,
        notebook=html.escape(outcome.path.name),
    )
