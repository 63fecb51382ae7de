"""Where a request goes when there are several replicas, as far as its words decide it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from serving.routing import OPENING_CHARACTERS, Target, in_order, target_of

ADAPTERS = ("red", "blue")
BEGINNING = "Once upon a time there was a hen that lived in a mill by the river, and "


def target(fields: Any, query: bytes = b"") -> Target:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return target_of({"query_string": query}, body, ADAPTERS)


def test_a_home_is_the_same_whoever_asks_and_moves_only_when_its_replica_goes():
    names, keys = ["abc", "def", "ghi"], [f"key {number}" for number in range(300)]
    homes = {key: in_order(names, key)[0] for key in keys}
    assert homes == {key: in_order(reversed(names), key)[0] for key in keys}
    assert all(70 < count < 130 for count in Counter(homes.values()).values())
    for key in keys:
        assert sorted(in_order(names, key)) == names
        left = [name for name in names if name != homes[key]]
        assert in_order(names, key)[1:] == in_order(left, key)
        added = in_order([*names, "jkl"], key)[0]
        assert added in (homes[key], "jkl")


def test_a_number_is_a_place_in_the_order_of_the_names():
    assert in_order(["b", "a", "c"], 1) == ["b", "c", "a"]
    assert in_order(["b", "a"], 5) == ["b", "a"]
    assert in_order([], 0) == in_order([], "x") == []


def test_prompts_that_begin_alike_have_one_home_in_every_form_that_a_prompt_can_have():
    assert len(BEGINNING) > OPENING_CHARACTERS
    for wrap in (
        lambda text: {"prompt": text},
        lambda text: {"prompt": [text, "another"]},
        lambda text: {"prompt": list(text.encode())},
        lambda text: {"prompt": [list(text.encode())]},
        lambda text: {"messages": [{"role": "user", "content": text}]},
        lambda text: {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]},
    ):
        alike = target(wrap(BEGINNING + "one"))
        assert alike == target(wrap(BEGINNING + "another")) and alike.adapter == ""
        assert alike != target(wrap("Another " + BEGINNING))


def test_an_adapter_is_the_home_of_its_requests_and_an_unknown_model_is_none():
    assert target({"model": "red", "prompt": "a"}) == target({"model": "red", "prompt": "b"}) == Target("red", "red")
    assert target({"model": "../red", "prompt": "a"}) == target({"model": "tiny", "prompt": "a"}) == Target("", "a")


def test_a_query_can_choose_a_replica_by_its_number():
    assert target(b"", b"replica=1") == Target("", 1)
    assert target({"model": "red", "prompt": "a"}, b"a=b&replica=12") == Target("red", 12)
    for wrong in (b"replica=", b"replica=-1", b"replica=x", b"replica=" + b"9" * 5000, b"\xff&&="):
        assert target({"prompt": "a"}, wrong) == Target("", "a")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[1]", b"[" * 10_000, b"9" * 5000, b'{"prompt": {"a": 1}}', b'{"prompt": []}']
    + [b'{"messages": "hello"}', b'{"messages": [1, null]}', b'{"model": ["red"], "prompt": null}', b'{"prompt": NaN}']
    + [b'{"prompt": "\\ud800"}', b'{"prompt": [[]]}', b'{"messages": [{"role": {}}]}'],
    ids=lambda body: body[:20].decode(errors="replace"),
)
def test_a_body_that_is_wrong_goes_somewhere_to_be_refused(body):
    found = target(body)
    assert found.adapter == "" and len(in_order(["a", "b"], found.home)) == 2
