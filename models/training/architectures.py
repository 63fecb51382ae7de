"""The two architectures that the training program knows, built from a plan without anything downloaded."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

from plans import Plan


def gpt2_config(plan: Plan, **special_tokens: int) -> GPT2Config:
    """A GPT-2 without dropout."""
    return GPT2Config(
        vocab_size=plan.vocabulary,
        n_positions=plan.context,
        n_embd=plan.width,
        n_layer=plan.layers,
        n_head=plan.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
        use_cache=True,
        **special_tokens,
    )


def llama_config(plan: Plan, **special_tokens: int) -> LlamaConfig:
    """A Llama with grouped-query attention and tied embeddings."""
    return LlamaConfig(
        vocab_size=plan.vocabulary,
        max_position_embeddings=plan.context,
        hidden_size=plan.width,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.kv_heads,
        intermediate_size=plan.mlp_width,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        use_cache=True,
        **special_tokens,
    )


ARCHITECTURES = {"gpt2": (gpt2_config, GPT2LMHeadModel), "llama": (llama_config, LlamaForCausalLM)}


def build_model(plan: Plan, end_of_text: int) -> PreTrainedModel:
    """The plan's model, its weights drawn from the plan's seed."""
    torch.manual_seed(plan.seed)
    make_config, model_class = ARCHITECTURES[plan.architecture]
    config: PreTrainedConfig = make_config(
        plan, bos_token_id=end_of_text, eos_token_id=end_of_text, pad_token_id=end_of_text
    )
    config._attn_implementation = "sdpa"
    return model_class(config)


def count_parameters(plan: Plan) -> int:
    """Parameters by arithmetic, tied embeddings once; a test holds the built model against it.

    With V tokens, width D, L layers, C positions, M the MLP's width and K the width of the keys (and of the values):
    GPT-2  V D + C D + L (2 D² + 2 D K + 2 D M + biases and norms) + the last norm
    Llama  V D       + L (2 D² + 2 D K + 3 D M + 2 D)              + D
    """
    width, keys, mlp = plan.width, plan.width * plan.kv_heads // plan.heads, plan.mlp_width
    attention = 2 * width * width + 2 * width * keys
    if plan.architecture == "llama":
        return plan.vocabulary * width + plan.layers * (attention + 3 * width * mlp + 2 * width) + width
    biases_and_norms = 4 * width + mlp + width + 4 * width  # c_attn and c_proj, c_fc, c_proj, two norms
    layer = attention + 2 * width * mlp + biases_and_norms
    return (plan.vocabulary + plan.context) * width + plan.layers * layer + 2 * width


def describe_size(plan: Plan) -> str:
    """Parameters and the size of the weights in float16, two bytes each, in words."""
    count = count_parameters(plan)
    return f"{plan.architecture}: {count:,} parameters, {2 * count / 1e6:.2f} MB in float16"
