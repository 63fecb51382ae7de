"""Train four voices as LoRA adapters over a bundled model, and write them in PEFT's own format.

    python models/training/train_adapters.py                    # all four: models/adapters/<voice>/
    python models/training/train_adapters.py --voice pirate     # one of them anew
    python models/training/train_adapters.py --card-only        # write the card again from the JSON file
    python models/training/train_adapters.py --smoke --base models/storyteller --out /tmp/adapters

PEFT is not needed: the format is a JSON file and a file of tensors whose names start with `base_model.model.`. A voice
that is finished is on disk with its numbers, so after an interruption `--voice` trains what is missing.

Rank r on a layer of `in` inputs and `out` outputs has r (in + out) parameters, in float32 4 r (in + out) bytes. Over
the Llama of `plans.py` rank 16 on all four projections of attention has 688 kB, rank 8 on attention and MLP 860 kB;
rank 16 there would have 1.7 MB. Alpha is twice the rank, so that the update's factor alpha / r is 2 whatever the rank.
"""

import argparse
import copy
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from string import Template

import torch
from safetensors.torch import save_file
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "code"))

from cards import flatten  # noqa: E402
from evaluate import Settings as StorySettings  # noqa: E402
from evaluate import document_losses, story_prompts, summarise_losses  # noqa: E402
from generation import continue_prompts, encode, load_storyteller  # noqa: E402
from train import describe_hardware, next_token_loss  # noqa: E402
from utils import LoraLayer, add_lora, lora_state_dict  # noqa: E402
from voices import VOICES, plain_stories, voices_in  # noqa: E402

MODELS = HERE.parent
ADAPTERS = MODELS / "adapters"
CARD_TEMPLATE = HERE / "adapter_card_template.md"
# The layers of each set, by the last part of their name.
TARGETS: dict[str, dict[str, tuple[str, ...]]] = {
    "llama": {
        "queries and values": ("q_proj", "v_proj"),
        "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
        "attention and MLP": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    },
    "gpt2": {  # one matrix makes queries, keys and values; both parts of a layer end in a c_proj
        "queries and values": ("c_attn",),
        "attention": ("c_attn",),
        "attention and MLP": ("c_attn", "c_fc", "c_proj"),
    },
}


@dataclass(frozen=True)
class Settings:
    """How long is trained and how much is measured."""

    seed: int = 2024
    steps: int = 160  # a trial over the GPT-2: 45 steps took a voice from 3.3 to 0.5 nats per token
    rows: int = 16  # stories in a step
    length: int = 256  # tokens of a row; nearly every story fits
    peak_rate: float = 3e-3
    warm_up: float = 0.05  # share of the steps
    held_out_stories: int = 150
    prompts: int = 40
    new_tokens: int = 80


SMOKE = Settings(steps=4, rows=4, length=64, held_out_stories=4, prompts=2, new_tokens=8)


def targets_of(model: PreTrainedModel, layers: str) -> tuple[str, ...]:
    """The names of a set of layers in this model.

    Raises:
        ValueError: the program does not know the architecture.
    """
    kind = model.config.model_type
    if kind not in TARGETS:
        raise ValueError(f"no sets of layers are known for {kind!r}; there are {sorted(TARGETS)}")
    return TARGETS[kind][layers]


def make_rows(tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, S + 1) and the weight of each target (B, S): 1, and 0 on the padding at the right.

    Every second text has an end-of-text token in front, as in the training of the base; all have one behind.
    """
    end = tokenizer.eos_token_id
    rows = [[end] * (index % 2) + ids + [end] for index, ids in enumerate(encode(tokenizer, texts))]
    ids = torch.full((len(rows), length + 1), end)
    weights = torch.zeros(len(rows), length)
    for index, row in enumerate(rows):
        kept = row[: length + 1]
        ids[index, : len(kept)] = torch.tensor(kept)
        weights[index, : len(kept) - 1] = 1
    return ids, weights


def rate_at(settings: Settings, step: int) -> float:
    """Linear warm-up, then a linear fall to nothing."""
    progress = (step + 1) / settings.steps
    return settings.peak_rate * min(progress / settings.warm_up, (1 - progress) / (1 - settings.warm_up) + 1e-3, 1.0)


def train_voice(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, settings: Settings
) -> tuple[PreTrainedModel, list[float]]:
    """A copy of the base with a trained adapter, and the loss of every step (nats per token)."""
    voice = VOICES[name]
    torch.manual_seed(settings.seed)
    targets = targets_of(base, voice.layers)
    model = add_lora(copy.deepcopy(base), voice.rank, alpha=2 * voice.rank, targets=targets)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.peak_rate, weight_decay=0.0)
    stories = plain_stories(f"{name}-{settings.seed}", settings.steps * settings.rows)
    losses = []
    for step in tqdm(range(settings.steps), desc=name, unit="step"):
        texts = [voice.rewrite(next(stories)) for _ in range(settings.rows)]
        ids, weights = make_rows(tokenizer, texts, settings.length)
        optimizer.param_groups[0]["lr"] = rate_at(settings, step)
        loss = next_token_loss(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return model.eval(), losses


def loss_on(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float:
    """Mean loss per token (nats) of whole documents."""
    return summarise_losses(document_losses(model, encode(tokenizer, texts)))["loss"]


def measure_voice(
    model: PreTrainedModel, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, settings: Settings
) -> dict[str, object]:
    """Losses of base and adapter on the voice's held-out stories and on plain ones, and how the adapter speaks."""
    plain = list(plain_stories("evaluation", settings.held_out_stories, held_out=True))
    spoken = [VOICES[name].rewrite(text) for text in plain]
    prompts = story_prompts(StorySettings(stories=settings.prompts))
    found = continue_prompts(model, tokenizer, prompts, settings.new_tokens, do_sample=False)
    texts = [entry["continuation"] for entry in found]
    before, after = loss_on(base, tokenizer, plain), loss_on(model, tokenizer, plain)
    return {
        "stories": len(plain),
        "voice_before": loss_on(base, tokenizer, spoken),
        "voice_after": loss_on(model, tokenizer, spoken),
        "plain_before": before,
        "plain_after": after,
        "plain_cost": round(after - before, 4),
        "prompts": len(texts),
        "speaks": sum(voices_in(text) == {name} for text in texts),
        "sample": prompts[0] + texts[0],
    }


