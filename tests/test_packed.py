"""Packed layers: the same numbers as the layers they replace, and a clear no to everything but computing."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

import packed as packed_room
import utils
from conftest import random_requests, reference, tiny_model
from helpers import load_model, run_continuous
from linear import weight_of
from utils import (
    LoraLayer,
    PackedInt8Linear,
    PackedLayer,
    PackedLinear,
    QuantizedEmbedding,
    QuantizedLinear,
    add_lora,
    dequantize,
    load_lora,
    lora_state_dict,
    merge_lora,
    pack_model,
    packed_layer,
    quantize,
    quantize_model,
    size_in_bytes,
    unmerge_lora,
)

IDS = torch.tensor([[5, 100, 7, 42, 9]])
INPUTS, OUTPUTS = 12, 20


def has(kind: type[PackedLayer], layer: Callable[[], nn.Module]) -> bool:
    """Whether this machine has the kernels; where not, only the tests of falling back can say something."""
    return isinstance(packed_layer(layer()), kind)


needs_onednn = pytest.mark.skipif(not has(PackedLinear, lambda: nn.Linear(4, 4)), reason="no oneDNN here")
needs_fbgemm = pytest.mark.skipif(
    not has(PackedInt8Linear, lambda: QuantizedLinear(nn.Linear(4, 4))), reason="no fbgemm here"
)


def linear_layer(kind: str = "bias", inputs: int = INPUTS, outputs: int = OUTPUTS) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = Conv1D(outputs, inputs) if kind == "conv1d" else nn.Linear(inputs, outputs, bias=kind == "bias")
        if kind == "conv1d":
            nn.init.normal_(layer.bias)
    return layer.requires_grad_(False)


def random_tensor(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def served(model: nn.Module, count: int = 9) -> list[list[int]]:
    return [request.output_ids for request in run_continuous(random_requests(count), 3, model=model)]


def packed_layers(model: nn.Module) -> list[PackedLayer]:
    return [model.get_submodule(name) for name in utils.packed_layers(model)]


# --- PackedLinear ------------------------------------------------------------------------------------

KINDS = pytest.mark.parametrize("kind", ["bias", "no bias", "conv1d"])


@needs_onednn
@KINDS
@pytest.mark.parametrize("shape", [(1, INPUTS), (7, INPUTS), (2, 3, INPUTS), (0, INPUTS)])
def test_packed_linear_equals_the_layer(kind, shape):
    layer = linear_layer(kind)
    x = random_tensor(*shape)
    packed = PackedLinear(layer)
    assert packed(x).shape == (*shape[:-1], OUTPUTS)
    assert torch.allclose(packed(x), layer(x), rtol=1e-5, atol=1e-6)
    transposed = random_tensor(INPUTS, 4).T  # not contiguous
    assert torch.allclose(packed(transposed), layer(transposed), rtol=1e-5, atol=1e-6)


@needs_onednn
@KINDS
def test_packed_linear_in_bfloat16(kind):
    layer = linear_layer(kind).bfloat16()
    packed = packed_layer(layer)
    if packed is None:
        pytest.skip("oneDNN has no bfloat16 here")
    x = random_tensor(5, INPUTS).bfloat16()
    assert packed(x).dtype == torch.bfloat16
    weight, bias = weight_of(layer).float(), None if layer.bias is None else layer.bias.float()
    assert torch.allclose(packed(x).float(), F.linear(x.float(), weight, bias), rtol=2**-6, atol=2**-6)


@needs_onednn
def test_later_changes_of_the_original_do_not_reach_the_packed_layer():
    layer, x = linear_layer(), random_tensor(3, INPUTS)
    packed = PackedLinear(layer)
    before = packed(x)
    layer.weight.zero_(), layer.bias.zero_()
    assert torch.equal(packed(x), before) and before.abs().max() > 0.1


@needs_onednn
@pytest.mark.parametrize("wrong", [(3, INPUTS + 1), (3, INPUTS - 1)])
def test_inputs_of_another_width_are_refused(wrong):
    for packed in filter(None, (packed_layer(linear_layer()), packed_layer(QuantizedLinear(linear_layer())))):
        with pytest.raises(RuntimeError):
            packed(random_tensor(*wrong))


# --- PackedInt8Linear --------------------------------------------------------------------------------


def rounded_rows(x: torch.Tensor, steps: int) -> torch.Tensor:
    """The inputs as the kernel sees them: each row in `steps` steps up to its largest value."""
    size = x.double().abs().amax(-1, keepdim=True)
    return (x / size * steps).round() / steps * size


@needs_fbgemm
@KINDS
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("vnni", [True, False])
def test_int8_layer_has_exactly_the_weights_of_the_quantized_layer(kind, bits, vnni, monkeypatch):
    if vnni and not packed_room.has_vnni():
        pytest.skip("8-bit inputs would overflow here")
    monkeypatch.setattr(packed_room, "has_vnni", lambda: vnni)
    quantized = QuantizedLinear(linear_layer(kind, inputs=65, outputs=35), bits=bits)
    packed = PackedInt8Linear(quantized)
    assert packed.steps == (127 if vnni else 63)
    x = random_tensor(4, 65) * torch.tensor([[1e-6], [1.0], [30.0], [1e6]])
    bias = 0 if quantized.bias is None else quantized.bias
    expected = rounded_rows(x, packed.steps) @ quantized.weight.T.double()
    # A value at the edge between two steps may fall to either side: one step of one input at most.
    slack = x.abs().amax(-1, keepdim=True) / packed.steps * quantized.weight.abs().max()
    assert ((packed(x) - bias - expected).abs() <= slack + 1e-5 * x.abs().amax(-1, keepdim=True) + 1e-6).all()
    assert torch.equal(packed.packed.data.unpack()[0].dequantize(), quantized.weight)
    # Rounding the inputs costs at most half a step of every one of them.
    bound = 0.51 * x.abs().amax(-1, keepdim=True) / packed.steps * quantized.weight.abs().sum(-1)
    assert ((packed(x) - quantized(x)).abs() <= bound + 1e-6).all()


@needs_fbgemm
@pytest.mark.parametrize("vnni", [True, False])
def test_int8_sums_do_not_overflow(vnni, monkeypatch):
    """The largest codes on the largest inputs: where pairs are summed in 16 bits, 8-bit inputs saturate."""
    monkeypatch.setattr(packed_room, "has_vnni", lambda: vnni and torch.cpu._is_vnni_supported())
    layer = nn.Linear(256, 32, bias=False).requires_grad_(False)
    for weight in (1.0, -1.0):
        layer.weight.fill_(weight)
        layer.weight[:, 0] = -weight
        packed = PackedInt8Linear(QuantizedLinear(layer))
        for sign in (1.0, -1.0):
            x = torch.full((2, 256), sign)
            assert torch.allclose(packed(x), layer(x), rtol=0.01)


@needs_fbgemm
def test_an_int8_row_does_not_depend_on_its_neighbours():
    packed = PackedInt8Linear(QuantizedLinear(linear_layer()))
    x = random_tensor(6, INPUTS) * torch.logspace(-3, 3, 6)[:, None]
    for row in range(6):
        assert torch.equal(packed(x[row : row + 1]), packed(x)[row : row + 1])
    assert torch.equal(packed(x[None])[0], packed(x))


@needs_fbgemm
def test_int8_layer_on_zeros_and_on_nothing():
    packed = PackedInt8Linear(QuantizedLinear(linear_layer()))
    assert torch.equal(packed(torch.zeros(2, INPUTS)), packed.bias.expand(2, -1))
    assert packed(torch.zeros(0, INPUTS)).shape == (0, OUTPUTS)
    assert packed(random_tensor(2, INPUTS).bfloat16()).dtype == torch.bfloat16


@needs_fbgemm
def test_packing_warns_of_nothing():
    """PyTorch announces that quantized tensors will go, once per process; a lesson should show no such thing."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            PackedInt8Linear(QuantizedLinear(linear_layer()))
    finally:
        torch.set_warn_always(before)


