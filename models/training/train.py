"""Train a storyteller: a small language model that the lessons serve, from generated text, on a laptop.

    python models/training/train.py --minutes 64          # the bundled GPT-2: models/storyteller/
    python models/training/train.py --architecture llama --device cuda --workers 14   # a Llama; see below
    python models/training/train.py --smoke --out /tmp/x  # the same files from a toy-sized model in under a minute
    python models/training/train.py --resume              # go on from the last checkpoint

Every batch is a function of the seed and the step alone, so a resumed run sees the same data as an uninterrupted one.
Ctrl-C (or SIGTERM) saves a checkpoint and exits; a killed run loses at most the minutes since the last checkpoint. The
log is written with every checkpoint, and the weights with the lowest held-out loss are kept and exported.

A model of the second architecture, and four voices for it, from nothing. The times of training are of an H200 with 16
CPU cores, those of the rest of two CPU cores (AVX-512 with bfloat16):

    python models/training/train.py --architecture llama --size          # at once: parameters and megabytes
    python models/training/train.py --architecture llama --device cuda --workers 14   # 7 minutes, 600 million tokens
    python models/training/evaluate.py --model models/storyteller-llama \\
        --log models/training/training_log_llama.json                    # 3 to 6 minutes
    python models/training/train_adapters.py                             # 10 minutes, 2 to 3 for each voice

The batches take as much time as the steps, so give `--workers` nearly all cores. Two CPU cores alone read 3,300 to
5,200 tokens/s, by the window, which makes some 40 hours for the whole plan. The log of the bundled model shows what
less would give: the step from copying nothing to looking things up lies between 33 and 66 million tokens, three to
four hours of two cores. A run that ends there was not tried.
"""

import argparse
import dataclasses
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from architectures import build_model, describe_size
from batches import answer_mask, held_out_batches, load_steps, make_drill
from corpus import documents
from plans import PLANS, SMOKE_PLANS, Plan

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent
FOLDERS = {"gpt2": "storyteller", "llama": "storyteller-llama"}  # under models/
END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(plan: Plan) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE vocabulary from training documents; any UTF-8 text comes back unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = documents(f"tokenizer-{plan.seed}", plan.tokenizer_documents)
    tokenizer.train_from_iterator(tqdm(texts, total=plan.tokenizer_documents, desc="tokenizer", unit="doc"), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        padding_side="left",
        model_max_length=plan.context,
        clean_up_tokenization_spaces=False,
        add_prefix_space=False,
    )


def bundled_tokenizer(plan: Plan) -> PreTrainedTokenizerFast:
    """The tokenizer of the bundled model that the plan names, for this plan's context."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS / plan.tokenizer_from, local_files_only=True)
    tokenizer.model_max_length = plan.context
    return tokenizer


def next_token_loss(model: PreTrainedModel, ids: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross entropy of predicting `ids[:, 1:]` from `ids[:, :-1]`; ids (B, S + 1), weights per target (B, S)."""
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        inputs = ids[:, :-1]
        hidden = model.base_model(
            input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False
        ).last_hidden_state  # (B, S, D)
        logits = model.get_output_embeddings()(hidden)  # (B, S, V)
    logits, targets = logits.flatten(0, 1).float(), ids[:, 1:].flatten()
    if weights is None:
        return F.cross_entropy(logits, targets)
    losses = F.cross_entropy(logits, targets, reduction="none")  # (B · S,)
    return (losses * weights.flatten()).sum() / weights.sum()


@torch.no_grad()
def held_out_loss(
    model: PreTrainedModel, batches: list[torch.Tensor], weights: list[torch.Tensor] | None = None
) -> float:
    """Mean loss per token over the held-out windows (B, S + 1), or its weighted mean; weights (B, S) for each batch."""
    weights = weights or [torch.ones_like(batch[:, 1:]) for batch in batches]
    device = next(model.parameters()).device
    model.eval()
    losses = [
        (next_token_loss(model, batch.to(device), weight.to(device)).item(), weight.sum().item())
        for batch, weight in zip(batches, weights, strict=True)
        if weight.any()
    ]
    model.train()
    return sum(loss * weight for loss, weight in losses) / sum(weight for _, weight in losses)


def learning_rate(plan: Plan, progress: float) -> float:
    """Linear warm-up, the peak, then a linear fall to the final rate; `progress` runs from 0 to 1."""
    if progress < plan.warm_up:
        return plan.peak_rate * (progress + 1e-3) / (plan.warm_up + 1e-3)
    fall = min(1.0, max(0.0, progress - plan.decay_start) / (1 - plan.decay_start))
    return plan.peak_rate + (plan.final_rate - plan.peak_rate) * fall


