"""What Sphinx has to know to make the book. It reads the notes and the notebooks where they lie.

The source folder is the project's root. So a link between notes, notebooks and code is a link of the book as it is,
and no text has to be copied. Paths below that are not patterns are relative to this folder.
"""

import sys
from importlib.resources import files
from pathlib import Path

BOOK = Path(__file__).resolve().parent
sys.path[:0] = [str(BOOK), str(BOOK.parent / "code")]

project = "Efficiently Serving LLMs"
html_title = project
language = "en"

root_doc = "book/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "book/*.md", "models/*/MODEL_CARD.md", "serving/README.md"]
include_patterns += ["notes/**.md", "notebooks/**.ipynb"]  # here ** goes through folders
exclude_patterns = [".*", "**/.*", "build", "lab", "htmlcov", "**/__pycache__"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
extensions += ["chapters", "docstrings", "links", "papers", "pictures", "terms"]  # the files beside this one
suppress_warnings = [
    "mystnb.unknown_mime_type",  # the scoreboards' own; the text beside it is shown
    "myst.header",  # the solutions have headings of the first and the third level only
]

# Markdown. The anchors of headings are those that GitHub gives them.
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True  # $$...$$ is a formula of its own in the middle of a paragraph too
myst_heading_anchors = 4

# Formulas are drawn by a file of the book itself. The package that holds it is no more than that file's source: used as
# an extension, it would copy all of MathJax and have Sphinx read one document after the other.
MATHJAX = "tex-svg-full.js"
mathjax_path = MATHJAX

# Notebooks are shown as they were committed.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # no notebook shows a widget, and the default would be fetched from the web

# What `code/` says about itself. In its docstrings, a name between single backticks is a name of the code.
default_role = "py:obj"
highlight_language = "none"  # what is drawn is no program
add_module_names = False
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True  # as they are written
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "ignore-module-all": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
viewcode_follow_imported_members = False  # a name's source is where its module has it

html_theme = "sphinx_book_theme"
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search is in the sidebar
    "show_navbar_depth": 2,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
# Where index.html leads: to the page on this machine where `make lessons` has written one, else to the root.
MACHINE = "book/machine"
FIRST = MACHINE if Path(__file__).with_name("machine.md").is_file() else root_doc
html_context = {"default_mode": "auto", "first_page": FIRST}  # light or dark, as the reader's system is
html_static_path = ["_static", str(files("sphinx-mathjax-offline") / "static" / "mathjax" / MATHJAX)]
templates_path = ["_templates"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_favicon = "_static/icon.svg"
html_additional_pages = {"index": "first_page.html"}  # the book's first page has another address
html_copy_source = False
html_show_copyright = False
html_use_index = False
html_domain_indices = False
