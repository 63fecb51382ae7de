"""The committed lessons run and are clean, and tools/lessons.py does to notebooks what it says."""

import copy
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import lessons
from conftest import refused
from machine_facts import Machine

LESSONS = (
    "Lesson_1-Text_Generation",
    "Lesson_2-Batching",
    "Lesson_3-Continuous_Batching",
    "Lesson_4-Quantization",
    "Lesson_5-Low-Rank_Adaptation",
)
FURTHER = ("Lesson_6-Multi_LoRA", "Lesson_7-A_Server", "Lesson_8-Inside_an_Engine")
ALL = {name: lessons.NOTEBOOKS / f"{name}.ipynb" for name in LESSONS}
ALL |= {name: lessons.NOTEBOOKS / "further" / f"{name}.ipynb" for name in FURTHER}
TIMING = "timing"  # the tag of a code cell whose outputs depend on a clock


# ---------------------------------------------------------------------------------------------------
# The lessons


def test_the_folder_holds_the_five_lessons_and_the_further_ones() -> None:
    assert lessons.find_lessons() == list(ALL.values())


@pytest.fixture
def quick(no_network: dict[str, str]) -> dict[str, str]:
    """No network, and every timing repeated once: what a lesson teaches does not hang on its timings."""
    return no_network | {"COURSE_REPEATS": "1"}


def doubled(path: Path, folder: Path) -> Path:
    """A notebook that holds the cells of `path` twice over, in a folder laid out like this project."""
    for name in ("code", "models", "serving", "benchmarks"):
        (folder / name).symlink_to(lessons.ROOT / name)
    nb = lessons.read_notebook(path)
    again = copy.deepcopy(nb.cells)
    for cell in again:
        cell.id += "-again"
    twice = folder / "notebooks" / path.relative_to(lessons.NOTEBOOKS)
    twice.parent.mkdir(parents=True)
    lessons.write_notebook(new_notebook(cells=[*nb.cells, *again]), twice)
    return twice


def shown_outputs(cell: NotebookNode) -> list[dict]:
    """All that a reader sees below a code cell, without its number."""
    return [{name: value for name, value in out.items() if name != "execution_count"} for out in cell.outputs]