def build_optimizer(plan: Plan, model: PreTrainedModel) -> torch.optim.AdamW:
    """AdamW that decays matrices only, not biases and norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.peak_rate, betas=(0.9, 0.95), fused=True)


def compile_blocks(model: PreTrainedModel) -> None:
    """Compile every block in place, once for each shape it meets; parameters and their names stay as they are.

    The model around the blocks is not compiled: there transformers would build a whole attention mask, where it
    otherwise leaves the causal mask to the kernel, which then skips half of the work.
    """
    torch._dynamo.config.recompile_limit = 64  # windows, drills and held-out windows, in training and in evaluation
    for block in model.base_model.layers if hasattr(model.base_model, "layers") else model.base_model.h:
        block.compile(dynamic=False)


RUN_STATE = ("step", "elapsed_s", "losses", "held_out", "events", "best_loss")  # of a trainer, for its checkpoint


@dataclass
class Trainer:
    """A run: the model, its optimizer, how far it has come, its log, and where its best model so far is kept."""

    plan: Plan
    tokenizer: PreTrainedTokenizerFast
    model: PreTrainedModel
    checkpoint: Path
    device: str = "cpu"
    compiled: bool = False  # whether the blocks run compiled
    workers: int = 0  # processes that make the steps' batches ahead; 0: each is made when it is needed
    step: int = 0
    elapsed_s: float = 0.0
    losses: list[dict[str, float]] = field(default_factory=list)
    held_out: list[dict[str, float]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    best_loss: float = float("inf")  # held-out, of the weights in best.pt

    def __post_init__(self) -> None:
        self.model.to(self.device)
        if self.compiled:
            compile_blocks(self.model)
        self.optimizer = build_optimizer(self.plan, self.model)

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self.step * self.plan.tokens_per_step

    @property
    def progress(self) -> float:
        """How much of the run is done, from 0 to 1: by tokens or by time, whichever is further."""
        by_time = self.elapsed_s / (60 * self.plan.minutes) if self.plan.minutes else 0.0
        return min(1.0, max(self.tokens / self.plan.tokens, by_time))

    def train_step(self, batch: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """One optimizer step on token ids (B, S + 1) with a weight per target (B, S); returns the loss, a scalar.

        The loss stays on the device: to read it is to wait for the step.
        """
        rate = learning_rate(self.plan, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = batch.to(self.device)
        loss = next_token_loss(self.model, batch, None if weights is None else weights.to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.detach()

    def run(self, stop_after: int | None = None) -> None:
        """Train until the budget is used up (or `stop_after` steps are done); an interrupt saves a checkpoint."""
        batches = held_out_batches(self.plan, self.tokenizer)
        steps = iter(load_steps(self.plan, self.tokenizer, self.step, self.workers))
        saved_s = self.elapsed_s
        bar = tqdm(
            total=100.0,
            initial=round(100 * self.progress, 2),
            desc="training",
            bar_format="{desc} {percentage:5.1f}%|{bar}| {elapsed} {postfix}",
        )
        try:
            while self.progress < 1 and (stop_after is None or self.step < stop_after):
                self.timed_step(bar, batches, steps)
                if self.elapsed_s - saved_s > 60 * self.plan.checkpoint_minutes:
                    self.save_checkpoint()
                    saved_s = self.elapsed_s
        except KeyboardInterrupt:
            self.events.append(f"interrupted at step {self.step} after {self.elapsed_s:.0f} s")
            self.save_checkpoint()
            raise
        finally:
            bar.close()
        self.record_held_out(batches)

    def timed_step(self, bar: tqdm, batches: list[torch.Tensor], steps: Iterator[tuple]) -> None:
        """One step with its logging; its time, and that of its batch, counts towards the budget."""
        started = time.perf_counter()
        loss = self.train_step(*next(steps))
        if self.step % self.plan.held_out_interval == 0:
            self.record_held_out(batches)
        seconds = time.perf_counter() - started
        self.elapsed_s += seconds
        bar.update(100 * self.progress - bar.n)
        if self.step % self.plan.log_interval == 0 or self.step == 1:
            self.losses.append(self.log_line(loss.item()))
        if self.step % self.plan.show_interval == 0:
            speed = self.plan.tokens_per_step / seconds
            bar.set_postfix_str(f"step {self.step} loss {loss.item():.3f} {speed:,.0f} tokens/s", refresh=False)

    def log_line(self, loss: float) -> dict[str, float]:
        """One line of the training log."""
        rate = learning_rate(self.plan, self.progress)
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(self.elapsed_s, 1),
            "loss": round(loss, 4),
            "rate": float(f"{rate:.4g}"),
        }

    def record_held_out(self, batches: list[torch.Tensor]) -> None:
        """Log the held-out loss, that of answers and of a drill; keep the weights if they are the best so far."""
        if self.held_out and self.held_out[-1]["step"] == self.step:
            return
        loss = round(held_out_loss(self.model, batches), 4)
        line = {"step": self.step, "tokens": self.tokens, "loss": loss}
        drill = make_drill(self.plan, self.tokenizer, step=-1)  # the same rows every time, never trained on
        line["drill_loss"] = round(held_out_loss(self.model, [drill]), 4)
        if self.plan.held_out_memories:
            answers = [answer_mask(self.tokenizer, batch[:, 1:]).float() for batch in batches]
            line["answer_loss"] = round(held_out_loss(self.model, batches, answers), 4)
        self.held_out.append(line)
        if loss < self.best_loss:
            self.best_loss = loss
            self.write(self.model.state_dict(), "best.pt")

    def write(self, content: dict, name: str) -> None:
        """Save tensors in the checkpoint's folder; an interrupted write leaves the old file in place."""
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        torch.save(content, self.checkpoint / f"{name}.part")
        (self.checkpoint / f"{name}.part").replace(self.checkpoint / name)

    def load_best(self) -> None:
        """Put the weights with the lowest held-out loss into the model."""
        if self.held_out and self.held_out[-1]["loss"] > self.best_loss:
            best = min(self.held_out, key=lambda line: line["loss"])
            self.model.load_state_dict(torch.load(self.checkpoint / "best.pt", weights_only=True))
            self.events.append(f"the weights of step {best['step']} are the best and were written")

    def save_checkpoint(self) -> None:
        """Write everything a resumed run needs, and the log so far."""
        self.write(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "plan": dataclasses.asdict(self.plan),
                **{name: getattr(self, name) for name in RUN_STATE},
            },
            "state.pt",
        )
        self.tokenizer.save_pretrained(self.checkpoint / "tokenizer")
        write_log(self, self.checkpoint / "training_log.json")

    def log(self) -> dict[str, object]:
        """The whole training log as it is written to disk."""
        limit = "tokens" if self.tokens >= self.plan.tokens else "minutes" if self.progress >= 1 else "stopped early"
        return {
            "plan": dataclasses.asdict(self.plan),
            "parameters": self.model.num_parameters(),
            "steps": self.step,
            "tokens": self.tokens,
            "seconds": round(self.elapsed_s, 1),
            "tokens_per_second": round(self.tokens / max(self.elapsed_s, 1e-9)),
            "ended_by": limit,
            "hardware": describe_hardware(self.device),
            "events": self.events,
            "losses": self.losses,
            "held_out_losses": self.held_out,
        }


