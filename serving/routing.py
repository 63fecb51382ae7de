"""Which of several replicas a request should go to, decided by what it says.

An adapter's requests belong together, since one replica then has to load it; so do requests that begin alike, since
the replica that has read such a beginning keeps it in its cache. Both have a *home*: the replica whose name, hashed
together with theirs, makes the smallest number. When a replica goes or comes, only its own requests move.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple
from urllib.parse import parse_qs

OPENING_CHARACTERS = 64  # prompts that agree so far have the same home
OPENING_TOKENS = 16  # the same for prompts of token ids: one block of the engine's cache


class Target(NamedTuple):
    """Where a request should go: to a replica that has the adapter ("": none is needed), and of these to its home.

    A home that is a number is the replica of that number, in the order of their names.
    """

    adapter: str
    home: str | int


def target_of(scope: Mapping[str, Any], body: bytes, adapters: Collection[str]) -> Target:
    """The target of a request, which may be wrong in any way: whoever gets it will refuse it.

    Args:
        scope: the request as ASGI has it. `?replica=1` in its query chooses a replica.
        adapters: the names of all there are; another model than these is the model itself.
    """
    fields = fields_of(body)
    model = fields.get("model")
    adapter = model if isinstance(model, str) and model in adapters else ""
    number = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("replica", [""])[0]
    if number.isdecimal() and len(number) < 5:
        return Target(adapter, int(number))
    return Target(adapter, adapter or opening(fields))


def fields_of(body: bytes) -> dict[str, Any]:
    """The fields of a body of JSON; none if it is anything else."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def opening(fields: Mapping[str, Any]) -> str:
    """How the (first) prompt or the chat begins: a text."""
    prompt = fields.get("prompt", fields.get("messages", ""))
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt[:OPENING_CHARACTERS]
    if isinstance(prompt, list) and all(isinstance(token, int) for token in prompt):
        return repr(prompt[:OPENING_TOKENS])
    return "".join(map(said, prompt))[:OPENING_CHARACTERS] if isinstance(prompt, list) else ""


def said(message: Any) -> str:
    """A chat's message: who says it, and what."""
    return f"{message.get('role')}: {message.get('content')}\n" if isinstance(message, dict) else ""


def in_order(names: Iterable[str], home: str | int) -> list[str]:
    """Replicas by name, the home first, then those that stand in for it, each when all before it are full or gone."""
    ordered = sorted(names)
    if isinstance(home, int):
        first = home % max(1, len(ordered))
        return ordered[first:] + ordered[:first]
    return sorted(ordered, key=lambda name: blake2b(f"{name}\n{home}".encode(errors="replace"), digest_size=8).digest())
