"""The parts of the server that need no server: adapters' folders, the template, slots, calls that nobody fetches."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import pytest

from conftest import tiny_model
from engine import Engine, Sampling
from engine_invariants import check_schedule

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import serving.__main__ as program
from serving import driver, loading
from serving.driver import Driver, Wish
from serving.errors import ApiError, from_validation, to_json
from serving.fields import ChatBody, CompletionBody
from serving.watching import Slots, Step

TEMPLATE = loading.DEFAULT_MODEL / "chat_template.jinja"


def test_a_key_may_come_from_the_environment(monkeypatch):
    monkeypatch.delenv(program.KEY_VARIABLE, raising=False)
    assert program.parser().parse_args([]).api_key is None
    monkeypatch.setenv(program.KEY_VARIABLE, "")
    assert program.parser().parse_args([]).api_key is None, "an empty variable is none"
    monkeypatch.setenv(program.KEY_VARIABLE, "from-outside")
    assert program.parser().parse_args([]).api_key == "from-outside"
    assert program.parser().parse_args(["--api-key", "given"]).api_key == "given"
    assert "from-outside" not in program.parser().format_help()


# --- Adapters, template -------------------------------------------------------------------------------


def test_each_folder_among_the_adapters_is_one(tmp_path):
    for name in ("b", "a.1", ".hidden", "__pycache__"):
        (tmp_path / name).mkdir()
    (tmp_path / "CARD.md").touch()
    assert loading.adapter_folders(tmp_path) == {"a.1": tmp_path / "a.1", "b": tmp_path / "b"}


@pytest.mark.parametrize("name", ["with space", "-option", "a:b", "é"])
def test_a_folder_whose_name_can_be_no_models_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="a name has letters"):
        loading.adapter_folders(tmp_path)


def test_links_among_the_adapters_are_refused(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "adapters"
    outside.mkdir(), (inside / "a").mkdir(parents=True)
    (inside / "b").symlink_to(outside)
    with pytest.raises(ValueError, match="'b' has links"):
        loading.adapter_folders(inside)
    (inside / "b").unlink()
    (inside / "a" / "adapter_model.safetensors").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="'a' has links"):
        loading.adapter_folders(inside)
    with pytest.raises(ValueError, match="there is none"):
        loading.adapter_folders(tmp_path / "nowhere")


def test_a_template_names_what_ends_an_answer():
    template = TEMPLATE.read_text()
    assert loading.stop_strings(SimpleNamespace(chat_template=template)) == ("\n\nQuestion:",)
    assert loading.stop_strings(SimpleNamespace(chat_template="{{ messages }}")) == ()
    assert loading.stop_strings(SimpleNamespace(chat_template=None)) == ()


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([("user", "Once upon a time ")], "Once upon a time"),
        ([("user", "Who lost the red kite?")], "Question: Who lost the red kite?\nAnswer:"),
        ([("user", "A book.\n\nA story.\n\nWho?")], "A book.\n\nA story.\n\nQuestion: Who?\nAnswer:"),
        (
            [("user", "Who?"), ("assistant", " Anna. "), ("user", "Where?")],
            "Question: Who?\nAnswer: Anna.\n\nQuestion: Where?\nAnswer:",
        ),
        ([("system", "Really?"), ("user", "Once")], "Really?\n\nOnce"),
    ],
)
def test_a_storytellers_chat_is_text_like_its_training_texts(tokenizer, messages, prompt):
    template = TEMPLATE.read_text()
    chat = [{"role": role, "content": content} for role, content in messages]
    assert tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False) == prompt


def test_the_template_puts_questions_as_the_training_texts_do(tokenizer):
    from corpus_books import Quiz, quiz_document

    document = quiz_document(Quiz("A story.", (("Who?", "Anna."), ("Where?", "At home."))))
    chat = [("user", "A story.\n\nWho?"), ("assistant", "Anna."), ("user", "Where?"), ("assistant", "At home.")]
    messages = [{"role": role, "content": content} for role, content in chat]
    template = TEMPLATE.read_text()
    assert tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False) == document


# --- Slots and calls ----------------------------------------------------------------------------------


def test_who_runs_keeps_a_slot_and_the_lowest_free_one_is_given_away():
    slots = Slots(3)
    slots.update("abc")
    assert slots.of == {"a": 0, "b": 1, "c": 2}
    slots.update("c")
    slots.update("cd")
    assert slots.of == {"c": 2, "d": 0}
    slots.update("cde")
    assert slots.of == {"c": 2, "d": 0, "e": 1}


def with_driver(work: Callable[[Driver], Awaitable[None]], told: list[Step] | None = None) -> None:
    """Run `work` on an event loop beside an engine, whose steps go to `told`."""

    async def run() -> None:
        engine = Engine(tiny_model("llama"), None, max_rows=2, max_waiting=100)
        runs = Driver(engine, 10, ([] if told is None else told).append)
        runs.start()
        try:
            await asyncio.wait_for(work(runs), 60)
        finally:
            runs.stop()
        check_schedule(engine.scheduler)

    asyncio.run(run())


def wish(ids: list[int], **wishes) -> Wish:
    return Wish(ids, Sampling(**wishes), None)


def test_all_of_a_call_is_taken_or_nothing():
    async def work(runs: Driver) -> None:
        with pytest.raises(ValueError, match="context"):
            await runs.submit([wish([1, 2]), wish([3], max_tokens=1000)], streamed=False)
        assert runs.open == 0 and not runs.engine.requests
        with pytest.raises(ApiError, match="is full") as refused:
            await runs.submit([wish([1])] * 13, streamed=False)
        assert refused.value.status == 503 and runs.open == 0

    with_driver(work)


def test_a_call_that_nobody_fetches_is_dropped_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(driver, "MOST_UNREAD", 5)

    async def work(runs: Driver) -> None:
        lazy = await runs.submit([wish([1, 2], max_tokens=80)], streamed=True)
        other = await runs.submit([wish([3], max_tokens=60)], streamed=False)
        assert len(await other.pieces()) == 1 and other.requests[0].output_tokens == 60
        while runs.open:
            await asyncio.sleep(0.01)
        assert len(await lazy.pieces()) == 6 and lazy.requests[0].finish_reason == "cancelled"
        with pytest.raises(ApiError, match="not fetched"):
            await lazy.pieces()

    with_driver(work)


def test_a_caller_that_leaves_while_its_call_is_taken_leaves_nothing():
    async def work(runs: Driver) -> None:
        submitting = asyncio.create_task(runs.submit([wish([1], max_tokens=90)], streamed=True))
        await asyncio.sleep(0)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        while runs.open:
            await asyncio.sleep(0.01)

    steps: list[Step] = []
    with_driver(work, steps)
    assert [ended.reason for step in steps for ended in step.ended] == ["cancelled"]


def test_a_cancelled_call_is_gone_within_two_steps():
    async def work(runs: Driver) -> None:
        forward = runs.engine.paged.forward
        runs.engine.paged.forward = lambda work: (sleep(0.01), forward(work))[1]
        call = await runs.submit([wish([1], max_tokens=90)] * 2, streamed=True)
        await call.pieces()
        before = len(told)
        runs.cancel(call)
        while runs.open:
            await asyncio.sleep(0.001)
        assert len(told) - before <= 2
        assert runs.engine.scheduler.blocks.available == runs.engine.scheduler.blocks.count

    told: list[Step] = []
    with_driver(work, told)
    assert [ended.reason for step in told for ended in step.ended] == ["cancelled", "cancelled"]


def test_when_the_thread_ends_by_a_fault_nobody_waits_for_it(monkeypatch, caplog):
    async def work(runs: Driver) -> None:
        call = await runs.submit([wish([1], max_tokens=90)], streamed=True)
        monkeypatch.setattr(runs, "_tell", None)
        with pytest.raises(ApiError) as failure:
            while await call.pieces():
                pass
        assert failure.value.status == 500 and not runs.open
        while runs.is_alive:
            await asyncio.sleep(0.001)
        with pytest.raises(ApiError) as failure:
            await runs.submit([wish([1])], streamed=True)
        assert failure.value.status == 500
        await runs.drain(0)

    with_driver(work)
    assert "thread has ended" in caplog.text


def test_an_adapter_can_be_loaded_while_others_are_served(tmp_path):
    async def work(runs: Driver) -> None:
        call = await runs.submit([wish([1], max_tokens=30)], streamed=True)
        with pytest.raises(ValueError, match="cannot be read"):
            await runs.load("a", tmp_path)
        while await call.pieces():
            pass
        assert call.requests[0].output_tokens == 30 and not runs.engine.adapters

    with_driver(work)


# --- Fields and errors --------------------------------------------------------------------------------


def test_fields_become_what_the_engine_wants():
    body = CompletionBody(model="m", prompt="a", n=2, seed=5, top_k=-1, stop="x", temperature=0)
    first, second = body.sampling(7, None, ("y",))
    assert (first.seed, second.seed, first.top_k, first.stop, first.temperature) == (5, 6, 0, ("x", "y"), 0)
    assert CompletionBody(model="m", prompt="a").sampling(7, None)[0].temperature == 1.0
    assert CompletionBody(model="m", prompt=[[1], [2]]).prompts == [[1], [2]]
    assert CompletionBody(model="m", prompt=[1, 2]).prompts == [[1, 2]]
    message = {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert ChatBody(model="m", messages=[message]).messages[0].plain() == {"role": "system", "content": "ab"}


def test_every_text_can_be_sent():
    assert to_json({"a": "\ud800é\n\u2028"}) == b'{"a":"\\ud800\\u00e9\\n\\u2028"}'
    with pytest.raises(ValueError):
        to_json(float("nan"))


def test_a_long_message_is_cut():
    error = from_validation([{"loc": ("body", "x" * 10_000), "type": "extra_forbidden", "msg": "no"}])
    assert len(error.body["error"]["message"]) <= 600