def describe_hardware(device: str) -> str:
    """What the run computed on, in words."""
    if device == "cpu":
        return f"CPU, {torch.get_num_threads()} threads, bfloat16 autocast"
    return f"{torch.cuda.get_device_name()}, bfloat16 autocast"


def resume_trainer(checkpoint: Path, device: str, tokens: int | None = None, **settings: object) -> Trainer:
    """A trainer in the state that `save_checkpoint` left, with another budget if `tokens` says one."""
    state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
    saved = Plan(**state["plan"])
    plan = dataclasses.replace(saved, tokens=tokens or saved.tokens)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint / "tokenizer")
    model = build_model(plan, tokenizer.eos_token_id)
    model.load_state_dict(state["model"])
    trainer = Trainer(plan, tokenizer, model, checkpoint, device, **settings)
    trainer.optimizer.load_state_dict(state["optimizer"])
    for name in RUN_STATE:
        setattr(trainer, name, state[name])
    trainer.events.append(f"resumed at step {trainer.step}")
    if plan != saved:
        trainer.events.append(f"budget changed from {saved.tokens:,} to {plan.tokens:,} tokens at step {trainer.step}")
    return trainer


def start_trainer(plan: Plan, checkpoint: Path, device: str, **settings: object) -> Trainer:
    """A trainer at step 0, with new weights and the plan's tokenizer."""
    tokenizer = bundled_tokenizer(plan) if plan.tokenizer_from else train_tokenizer(plan)
    return Trainer(plan, tokenizer, build_model(plan, tokenizer.eos_token_id), checkpoint, device, **settings)


def write_log(trainer: Trainer, path: Path) -> None:
    """Write the training log."""
    path.write_text(json.dumps(trainer.log(), indent=1) + "\n")


