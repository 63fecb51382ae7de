"""How long the calls of one function take inside a larger run, measured from outside: nothing measured knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from measure import now_s


@contextmanager
def seconds_of_calls(owner: Any, name: str) -> Iterator[list[float]]:
    """How long each call of `owner.name` takes while the block runs, in seconds; the owner is any object or module.

        with seconds_of_calls(engine.scheduler, "schedule") as calls:
            engine.run()
        sum(calls), len(calls)

    The list gets an entry per call that returns. On the CPU a call is over when it returns; on a GPU it is not.
    """
    original, seconds = getattr(owner, name), []

    def watched(*args: Any, **kwargs: Any) -> Any:
        start = now_s()
        result = original(*args, **kwargs)
        seconds.append(now_s() - start)
        return result

    with mock.patch.object(owner, name, watched):
        yield seconds
