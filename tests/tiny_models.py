"""The models on which the tests of training, measures and adapters run."""

from __future__ import annotations

import dataclasses

from transformers import PreTrainedModel

import architectures
import plans


def random_model(architecture: str) -> PreTrainedModel:
    """A tiny random model with the bundled vocabulary and a context of 512 tokens."""
    plan = dataclasses.replace(plans.SMOKE_PLANS[architecture], vocabulary=4096, context=512)
    return architectures.build_model(plan, 0).eval()