def export(trainer: Trainer, out: Path, log_path: Path) -> None:
    """Write the best weights (fp16, tied matrices once), configuration, tokenizer and training log."""
    out.mkdir(parents=True, exist_ok=True)
    trainer.load_best()
    model = trainer.model.to("cpu").half().eval()
    end_of_text = trainer.tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        do_sample=False, bos_token_id=end_of_text, eos_token_id=end_of_text, pad_token_id=end_of_text
    )
    model.save_pretrained(out)
    trainer.tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    drop_path(out / "config.json")
    drop_path(out / "tokenizer_config.json")
    write_log(trainer, log_path)


def drop_path(path: Path) -> None:
    """Remove from a configuration file where a model or tokenizer was loaded from."""
    content = json.loads(path.read_text())
    for key in ("_name_or_path", "name_or_path", "is_local", "local_files_only"):
        content.pop(key, None)
    path.write_text(json.dumps(content, indent=2) + "\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--architecture", choices=list(PLANS), default="gpt2", help="which model (default gpt2)")
    add("--tokens", type=int, help="token budget (default: the plan's); with --resume a new one")
    add("--minutes", type=float, help="time budget; the run ends at whichever budget is used up first")
    add("--tokens-per-step", type=int, help="trained positions per step")
    add("--peak-rate", type=float, help="highest learning rate")
    add("--seed", type=int, help="seed of weights and data")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, default=2, help="CPU threads")
    add("--workers", type=int, default=0, help="processes that make batches ahead, for a GPU (default 0)")
    add("--compile", action="store_true", help="compile the blocks (needs a C++ compiler): a seventh less time")
    add("--smoke", action="store_true", help="toy-sized model in under a minute")
    add("--size", action="store_true", help="only print how large the model is, and exit")
    add("--resume", action="store_true", help="go on from the checkpoint")
    add("--stop-after", type=int, help="save a checkpoint after this step and exit")
    add("--out", type=Path, help="folder for the model (default: its folder under models/)")
    add("--checkpoint", type=Path, help="folder for checkpoints (default: OUT/checkpoints, or one that git ignores)")
    add("--log", type=Path, help="training log (default: in OUT where that is given, else beside this program)")
    return parser.parse_args(arguments)


def make_plan(arguments: argparse.Namespace) -> Plan:
    """The architecture's plan, or a toy-sized one, with the budgets and settings of the command line."""
    given = {name: getattr(arguments, name) for name in ("tokens", "minutes", "tokens_per_step", "peak_rate", "seed")}
    plan = SMOKE_PLANS[arguments.architecture] if arguments.smoke else PLANS[arguments.architecture]
    return dataclasses.replace(plan, **{name: value for name, value in given.items() if value is not None})


def choose_paths(arguments: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Where model, checkpoints and log go. The paths of a toy-sized model never fall on those of a bundled one."""
    own = arguments.architecture == "gpt2"  # its checkpoints and its log have no name in their path
    folder = FOLDERS[arguments.architecture]
    out = arguments.out or MODELS / folder
    kept = HERE / "checkpoints" / ("" if own else folder)
    checkpoint = arguments.checkpoint or (out / "checkpoints" if arguments.smoke else kept)
    name = "training_log.json" if own or arguments.out else f"training_log_{arguments.architecture}.json"
    return out, checkpoint, arguments.log or (out if arguments.out else HERE) / name


def main() -> None:
    """Train or go on training, then export."""
    arguments = parse_arguments()
    if arguments.smoke and arguments.out is None and not arguments.size:
        raise SystemExit("--smoke needs --out: it must not replace the bundled model")
    print(describe_size(make_plan(arguments)))
    if arguments.size:
        return
    for stop_signal in (signal.SIGINT, signal.SIGTERM):  # background jobs start with SIGINT ignored
        signal.signal(stop_signal, signal.default_int_handler)
    torch.set_num_threads(arguments.threads)
    out, checkpoint, log_path = choose_paths(arguments)
    settings = {"compiled": arguments.compile, "workers": arguments.workers}
    trainer = (
        resume_trainer(checkpoint, arguments.device, arguments.tokens, **settings)
        if arguments.resume
        else start_trainer(make_plan(arguments), checkpoint, arguments.device, **settings)
    )
    try:
        trainer.run(arguments.stop_after)
    except KeyboardInterrupt:
        raise SystemExit(f"interrupted at step {trainer.step}; go on with --resume") from None
    trainer.save_checkpoint()
    speed = trainer.tokens / trainer.elapsed_s
    if arguments.stop_after and trainer.progress < 1:
        print(f"stopped at step {trainer.step} ({speed:,.0f} tokens/s); go on with --resume")
        return
    export(trainer, out, log_path)
    print(f"{trainer.tokens:,} tokens in {trainer.elapsed_s:,.0f} s, {speed:,.0f} tokens/s")
    print(f"best held-out loss {trainer.best_loss:.3f}, written to {out}")


if __name__ == "__main__":
    main()
