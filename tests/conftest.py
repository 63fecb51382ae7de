"""Tiny random models and a byte tokenizer, small enough for hundreds of exact comparisons; a kernel without network."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from committed import VARIABLE, committed_notebooks, differing
from helpers import Request

torch.set_num_threads(1)  # for tensors this small, waking a second thread costs more than it brings

# The tests look at the notebooks as git has them: homework in notebooks/ turns nothing red (see tools/committed.py).
UNCHOSEN = not os.environ.get(VARIABLE)
UNTIL_THE_END = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Say by the environment variable where the notebooks are: tests, their processes and workers all look there."""
    if UNCHOSEN:
        os.environ[VARIABLE] = str(UNTIL_THE_END.enter_context(committed_notebooks()))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the temporary copy of the notebooks, if there is one."""
    if UNCHOSEN:
        UNTIL_THE_END.close()
        del os.environ[VARIABLE]


# Files whose tests share something that takes long to make: under xdist one worker runs them all.
SHARING = ("test_book", "test_drawings", "test_ladder", "test_machine_book", "test_peers", "test_serving_page")
SHARING += ("test_load", "test_serving_abuse", "test_serving_answers", "test_serving_live_page")
SHARING += ("test_serving_replicas", "test_serving_soak")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give all tests of a file in SHARING to one worker (xdist 3.8 marks groups in a way that pytest 9.2 ignores)."""
    from xdist.scheduler import LoadScopeScheduling

    class OneWorkerForWhatIsShared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return path if Path(path).stem in SHARING else nodeid

    return OneWorkerForWhatIsShared(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start with the tests that take longest, so that two workers end at about the same time."""
    items.sort(key=lambda item: not (item.get_closest_marker("notebooks") or item.get_closest_marker("slow")))


def pytest_report_header(config: pytest.Config) -> str:
    """Name the notebooks whose files are not looked at."""
    if UNCHOSEN and (names := differing()):
        return f"not looked at, since neither committed nor staged: {', '.join(names)}"
    return f"notebooks: {os.environ[VARIABLE]}"


VOCABULARY, CONTEXT = 257, 96  # 256 bytes and <|endoftext|>
ARCHITECTURES = ("gpt2", "llama", "qwen3", "gpt_neox")


def _gpt2() -> PreTrainedModel:
    sizes = {"n_positions": CONTEXT, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**_common(), **sizes))


def _llama() -> PreTrainedModel:  # grouped-query attention: 4 heads share 2 key/value heads
    return LlamaForCausalLM(LlamaConfig(**_common(), **_sizes(), num_key_value_heads=2))


def _qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**_common(), **_sizes(), num_key_value_heads=2, head_dim=8))


def _gpt_neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**_common(), **_sizes()))


def _common() -> dict:
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return {"vocab_size": VOCABULARY, "initializer_range": 0.4, **ids}


def _sizes() -> dict:
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
    }


def tiny_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random model in float64, so that rounding cannot flip a greedy choice."""
    build = {"gpt2": _gpt2, "llama": _llama, "qwen3": _qwen3, "gpt_neox": _gpt_neox}[architecture]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().double().eval()


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@pytest.fixture
def gpt2() -> PreTrainedModel:
    return tiny_model("gpt2")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte of UTF-8, and `<|endoftext|>`: enough to break characters apart."""
    alphabet = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|endoftext|>", pad_token="<|endoftext|>", padding_side="left"
    )


def random_requests(count: int, seed: int = 0, budgets: tuple[int, ...] = (0, 1, 2, 5, 9, 14)) -> list[Request]:
    """Ragged prompts and unequal budgets, the first ones covering every budget."""
    rng = random.Random(seed)
    return [
        Request(
            [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 12))],
            budgets[index] if index < len(budgets) else rng.choice(budgets),
        )
        for index in range(count)
    ]


def reference(model: PreTrainedModel, request: Request) -> list[int]:
    """What transformers itself generates for this request alone."""
    if request.max_tokens == 0:
        return []
    prompt = request.prompt_ids or request.prompt
    eos = {"eos_token_id": None} if request.ignore_eos else {}
    ids = model.generate(
        torch.tensor([prompt], device=model.device),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=model.device),
        max_new_tokens=request.max_tokens,
        do_sample=False,
        pad_token_id=0,
        **eos,
    )
    return ids[0, len(prompt) :].tolist()


@pytest.fixture
def with_eos() -> Callable[[PreTrainedModel, list[Request]], int]:
    """Makes a token that the model really produces its end-of-sequence token."""

    def choose(model: PreTrainedModel, requests: list[Request]) -> int:
        longest = max(requests, key=lambda request: request.max_tokens)
        token = reference(model, longest)[longest.max_tokens // 2]
        model.generation_config.eos_token_id = token
        return token

    return choose


@pytest.fixture
def no_network(tmp_path: Path) -> dict[str, str]:
    """Variables for a kernel that may reach nothing beyond loopback; `refused(...)` tells what it tried."""
    folder = Path(__file__).parent / "no_network"
    python_path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": python_path, "NO_NETWORK_LOG": str(tmp_path / "refused")}


def refused(environment: dict[str, str]) -> str:
    """The connections a kernel started with the fixture's variables has tried, with where from."""
    log = Path(environment["NO_NETWORK_LOG"])
    return log.read_text() if log.exists() else ""