@pytest.mark.notebooks
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ALL)
def test_lesson_runs_twice_in_one_kernel_and_shows_the_same(
    name: str, quick: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On the bundled model, without the network. Cells tagged "timing" may differ, and only they."""
    monkeypatch.delenv("COURSE_MODEL", raising=False)
    outcome = lessons.run_notebook(doubled(ALL[name], tmp_path), environment=quick)
    assert outcome.failure is None
    assert outcome.headline
    assert not refused(quick)
    cells = lessons.code_cells(outcome.notebook)
    first, second = cells[: len(cells) // 2], cells[len(cells) // 2 :]
    steady = [index for index, cell in enumerate(first) if TIMING not in cell.metadata.get("tags", [])]
    differ = [index + 1 for index in steady if shown_outputs(first[index]) != shown_outputs(second[index])]
    assert not differ, f"code cells {differ} show something else the second time and are not tagged {TIMING!r}"
    assert sum(bool(first[index].outputs) for index in steady) >= 5


@pytest.mark.notebooks
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", LESSONS)
def test_lesson_runs_on_the_second_bundled_model(
    name: str, quick: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name alone, without the network; what the lesson says of numbers is for the first model only."""
    monkeypatch.setenv("COURSE_MODEL", "storyteller-llama")
    outcome = lessons.run_notebook(ALL[name], environment=quick)
    assert outcome.failure is None
    assert outcome.headline
    assert not refused(quick)


@pytest.mark.parametrize("name", ALL)
def test_committed_lesson_is_clean(name: str) -> None:
    assert lessons.problems(ALL[name]) == []


# ---------------------------------------------------------------------------------------------------
# Tiny lessons to try the tool on

SETUP = 'import sys\nsys.path.insert(0, "../code")'
RESULT = "print('Headline: 2.0 times')"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty notebooks/ folder."""
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


def write_lesson(folder: Path, name: str, *sources: str) -> Path:
    """An unexecuted lesson: a heading, the setup cell, then one code cell for each of `sources`."""
    cells = [new_markdown_cell("# A lesson"), *(new_code_cell(source) for source in (SETUP, *sources))]
    path = folder / f"{name}.ipynb"
    lessons.write_notebook(new_notebook(cells=cells), path)
    return path


def write_clean_lesson(folder: Path) -> Path:
    """A lesson as `make execute` leaves it, written by hand: no kernel is needed for it."""
    path = write_lesson(folder, "Lesson_1-Tiny", RESULT)
    nb = lessons.read_notebook(path)
    for count, cell in enumerate(lessons.code_cells(nb), start=1):
        cell.execution_count = count
    nb.cells[-1].outputs = [new_output("stream", name="stdout", text="Headline: 2.0 times\n")]
    lessons.normalise(nb)
    lessons.write_notebook(nb, path)
    return path


def command(name: str, folder: Path, *arguments: str) -> int:
    """Exit status of `lessons.py NAME` on the lessons in `folder`; `run` writes to a folder beside it."""
    out = ["--out", str(folder.parent / "out")] if name == "run" else []
    return lessons.main([name, "--notebooks", str(folder), *out, *arguments])


# ---------------------------------------------------------------------------------------------------
# run


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here needs this machine's speed, and measuring it takes seconds."""
    monkeypatch.setattr(lessons, "measure_machine", lambda: Machine({"cpu threads": "2"}, 1e10, processors=2))


def test_run_writes_copies_and_a_summary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write_lesson(folder, "Lesson_1-One", RESULT), write_lesson(folder, "Lesson_2-Two_Words", RESULT)]
    before = [path.read_bytes() for path in paths]
    assert command("run", folder) == 0
    assert [path.read_bytes() for path in paths] == before
    out = folder.parent / "out"
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths)
    page = (out / "machine.md").read_text()
    for path in paths:
        assert lessons.headline(lessons.read_notebook(out / path.name)) == "2.0 times"
        assert f"]({path.name})" in page
    assert "### Lesson 2: Two Words" in page and "not run" not in page
    summary = capsys.readouterr().out
    assert re.search(r"^Lesson 1: One +\d+\.\d s  2\.0 times$", summary, re.MULTILINE)
    assert re.search(r"^Lesson 2: Two Words +\d+\.\d s  2\.0 times$", summary, re.MULTILINE)


def test_further_lessons_come_last_and_keep_their_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_lesson(folder, "Lesson_2-Old", RESULT)
    (folder / "further").mkdir()
    further = write_lesson(folder / "further", "Lesson_10-New", RESULT)
    assert lessons.find_lessons(folder=folder) == lessons.find_lessons(["10", "2"], folder) == [first, further]
    assert command("run", folder, "10") == 0
    out = folder.parent / "out"
    assert lessons.headline(lessons.read_notebook(out / "further" / "Lesson_10-New.ipynb")) == "2.0 times"
    page = (out / "machine.md").read_text()
    assert "](further/Lesson_10-New.ipynb)" in page
    assert page.index("### Lesson 2: Old\n\n- **Here:** not run") < page.index("### Lesson 10: New")
    assert re.search(r"^Lesson 10: New +\d+\.\d s  2\.0 times$", capsys.readouterr().out, re.MULTILINE)


