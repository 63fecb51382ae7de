"""Open the lessons in Jupyter Lab, on copies that are yours to write in: what `make lab` does.

    python tools/lab.py [OPTION ...]     every option goes on to Jupyter Lab: --no-browser, --port=8890, --allow-root

The folder lab/, which git does not look at, gets a copy of every notebook and note. Beside the copies lie links to
code/ and to what else the lessons refer to, so that every link between notebooks and notes leads somewhere. What you
write stays: a copy is brought up to date only as long as it holds the text with which it was made. When a notebook of
the course has changed and your copy has too, the new one is put beside yours. To start a notebook afresh, delete your
copy of it and run this program again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from nbformat.sign import NotebookNotary

from notebook_files import ROOT, WIDGET_VIEW, LessonError, files_of, read_notebook, source_hash, write_notebook

LAB = ROOT / "lab"
COPIED = ("notebooks/**/*.ipynb", "notes/**/*.md", "notes/**/*.svg", "*.md")
LINKED = ("code", "models", "serving", "benchmarks", "LICENSE")  # what notebooks and notes use or refer to

# Settings of this Jupyter Lab alone: a link to a note shows the note as a page, not its Markdown, and nothing is asked
# of a host outside.
SETTINGS = {
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}


class Copies:
    """The learner's folder, and a record in it of what was copied and from what.

    For every copy the record holds two fingerprints: of the original (`original`) and of the copy when it was made
    (`copy`); and of a newer original that was put beside it (`offered`).
    """

    def __init__(self, lab: Path = LAB, root: Path = ROOT) -> None:
        self.lab, self.root = lab, root
        self.record_path = lab / ".state" / "copies.json"
        self.record_path.parent.mkdir(parents=True, exist_ok=True)
        self.record: dict[str, dict[str, str]] = {}
        if self.record_path.exists():
            self.record = json.loads(self.record_path.read_text(encoding="utf-8"))

    def refresh(self) -> list[str]:
        """Make and update everything in the folder. Returns a sentence for each copy that was left as it is."""
        try:
            left = [self._refresh_copy(original) for original in files_of(self.root, *COPIED)]
            for name in LINKED:
                left += self._provide(name)
        finally:
            self.record_path.write_text(json.dumps(self.record, indent=1, sort_keys=True), encoding="utf-8")
        return [sentence for sentence in left if sentence]

    def _provide(self, name: str) -> list[str]:
        """A link to a file or folder of the project, or copies of its files where links cannot be made."""
        target, link = self.root / name, self.lab / name
        if link.is_symlink() or not target.exists():
            return []
        if not link.exists():
            try:
                link.symlink_to(Path("..") / name, target_is_directory=target.is_dir())
                return []
            except OSError:  # Windows grants links to developers and administrators only
                pass
        return [self._refresh_copy(path) for path in files_of(self.root, name, f"{name}/**/*")]

    def _refresh_copy(self, original: Path) -> str:
        """Make or update the copy of one file; "", or a sentence if the learner's version was left as it is."""
        name = original.relative_to(self.root).as_posix()
        new = digest(original)
        known = self.record.get(name, {})
        if (self.lab / name).exists() and new in (known.get("original"), known.get("offered")):
            return ""
        if self._is_ours(name):
            self._copy(original, name)
            return ""
        if fingerprint(self.lab / name) == fingerprint(original):  # the record was lost, or both came to the same
            self.record[name] = {"original": new, "copy": fingerprint(original)}
            return ""
        beside = next(candidate for candidate in names_beside(name) if self._is_ours(candidate))
        self._copy(original, beside)
        self.record.setdefault(name, {})["offered"] = new
        return f"{name} has a new version. Yours is kept as it is; the new one is {beside}."

    def _is_ours(self, name: str) -> bool:
        """True if nothing is lost by writing this copy: it is missing, or as it was made."""
        path = self.lab / name
        return not path.exists() or fingerprint(path) == self.record.get(name, {}).get("copy")

    def _copy(self, original: Path, name: str) -> None:
        copy = self.lab / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if original.suffix == ".ipynb":
            copy_notebook(original, copy)
        else:
            shutil.copyfile(original, copy)
        self.record[name] = {"original": digest(original), "copy": fingerprint(copy)}


def copy_notebook(original: Path, copy: Path) -> None:
    """Copy a notebook such that Jupyter Lab has nothing to add to it, and trust it, so that its figures are shown.

    Lab writes the version of the running Python into a notebook when it opens it, and shows it as unsaved if that
    changes anything; the committed notebooks leave the version out, since it differs between machines.
    """
    nb = read_notebook(original)
    if "language_info" in nb.metadata:
        nb.metadata.language_info["version"] = platform.python_version()
    write_notebook(nb, copy)
    NotebookNotary().sign(nb)


def fingerprint(path: Path) -> str:
    """What tells a learner's version from ours: the text of a notebook's cells, without outputs, or a file's bytes."""
    if path.suffix == ".ipynb":
        try:
            return source_hash(read_notebook(path))
        except LessonError:
            pass  # not a notebook any more: compare its bytes
    return digest(path)


def digest(path: Path) -> str:
    """The sha256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names_beside(name: str) -> Iterator[str]:
    """`notebooks/L.ipynb` -> `notebooks/L-new.ipynb`, `notebooks/L-new-2.ipynb`, and so on."""
    path = Path(name)
    yield path.with_stem(f"{path.stem}-new").as_posix()
    number = 2
    while True:
        yield path.with_stem(f"{path.stem}-new-{number}").as_posix()
        number += 1


def lab_arguments(lab: Path = LAB) -> list[str]:
    """Arguments of Jupyter Lab: where it starts, and settings that hold for this folder alone."""
    settings = lab / ".state" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "overrides.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    return [
        f"--ServerApp.root_dir={lab}",
        "--LabApp.default_url=/lab/tree/notebooks",
        f"--LabApp.app_settings_dir={settings}",
        f"--LabApp.workspaces_dir={lab / '.state' / 'workspaces'}",
        "--ContentsManager.pre_save_hook=lab.drop_dead_widgets",
        "--KernelManager.transport_encryption=auto",
    ]


def drop_dead_widgets(model: dict, **_: object) -> None:
    """Called by Jupyter before it saves: progress bars die with their kernel, so they are not written to the file.

    Opened again, a bar in a saved notebook would read "Error displaying widget: model not found". A widget whose
    state is saved with the notebook stays.
    """
    if model["type"] != "notebook":
        return
    content = model["content"]
    saved = content["metadata"].get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    state = saved.get("state", {})
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"] if not is_dead_widget(output, state)]


def is_dead_widget(output: dict, state: dict) -> bool:
    """True for the view of a widget that `state`, a notebook's saved widgets by their id, does not hold."""
    view = output.get("data", {}).get(WIDGET_VIEW)
    return view is not None and view.get("model_id") not in state


def main(options: list[str]) -> None:
    """Bring the copies up to date and start Jupyter Lab; returns when the person has stopped it."""
    from jupyterlab.labapp import LabApp  # the tests of the copies do without it

    for sentence in Copies().refresh():
        print(sentence)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as `make` sets it for the kernels of the lessons
    print("Your copies of the lessons are in lab/notebooks; nothing overwrites what you write there.")
    LabApp.launch_instance([*lab_arguments(), *options])


if __name__ == "__main__":
    main(sys.argv[1:])
