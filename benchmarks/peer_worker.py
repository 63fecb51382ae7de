"""One library in a process of its own: it loads its systems once, and then serves whenever it is told to.

    python benchmarks/peer_worker.py LIBRARY MODEL_FOLDER SLOTS THREADS DEVICE VARIANT...

`peers.py` starts it, with the Python that has the library. Both talk in lines of JSON:

    <- {"loaded": [variant, ...], "failed": {variant: why}, "versions": {package: version}}
    -> {"variant": variant, "requests": [[[id, ...], 10], ...]}
    <- {"tokens": [[id, ...], ...], "seconds": 1.23}  or  {"failed": why}

It ends when its input does. A library is a module `peer_LIBRARY` beside this file with `PACKAGES`, the packages
whose versions count, and `load(variant, folder, slots, threads, device)`, which returns what serves a list of
requests.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parent.parent

RequestIds = tuple[list[int], int]  # a prompt and how many tokens to generate, never fewer
Serve = Callable[[list[RequestIds]], list[list[int]]]


def load_all(
    library: str, folder: Path, slots: int, threads: int, device: str, variants: list[str]
) -> tuple[dict, dict]:
    """A function for each variant that serves requests, and the first message to `peers.py`."""
    loaded: dict[str, Serve] = {}
    failed: dict[str, str] = {}
    versions: dict[str, str] = {}
    try:
        module = import_module(f"peer_{library}")
        versions = {package: version(package) for package in module.PACKAGES}
    except Exception as error:
        return loaded, {"loaded": [], "failed": dict.fromkeys(variants, reason(error)), "versions": versions}
    for variant in variants:
        try:
            loaded[variant] = module.load(variant, folder, slots, threads, device)
        except Exception as error:  # whatever a library raises: the others can go on without it
            failed[variant] = reason(error)
    return loaded, {"loaded": list(loaded), "failed": failed, "versions": versions}


def serve_once(serve: Serve, requests: list[RequestIds]) -> dict[str, Any]:
    """The tokens and how long they took, or why there are none."""
    from measure import timed  # imports torch, which some libraries must come before

    tokens: list[list[int]] = []
    try:
        timing = timed(lambda: tokens.extend(serve(requests)), repeats=1, warmup=0)
    except Exception as error:
        return {"failed": reason(error)}
    return {"tokens": tokens, "seconds": timing.median_s}


def reason(error: Exception) -> str:
    """The first line of an error, without this folder's name."""
    lines = [line for line in str(error).replace(str(ROOT), ".").splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip() if lines else 'no message'}"[:300]


def private_stdout() -> TextIO:
    """Keep standard output for the answers; what the libraries print goes to standard error."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel


def main() -> None:
    """Load, say so, and serve until the input ends."""
    library, folder, slots, threads, device, *variants = sys.argv[1:]
    channel = private_stdout()

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    loaded, greeting = load_all(library, Path(folder), int(slots), int(threads), device, variants)
    if loaded:
        import torch

        torch.set_num_threads(int(threads))
    say(greeting)
    for line in sys.stdin:
        order = json.loads(line)
        say(serve_once(loaded[order["variant"]], [(prompt, budget) for prompt, budget in order["requests"]]))


if __name__ == "__main__":
    sys.path.append(str(ROOT / "code"))
    # It comes along with a peer, nobody here needs it, and it breaks transformers where it does not match torch.
    sys.modules["torchvision"] = None
    status = 0
    try:
        main()
    except BrokenPipeError:
        pass  # nobody listens any more
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)  # a library's own threads do not hold the process back
