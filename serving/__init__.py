"""A server that speaks OpenAI's interface, on the engine of `code/engine`.

Read it in this order: `loading` (the model and its adapters), `driver` and `watching` (the engine in a thread of its
own), `fields` and `replies` (what clients send and get), `errors`, `doors` and `streams` (what keeps bad requests and
slow readers away), `app` (the routes), and `__main__`, the command line. Then come the replicas: `routing`, `front` and
`replicas`. README.md says how to use it all.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))
