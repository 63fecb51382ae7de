"""Loading: from a folder, from the hub's local cache, with or without a network; and the shared course model."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import helpers
import models
from helpers import Request, course_model, load_model, run_continuous
from utils import add_lora

PROMPT = ("Once upon a time there was a", 12)


def test_gpt2_sized_has_gpt2s_shape_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    model = helpers.gpt2_sized(seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808
    assert not model.training and model.dtype == torch.float32


def test_unreachable_hub_says_what_to_do(monkeypatch):
    attempts = []

    class Hub:
        @staticmethod
        def from_pretrained(name, **options):
            attempts.append(options.get("local_files_only", False))
            raise OSError("cannot reach the hub\nlong explanation")

    monkeypatch.setattr(models, "AutoTokenizer", Hub)
    monkeypatch.setattr(models, "_check_hub_has", lambda name: None)
    monkeypatch.setenv("COURSE_MODEL", "some/model")
    with pytest.raises(
        OSError, match=r"'some/model'.*load_model\(\) for the bundled storyteller.*cannot reach the hub"
    ):
        helpers.load_model()
    assert attempts == [True, False]  # the cache first, then the network, once each


def test_the_cache_is_enough(monkeypatch):
    asked = []

    class Cached:
        @staticmethod
        def from_pretrained(name, **options):
            asked.append(options["local_files_only"])
            return name

    assert models._from_pretrained(Cached, "some/model") == "some/model"
    assert asked == [True]


def hub_cache(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    """What the hub's client leaves behind after it has downloaded `gpt2`."""
    snapshot = folder / "models--gpt2" / "snapshots" / ("0" * 40)
    model.save_pretrained(snapshot)
    tokenizer.save_pretrained(snapshot)
    (folder / "models--gpt2" / "refs").mkdir()
    (folder / "models--gpt2" / "refs" / "main").write_text("0" * 40)
    return folder


def run_offline(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code on our modules, any connection refused."""
    folders = [Path(helpers.__file__).parent, Path(__file__).parent / "no_network"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), **environment}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_gpt2_comes_from_the_hubs_cache_when_offline(gpt2, tokenizer, tmp_path):
    result = run_offline(
        "import helpers; model, tokenizer = helpers.load_model(); print(model.config.n_embd, tokenizer.padding_side)",
        COURSE_MODEL="gpt2",
        HF_HUB_CACHE=str(hub_cache(tmp_path, gpt2, tokenizer)),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["32", "left"]


def test_gpt2_without_cache_or_network_names_the_way_on(tmp_path):
    result = run_offline("import helpers; helpers.load_model('gpt2')", HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("OSError: cannot load 'gpt2'") and "bundled storyteller" in last


@pytest.mark.parametrize("name", ["./nowhere", "no/such/folder", "/nowhere/at/all", "a name with spaces"])
def test_a_folder_that_does_not_exist_is_called_that(name):
    with pytest.raises(OSError, match="cannot load '.*' from a folder: '.*' is none.*bundled storyteller"):
        load_model(name)


def test_a_hub_that_cannot_be_reached_is_asked_once_and_quickly(tmp_path):
    started = time.perf_counter()
    result = run_offline("import helpers; helpers.load_model('some/model')", HF_HUB_CACHE=str(tmp_path))
    assert result.returncode == 1
    assert "Retrying" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("OSError: cannot load 'some/model'") and "there is no folder of that name" in last
    assert time.perf_counter() - started < 30  # it had been a minute of retries; most of this is the import


@pytest.mark.parametrize("error", [MemoryError("no memory"), torch.OutOfMemoryError("no memory"), RuntimeError("odd")])
def test_an_error_that_is_not_about_reading_is_reported_as_what_it_is(monkeypatch, error):
    asked = []

    class Full:
        @staticmethod
        def from_pretrained(name, **options):
            raise error

    monkeypatch.setattr(models, "AutoModelForCausalLM", Full)
    monkeypatch.setattr(models, "_check_hub_has", asked.append)
    with pytest.raises(type(error), match=str(error)):
        models._read_model("some/model", torch.float32)
    assert not asked


def test_the_bundled_model_loads_without_a_progress_bar(capsys):
    load_model(device="cpu")
    captured = capsys.readouterr()
    assert "Loading" not in captured.err + captured.out
    assert models.logging.is_progress_bar_enabled()  # only for this one load


# --- The course model that everybody shares ----------------------------------------------------------


def test_a_change_to_the_course_model_changes_nothing_for_later_callers():
    before = run_continuous([PROMPT])[0].output_ids
    model, tokenizer = course_model()
    add_lora(model, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3)
    tokenizer.padding_side = "right"
    assert run_continuous([PROMPT], model=model, tokenizer=course_model()[1])[0].output_ids != before
    assert run_continuous([PROMPT])[0].output_ids == before
    assert not any("lora" in name for name, _ in course_model()[0].named_parameters())


def test_two_first_calls_at_once_load_the_course_model_once(monkeypatch):
    loads, answers = [], []

    def slow_load(name):
        loads.append(name)
        time.sleep(0.2)
        return load_model(name)

    monkeypatch.setattr(models, "load_model", slow_load)
    models._load_once.cache_clear()
    threads = [threading.Thread(target=lambda: answers.append(run_continuous([PROMPT])[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(answers) == 4 and len({tuple(answer.output_ids) for answer in answers}) == 1


def test_a_copy_of_the_course_model_needs_no_tokenizer():
    expected = run_continuous([PROMPT])[0].output_ids
    assert run_continuous([Request(*PROMPT)], model=course_model()[0])[0].output_ids == expected
