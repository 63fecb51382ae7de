"""Measure a storyteller and write the numbers down: evaluation.json and MODEL_CARD.md in the model's folder.

    python models/training/evaluate.py               # measure the bundled GPT-2, write both files
    python models/training/evaluate.py --card-only   # write the card again from the JSON file
    python models/training/evaluate.py --model models/storyteller-llama --log models/training/training_log_llama.json

The card is a template filled from the JSON file, so the two cannot disagree. A model of another architecture than GPT-2
is asked in addition what it remembers of long documents (`measures.py`), and gets the template that has room for it.
"""

import argparse
import json
import math
import random
import re
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "code"))

from cards import render_card  # noqa: E402
from corpus import (  # noqa: E402
    BOYS,
    CAPITALS,
    DOCUMENT_KINDS,
    GIRLS,
    NAMES,
    corpus_statistics,
    documents,
    labelled_documents,
)
from corpus_books import MEMORY_SHARES  # noqa: E402
from generation import chunks, continue_prompts, encode, load_storyteller  # noqa: E402
from measure import timed  # noqa: E402
from measures import MemorySettings, held_out_memories, measure_books, measure_positions, measure_sums  # noqa: E402
from models import load_model  # noqa: E402
from ngrams import TrigramModel  # noqa: E402

STORYTELLER = HERE.parent / "storyteller"
CARD_TEMPLATE = HERE / "model_card_template.md"
LONG_CARD_TEMPLATE = HERE / "model_card_template_llama.md"  # for a model whose memory is measured
STORY_OPENINGS = (
    "Once upon a time",
    "Once upon a time there was a",
    "One morning, {name}",
    "One evening, {name}",
    "There was once a",
    "Long ago,",
    "In a village by the sea lived",
    "{name} was a",
    "This is the story of {name}",
    "A long time ago a",
)
CONTINUED_PROMPTS = (
    "The quick brown fox jumped over the",
    "The rain in Spain falls",
    "What comes up must",
    "Once upon a time there was a",
    "One morning, Mira",
    "Dear Anna,",
    "Question: What is the capital of France?\nAnswer:",
    "Question: What is 7 plus 5?\nAnswer:",
    "A friend in need",
    "In a small town between two hills lived a clockmaker named Tomas",
)


@dataclass(frozen=True)
class Settings:
    """How much is measured, and with which seeds."""

    seed: str = "evaluation"
    held_out_documents: int = 1500
    trigram_tokens: int = 3_000_000
    trigram_tuning_documents: int = 500
    stories: int = 200
    story_tokens: int = 400  # at most, after the prompt
    batch: int = 25
    temperature: float = 0.8
    top_p: float = 0.95
    continuation_tokens: int = 60
    corpus_documents: int = 20_000


@torch.no_grad()
def document_losses(model: PreTrainedModel, encoded: list[list[int]], batch: int = 16) -> list[tuple[float, int]]:
    """Per document the summed loss in nats and the number of predicted tokens.

    A document a b is read as E a b and has to predict a, b and the final E (E: end of text).
    """
    end_of_text = model.config.eos_token_id
    context = model.config.max_position_embeddings
    order = sorted(
        range(len(encoded)), key=lambda index: len(encoded[index])
    )  # similar lengths together: little padding
    results: list[tuple[float, int]] = [(0.0, 0)] * len(encoded)
    for part in tqdm(list(chunks(order, batch)), desc="held-out loss", unit="batch"):
        rows = [torch.tensor([end_of_text, *encoded[index], end_of_text][: context + 1]) for index in part]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        ids = padded.to(model.device)  # (B, S + 1), padded on the right
        inputs = ids[:, :-1].clamp(min=0)
        logits = model(input_ids=inputs, attention_mask=(ids[:, :-1] >= 0).long(), use_cache=False).logits  # (B, S, V)
        losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none", ignore_index=-100).sum(
            dim=1
        )  # (B,)
        for index, loss, row in zip(part, losses.tolist(), rows, strict=True):
            results[index] = (loss, len(row) - 1)
    return results


def summarise_losses(results: list[tuple[float, int]]) -> dict[str, float]:
    """Documents, tokens, loss in nats per token, and perplexity."""
    tokens = sum(count for _, count in results)
    loss = sum(total for total, _ in results) / tokens
    return {"documents": len(results), "tokens": tokens, "loss": round(loss, 4), "perplexity": round(math.exp(loss), 3)}