@needs_fbgemm
def test_symmetric_codes_are_packed_too():
    """All zero points 128: PyTorch may then choose another kernel."""
    layer = linear_layer("no bias")
    layer.weight.copy_(random_tensor(OUTPUTS, INPUTS).clamp(-1, 1))
    layer.weight[:, 0], layer.weight[:, 1] = 1, -128 / 127
    quantized = QuantizedLinear(layer)
    assert (quantized.zero_point == 128).all()
    x = random_tensor(5, INPUTS)
    assert torch.allclose(packed_layer(quantized)(x), quantized(x), atol=0.1)


# --- pack_model --------------------------------------------------------------------------------------


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_model_computes_the_same(model, dtype):
    model = model.to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    packed = pack_model(model)
    if dtype == torch.float32:
        linear = [module for module in model.modules() if isinstance(module, (nn.Linear, Conv1D))]
        assert len(packed_layers(packed)) == len(linear) > 8
        assert torch.allclose(logits(packed), logits(model), rtol=1e-4, atol=1e-4)
        assert served(packed) == served(model) == [reference(model, request) for request in random_requests(9)]
        assert len({tuple(ids) for ids in served(packed)}) > 4
    else:
        error = (logits(packed) - logits(model)).abs().max() / logits(model).abs().max()
        assert error < 0.1
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert not packed_layers(model)


