"""Two replicas behind one address, in processes of their own: they answer as one server does, also when one dies."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytest.importorskip("ray", reason="Ray Serve is not installed; make replicas installs it")

from serving_process import START_S, Server, chunks_of, eventually, write_model
from test_serving_answers import LAW, completion, streamed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * START_S)]  # two servers start, and a replica once more
ROWS, QUEUE, KEY = 2, 8, "s3cret"
HEARD_OF_S = 3.0  # Ray tells the front in less time that a replica has an adapter
RIGHT = {"Authorization": f"Bearer {KEY}"}
JSON = {"Content-Type": "application/json"}
BEGINNING = "the hen went to the mill and had a long talk with a young owl, who said to her: "
ALIKE = [completion(f"{BEGINNING}{ending}") for ending in ("go", "come in", "🦊", "what is it", "no")]
LONG = [completion(f"{number} owls", max_tokens=300, ignore_eos=True) for number in range(12)]
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Where is the fox?"}], "max_tokens": 30, "seed": 1}


class Replicas(Server):
    """Two replicas and what belongs to them."""

    program = ("-m", "serving.replicas")

    def client(self, **options: Any) -> httpx.Client:
        return super().client(**{"headers": RIGHT, **options})

    def kill(self) -> None:
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        super().kill()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def names(self) -> list[str]:
        """The replicas that answer now, in the order of their numbers, as `server_of` has them."""
        with self.client() as client:
            return sorted({server_of(client.get(f"/health?replica={number}")) for number in (0, 1)})


def server_of(response: httpx.Response) -> str:
    """Who has answered."""
    assert response.is_success, response.read()
    return response.headers["x-served-by"]


def said(choices: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What the answers say, without the log probabilities: their last digits depend on what else is in a step."""
    return [(choice["text"], choice["finish_reason"]) for choice in choices]


def process_of(name: str) -> int:
    """The process of a replica."""
    return int(name.partition(", process ")[2])