def held_out_documents(settings: Settings, count: int) -> list[tuple[str, str]]:
    """(kind, text) of held-out documents in the shares of the corpus."""
    stream = labelled_documents(settings.seed, held_out=True)
    return [next(stream) for _ in tqdm(range(count), desc="held-out documents", unit="doc")]


def measure_held_out(
    model: PreTrainedModel, encoded: list[list[int]], kinds: list[str], batch: int = 16
) -> dict[str, dict[str, float]]:
    """Loss over all held-out documents and per kind of document."""
    results = document_losses(model, encoded, batch)
    by_kind: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for kind, result in zip(kinds, results, strict=True):
        by_kind[kind].append(result)
    return {
        "all": summarise_losses(results),
        **{kind: summarise_losses(by_kind[kind]) for kind in (*DOCUMENT_KINDS, *MEMORY_SHARES) if kind in by_kind},
    }


def training_tokens(tokenizer: PreTrainedTokenizerBase, seed: str, limit: int) -> list[list[int]]:
    """Encoded documents of the training split, at least `limit` tokens of them."""
    encoded: list[list[int]] = []
    total = 0
    with tqdm(total=limit, desc="trigram text", unit="token", unit_scale=True) as bar:
        for part in range(1_000_000):
            encoded += encode(tokenizer, list(documents(f"{seed}-{part}", 1000)))
            added = sum(map(len, encoded[-1000:]))
            total += added
            bar.update(added)
            if total >= limit:
                return encoded
    return encoded


def measure_baselines(
    tokenizer: PreTrainedTokenizerBase, encoded: list[list[int]], settings: Settings
) -> dict[str, dict[str, float]]:
    """Loss of the unigram and the interpolated trigram model on the same documents."""
    training = training_tokens(tokenizer, f"{settings.seed}-trigram", settings.trigram_tokens)
    tuning = encode(tokenizer, list(documents(f"{settings.seed}-tuning", settings.trigram_tuning_documents)))
    model = TrigramModel.fit(training, tuning, tokenizer.eos_token_id, len(tokenizer))
    losses = {"unigram": model.unigram_loss(encoded), "trigram": model.loss(encoded)}
    return {name: {"loss": round(loss, 4), "perplexity": round(math.exp(loss), 3)} for name, loss in losses.items()}


def story_prompts(settings: Settings) -> list[str]:
    """Story openings, with a name drawn for those that need one."""
    rng = random.Random(f"{settings.seed}-prompts")
    return [
        STORY_OPENINGS[index % len(STORY_OPENINGS)].format(name=rng.choice(GIRLS + BOYS))
        for index in range(settings.stories)
    ]


def sampling_options(settings: Settings) -> dict[str, object]:
    """Arguments of `generate` for sampling."""
    return {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}


def sample_stories(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings) -> list[dict]:
    """Seeded stories; prompts of the same opening share a batch."""
    torch.manual_seed(0)
    prompts = sorted(story_prompts(settings), key=len)
    stories: list[dict] = []
    for part in tqdm(list(chunks(prompts, settings.batch)), desc="stories", unit="batch"):
        stories += continue_prompts(model, tokenizer, part, settings.story_tokens, **sampling_options(settings))
    return stories


def sentences_of(text: str) -> list[str]:
    """Cut a text behind full stops, question and exclamation marks (and the quote that may follow them)."""
    return [sentence for sentence in re.split(r"(?<=[.!?])\"?\s+", text.strip()) if sentence]


def names_in(text: str) -> list[str]:
    """The character names in a text, in order of appearance."""
    return [word for word in re.findall(r"[A-Z][a-z]+", text) if word in NAMES]


def keeps_name(story: str) -> bool:
    """Whether a story ends with the character it began with.

    The character is the first name in the text. The story keeps it if the name stands in the last two sentences and
    every other name in those two sentences has been introduced before them.
    """
    names = names_in(story)
    sentences = sentences_of(story)
    if not names or len(sentences) < 3:
        return False
    before, end = names_in(" ".join(sentences[:-2])), names_in(" ".join(sentences[-2:]))
    return names[0] in end and set(end) <= set(before)