@pytest.mark.filterwarnings("ignore:pack_model left")
def test_an_activation_of_many_operations_becomes_one():
    model = tiny_model("gpt2")
    packed = pack_model(model)
    before, after = model.transformer.h[0].mlp.act, packed.transformer.h[0].mlp.act
    x = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    assert isinstance(after, nn.GELU) and not isinstance(before, nn.GELU)
    assert torch.allclose(after(x), before(x), rtol=0, atol=1e-15) and not torch.allclose(after(x), F.gelu(x))


@needs_fbgemm
def test_packed_quantized_model_stays_close(model):
    quantized = quantize_model(model.float())
    packed = pack_model(quantized)
    assert len(packed_layers(packed)) >= sum(isinstance(m, QuantizedLinear) for m in quantized.modules()) > 7
    assert not packed_layers(quantized) and not any(isinstance(m, QuantizedLinear) for m in packed.modules())
    error = (logits(packed) - logits(quantized)).abs()
    assert 0 < error.mean() < 0.03 * logits(quantized).abs().max()
    requests = random_requests(9)
    alone = [run_continuous([request], 1, model=packed)[0].output_ids for request in random_requests(9)]
    together = [request.output_ids for request in run_continuous(requests, 4, model=packed)]
    assert alone == together and len({tuple(ids) for ids in alone}) > 4


@pytest.mark.filterwarnings("ignore:pack_model left")
def test_double_precision_stays_as_it_is(model):
    packed = pack_model(model)
    assert packed is not model and not packed_layers(packed)
    assert torch.allclose(logits(packed), logits(model), rtol=0, atol=1e-12) and served(packed) == served(model)
    assert packed.get_input_embeddings().weight is not model.get_input_embeddings().weight
    assert served(pack_model(quantize_model(model))) == served(quantize_model(model))


