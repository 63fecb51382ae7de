"""A server under requests that nobody thought of, and under mixed traffic for a while: it loses nothing.

SERVING_CASES says how many requests are generated from the server's description of itself, and SERVING_SOAK_S for how
many seconds there is traffic; `make soak-server` takes 10,000 and twenty minutes.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serving_process import Server, eventually, write_model

SOAK_S = float(os.environ.get("SERVING_SOAK_S", "60"))
CASES, OPERATIONS = int(os.environ.get("SERVING_CASES", "500")), 8
CHECKS = "not_a_server_error,status_code_conformance,response_schema_conformance,negative_data_rejection"
CLIENTS = 16
# PyTorch's kernels keep something for each new number of tokens in a step, ever more rarely. So memory is compared in
# the last third of a long soak only, and not to the last byte; open files and threads always are.
MOST_GROWTH_BYTES, MEMORY_SETTLES_S = 100 * 2**20, 600.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> Iterator[Server]:
    folder = write_model(tmp_path_factory.mktemp("served"), tokenizer)
    with Server(folder, "--rows", 4, "--queue", 12, "--cache-tokens", 256, "--timeout", 5) as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(300 + CASES)
def test_generated_requests_find_no_fault(server, tmp_path):
    """Some fit the description and some do not; no answer is a fault, and all are as the description says."""
    run = subprocess.run(
        [
            *(Path(sys.executable).parent / "schemathesis", "run", f"{server.url}/openapi.json", "--checks", CHECKS),
            *("--max-examples", str(max(1, CASES // OPERATIONS)), "--seed", "1", "--phases", "fuzzing"),
            *("--exclude-path", "/live", "--request-timeout", "120", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240 + CASES,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert eventually(server.is_idle), "something is still under way"
    assert "Traceback" not in server.log


def random_body(rng: random.Random) -> dict[str, Any]:
    """A wish of any kind; some cannot be fulfilled."""
    ids = [rng.randrange(256) for _ in range(rng.randrange(1, 60))]
    prompt = rng.choice(["a hen", "the mill " * rng.randrange(1, 40), ids, ["a", "b"]])
    body = {"model": rng.choice(["tiny", "red", "blue"]), "prompt": prompt, "max_tokens": rng.randrange(1, 120)}
    wishes = [{}, {"temperature": 0}, {"seed": rng.randrange(9)}, {"n": 3}, {"stop": ["e", "the"]}, {"logprobs": 5}]
    body |= rng.choice(wishes)
    body |= rng.choice([{}] * 8 + [{"max_tokens": 4000}, {"model": "green"}, {"surprise": 1}])
    return body | {"stream": rng.random() < 0.6}


async def one_client(client: httpx.AsyncClient, rng: random.Random, end_s: float, seen: Counter) -> None:
    """Ask again and again; sometimes leave in the middle."""
    while time.monotonic() < end_s:
        patience_s = rng.choice([60.0, 60.0, 60.0, 0.001, 0.02, 0.1])
        try:
            async with asyncio.timeout(patience_s):
                response = await client.post("/v1/completions", json=random_body(rng))
                seen[response.status_code] += 1
                is_whole = response.text.endswith(("data: [DONE]\n\n", "}"))
                seen["broken"] += not is_whole
        except TimeoutError:
            seen["left"] += 1
        if rng.random() < 0.02:
            await asyncio.sleep(0.2)  # now and then the server has nothing to do


async def traffic(url: str, seconds: float, seed: int) -> Counter:
    """What so many seconds of it came to."""
    end_s, seen = time.monotonic() + seconds, Counter()
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=limits) as client:
        clients = (one_client(client, random.Random(seed * 1000 + index), end_s, seen) for index in range(CLIENTS))
        await asyncio.gather(*clients)
    return seen


def held(server: Server) -> tuple[int, int, int]:
    """Bytes of memory, open files, threads."""
    process = psutil.Process(server.process.pid)
    return process.memory_info().rss, process.num_fds(), process.num_threads()


def holds_no_more(server: Server, files: int, threads: int) -> bool:
    """Fewer is right too: the first count may have met a connection that was just being closed."""
    _, files_now, threads_now = held(server)
    return files_now <= files and threads_now <= threads


@pytest.mark.slow
@pytest.mark.timeout(SOAK_S + 240)
def test_after_a_soak_the_server_holds_what_it_held(server):
    asyncio.run(traffic(server.url, SOAK_S * 2 / 3, seed=0))
    assert eventually(server.is_idle)
    memory, files, threads = held(server)
    seen = asyncio.run(traffic(server.url, SOAK_S / 3, seed=1))
    assert set(seen) == {200, 400, 404, 503, "left", "broken"} and seen["broken"] == 0, seen
    assert eventually(server.is_idle)
    assert eventually(lambda: holds_no_more(server, files, threads)), (held(server), files, threads)
    if SOAK_S >= MEMORY_SETTLES_S:
        assert held(server)[0] < memory + MOST_GROWTH_BYTES
    assert "Traceback" not in server.log
    assert server.terminate() == 0