def test_failing_cell_is_named_and_later_lessons_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lesson(folder, "Lesson_1-Broken", "1 + 1", "# a comment\nraise ValueError('one\\ntwo')", RESULT)
    write_lesson(folder, "Lesson_2-Sound", RESULT)
    assert command("run", folder) == 1
    captured = capsys.readouterr()
    expected = "error: Lesson_1-Broken.ipynb, code cell 3 (`# a comment`): ValueError: two"
    assert expected in captured.err
    assert "FAILED in code cell 3" in captured.out
    assert "2.0 times" in captured.out
    assert (
        "**Lesson 1 failed** in code cell 3, `` # a comment ``: ValueError: two."
        in (folder.parent / "out" / "machine.md").read_text()
    )
    partial = lessons.read_notebook(folder.parent / "out" / "Lesson_1-Broken.ipynb")
    assert [cell.execution_count for cell in lessons.code_cells(partial)] == [1, 2, 3, None]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("while True: pass", "it ran longer than 1 seconds"),
        ("import os; os._exit(1)", "its kernel died (out of memory?)"),
    ],
)
def test_endless_cell_and_dead_kernel_are_failures(folder: Path, source: str, error: str) -> None:
    path = write_lesson(folder, "Lesson_1-Broken", source)
    failure = lessons.run_notebook(path, timeout_s=1).failure
    assert failure == lessons.Failure(2, source, error)


def test_run_picks_lessons_and_rejects_unknown_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write_lesson(folder, f"Lesson_{number}-L") for number in (1, 2, 3)]
    assert lessons.find_lessons(["3", "Lesson_1-L.ipynb"], folder) == [paths[0], paths[2]]
    assert command("run", folder, "4") == 2
    assert "there is no lesson '4'" in capsys.readouterr().err


def test_run_refuses_to_write_over_the_notebooks(folder: Path) -> None:
    before = write_lesson(folder, "Lesson_1-L", RESULT).read_bytes()
    assert lessons.main(["run", "--notebooks", str(folder), "--out", str(folder)]) == 2
    assert (folder / "Lesson_1-L.ipynb").read_bytes() == before


