"""What clients get over HTTP is what the engine makes, character for character; and it has the form they expect."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from engine import Request, Sampling
from serving_process import Server, chunks_of, eventually, write_model

ROWS, QUEUE = 4, 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> Path:
    return write_model(tmp_path_factory.mktemp("served"), tokenizer)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with Server(folder, "--rows", ROWS, "--queue", QUEUE, "--cache-tokens", 2048) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def served(folder: Path):
    """The same model in this process."""
    from serving.loading import load

    return load(folder / "tiny", folder / "adapters", cache_tokens=2048)


def by_engine(served, wanted: list[tuple[Any, Sampling, str | None]]) -> list[Request]:
    """The engine's answers."""
    for prompt, sampling, model in wanted:
        served.engine.add(prompt, sampling, None if model == "tiny" else model)
    return served.engine.run()


def completion(prompt: Any, model: str = "tiny", **wishes: Any) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "max_tokens": 24, "temperature": 0, **wishes}


# --- The law ------------------------------------------------------------------------------------------

PROMPTS = ["hello", "a fox 🦊 and a she-goat 🐐", "e\u0301 ñ", [240, 159], "the hen went to " * 8]
LAW = [
    {"prompt": PROMPTS[index % len(PROMPTS)], "model": ("tiny", "red", "blue")[index % 3], "max_tokens": 40, **wishes}
    for index, wishes in enumerate(
        [
            {"temperature": 0},
            {"temperature": 0.7, "seed": 1},
            {"temperature": 1.5, "seed": 2, "top_k": 20},
            {"seed": 3, "top_p": 0.8},
            {"seed": 4, "stop": " "},
            {"seed": 5, "stop": ["e", "\U0001f600"], "min_tokens": 12},
            {"seed": 6, "ignore_eos": True, "max_tokens": 100},
            {"seed": 7, "top_k": -1, "max_tokens": 1},
            {"seed": 8, "temperature": 0.5, "n": 3},
            {"temperature": 0.3, "seed": 9, "logprobs": 2},
        ]
        * 3
    )
]


def sampling_of(body: dict[str, Any], index: int) -> Sampling:
    """What the engine has to do for answer `index` of the body, written down a second time."""
    stop = body.get("stop", [])
    return Sampling(
        max_tokens=body["max_tokens"],
        temperature=body.get("temperature", 1.0),
        top_k=max(0, body.get("top_k", 0)),
        top_p=body.get("top_p", 1.0),
        seed=body["seed"] + index if "seed" in body else None,
        stop=[stop] if isinstance(stop, str) else stop,
        min_tokens=body.get("min_tokens", 0),
        ignore_eos=body.get("ignore_eos", False),
        logprobs=body.get("logprobs"),
    )


