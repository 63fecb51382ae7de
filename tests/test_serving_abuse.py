"""What happens to servers: clients leave, flood, stop reading or send nonsense; the cache is full; a layer breaks."""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from engine import Sampling
from serving_process import Server, chunks_of, eventually, program, read_all, request_bytes, write_model

ROWS, QUEUE, TIMEOUT_S, POISON, STEP_S = 4, 60, 3, 7, 0.01
CACHE_TOKENS = 544  # one request of the whole context fits, and not two of half of it
PATIENCE_S = 10  # how much later than it should something may happen on a busy machine
SECRET = "a-word-that-nobody-may-log"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> Path:
    return write_model(tmp_path_factory.mktemp("served"), tokenizer)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("opened") / "names"


@pytest.fixture(scope="module")
def server(folder: Path, opened: Path) -> Iterator[Server]:
    sizes = ("--rows", ROWS, "--queue", QUEUE, "--cache-tokens", CACHE_TOKENS, "--timeout", TIMEOUT_S)
    with Server(folder, *sizes, poison=POISON, step_s=STEP_S, opened=str(opened)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of a server that has nothing to do, before and after."""
    assert eventually(server.is_idle)
    with server.client() as client:
        yield client
    assert eventually(server.is_idle), "something is still under way"


def wish(prompt: Any = SECRET, max_tokens: int = 400, **others: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, **others}


def post(body: dict[str, Any]) -> bytes:
    return request_bytes("/v1/completions", json.dumps(body).encode())


# --- Clients that leave -------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["in mid-stream", "before the first chunk", "without streaming"])
def test_a_client_that_leaves_frees_its_row_and_its_blocks(server, client, when):
    with server.client() as watcher, watcher.stream("GET", "/live") as live:
        lines = (line for line in live.iter_lines() if line)
        next(lines)
        connection = server.connect()
        connection.sendall(post(wish(stream=when != "without streaming")))
        if when == "in mid-stream":
            while b"data:" not in connection.recv(65536):
                pass
        steps = json.loads(next(lines).removeprefix("data: "))["steps"]
        connection.close()
        while not any(step["ended"] for step in steps):
            steps += json.loads(next(lines).removeprefix("data: "))["steps"]
    (ended,) = [one for step in steps for one in step["ended"]]
    assert ended["finish_reason"] == "cancelled" and ended["output_tokens"] < 400
    assert steps[-1]["rows"] == [] and steps[-1]["blocks"]["used"] == 0


def test_of_many_those_who_stay_get_all(server, client):
    with server.client() as other:
        expected = other.post("/v1/completions", json=wish("a hen", 30)).json()["choices"][0]["text"]
    connections = [server.connect() for _ in range(24)]
    for index, connection in enumerate(connections):
        connection.sendall(post(wish("a hen", 30, stream=index % 3 == 0)))
    for connection in connections[1::2]:
        connection.close()
    staying = connections[::2]
    for connection in staying:
        connection.sendall(request_bytes("/health", b"", "Connection: close", method="GET"))
    replies = [read_all(connection).decode() for connection in staying]
    for reply in replies:
        streamed = "".join(json.loads(text) for text in re.findall(r'"text":("(?:[^"\\]|\\.)*")', reply))
        assert streamed == expected


# --- Too many -----------------------------------------------------------------------------------------


def test_a_thousand_requests_at_once_are_answered_or_refused_none_lost_none_doubled(server, client):
    program.allow_many_connections()
    process = psutil.Process(server.process.pid)
    before, warm = server.metrics(), process.memory_info().rss
    connections = []
    for number in range(1000):
        body = wish([number % 6, number // 6 + 8], 2, stream=number % 2 == 0)
        connections.append(server.connect())
        connections[-1].sendall(request_bytes("/v1/completions", json.dumps(body).encode(), "Connection: close"))
    replies = [(int(reply.split(" ", 2)[1]), reply) for reply in (read_all(each).decode() for each in connections)]
    for connection in connections:
        connection.close()
    statuses = Counter(status for status, _ in replies)
    assert set(statuses) <= {200, 503} and statuses.total() == 1000 and min(statuses[200], statuses[503]) > 0, statuses
    for status, reply in replies:
        assert reply.count('"finish_reason":"length"') == (status == 200)
        assert ("data: [DONE]" in reply) == ("text/event-stream" in reply)
        assert ("retry-after: 1" in reply) == (status == 503) == ('"code":"overloaded"' in reply)
    assert eventually(server.is_idle)
    grown = server.metrics()["request_success_total"] - before.get("request_success_total", 0)
    assert grown == statuses[200]
    assert process.memory_info().rss - warm < 100 * 2**20


def test_a_full_server_says_so_and_a_number_of_answers_that_can_never_fit_is_refused_for_good(server, client):
    response = client.post("/v1/completions", json=wish(["a"] * (ROWS + QUEUE + 1), 1))
    assert response.status_code == 400 and response.json()["error"]["param"] == "prompt"
    everything = wish(["a"] * (ROWS + QUEUE), 110, stream=True)
    with server.client() as other, client.stream("POST", "/v1/completions", json=everything) as stream:
        next(stream.iter_lines())
        response = other.post("/v1/completions", json=wish("a", 1))
        assert response.status_code == 503 and response.headers["retry-after"] == "1"
        assert other.get("/health").status_code == 200


# --- Slow readers -------------------------------------------------------------------------------------


def test_a_reader_that_stops_reading_holds_up_nobody_and_is_dropped(server, client):
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", server.port))
        lazy.sendall(post(wish("a", 160, stream=True, n=ROWS - 1, logprobs=20)))
        assert eventually(lambda: server.metrics()["num_requests_running"] == ROWS - 1)
        assert client.post("/v1/completions", json=wish("b", 3)).status_code == 200
        assert eventually(server.is_idle)
        time.sleep(TIMEOUT_S + 2)
        lazy.settimeout(60)
        assert b"[DONE]" not in read_all(lazy), "it was not dropped"


# --- A broken layer, a full cache ---------------------------------------------------------------------


def test_a_forward_that_raises_ends_only_its_own_requests_and_the_server_goes_on(server, client):
    whole = client.post("/v1/completions", json=wish("a hen", 60)).json()["choices"][0]["text"]

    def ask(prompt: Any, max_tokens: int = 60) -> httpx.Response:
        with server.client() as other:
            return other.post("/v1/completions", json=wish(prompt, max_tokens))

    with ThreadPoolExecutor(ROWS + 1) as pool:
        beside = [pool.submit(ask, "a hen", 120) for _ in range(ROWS - 1)]
        assert eventually(lambda: server.metrics()["num_requests_running"] == ROWS - 1)
        poisoned = pool.submit(ask, [POISON])
        behind = pool.submit(ask, "a hen")
    for failed in (*beside, poisoned):
        error = failed.result().json()["error"]
        assert failed.result().status_code == 500 and error["code"] == "forward_failed"
        assert "poisoned" not in error["message"]
    assert behind.result().json()["choices"][0]["text"] == whole
    with client.stream("POST", "/v1/completions", json=wish([[1, 2], [3, POISON]], 50, stream=True)) as response:
        assert response.status_code == 200
        *_, last = chunks_of(response.iter_lines())
    assert last["error"]["code"] == "forward_failed"
    assert client.post("/v1/completions", json=wish("a hen", 60)).json()["choices"][0]["text"] == whole
    assert "this layer is poisoned" in server.log


def test_answers_that_lost_their_blocks_for_a_while_are_complete_and_right(server, client, folder):
    from serving.loading import load

    engine = load(folder / "tiny").engine
    prompts = [f"{index} and the hen" for index in range(5)]
    for prompt in prompts:
        engine.add(prompt, Sampling(max_tokens=130, ignore_eos=True))
    expected = [request.text for request in engine.run()]
    before = server.metrics()["num_preemptions_total"]
    reply = client.post("/v1/completions", json=wish(prompts, 130)).json()
    assert [choice["text"] for choice in reply["choices"]] == expected
    assert server.metrics()["num_preemptions_total"] > before
    assert reply["usage"]["completion_tokens"] == 650


def test_a_request_that_can_never_fit_is_refused_at_once(server, client):
    with client.stream("POST", "/v1/completions", json=wish("a", 400, stream=True)) as stream:
        next(stream.iter_lines())
        with server.client() as other:
            response = other.post("/v1/completions", json=wish("a", 512))
        assert response.status_code == 400 and response.json()["error"]["code"] == "context_length_exceeded"


# --- Nonsense on the wire -----------------------------------------------------------------------------


def exchange(server: Server, data: bytes, more: bytes = b"", times: int = 0) -> tuple[bytes, float]:
    """What comes back, and after how many seconds the connection has ended."""
    start_s = time.monotonic()
    with server.connect() as connection:
        try:
            connection.sendall(data)
            for _ in range(times):
                connection.sendall(more)
        except ConnectionError:
            pass
        return read_all(connection), time.monotonic() - start_s


def is_refused(reply: bytes, status: int) -> bool:
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) == status and set(json.loads(body)) == {"error"}


def test_a_body_of_50_megabytes_is_refused_in_bounded_memory(server, client):
    memory = psutil.Process(server.process.pid).memory_info
    before = memory().rss
    for header, data in (
        ("Content-Length: 52428800", b"x" * 2**20),
        ("Transfer-Encoding: chunked", b"100000\r\n" + b"x" * 2**20 + b"\r\n"),
    ):
        start = request_bytes("/v1/completions", b"", header, "Connection: close")
        end = b"0\r\n\r\n" if "chunked" in header else b""
        with server.connect() as connection:
            connection.sendall(start)
            for _ in range(50):
                connection.sendall(data)
            connection.sendall(end)
            assert is_refused(read_all(connection), 413)
    assert memory().rss - before < 30 * 2**20
    reply, _ = exchange(server, request_bytes("/v1/completions", b"x" * 100, f"Content-Length: {10**12}"))
    assert is_refused(reply, 413)


@pytest.mark.parametrize(
    ("data", "more", "times", "status"),
    [
        (b"", b"", 0, 408),
        (b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n", b"", 0, 408),
        (b"GET /health HTTP/1.1\r\n", b"X-Header: " + b"x" * 1000 + b"\r\n", 500, 400),
        (b"\x00\xff\xfe nonsense\r\n\r\n", b"", 0, 400),
        (request_bytes("/v1/completions", b'{"model"', "Content-Length: 500"), b"", 0, 408),
    ],
    ids=["silence", "half the headers", "headers without end", "no HTTP", "half a body"],
)
def test_who_never_finishes_a_request_is_refused_in_bounded_time(server, client, data, more, times, status):
    reply, seconds = exchange(server, data, more, times)
    assert reply == b"" and status == 400 or is_refused(reply, status)
    assert seconds < TIMEOUT_S + PATIENCE_S


def test_headers_that_drip_in_are_not_waited_for(server, client):
    with server.connect() as connection:
        start_s = time.monotonic()
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        while time.monotonic() - start_s < TIMEOUT_S + 2 * PATIENCE_S:
            try:
                connection.sendall(b"X: y\r\n")
            except ConnectionError:
                break
            time.sleep(0.3)
        assert time.monotonic() - start_s < TIMEOUT_S + PATIENCE_S


def test_names_of_adapters_open_no_file(server, client, opened, folder):
    client.post("/v1/completions", json=wish("a", 1, model="red"))
    before = opened.read_text()
    names = [
        "../../etc/passwd",
        "/etc/passwd",
        str(folder / "adapters" / "red"),
        "red/../blue",
        "adapters/red",
        "red\x00",
        "~",
    ]
    for name in names:
        response = client.post("/v1/completions", json=wish("a", 1, model=name))
        assert response.status_code == 404 and response.json()["error"]["code"] == "model_not_found"
    assert opened.read_text() == before


def test_nothing_of_a_prompt_was_logged(server):
    assert SECRET not in server.log and "a hen" not in server.log