def test_model_that_cannot_be_loaded_ends_the_run_before_the_first_lesson(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lesson(folder, "Lesson_1-One", RESULT)
    write_lesson(folder, "Lesson_2-Two", RESULT)
    (folder.parent / "empty").mkdir()
    monkeypatch.setenv("COURSE_MODEL", str(folder.parent / "empty"))
    assert command("run", folder) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: COURSE_MODEL: ")
    assert captured.err.count(str(folder.parent / "empty")) == 1
    assert "Traceback" not in captured.err
    assert not (folder.parent / "out").exists()


def test_kernel_is_this_interpreter_in_the_notebooks_folder(folder: Path) -> None:
    path = write_lesson(folder, "Lesson_1-L", "import os\nprint('Headline:', sys.executable, os.getcwd())")
    assert lessons.run_notebook(path).headline == f"{sys.executable} {folder.resolve()}"


# ---------------------------------------------------------------------------------------------------
# The guard against connections

CONNECTIONS = [
    "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)",
    "import socket; socket.socket().connect_ex(('192.0.2.1', 80))",
    "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
    "import socket; socket.gethostbyname('example.org')",
]


@pytest.mark.parametrize("source", CONNECTIONS)
def test_connection_is_refused(folder: Path, no_network: dict[str, str], source: str) -> None:
    path = write_lesson(folder, "Lesson_1-L", source)
    failure = lessons.run_notebook(path, environment=no_network).failure
    assert failure is not None
    assert failure.error.startswith("NetworkRefused: ")
    assert "the tests allow no connection beyond loopback" in failure.error
    assert "refused" in refused(no_network)


def test_swallowed_refusal_is_on_record_and_loopback_is_free(folder: Path, no_network: dict[str, str]) -> None:
    loopback = "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
    loopback += "socket.create_connection(server.getsockname()).close()"
    path = write_lesson(folder, "Lesson_1-L", loopback)
    assert lessons.run_notebook(path, environment=no_network).failure is None
    assert refused(no_network) == ""
    path = write_lesson(folder, "Lesson_1-L", f"try:\n    {CONNECTIONS[0]}\nexcept OSError:\n    pass")
    assert lessons.run_notebook(path, environment=no_network).failure is None
    assert "192.0.2.1 refused" in refused(no_network)


# ---------------------------------------------------------------------------------------------------
# execute


def test_execute_is_clean_and_can_be_repeated(folder: Path) -> None:
    bars = "import time\nfrom tqdm import tqdm\nfrom tqdm.auto import tqdm as auto\n"
    bars += "for _ in tqdm(range(3), desc='plain: bar'): time.sleep(0.01)\nfor _ in auto(range(3)): pass"
    path = write_lesson(folder, "Lesson_1-L", bars, "1 + 1", RESULT)
    assert command("check", folder) == 1
    assert command("execute", folder) == 0
    assert lessons.problems(path) == []
    first = path.read_bytes()
    assert command("execute", folder) == 0
    assert path.read_bytes() == first
    assert [entry.name for entry in folder.iterdir()] == [path.name]


def test_execute_leaves_a_failing_notebook_as_it_was(folder: Path) -> None:
    path = write_lesson(folder, "Lesson_1-L", "raise ValueError")
    before = path.read_bytes()
    assert command("execute", folder) == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_execute_changes_nothing_and_leaves_no_kernel(folder: Path, signal_number: int) -> None:
    wait = "import os, pathlib, time\npathlib.Path('unfinished').write_text(str(os.getpid()))\n"
    wait += "os.rename('unfinished', 'kernel')\ntime.sleep(60)"
    path = write_lesson(folder, "Lesson_1-L", wait)
    before = path.read_bytes()
    tool = [sys.executable, lessons.__file__, "execute", "--notebooks", str(folder)]
    process = subprocess.Popen(tool, stderr=subprocess.PIPE, text=True)
    wait_until((folder / "kernel").exists)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("Interrupted: ")
    assert "Traceback" not in errors
    assert path.read_bytes() == before
    kernel = int((folder / "kernel").read_text())
    wait_until(lambda: not is_running(kernel))


def wait_until(condition: Callable[[], bool], limit_s: float = 30) -> None:
    """Return as soon as `condition` holds; fail the test if it does not within `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def is_running(process_id: int) -> bool:
    """True while there is a process of this number."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------
# check


def test_clean_lesson_has_no_problems(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lessons.problems(write_clean_lesson(folder)) == []
    assert command("check", folder) == 0
    assert "nothing to complain about" in capsys.readouterr().out


def add_output(kind: str, **content: object) -> Callable[[NotebookNode], None]:
    """A change to a notebook: its last cell gets one more output."""
    return lambda nb: nb.cells[-1].outputs.append(new_output(kind, **content))


def lose_the_hash(nb: NotebookNode) -> None:
    nb.metadata.pop("companion")


def change_source(nb: NotebookNode) -> None:
    nb.cells[0].source += "!"


def change_setup(nb: NotebookNode) -> None:
    nb.cells[1].source = "import sys"


def skip_a_count(nb: NotebookNode) -> None:
    nb.cells[-1].execution_count = 3


def lose_a_count(nb: NotebookNode) -> None:
    nb.cells[-1].execution_count = None


def lose_the_headline(nb: NotebookNode) -> None:
    nb.cells[-1].outputs = []


DEFECTS = {
    "its source has changed": change_source,
    "was not executed by `make execute`": lose_the_hash,
    "does not call sys.path.insert": change_setup,
    "code cell 2 has the execution count 3": skip_a_count,
    "code cell 2 was not executed": lose_a_count,
    "no code cell prints a line": lose_the_headline,
    "code cell 2 writes to stderr: careful": add_output("stream", name="stderr", text="careful\n"),
    "code cell 2 ends in an error: ValueError": add_output("error", ename="ValueError", evalue=""),
    "code cell 2 shows a widget": add_output("display_data", data={lessons.WIDGET_VIEW: {}}),
    "code cell 2 prints 41 lines": add_output("stream", name="stdout", text="x\n" * 41),
    "the file has 3,": add_output("display_data", data={"image/png": "x" * 3_000_000}),
}


@pytest.mark.parametrize("expected", DEFECTS)
def test_check_finds(folder: Path, expected: str) -> None:
    path = write_clean_lesson(folder)
    nb = lessons.read_notebook(path)
    DEFECTS[expected](nb)
    lessons.write_notebook(nb, path)
    assert any(expected in problem for problem in lessons.problems(path))


HOME = "/".join(["", "home", "ada"])


@pytest.mark.parametrize(
    "text",
    [
        f"open('{HOME}/model')",
        f"file://{HOME}/model",
        HOME.replace("home", "Users") + "/model",
        "C:\\model",
        f"{lessons.ROOT}/code/helpers.py",
    ],
)
def test_check_finds_absolute_paths(folder: Path, text: str) -> None:
    path = write_clean_lesson(folder)
    nb = lessons.read_notebook(path)
    nb.cells[-1].outputs.append(new_output("display_data", data={"text/html": f"<p>\n{text}\n</p>"}))
    nb.cells[0].source += f"\n{text}"
    found = list(lessons.private_path_problems(nb))
    assert found == [
        f"cell 1 (markdown) holds an absolute path: {text}",
        f"the output of code cell 2 holds an absolute path: {text}",
    ]


@pytest.mark.parametrize("text", ["https://example.org/home/page", "../tmp/x", "and/or", "/s per token"])
def test_check_lets_other_slashes_pass(folder: Path, text: str) -> None:
    path = write_clean_lesson(folder)
    nb = lessons.read_notebook(path)
    nb.cells[0].source += text
    assert list(lessons.private_path_problems(nb)) == []


def test_unreadable_notebook_is_a_problem(folder: Path) -> None:
    path = folder / "Lesson_1-L.ipynb"
    path.write_text("{}")
    assert "is not a notebook of format 4" in lessons.problems(path)[0]


@pytest.mark.parametrize(
    ("text", "is_bar"),
    [
        ("100%|##########| 4/4 [00:01<00:00,  3.99it/s]\n", True),
        ("Loading weights:  25%|##5       | 1/4 [00:00<?, ?it/s]", True),
        ("step: 7it [00:03,  2.10it/s, loss=1.2]\n", True),
        ("\r  0%|          | 0/2 [00:00<?, ?it/s]\r100%|####| 2/2 [00:00<00:00, 9.0tokens/s]\n\n", True),
        ("TqdmWarning: IProgress not found. Please update jupyter and ipywidgets.\n", False),
        ("100%|####| 4/4 [00:01<00:00,  3.99it/s]\nUserWarning: careful\n", False),
        ("UserWarning: 3 weights [a, b, c]\n", False),
    ],
)
def test_only_bars_are_dropped_from_stderr(text: str, is_bar: bool) -> None:
    assert lessons.is_progress_bar(new_output("stream", name="stderr", text=text)) is is_bar
    assert not lessons.is_progress_bar(new_output("stream", name="stdout", text=text))


def test_source_hash_covers_text_and_nothing_else(folder: Path) -> None:
    nb = lessons.read_notebook(write_clean_lesson(folder))
    before = lessons.source_hash(nb)
    lessons.clear_outputs(nb)
    nb.metadata["note"] = "x"
    assert lessons.source_hash(nb) == before
    nb.cells[0].source += "!"
    assert lessons.source_hash(nb) != before


def test_cells_without_an_id_get_the_same_one_each_time() -> None:
    cells = [{"source": "x"}, {"source": ["x"]}, {"source": "y", "id": "kept"}]
    again = [dict(cell) for cell in cells]
    lessons.give_ids(cells)
    lessons.give_ids(again)
    assert cells == again
    assert len({cell["id"] for cell in cells}) == 3
    assert cells[2]["id"] == "kept"
