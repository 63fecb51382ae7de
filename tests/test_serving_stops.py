"""How a server begins and ends: SIGTERM with answers under way, SIGKILL and a new start; and who has the key."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import httpx
import pytest

from serving_process import START_S, Server, chunks_of, eventually, read_all, request_bytes, write_model

pytestmark = pytest.mark.timeout(2 * START_S + 240)  # two servers start in one test
KEY = "s3cret-kéy"
RIGHT = {"Authorization": f"Bearer {KEY}".encode()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> Path:
    return write_model(tmp_path_factory.mktemp("served"), tokenizer)


def wish(max_tokens: int, **others: object) -> dict[str, object]:
    return {
        "model": "tiny",
        "prompt": "a hen",
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        **others,
    }


def check_that_everything_wants_the_key(server: Server) -> None:
    paths = ["/", "/live", "/v1/models", "/metrics", "/openapi.json", "/nothing", "/v1/completions", "/tokenize"]
    with server.client() as client:
        assert client.get("/health").status_code == 200
        for wrong in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": f"Basic {KEY}".encode()},
            {"Authorization": b"Bearer \xff"},
        ):
            for path in paths:
                response = client.get(path, headers=wrong)
                assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key", path
        response = client.get("/", headers={"Accept": "text/html"})
        assert response.status_code == 401 and response.headers["content-type"].startswith("text/html")
        assert client.get(f"/v1/models?key={KEY}").status_code == 401
        assert client.get("/v1/models", headers=RIGHT).status_code == 200
        assert client.get("/", headers=RIGHT).status_code == 200
    assert KEY not in server.log


def test_after_a_sudden_end_clients_see_an_error_and_the_server_can_start_again_where_it_was(folder):
    outcomes: list[object] = []

    def ask(server: Server, streams: bool) -> None:
        try:
            with server.client(headers=RIGHT) as client:
                body = wish(400, stream=streams)
                with client.stream("POST", "/v1/completions", json=body) as response:
                    outcomes.append(list(chunks_of(response.iter_lines())) if streams else response.read())
        except httpx.HTTPError as error:
            outcomes.append(error)

    with Server(folder, "--api-key", KEY, step_s=0.02) as server:
        check_that_everything_wants_the_key(server)
        threads = [threading.Thread(target=ask, args=(server, streams)) for streams in (True, False)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        server.kill()
        for thread in threads:
            thread.join(30)
        assert len(outcomes) == 2 and all(isinstance(outcome, httpx.HTTPError) for outcome in outcomes)
    with Server(folder, "--grace", 60, "--rows", 2, port=server.port, step_s=0.02) as server:
        check_that_what_is_under_way_ends_whole(server)


def check_that_what_is_under_way_ends_whole(server: Server) -> None:
    with server.client() as client, server.client() as second:
        expected = client.post("/v1/completions", json=wish(100)).json()["choices"][0]["text"]
        waiting: list[dict] = []
        whole = threading.Thread(
            target=lambda: waiting.append(second.post("/v1/completions", json=wish(100, n=3)).json())
        )
        with client.stream("POST", "/v1/completions", json=wish(100, stream=True)) as response:
            chunks = chunks_of(response.iter_lines())
            text = next(chunks)["choices"][0]["text"]
            whole.start()
            assert eventually(lambda: server.metrics()["num_requests_running"] == 2)
            watcher = server.connect()
            watcher.sendall(request_bytes("/live", b"", method="GET"))
            ended = threading.Thread(target=server.terminate)
            ended.start()
            assert eventually(lambda: refused(server, "/health") == 503)
            assert refused(server, "/v1/completions", wish(1)) == 503
            text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
        assert text == expected
        whole.join()
        assert [choice["text"] for choice in waiting[0]["choices"]] == [expected] * 3
        ended.join(30)
        assert server.process.returncode == 0
        assert b'"server"' in read_all(watcher)


def refused(server: Server, path: str, body: dict | None = None) -> int:
    with server.connect() as connection:
        data = b"" if body is None else json.dumps(body).encode()
        connection.sendall(request_bytes(path, data, "Connection: close", method="POST" if body else "GET"))
        return int(read_all(connection).split(b" ")[1])


def test_answers_that_take_longer_than_the_grace_end_with_an_error_and_the_exit_code_is_0(folder):
    with Server(folder, "--grace", 1, step_s=0.02) as server:
        with (
            server.client() as client,
            client.stream("POST", "/v1/completions", json=wish(490, stream=True)) as response,
        ):
            chunks = chunks_of(response.iter_lines())
            next(chunks)
            started_s = time.monotonic()
            ended = threading.Thread(target=server.terminate)
            ended.start()
            *_, last = chunks
        assert last["error"]["code"] == "stopping" and time.monotonic() - started_s < 6
        ended.join(30)
        assert server.process.returncode == 0


def test_a_second_signal_ends_the_grace(folder):
    with Server(folder, "--grace", 600, step_s=0.1) as server:
        with (
            server.client() as client,
            client.stream("POST", "/v1/completions", json=wish(490, stream=True)) as response,
        ):
            chunks = chunks_of(response.iter_lines())
            next(chunks)
            server.process.terminate()
            assert eventually(lambda: refused(server, "/health") == 503)
            assert server.terminate(timeout_s=30) == 0, "49 s of answer are left, and ten minutes of grace"
            *_, last = chunks
        assert last["error"]["code"] == "stopping"
