"""Links from the texts to what is no text: a module's file leads to the module's page, a folder to its first document.

A link to any other file, a result for example, becomes a download; MyST does that by itself.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

MODULE = re.compile(r"code/((?:\w+/)?\w+)\.py")


def module_of(path: str) -> str | None:
    """`code/engine/adapters.py` -> "engine.adapters"; None for a file outside `code/`."""
    found = MODULE.fullmatch(path)
    return found[1].replace("/", ".").removesuffix(".__init__") if found else None


def first_document(folder: str, documents: Iterable[str]) -> str | None:
    """The first document below a folder, by name; None if there is none."""
    return min((name for name in documents if name.startswith(f"{folder}/")), default=None)


class LinksToFiles(SphinxTransform):
    """Replace the links that MyST has left as downloads, or has not understood."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        """Look at every link of the document."""
        for link in list(self.document.findall(addnodes.download_reference)):
            if module := module_of(self.path(link)):
                link.replace_self(self.reference("py", "mod", module, link.children))
        for link in list(self.document.findall(addnodes.pending_xref)):
            unknown = link["reftype"] == "myst" and not link["refdomain"]
            if unknown and (document := first_document(self.path(link), self.env.found_docs)):
                link.replace_self(self.reference("std", "doc", f"/{document}", link.children))

    def path(self, link: nodes.Element) -> str:
        """Where a link leads, from the project's root."""
        return posixpath.normpath(posixpath.join(posixpath.dirname(self.env.docname), link["reftarget"]))

    def reference(self, domain: str, kind: str, target: str, text: list[nodes.Node]) -> addnodes.pending_xref:
        """A link that Sphinx resolves, and about which it complains if it leads nowhere."""
        return addnodes.pending_xref(
            "",
            *text,
            refdomain=domain,
            reftype=kind,
            reftarget=target,
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this file an extension of Sphinx."""
    app.add_transform(LinksToFiles)
    return {"parallel_read_safe": True}
