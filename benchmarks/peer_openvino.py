"""OpenVINO GenAI's continuous batching, as systems for `peers.py`."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import openvino
import openvino_genai

from peer_worker import RequestIds, Serve

PACKAGES = ("openvino", "openvino-genai", "optimum-intel", "nncf", "torch", "transformers")

# Without the hints this CPU plugin computes in bf16 and keeps the cache in 8 bits wherever the processor can. In
# int8 that is left to it.
PROPERTIES = {
    "fp32": {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0},
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16", "KV_CACHE_PRECISION": "bf16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0},
    "int8": {},
}


def load(variant: str, folder: Path, slots: int, threads: int, device: str) -> Serve:
    """`fp32` and `bf16` compute with the exported weights, `int8` with compressed ones."""
    if device != "cpu":
        raise ValueError(f"OpenVINO GenAI is measured on the CPU only, not on {device}")
    model = int8_model(folder) if variant == "int8" else exported_model(folder)
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = slots
    scheduler.cache_size = 1  # GB
    scheduler.enable_prefix_caching = False
    properties = PROPERTIES[variant] | {"INFERENCE_NUM_THREADS": threads}
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(model), scheduler, "CPU", properties)
    return partial(serve, pipeline)


def serve(pipeline: openvino_genai.ContinuousBatchingPipeline, requests: list[RequestIds]) -> list[list[int]]:
    """Put all requests into the pipeline's queue at once."""
    prompts = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt, _ in requests]
    results = pipeline.generate(prompts, [greedy(budget) for _, budget in requests])
    return [list(result.m_generation_ids[0]) for result in results]


def greedy(budget: int) -> openvino_genai.GenerationConfig:
    """Settings for this many tokens, each of them the likeliest one."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = budget
    config.ignore_eos = True
    config.do_sample = False
    return config


def exported_model(folder: Path) -> Path:
    """The model as OpenVINO reads it, in float32."""
    exported = folder / "openvino"
    if not exported.exists():
        from optimum.intel import OVModelForCausalLM

        model = OVModelForCausalLM.from_pretrained(folder, export=True, load_in_8bit=False, compile=False)
        model.save_pretrained(exported)
    return exported


def int8_model(folder: Path) -> Path:
    """The exported model with its weights compressed to 8 bits."""
    compressed = folder / "openvino-int8"
    if not compressed.exists():
        import nncf

        exported = exported_model(folder)
        model = nncf.compress_weights(openvino.Core().read_model(exported / "openvino_model.xml"))
        openvino.save_model(model, compressed / "openvino_model.xml", compress_to_fp16=False)
        for file in exported.glob("*.json"):
            shutil.copy(file, compressed)
    return compressed