def adapter_config(model: PreTrainedModel, base_name: str) -> dict[str, object]:
    """What PEFT's `adapter_config.json` says of plain LoRA; everything that is left out has its default."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    first = next(iter(layers.values()))
    return {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": isinstance(first.base_layer, Conv1D),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": round(first.scaling * first.r),
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": first.r,
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def write_adapter(model: PreTrainedModel, folder: Path, base_name: str) -> int:
    """Write an adapter as PEFT does; returns the bytes of both files."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight"}
    state = {}
    for name, weight in lora_state_dict(model).items():
        layer, _, part = name.rpartition(".")
        state[f"base_model.model.{layer}.{parts[part]}"] = weight.float().contiguous()
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = adapter_config(model, base_name)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "adapter_model.safetensors").chmod(0o644)
    return sum(path.stat().st_size for path in folder.iterdir())


def make_voice(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, settings: Settings, out: Path, base_name: str
) -> dict[str, object]:
    """Train, measure and write one voice; returns its numbers."""
    started = time.perf_counter()
    model, losses = train_voice(base, tokenizer, name, settings)
    seconds = time.perf_counter() - started
    size = write_adapter(model, out / name, base_name)
    config = adapter_config(model, base_name)
    return {
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "layers": VOICES[name].layers,
        "targets": " ".join(config["target_modules"]),
        "parameters": sum(weight.numel() for weight in lora_state_dict(model).values()),
        "kilobytes": round(size / 1e3, 1),
        "steps": settings.steps,
        "tokens_per_step": settings.rows * settings.length,
        "seconds": round(seconds, 1),
        "first_loss": round(losses[0], 4),
        "last_loss": round(math.fsum(losses[-20:]) / len(losses[-20:]), 4),
        "losses": [round(loss, 4) for loss in losses[:: max(1, settings.steps // 40)]],
        **measure_voice(model, base, tokenizer, name, settings),
    }


def render_card(evaluation: dict, template: str) -> str:
    """The card of the adapters, from the numbers alone."""
    voices = evaluation["voices"]
    shapes = [
        f"| {name} | {row['rank']} | {row['alpha']} | {row['targets'].replace(' ', ', ')} "
        f"| {row['parameters']:,} | {row['kilobytes']} |"
        for name, row in voices.items()
    ]
    losses = [
        f"| {name} | {row['voice_before']} | {row['voice_after']} | {row['plain_before']} | {row['plain_after']} "
        f"| {row['plain_cost']:+} | {row['speaks']} of {row['prompts']} |"
        for name, row in voices.items()
    ]
    samples = [
        f"{name}:\n\n" + "\n".join(f"    {line}" for line in row["sample"].split("\n")) for name, row in voices.items()
    ]
    values = flatten({key: value for key, value in evaluation.items() if key != "voices"})
    values |= {"shapes": "\n".join(shapes), "losses": "\n".join(losses), "samples": "\n\n".join(samples)}
    return Template(template).substitute(values)


def write_numbers(out: Path, evaluation: dict) -> None:
    """Write evaluation.json and the card."""
    (out / "evaluation.json").write_text(json.dumps(evaluation, indent=1) + "\n")
    (out / "MODEL_CARD.md").write_text(render_card(evaluation, CARD_TEMPLATE.read_text()))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--base", type=Path, default=MODELS / "storyteller-llama", help="folder of the base model")
    add("--out", type=Path, default=ADAPTERS, help="folder for the adapters, their numbers and the card")
    add("--voice", choices=list(VOICES), action="append", help="only this voice; may be given several times")
    add("--threads", type=int, default=2, help="CPU threads")
    add("--smoke", action="store_true", help="a few steps only, to try the program out; needs --out")
    add("--card-only", action="store_true", help="only write the card again from evaluation.json")
    return parser.parse_args(arguments)


def main() -> None:
    """Train the voices and write everything."""
    arguments = parse_arguments()
    out, numbers = arguments.out, arguments.out / "evaluation.json"
    if arguments.smoke and out == ADAPTERS:
        raise SystemExit("--smoke needs --out: it must not replace the bundled adapters")
    known = json.loads(numbers.read_text()) if numbers.exists() else {"voices": {}}
    if arguments.card_only:
        write_numbers(out, known)
        return
    torch.set_num_threads(arguments.threads)
    base, tokenizer = load_storyteller(arguments.base)
    settings = SMOKE if arguments.smoke else Settings()
    for name in arguments.voice or VOICES:
        known["voices"][name] = make_voice(base, tokenizer, name, settings, out, arguments.base.name)
        known |= {"base": arguments.base.name, "hardware": describe_hardware("cpu"), "peak_rate": settings.peak_rate}
        known["voices"] = {name: known["voices"][name] for name in VOICES if name in known["voices"]}
        write_numbers(out, known)
        row = known["voices"][name]
        print(
            f"{name}: voice {row['voice_before']} to {row['voice_after']}, plain {row['plain_cost']:+} nats per token"
        )


if __name__ == "__main__":
    main()