@pytest.mark.parametrize(
    "absent",
    ["_reorder_linear_weight", "_linear_pointwise", "linear_prepack", "linear_with_input_q_dq_qweight_dq_output_fp32"],
)
@pytest.mark.parametrize("how", [AttributeError, NotImplementedError, RuntimeError])
def test_without_the_operators_the_layers_stay_as_they_are(absent, how, monkeypatch):
    def missing(*_):
        raise how(f"no {absent} here")

    library = torch.ops.mkldnn if absent.startswith("_") else torch.ops.quantized
    monkeypatch.setattr(library, absent, missing, raising=False)
    model = tiny_model("gpt2").float()
    gone = PackedLinear if absent.startswith("_") else PackedInt8Linear
    for original in (model, quantize_model(model)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            packed = pack_model(original)
        told = [str(warning.message) for warning in caught if "pack_model left" in str(warning.message)]
        has_the_kind = gone is PackedLinear or original is not model  # a quantized model still has a float head
        assert len(told) == has_the_kind and all(f"no {absent} here" in message for message in told)
        assert not any(isinstance(layer, gone) for layer in packed_layers(packed))
        assert torch.allclose(logits(packed), logits(original), rtol=1e-4, atol=0.5)
    with pytest.raises(NotImplementedError, match=f"does not work here: no {absent} here"):
        gone(linear_layer() if gone is PackedLinear else QuantizedLinear(linear_layer()))


def test_layers_of_other_kinds_stay_as_they_are():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    for layer in (Doubled(4, 4), nn.Embedding(4, 4), nn.Linear(4, 4).half(), nn.Linear(4, 4, device="meta")):
        assert packed_layer(layer) is None
    assert packed_layer(QuantizedLinear(linear_layer(), group_size=4)) is None
    with pytest.raises(NotImplementedError, match="float64"):
        PackedLinear(nn.Linear(4, 4).double())
    with pytest.raises(TypeError, match="Embedding is not a linear layer"):
        PackedLinear(nn.Embedding(3, 4))


@needs_onednn
def test_skipped_layers_stay_as_they_are():
    model = tiny_model("gpt2").float()
    packed = pack_model(model, skip=["lm_head", "transformer.h.0.attn.c_attn"])
    assert len(packed_layers(pack_model(model))) - len(packed_layers(packed)) == 2
    assert packed.lm_head.weight is packed.transformer.wte.weight  # still tied
    assert isinstance(packed.transformer.h[1].attn.c_attn, PackedLinear)


# --- A quantized head and its embedding --------------------------------------------------------------


@pytest.mark.parametrize(("bits", "group_size"), [(8, None), (4, None), (4, 8)])
def test_quantized_head_and_embedding_are_the_dequantized_matrix(model, bits, group_size):
    original = model.get_output_embeddings().weight.clone()
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    quantized = quantize_model(model, bits=bits, group_size=group_size, quantize_head=True)
    table = dequantize(*quantize(original, bits=bits, dim=0, group_size=group_size))
    head, embedding = quantized.get_output_embeddings(), quantized.get_input_embeddings()
    assert isinstance(head, QuantizedLinear) and torch.equal(head.weight, table)
    assert isinstance(embedding, QuantizedEmbedding) == tied
    if tied:
        assert torch.equal(embedding(IDS), table[IDS]) and embedding.codes is head.codes
        assert size_in_bytes([head, embedding]) == size_in_bytes(head)
        assert copy.deepcopy(quantized).transformer.wte.codes is not embedding.codes
    assert torch.equal(model.get_output_embeddings().weight, original)
    twin = copy.deepcopy(model)  # the reference: float layers that hold the dequantized numbers
    for name, module in quantized.named_modules():
        if isinstance(module, QuantizedLinear):
            target = twin.get_submodule(name)
            target.weight.data = module.weight.T if isinstance(target, Conv1D) else module.weight
    if tied:
        twin.get_input_embeddings().weight = twin.get_output_embeddings().weight
    assert torch.allclose(logits(quantized), logits(twin), atol=1e-10)
    assert served(quantized) == served(twin)


@needs_fbgemm
def test_quantized_head_is_packed_too(model):
    quantized = quantize_model(model.float(), quantize_head=True)
    packed = pack_model(quantized)
    assert isinstance(packed.get_output_embeddings(), PackedInt8Linear)
    assert not any(isinstance(module, (nn.Linear, PackedLinear)) for module in packed.modules())
    assert (logits(packed) - logits(quantized)).abs().mean() < 0.03 * logits(quantized).abs().max()
    assert [len(ids) for ids in served(packed)] == [request.max_tokens for request in random_requests(9)]


# --- Memory ------------------------------------------------------------------------------------------


@needs_onednn
def test_packed_bytes_are_counted():
    model = tiny_model("llama").float()  # head and embedding are not tied here
    assert size_in_bytes(pack_model(model)) == size_in_bytes(model)
    gpt2 = tiny_model("gpt2").float()
    head = size_in_bytes(gpt2.lm_head)
    assert size_in_bytes(pack_model(gpt2)) == size_in_bytes(gpt2) + head  # the lookup needs the other one
    assert size_in_bytes(pack_model(gpt2, skip=["lm_head"])) == size_in_bytes(gpt2)
    packed = pack_model(gpt2)
    assert size_in_bytes([packed, {"again": packed}]) == size_in_bytes(packed)


@needs_fbgemm
@pytest.mark.parametrize("bits", [4, 8])
def test_packed_int8_bytes_are_counted(bits):
    packed = packed_layer(QuantizedLinear(linear_layer(), bits=bits))
    assert size_in_bytes(packed) == OUTPUTS * (INPUTS + 4 + 4 + 4) + OUTPUTS * 4


@needs_onednn
def test_copies_share_the_packed_weights():
    packed = pack_model(tiny_model("gpt2").float())
    twin = copy.deepcopy(packed)
    pairs = list(zip(packed_layers(packed), packed_layers(twin), strict=True))
    assert all(one is not two and one.packed is two.packed for one, two in pairs)
    assert torch.equal(logits(twin), logits(packed))
    hook = twin.lm_head.register_forward_hook(lambda *_: torch.zeros(1, 1, 257))
    assert logits(packed).abs().max() > 0 == logits(twin).abs().max()
    hook.remove()


# --- Only for computing ------------------------------------------------------------------------------


@pytest.fixture
def packed() -> nn.Module:
    packed = pack_model(tiny_model("gpt2").float())
    if not packed_layers(packed):
        pytest.skip("nothing can be packed here")
    return packed


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda m: m.state_dict(), "has no state_dict.*save the model it was packed from"),
        (lambda m: m.load_state_dict(tiny_model("gpt2").state_dict()), "cannot load weights.*original"),
        (lambda m: m.save_pretrained("never-written"), "save the model it was packed from"),
        (pickle.dumps, "PackedLinear cannot be saved; save the model it was packed from"),
        (lambda m: m.to(torch.bfloat16), r"stay torch.float32 on the cpu.*pack_model\(model.to\(...\)\)"),
        (lambda m: m.double(), "stay torch.float32"),
        (lambda m: m.to("meta"), "on the cpu"),
        (quantize_model, "is packed; quantize the original, then pack the copy"),
        (lambda m: add_lora(m, 2), "is packed; add the adapters to the original, then pack it"),
        (pack_model, "is packed; it is as fast as it gets"),
    ],
)
def test_everything_else_is_refused(packed, act, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = copy.deepcopy(packed)
    with pytest.raises(ValueError, match=re.compile(says, re.DOTALL)):
        act(packed)
    assert all(one.packed is two.packed for one, two in zip(packed_layers(packed), packed_layers(before), strict=True))


def test_what_changes_nothing_is_allowed(packed):
    expected = logits(packed)
    assert packed.to("cpu").float().eval().requires_grad_(False) is packed
    assert torch.equal(logits(packed), expected)


# --- Adapters over packed layers ---------------------------------------------------------------------


def with_adapter(model: nn.Module) -> nn.Module:
    model = add_lora(model, 2)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter, std=1.0, generator=torch.Generator().manual_seed(2))
    return model