def streamed(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of a stream, put together from their pieces."""
    answers = [{"text": "", "finish_reason": None, "pieces": []} for _ in range(body.get("n", 1))]
    with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        for chunk in chunks_of(response.iter_lines()):
            (choice,) = chunk["choices"]
            answer = answers[choice["index"]]
            assert answer["finish_reason"] is None, "something came after the end"
            answer["text"] += choice["text"]
            answer["pieces"].append(choice["text"])
            answer["finish_reason"] = choice["finish_reason"]
    return answers


def test_every_answer_is_the_engines_streamed_or_not_whatever_else_runs(client, served):
    wanted = [(body["prompt"], sampling_of(body, i), body["model"]) for body in LAW for i in range(body.get("n", 1))]
    expected = [(request.text, request.finish_reason) for request in by_engine(served, wanted)]
    with ThreadPoolExecutor(12) as pool:
        wholes = pool.map(lambda body: client.post("/v1/completions", json=body).json()["choices"], LAW)
        streams = pool.map(lambda body: streamed(client, body), LAW)
        wholes, streams = list(wholes), list(streams)
    for answers in (wholes, streams):
        assert [(one["text"], one["finish_reason"]) for choices in answers for one in choices] == expected
    texts = "".join(text for text, _ in expected)
    assert (
        re.search("[\U0001f600-\U0001f64f]", texts)
        and re.search("[\u0300-\u0330]", texts)
        and {"stop", "length"} == {reason for _, reason in expected}
    )
    pieces = [piece for choices in streams for one in choices for piece in one["pieces"][:-1]]
    assert "" in pieces, "no piece waited for the rest of a character"


def test_chats_are_the_engines_answers_to_the_template_and_end_before_the_next_question(client, served):
    messages = [
        {"role": "system", "content": "A book of stories"},
        {"role": "user", "content": [{"type": "text", "text": "Once there was "}, {"type": "text", "text": "a 🦊."}]},
        {"role": "assistant", "content": " It lived in a mill."},
        {"role": "user", "content": "Where did the fox live?"},
    ]
    prompt = (
        "A book of stories\n\nOnce there was a 🦊. It lived in a mill.\n\nQuestion: Where did the fox live?\nAnswer:"
    )
    sampling = Sampling(max_tokens=30, temperature=1.0, seed=3, stop=["\n\nQuestion:"])
    (expected,) = by_engine(served, [(prompt, sampling, "red")])
    body = {"model": "red", "messages": messages, "max_tokens": 30, "seed": 3}
    reply = client.post("/v1/chat/completions", json=body).json()
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": expected.text}
    assert reply["usage"]["prompt_tokens"] == expected.prompt_tokens
    with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(response.iter_lines())]
    assert "".join(delta["content"] for delta in deltas) == expected.text
    assert [delta.get("role") for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)


def test_a_chat_without_a_budget_may_use_the_whole_context(client, served):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "seed": 1, "temperature": 0.5}
    reply = client.post("/v1/chat/completions", json=body).json()
    used = reply["usage"]["total_tokens"]
    assert used == served.context if reply["choices"][0]["finish_reason"] == "length" else used <= served.context


# --- The form -----------------------------------------------------------------------------------------


def test_a_prompt_may_be_text_or_ids_one_or_several(client):
    one = client.post("/v1/completions", json=completion("hello")).json()
    ids = client.post("/tokenize", json={"prompt": "hello"}).json()
    assert ids["count"] == len(ids["tokens"]) == 5 == one["usage"]["prompt_tokens"]
    two = client.post("/v1/completions", json=completion([ids["tokens"], [1, 2]])).json()
    assert two["choices"][0]["text"] == one["choices"][0]["text"]
    many = client.post("/v1/completions", json=completion(["a", "hello"], n=2, seed=1)).json()
    assert [choice["index"] for choice in many["choices"]] == [0, 1, 2, 3]
    assert many["choices"][2]["text"] == one["choices"][0]["text"]
    assert many["usage"]["prompt_tokens"] == 6, "a prompt with two answers counts once"
    assert many["object"] == "text_completion" and many["model"] == "tiny"


def test_log_probabilities_are_the_engines(client, served):
    (expected,) = by_engine(served, [("hello", Sampling(max_tokens=9, logprobs=2), None)])
    body = completion("hello", max_tokens=9, logprobs=2)
    told = client.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    assert told["token_logprobs"] == pytest.approx([each.logprob for each in expected.logprobs], abs=1e-4)
    assert all(
        len(likeliest) == 2 and token in likeliest
        for token, likeliest in zip(told["tokens"], told["top_logprobs"], strict=True)
    )
    with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
        parts = [chunk["choices"][0]["logprobs"] for chunk in chunks_of(response.iter_lines())]
    for name in ("tokens", "text_offset", "token_logprobs", "top_logprobs"):
        assert [entry for part in parts for entry in part[name]] == told[name]
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    content = client.post("/v1/chat/completions", json={**chat, "logprobs": True, "top_logprobs": 3}).json()
    (entries,) = [choice["logprobs"]["content"] for choice in content["choices"]]
    assert 0 < len(entries) <= 5 and all(len(entry["top_logprobs"]) == 3 for entry in entries)


def test_a_stream_tells_its_tokens_when_asked_to(client):
    body = completion("hello", max_tokens=6, ignore_eos=True, stream=True)
    options = {"include_usage": True, "continuous_usage_stats": True}
    with client.stream("POST", "/v1/completions", json={**body, "stream_options": options}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        *chunks, last = chunks_of(response.iter_lines())
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 2, 3, 4, 5, 6]
    assert last["choices"] == [] and last["usage"]["total_tokens"] == 11
    with client.stream("POST", "/v1/completions", json={**body, "stream_options": {"include_usage": True}}) as response:
        *chunks, last = chunks_of(response.iter_lines())
    assert all(chunk["usage"] is None for chunk in chunks) and last["usage"]["completion_tokens"] == 6


def test_models_are_the_model_and_its_adapters(client):
    cards = client.get("/v1/models").json()["data"]
    assert [(card["id"], card["root"], card["parent"]) for card in cards] == [
        ("tiny", "tiny", None),
        ("blue", "blue", "tiny"),
        ("red", "red", "tiny"),
    ]


def test_metrics_have_vllms_names_and_count_what_was_done(server, client):
    before = server.metrics()
    client.post("/v1/completions", json=completion("the mill " * 20, max_tokens=7, ignore_eos=True, n=2))
    assert eventually(server.is_idle)
    after = server.metrics()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["generation_tokens_total"] == 14 and grown["prompt_tokens_total"] == 360
    assert grown["prefix_cache_queries_total"] == 360 and grown["prefix_cache_hits_total"] in (0, 176)
    assert grown["request_success_total"] == 2 == grown["time_to_first_token_seconds_count"]
    assert grown["inter_token_latency_seconds_count"] == 12
    assert grown["num_preemptions_total"] == 0


def test_whoever_watches_sees_every_step_and_no_text(server, client):
    with server.client() as other, other.stream("GET", "/live") as response:
        lines = response.iter_lines()
        first = json.loads(next(lines).removeprefix("data: "))["server"]
        assert first == {
            "models": ["tiny", "blue", "red"],
            "rows": ROWS,
            "cache_blocks": 128,
            "block_tokens": 16,
            "step_tokens": 256,
            "weights": "fp32",
        }
        reply = client.post("/v1/completions", json=completion("a secret " * 40, "red", max_tokens=5, ignore_eos=True))
        steps, ended = [], []
        while not ended:
            line = next(lines)
            assert "secret" not in line and reply.json()["choices"][0]["text"] not in line
            steps += json.loads(line.removeprefix("data: "))["steps"] if line else []
            ended = [one for step in steps for one in step["ended"]]
    rows = [row for step in steps for row in step["rows"]]
    assert [(row["kind"], row["tokens"]) for row in rows] == [("prefill", 256), ("prefill", 104), *[("decode", 1)] * 4]
    assert {(row["slot"], row["model"], row["cached"]) for row in rows} == {(0, "red", 0)}
    assert [step["step"] for step in steps] == list(range(steps[0]["step"], steps[0]["step"] + 6))
    assert all(sum(step["blocks"].values()) == 128 and step["seconds"] > 0 and step["waiting"] == 0 for step in steps)
    (told,) = ended
    assert told["prompt_tokens"] == 360 and told["output_tokens"] == 5 and told["finish_reason"] == "length"
    assert min(told["tpot_s"], told["ttft_s"]) > 0 and told["model"] == "red" and told["number"] == rows[0]["number"]


# --- Refusals -----------------------------------------------------------------------------------------

WRONG = [
    ({"model": "green"}, 404, "model"),
    ({"model": "../../etc"}, 404, "model"),
    ({"model": "/etc/passwd"}, 404, "model"),
    ({"model": "red/../blue"}, 404, "model"),
    ({"model": 3}, 400, "model"),
    ({"prompt": None}, 400, "prompt"),
    ({"prompt": ""}, 400, "prompt"),
    ({"prompt": []}, 400, "prompt"),
    ({"prompt": [[]]}, 400, "prompt"),
    ({"prompt": [1, "a"]}, 400, "prompt"),
    ({"prompt": [257]}, 400, "prompt"),
    ({"prompt": "a" * 600}, 400, "prompt"),
    ({"prompt": "\ud800"}, 400, "prompt"),
    ({"prompt": ["a"] * 205}, 400, "prompt"),
    ({"max_tokens": "5"}, 400, "max_tokens"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"max_tokens": True}, 400, "max_tokens"),
    ({"max_tokens": 2.5}, 400, "max_tokens"),
    ({"min_tokens": 25}, 400, "min_tokens"),
    ({"temperature": -1}, 400, "temperature"),
    ({"temperature": float("nan")}, 400, "temperature"),
    ({"temperature": float("inf")}, 400, "temperature"),
    ({"top_p": 1.01}, 400, "top_p"),
    ({"top_k": -2}, 400, "top_k"),
    ({"seed": -1}, 400, "seed"),
    ({"n": 0}, 400, "n"),
    ({"n": 129}, 400, "n"),
    ({"stop": [""]}, 400, "stop"),
    ({"stop": 5}, 400, "stop"),
    ({"logprobs": 21}, 400, "logprobs"),
    ({"stream": "yes"}, 400, "stream"),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
    ({"stream_options": {"surprise": 1}, "stream": True}, 400, "stream_options"),
    ({"best_of": 2}, 400, "best_of"),
    ({"echo": True}, 400, "echo"),
    ({"suffix": "x"}, 400, "suffix"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
    ({"presence_penalty": 0.5}, 400, "presence_penalty"),
    ({"tools": [{"type": "function"}]}, 400, "tools"),
    ({"surprise": 1}, 400, "surprise"),
    ({"\ud800": 1}, 400, None),
    ({"stop": "\udfff"}, 400, "stop"),
]


@pytest.mark.parametrize(("change", "status", "param"), WRONG, ids=lambda value: ascii(value)[:40])
def test_what_cannot_be_had_is_refused_by_name(client, change, status, param):
    body = json.dumps({**completion("a"), **change})
    response = client.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert param in (None, "prompt") or param in error["message"] or status == 404


def test_what_asks_for_nothing_is_taken(client):
    nothing = {"best_of": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "echo": False}
    empty = {"suffix": None, "logit_bias": {}, "logprobs": None, "stop": None, "seed": None, "n": None, "user": "me"}
    assert client.post("/v1/completions", json=completion("a", **nothing, **empty)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v2", None, 404),
        ("GET", "/v1/completions", None, 405),
        ("DELETE", "/health", None, 405),
        ("POST", "/v1/completions", b"", 400),
        ("POST", "/v1/completions", b"{", 400),
        ("POST", "/v1/completions", b"[]", 400),
        ("POST", "/v1/completions", b'{"model": "\xff"}', 400),
        ("POST", "/v1/completions", b"[" * 10_000, 400),
        ("POST", "/v1/completions", b'{"a":' * 10_000, 400),
        ("POST", "/v1/completions", b'{"model": ' + b"9" * 9_000 + b"}", 400),
        ("POST", "/v1/chat/completions", b'{"model": "tiny", "messages": []}', 400),
        ("POST", "/v1/chat/completions", b'{"model": "tiny", "messages": [{"role": "tool", "content": "a"}]}', 400),
    ],
)
def test_every_refusal_has_openais_shape(client, method, path, body, status):
    response = client.request(method, path, content=body, headers={"Content-Type": "application/json"})
    error = response.json()["error"]
    assert response.status_code == status and set(error) == {"message", "type", "param", "code"}
    assert error["message"] and ("allow" in response.headers) == (status == 405)


def test_a_body_that_is_not_declared_as_json_is_refused(client):
    """A page elsewhere can send text to this server, but not JSON: the browser would ask first."""
    body = json.dumps(completion("a"))
    assert client.post("/v1/completions", content=body, headers={"Content-Type": "text/plain"}).status_code == 400


# --- Clients that others wrote ------------------------------------------------------------------------


def test_the_openai_client_runs_its_calls(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        names = [model.id for model in client.models.list()]
        assert names == ["tiny", "blue", "red"]
        wishes = {"model": "red", "prompt": "hello", "max_tokens": 12, "temperature": 0.0}
        whole = client.completions.create(**wishes).choices[0].text
        assert "".join(chunk.choices[0].text for chunk in client.completions.create(**wishes, stream=True)) == whole
        messages = [{"role": "user", "content": "hello?"}]
        chat = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, temperature=0.0)
        stream = client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=12, temperature=0.0, stream=True
        )
        assert "".join(chunk.choices[0].delta.content for chunk in stream) == chat.choices[0].message.content
        with pytest.raises(openai.NotFoundError, match="there is no model 'green'"):
            client.completions.create(model="green", prompt="a")
        with pytest.raises(openai.BadRequestError, match="logit_bias"):
            client.completions.create(model="red", prompt="a", logit_bias={"5": 1})


def test_the_async_openai_client_runs_100_calls_at_once(server, served):
    prompts = [f"{number} foxes" for number in range(100)]
    expected = by_engine(served, [(prompt, Sampling(max_tokens=5), "blue") for prompt in prompts])

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            calls = (
                client.completions.create(model="blue", prompt=prompt, max_tokens=5, temperature=0)
                for prompt in prompts
            )
            return [reply.choices[0].text for reply in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [request.text for request in expected]
