"""A server in a process of its own with a tiny model, for the tests of `serving/`; and what a client of it needs.

Run as a program, it is that server with traps in it: the environment variable TRAPS holds, in JSON, `poison`, a token
id at which the model's embedding raises; `step_s`, how long each forward sleeps; and `opened`, a file that gets the
name of every file that is opened once the server listens.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import serving.__main__ as program
from serving.loading import Served

CONTEXT, START_S = 512, 180  # tokens; the longest that a start may take
EMOJI = "".join(map(chr, range(0x1F600, 0x1F640)))
COMBINED = "".join(letter + chr(mark) for letter in "aeiounc" for mark in range(0x300, 0x330))
LATIN = "à é î õ ü ç ñ the fox and the hen went to the mill and had a long talk with a young owl "
SAMPLE = "".join(f"{EMOJI[i % 64]}{COMBINED[2 * i % 600 :][:4]}{LATIN[i % 80 :][:5]}" for i in range(200))


def bigram_model(tokenizer: PreTrainedTokenizerBase, text: str = SAMPLE) -> PreTrainedModel:
    """A random Llama that likes what it likes because of the last token: one that follows it somewhere in the text.

    Its texts are full of emoji and combining characters, spelled byte by byte, and now and then of broken ones.
    """
    size = 264  # one direction for each token, and some to spare
    sizes = {"hidden_size": size, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        initializer_range=0.05,
        **sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        embedding = torch.nn.init.orthogonal_(torch.empty(len(tokenizer), size)) * size**0.5  # (V, size)
    ids = tokenizer(text)["input_ids"]
    follows = torch.zeros(len(tokenizer), len(tokenizer))
    for token, after in zip(ids, ids[1:], strict=False):
        follows[after, token] = 1
    model.model.embed_tokens.weight.data = embedding
    model.lm_head.weight.data = follows @ embedding * (10 / size)  # a logit of 10
    return model.eval()


def write_model(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """The model in `folder/tiny`, and two adapters of it in `folder/adapters`."""
    model = bigram_model(tokenizer)
    model.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    template = ROOT / "models" / "storyteller-llama" / "chat_template.jinja"
    (folder / "tiny" / template.name).write_text(template.read_text())
    for seed, name in enumerate(("red", "blue")):
        config = LoraConfig(r=2 + seed, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"])
        adapted = get_peft_model(bigram_model(tokenizer), config)
        generator = torch.Generator().manual_seed(seed)
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_" in parameter_name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        adapted.save_pretrained(folder / "adapters" / name)
    return folder


class Server:
    """A running server, until the end of a `with` block or until it is stopped."""

    program: Sequence[str] = (__file__,)  # as Python's command line has it

    def __init__(self, folder: Path, *arguments: object, port: int = 0, **traps: Any) -> None:
        given = ["--model", folder / "tiny", "--adapters", folder / "adapters", "--port", port, *arguments]
        self.process = subprocess.Popen(
            [sys.executable, *self.program, *map(str, given)],
            cwd=ROOT,
            env={**os.environ, "TRAPS": json.dumps(traps), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        if not self._listening.wait(START_S) or self.process.poll() is not None:
            self.kill()
            raise AssertionError(f"the server did not start:\n{self.log}")
        self.url = re.search(r"(http://\S+) serves", self.log)[1]
        self.port = int(self.url.rpartition(":")[2])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def log(self) -> str:
        """All that the server has said."""
        return "".join(self.said)

    def client(self, **options: Any) -> httpx.Client:
        """A client of the server."""
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False, **options)

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def terminate(self, timeout_s: float = 60) -> int:
        """Ask the server to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        self.process.stdout.close()

    def metrics(self) -> dict[str, float]:
        """The numbers at /metrics, all labels but the first left out, equal names added up."""
        with self.client() as client:
            text = client.get("/metrics").text
        numbers: dict[str, float] = {}
        for name, value in re.findall(r"^vllm:(\w+)(?:\{.*\})? (\S+)$", text, flags=re.MULTILINE):
            numbers[name] = numbers.get(name, 0) + float(value)
        return numbers

    def is_idle(self) -> bool:
        """Whether nothing runs, nothing waits, and no block is in use."""
        numbers = self.metrics()
        return not any(
            numbers[name] for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        )

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("Ctrl-C"):
                self._listening.set()
        self._listening.set()


def eventually(condition: Any, within_s: float = 30) -> bool:
    """Whether the condition comes true."""
    end_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


def request_bytes(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", "Content-Type: application/json", *headers]
    lines += [] if any(header.lower().startswith(("content-length", "transfer")) for header in headers) else [
        f"Content-Length: {len(body)}"
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_all(connection: socket.socket) -> bytes:
    """What comes until the connection ends, or breaks."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionError:
        pass
    return b"".join(pieces)


def chunks_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The chunks of a stream; it has to end with [DONE]."""
    for line in lines:
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended without [DONE]")


def trapped(served: Served, traps: dict[str, Any]) -> Served:
    """Put the traps into the model."""

    def trap(_: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> None:
        time.sleep(traps.get("step_s", 0))
        if bool((inputs[0] == traps.get("poison", -1)).any()):
            raise RuntimeError("this layer is poisoned")

    served.engine.model.get_input_embeddings().register_forward_pre_hook(trap)
    return served


def main() -> int:
    """Serve with traps."""
    traps, load, say = json.loads(os.environ["TRAPS"]), program.load, program.say

    def say_and_watch(text: str) -> None:
        say(text)
        if "opened" in traps and " serves " in text:
            log = Path(traps["opened"]).open("w", buffering=1)  # noqa: SIM115
            sys.addaudithook(lambda name, given: name == "open" and log.write(f"{given[0]}\n"))

    program.load = lambda *given, **options: trapped(load(*given, **options), traps)
    program.say = say_and_watch
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