@needs_onednn
@pytest.mark.parametrize("quantized", [False, True])
def test_an_adapter_goes_on_over_its_packed_base(quantized):
    model = tiny_model("gpt2").float()
    base = quantize_model(model) if quantized else model
    plain = logits(base)
    adapted = with_adapter(base)
    packed = pack_model(adapted)
    layers = [module for module in packed.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 2 and all(isinstance(layer.base_layer, PackedLayer) for layer in layers)
    close = {"rtol": 1e-4, "atol": 0.5 if quantized else 1e-4}
    assert torch.allclose(logits(packed), logits(adapted), **close)
    assert (logits(packed) - plain).abs().max() > 1
    zeros = {name: torch.zeros_like(weight) for name, weight in lora_state_dict(packed).items()}
    assert torch.allclose(logits(load_lora(packed, zeros)), plain, **close)  # hot swap still works
    assert torch.equal(packed(input_ids=IDS).logits.detach(), logits(packed))  # gradients need not be off to compute


@needs_onednn
def test_a_packed_base_refuses_to_merge():
    adapted = with_adapter(tiny_model("gpt2").float())
    packed = pack_model(adapted)
    with pytest.raises(ValueError, match="a packed base cannot change; merge or unmerge in the original"):
        merge_lora(packed)
    merged = merge_lora(adapted)
    packed = pack_model(merged)
    assert torch.allclose(logits(packed), logits(merged), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="a packed base cannot change"):
        unmerge_lora(packed)


# --- The course model --------------------------------------------------------------------------------


@needs_onednn
def test_the_storyteller_writes_the_same_when_packed(monkeypatch):
    monkeypatch.delenv("COURSE_MODEL", raising=False)
    model, tokenizer = load_model(device="cpu")
    prompts = ["Once upon a time there was a", "The rain in Spain falls", "Dear Anna,", "What comes up must"]
    requests = [(prompt, 24) for prompt in prompts]
    answers = [
        [request.output_ids for request in run_continuous(requests, 3, model=each, tokenizer=tokenizer)]
        for each in (model, pack_model(model))
    ]
    assert answers[0] == answers[1] and len({tuple(ids) for ids in answers[0]}) == len(prompts)