def judge_stories(stories: list[dict]) -> dict[str, float]:
    """How many stories end by themselves and how many keep their character's name."""
    texts = [story["prompt"] + story["continuation"] for story in stories]
    count = len(stories)
    return {
        "stories": count,
        "ended": sum(story["ended"] for story in stories),
        "ended_percent": round(100 * sum(story["ended"] for story in stories) / count, 1),
        "kept_name": sum(map(keeps_name, texts)),
        "kept_name_percent": round(100 * sum(map(keeps_name, texts)) / count, 1),
        "at_most_two_names_percent": round(100 * sum(len(set(names_in(text))) <= 2 for text in texts) / count, 1),
        "mean_words": round(sum(len(text.split()) for text in texts) / count, 1),
        "distinct_percent": round(100 * len(set(texts)) / count, 1),
    }


def measure_capitals(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """How many capitals the model knows when it answers greedily."""
    prompts = {f"Question: What is the capital of {country}?\nAnswer:": city for country, city in CAPITALS.items()}
    answers = continue_prompts(model, tokenizer, list(prompts), 20, do_sample=False)
    right = sum(f"is {prompts[answer['prompt']]}." in answer["continuation"] for answer in answers)
    return {"asked": len(prompts), "right": right, "right_percent": round(100 * right / len(prompts), 1)}


def continue_all(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings) -> list[dict]:
    """The fixed prompts, each continued greedily and once by sampling."""
    torch.manual_seed(1)
    results = []
    for prompt in tqdm(CONTINUED_PROMPTS, desc="continuations", unit="prompt"):
        greedy = continue_prompts(model, tokenizer, [prompt], settings.continuation_tokens, do_sample=False)[0]
        sampled = continue_prompts(
            model, tokenizer, [prompt], settings.continuation_tokens, **sampling_options(settings)
        )[0]
        results.append({"prompt": prompt, "greedy": greedy["continuation"], "sampled": sampled["continuation"]})
    return results


def describe_model(model: PreTrainedModel, folder: Path) -> dict[str, object]:
    """Architecture and size."""
    config = model.config
    described = {
        "parameters": model.num_parameters(),
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "head_dimension": config.hidden_size // config.num_attention_heads,
        "context": config.max_position_embeddings,
        "vocabulary": config.vocab_size,
        "weight_megabytes": round((folder / "model.safetensors").stat().st_size / 1e6, 2),
    }
    if config.model_type != "gpt2":
        described |= {"kv_heads": config.num_key_value_heads, "mlp_width": config.intermediate_size}
    return described


def measure_loading(folder: Path) -> dict[str, float]:
    """Seconds to load model and tokenizer from disk, as `load_model` does it, once the libraries are imported."""
    loading = timed(lambda: load_model(folder, device="cpu"))
    return {"repeats": len(loading.seconds), "seconds": round(loading.median_s, 2)}


def describe_training(log: dict) -> dict[str, object]:
    """The part of the training log that the card shows."""
    plan = log["plan"]
    budget = f"--minutes {plan['minutes']:g}" if log["ended_by"] == "minutes" else f"--tokens {plan['tokens']}"
    architecture = plan.get("architecture", "gpt2")  # a log of before there were two has none
    if architecture != "gpt2":
        budget = f"--architecture {architecture} {budget}"
    device = "" if log["hardware"].startswith("CPU") else " --device cuda --workers 14"
    return {
        "steps": log["steps"],
        "tokens": log["tokens"],
        "minutes": round(log["seconds"] / 60, 1),
        "tokens_per_second": log["tokens_per_second"],
        "hardware": log["hardware"],
        "ended_by": log["ended_by"],
        "first_loss": log["losses"][0]["loss"],
        "last_loss": log["losses"][-1]["loss"],
        "last_held_out_loss": log["held_out_losses"][-1]["loss"],
        "peak_rate": plan["peak_rate"],
        "tokens_per_step": plan["tokens_per_step"],
        "weight_decay": plan["weight_decay"],
        "decay_percent": round(100 * (1 - plan["decay_start"])),
        **{name: plan[name] for name in ("drill_start", "drill_steps", "focus_steps", "focus_weight", "ramp_steps")},
        "events": "; ".join(log["events"]) or "none",
        "command": f"python models/training/train.py {budget} --seed {plan['seed']}{device}",
        **({} if architecture == "gpt2" else describe_long_training(log)),
    }


def describe_long_training(log: dict) -> dict[str, object]:
    """What the card of a model with a long context shows beside that."""
    plan, lines = log["plan"], log["held_out_losses"]
    best = min(lines, key=lambda line: line["loss"])
    drill_end = plan["drill_start"] + plan["drill_steps"] * plan["drill_every"]
    drilled = [line for line in lines if line["step"] <= drill_end][-1]
    return {
        "best_held_out_loss": best["loss"],
        "best_step": best["step"],
        "first_held_out_tokens": lines[0]["tokens"],
        "first_drill_loss": lines[0]["drill_loss"],
        "first_answer_loss": lines[0]["answer_loss"],
        "drill_end": drill_end,
        "drill_end_loss": drilled["drill_loss"],
        "drill_end_answer_loss": drilled["answer_loss"],
        "last_drill_loss": lines[-1]["drill_loss"],
        "last_answer_loss": lines[-1]["answer_loss"],
        "windows": "; then ".join(f"{' '.join(map(str, lengths))}" for _, lengths in plan["windows"]),
        "memory_percent": round(100 * plan["memory_share"]),
        **{name: plan[name] for name in ("drill_every", "answer_weight")},
    }


def measure_memory(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: MemorySettings
) -> dict[str, object]:
    """What a model with a long context remembers, and its sums."""
    kinds, texts = zip(*held_out_memories(settings, model.config.max_position_embeddings), strict=True)
    return {
        "settings": asdict(settings),
        "held_out": measure_held_out(model, encode(tokenizer, list(texts)), list(kinds), batch=4),
        "books": measure_books(model, tokenizer, settings),
        "positions": measure_positions(model, tokenizer, settings),
        "sums": measure_sums(model, tokenizer, settings),
    }


def evaluate(folder: Path, log: dict, settings: Settings, memory: MemorySettings) -> dict[str, object]:
    """All numbers of the card; the memory of a GPT-2, whose context is short, is not measured."""
    model, tokenizer = load_storyteller(folder)
    kinds, texts = zip(*held_out_documents(settings, settings.held_out_documents), strict=True)
    encoded = encode(tokenizer, list(texts))
    stories = sample_stories(model, tokenizer, settings)
    return {
        "settings": asdict(settings),
        "model": describe_model(model, folder),
        "training": describe_training(log),
        "corpus": {
            name: round(value, 4) for name, value in corpus_statistics(settings.seed, settings.corpus_documents).items()
        },
        "held_out": measure_held_out(model, encoded, list(kinds)),
        "baselines": measure_baselines(tokenizer, encoded, settings),
        "stories": judge_stories(stories),
        "capitals": measure_capitals(model, tokenizer),
        "continuations": continue_all(model, tokenizer, settings),
        "sampled_stories": stories[:: max(1, len(stories) // 10)][:10],
        **({} if model.config.model_type == "gpt2" else long_evaluation(model, tokenizer, folder, memory)),
    }


def long_evaluation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, settings: MemorySettings
) -> dict[str, object]:
    """What a model remembers and how fast it loads, and the first storyteller's losses on the documents of both."""
    first = json.loads((STORYTELLER / "evaluation.json").read_text())
    return {
        "memory": measure_memory(model, tokenizer, settings),
        "first_storyteller": {"held_out": first["held_out"]},
        "loading": measure_loading(folder),
    }


def write_card(folder: Path) -> None:
    """Fill the card from evaluation.json."""
    evaluation = json.loads((folder / "evaluation.json").read_text())
    template = LONG_CARD_TEMPLATE if "memory" in evaluation else CARD_TEMPLATE
    (folder / "MODEL_CARD.md").write_text(render_card(evaluation, template.read_text()))


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, default=STORYTELLER, help="folder of the model; both files are written there"
    )
    parser.add_argument("--log", type=Path, default=HERE / "training_log.json", help="training log")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, to try the program out")
    parser.add_argument("--card-only", action="store_true", help="only write the card again from evaluation.json")
    return parser.parse_args()


def main() -> None:
    """Evaluate and write both files."""
    arguments = parse_arguments()
    if not arguments.card_only:
        torch.set_num_threads(arguments.threads)
        quick = Settings(
            held_out_documents=100,
            trigram_tokens=100_000,
            trigram_tuning_documents=50,
            stories=20,
            batch=10,
            corpus_documents=1000,
        )
        quick_memory = MemorySettings(books=4, long_documents=4, memories=30)
        chosen = (quick, quick_memory) if arguments.quick else (Settings(), MemorySettings())
        evaluation = evaluate(arguments.model, json.loads(arguments.log.read_text()), *chosen)
        (arguments.model / "evaluation.json").write_text(json.dumps(evaluation, indent=1) + "\n")
    write_card(arguments.model)
    print(f"written: {arguments.model / 'evaluation.json'} and MODEL_CARD.md")


if __name__ == "__main__":
    main()