def home_of(names: list[str], key: str) -> str:
    """Whose home it is."""
    from serving.routing import in_order

    by_id = {name.partition(",")[0]: name for name in names}
    return by_id[in_order(by_id, key)[0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> Path:
    return write_model(tmp_path_factory.mktemp("served"), tokenizer)


@pytest.fixture(scope="module")
def one_server(folder: Path) -> dict[str, Any]:
    """What one server answers, by the request's body."""
    with Server(folder, "--rows", 4) as server, server.client() as client, ThreadPoolExecutor(4) as pool:
        answers = pool.map(
            lambda body: (json.dumps(body), client.post("/v1/completions", json=body).json()["choices"]),
            [*LAW, *ALIKE, *LONG],
        )
        return {**dict(answers), "chat": client.post("/v1/chat/completions", json=CHAT).json()["choices"]}


@pytest.fixture(scope="module")
def replicas(folder: Path, one_server) -> Iterator[Replicas]:
    with Replicas(folder, "--rows", ROWS, "--queue", QUEUE, "--api-key", KEY) as replicas:
        assert len(replicas.names()) == 2
        yield replicas


@pytest.fixture(scope="module")
def client(replicas: Replicas) -> Iterator[httpx.Client]:
    with replicas.client() as client:
        yield client


def test_a_request_for_an_adapter_goes_to_the_replica_that_has_it(replicas, client):
    names = replicas.names()
    red = {server_of(client.post("/v1/completions", json=completion(f"{i}", "red"))) for i in range(6)}
    assert red == {home_of(names, "red")}
    other = next(name for name in names if name != home_of(names, "blue"))
    path = f"/v1/completions?replica={names.index(other)}"
    assert server_of(client.post(path, json=completion("a hen", "blue"))) == other
    time.sleep(HEARD_OF_S)
    assert {server_of(client.post("/v1/completions", json=completion(f"{i}", "blue"))) for i in range(6)} == {other}


def test_answers_are_those_of_one_server_streamed_or_not(replicas, client, one_server):
    with ThreadPoolExecutor(4) as pool:
        wholes = list(pool.map(lambda body: client.post("/v1/completions", json=body), LAW))
        streams = list(pool.map(lambda body: streamed(client, body), LAW))
    for body, whole, stream in zip(LAW, wholes, streams, strict=True):
        assert said(whole.json()["choices"]) == said(stream) == said(one_server[json.dumps(body)])
    assert set(map(server_of, wholes)) <= set(replicas.names()), "one or both: the names decide, and they are random"
    assert client.post("/v1/chat/completions", json=CHAT).json()["choices"] == one_server["chat"]


def test_prompts_that_begin_alike_go_to_one_replica_which_has_read_the_beginning(client, one_server):
    responses = [client.post("/v1/completions", json=body) for body in ALIKE]
    assert len(set(map(server_of, responses))) == 1
    assert [response.json()["choices"] for response in responses] == [one_server[json.dumps(body)] for body in ALIKE]
    cached = [response.json()["usage"]["prompt_tokens_details"]["cached_tokens"] for response in responses]
    assert min(cached[1:]) >= len(BEGINNING) // 16 * 16 > 64


def test_what_is_refused_is_refused_as_by_one_server(replicas, client):
    with httpx.Client(base_url=replicas.url, trust_env=False, timeout=60) as stranger:
        assert stranger.get("/health").status_code == 200
        refusals = [(401, stranger.post("/v1/completions", json=completion("a")), "invalid_api_key")]
        page = stranger.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 401 and page.headers["content-type"].startswith("text/html")
    models = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert models == ["tiny", "blue", "red"]
    refusals += [
        (404, client.post("/v1/completions", json=completion("a", "../red")), "model_not_found"),
        (404, client.get("/nothing"), None),
        (405, client.get("/v1/completions"), None),
        (400, client.post("/v1/completions", json=completion("a", suffix="b")), "unsupported_parameter"),
        (400, client.post("/v1/completions", content=b"{", headers=JSON), "invalid_json"),
        (400, client.post("/v1/completions", content=b"[" * 10_000, headers=JSON), None),
        (413, client.post("/v1/completions", json=completion("a" * 2**21)), "request_too_large"),
    ]
    for status, response, code in refusals:
        assert response.status_code == status, response.text
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert response.json()["error"]["code"] == code


def test_when_all_are_full_requests_are_refused_with_503_and_none_is_lost(client, one_server):
    with ThreadPoolExecutor(36) as pool:
        responses = list(pool.map(lambda body: client.post("/v1/completions", json=body), LONG * 3))
    for body, response in zip(LONG * 3, responses, strict=True):
        if response.status_code == 503:
            assert response.json()["error"]["code"] == "overloaded" and response.headers["retry-after"] == "1"
        else:
            assert response.json()["choices"] == one_server[json.dumps(body)]
    assert {response.status_code for response in responses} == {200, 503}
    assert sum(response.is_success for response in responses) >= QUEUE


def test_a_client_that_leaves_frees_its_row(client):
    with client.stream("POST", "/v1/completions", json={**LONG[0], "max_tokens": 490, "stream": True}) as response:
        next(chunks_of(response.iter_lines()))
        process = response.headers["x-served-by"]

    def has_aborted() -> bool:
        for number in (0, 1):
            numbers = client.get(f"/metrics?replica={number}")
            if server_of(numbers) == process:
                return 'finished_reason="abort"' in numbers.text
        return False

    assert eventually(has_aborted, 20)


class Asker:
    """Asks the replica of a number for one long answer in a thread of its own, and keeps what comes."""

    def __init__(self, replicas: Replicas, number: int, body: dict[str, Any], begun: threading.Event) -> None:
        self.replicas, self.number, self.body, self.begun = replicas, number, body, begun
        self.text, self.server, self.error = "", "", None
        self.thread = threading.Thread(target=self._ask)
        self.thread.start()

    def _ask(self) -> None:
        path = f"/v1/completions?replica={self.number}"
        with self.replicas.client() as client, client.stream("POST", path, json=self.body) as response:
            self.server = server_of(response)
            if not self.body.get("stream"):
                self.text = json.loads(response.read())["choices"][0]["text"]
                return
            for chunk in chunks_of(response.iter_lines()):
                self.error = self.error or chunk.get("error")
                self.text += "" if self.error else chunk["choices"][0]["text"]
                self.begun.set()


def test_when_a_replica_is_killed_what_has_not_begun_is_served_by_the_other_and_the_replica_comes_back(
    replicas, one_server
):
    names, begun = replicas.names(), threading.Event()
    askers = [Asker(replicas, i % 2, {**body, "stream": i % 4 > 1}, begun) for i, body in enumerate(LONG[:8])]
    assert begun.wait(60)
    killed = next(asker.server for asker in askers if asker.body["stream"] and asker.text and not asker.error)
    os.kill(process_of(killed), signal.SIGKILL)
    for asker in askers:
        asker.thread.join(120)
    for asker, body in zip(askers, LONG, strict=False):
        expected = one_server[json.dumps(body)][0]["text"]
        if asker.error:
            assert asker.error["code"] == "replica_died" and asker.server == killed
            assert expected.startswith(asker.text) and 0 < len(asker.text) < len(expected)
        else:
            assert asker.text == expected
    assert any(asker.error for asker in askers), "no answer of the killed replica had begun"
    moved = [asker for asker in askers if names[asker.number] == killed != asker.server]
    assert moved, "no request of the killed replica had to move"
    assert eventually(lambda: len(replicas.names()) == 2, START_S), "the replica has not come back"
    assert killed not in replicas.names()
    with replicas.client() as client:
        for number in (0, 1):
            response = client.post(f"/v1/completions?replica={number}", json=LONG[0])
            assert response.json()["choices"] == one_server[json.dumps(LONG[0])]


def test_when_they_stop_answers_under_way_end_whole_and_the_exit_code_is_0(replicas, one_server):
    begun = threading.Event()
    askers = [Asker(replicas, number, {**LONG[number], "stream": True}, begun) for number in (0, 1)]
    assert begun.wait(60)
    assert replicas.terminate(120) == 0
    for asker in askers:
        asker.thread.join(10)
        assert not asker.error and asker.text == one_server[json.dumps(LONG[asker.number])][0]["text"]
