"""Train the storyteller: a small GPT-2 that the lessons serve, from the generated corpus, on a laptop.

    python models/training/train.py --minutes 64          # the bundled model: models/storyteller/
    python models/training/train.py --smoke --out /tmp/x  # the same files from a toy-sized model in under a minute
    python models/training/train.py --resume              # go on from the last checkpoint

Every batch is a function of the seed and the step alone, so a resumed run sees the same data as an uninterrupted one.
Ctrl-C (or SIGTERM) saves a checkpoint and exits.
"""

import argparse
import dataclasses
import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import AutoTokenizer, GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from corpus import NAMES, documents

HERE = Path(__file__).resolve().parent
END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Plan:
    """Everything that decides the outcome of a run."""

    vocabulary: int = 4096
    context: int = 512  # tokens; every third step has windows of this length
    short_context: int = 256  # tokens; the other steps: attention costs less, and most documents fit
    width: int = 256
    layers: int = 6
    heads: int = 4
    tokens_per_step: int = 4096
    tokens: int = 20_000_000
    minutes: float | None = None  # time budget; the schedule ends at whichever of tokens and minutes comes first
    peak_rate: float = 1.5e-3
    final_rate: float = 3e-5
    warm_up: float = 0.03  # share of the run
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    seed: int = 2024
    tokenizer_documents: int = 30_000
    held_out_documents: int = 150
    held_out_interval: int = 300  # steps
    log_interval: int = 50  # steps
    checkpoint_minutes: float = 4.0

    # Text alone teaches no copying at this budget: every name comes out equally likely, story after story. So at
    # `drill_start` the model drills copying on bags of names, then learns stories with the weight on their names.
    drill_start: int = 1264  # step
    drill_steps: int = 80
    focus_steps: int = 340  # steps in which tokens that are no names weigh `focus_weight`, names 1
    ramp_steps: int = 800  # steps in which that weight grows back to 1
    focus_weight: float = 0.02
    decay_start: float = 0.8  # share of the run after which the learning rate falls

    def is_drill(self, step: int) -> bool:
        """Whether a step drills copying instead of reading text."""
        return self.drill_start <= step < self.drill_start + self.drill_steps

    def text_weight(self, step: int) -> float:
        """The weight in the loss of tokens that are no names."""
        since = step - self.drill_start - self.drill_steps
        if since < 0 or since >= self.focus_steps + self.ramp_steps:
            return 1.0
        ramp = max(0, since - self.focus_steps) / self.ramp_steps
        return self.focus_weight + (1 - self.focus_weight) * ramp

    def window_length(self, step: int) -> int:
        """Trained positions of a window at a step, in tokens."""
        return self.context if step % 3 == 2 else self.short_context


SMOKE = Plan(
    vocabulary=512,
    context=128,
    short_context=64,
    width=64,
    layers=2,
    heads=2,
    tokens_per_step=1024,
    tokens=40 * 1024,
    tokenizer_documents=500,
    held_out_documents=20,
    held_out_interval=20,
    log_interval=5,
    drill_start=2,
    drill_steps=2,
    focus_steps=2,
    ramp_steps=2,
)


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


def build_model(plan: Plan, end_of_text: int) -> GPT2LMHeadModel:
    """A GPT-2 without dropout, its weights drawn from the plan's seed."""
    torch.manual_seed(plan.seed)
    config = GPT2Config(
        vocab_size=plan.vocabulary,
        n_positions=plan.context,
        n_embd=plan.width,
        n_layer=plan.layers,
        n_head=plan.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        pad_token_id=end_of_text,
        use_cache=True,
    )
    config._attn_implementation = "sdpa"
    return GPT2LMHeadModel(config)


def document_stream(tokenizer: PreTrainedTokenizerFast, seed: str, count: int) -> Iterator[list[int]]:
    """Endless training documents as token ids, encoded `count` at a time."""
    for part in range(1_000_000):
        texts = list(documents(f"{seed}-{part}", count))
        yield from (encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(texts))


def pack_window(
    stream: Iterator[list[int]], rest: list[int], end_of_text: int, bare_start: bool, length: int
) -> tuple[list[int], list[int]]:
    """Fill one window with `rest` and documents; return it and what was cut off.

    Every document follows an end-of-text token, except the first of a window with `bare_start`: prompts have none.
    With E for end of text:   bare_start  a a a a E b b E c     otherwise  E a a a a E b b E
    """
    window = list(rest)
    if not window and not bare_start:
        window.append(end_of_text)
    while len(window) < length:
        window += next(stream)
        window.append(end_of_text)
    return window[:length], window[length:]


def make_batch(plan: Plan, tokenizer: PreTrainedTokenizerFast, step: int) -> torch.Tensor:
    """The token ids of one step, (B, S + 1); they depend on the plan's seed and the step only.

    Three windows in four start at a document, two of those without an end-of-text token in front;
    the fourth goes on where the window before was cut, so that the ends of documents are seen as often as their starts.
    """
    if plan.is_drill(step):
        return make_drill(plan, tokenizer, step)
    rng = random.Random(f"windows-{plan.seed}-{step}")
    stream = document_stream(tokenizer, f"{plan.seed}-{step}", count=max(8, plan.tokens_per_step // 150))
    windows: list[list[int]] = []
    rest: list[int] = []
    length = plan.window_length(step)
    for _ in range(plan.tokens_per_step // length):
        continues = rng.random() < 0.25
        bare_start = rng.random() < 0.67
        window, rest = pack_window(stream, rest if continues else [], tokenizer.eos_token_id, bare_start, length + 1)
        windows.append(window)
    return torch.tensor(windows)


def name_ids(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """The ids of the characters' names (their first token where a small vocabulary splits them), sorted."""
    return torch.tensor(sorted({tokenizer.encode(f" {name}")[0] for name in NAMES}))


def make_drill(plan: Plan, tokenizer: PreTrainedTokenizerFast, step: int) -> torch.Tensor:
    """Rows (B, S + 1) of one to four names in random order: to predict one is to copy what came before."""
    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
    rows, length, names = plan.tokens_per_step // 128, min(128, plan.context) + 1, name_ids(tokenizer)
    pool = names[torch.randint(len(names), (rows, 4), generator=generator)]  # (B, 4)
    size = torch.randint(1, 5, (rows, 1), generator=generator)  # how many of them a row uses
    choice = (torch.rand(rows, length, generator=generator) * size).long()
    return pool.gather(1, choice)


def held_out_batches(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> list[torch.Tensor]:
    """Held-out documents packed in windows, each batch (B, S + 1)."""
    stream: list[int] = []
    for text in documents(plan.seed, plan.held_out_documents, held_out=True):
        stream += [tokenizer.eos_token_id, *tokenizer.backend_tokenizer.encode(text).ids]
    size = plan.context + 1
    windows = torch.tensor([stream[start : start + size] for start in range(0, len(stream) - size, plan.context)])
    return list(windows.split(8))


def next_token_loss(model: GPT2LMHeadModel, ids: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross entropy of predicting `ids[:, 1:]` from `ids[:, :-1]`; ids (B, S + 1), weights per token id (V,)."""
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        inputs = ids[:, :-1]
        hidden = model.transformer(
            inputs, attention_mask=torch.ones_like(inputs), use_cache=False
        ).last_hidden_state  # (B, S, D)
        logits = model.lm_head(hidden)  # (B, S, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), weight=weights)


def token_weights(plan: Plan, tokenizer: PreTrainedTokenizerFast, step: int) -> torch.Tensor | None:
    """The weight of every token id in the loss of a step, (V,); `None` where all weigh the same."""
    weight = plan.text_weight(step)
    if weight == 1.0:
        return None
    weights = torch.full((len(tokenizer),), weight)
    weights[name_ids(tokenizer)] = 1.0
    return weights


@torch.no_grad()
def held_out_loss(model: GPT2LMHeadModel, batches: list[torch.Tensor]) -> float:
    """Mean loss per token over the held-out windows."""
    model.eval()
    device = next(model.parameters()).device
    losses = [(next_token_loss(model, batch.to(device)).item(), batch.shape[0]) for batch in batches]
    model.train()
    return sum(loss * rows for loss, rows in losses) / sum(rows for _, rows in losses)


def learning_rate(plan: Plan, progress: float) -> float:
    """Linear warm-up, the peak, then a linear fall to the final rate; `progress` runs from 0 to 1."""
    if progress < plan.warm_up:
        return plan.peak_rate * (progress + 1e-3) / (plan.warm_up + 1e-3)
    fall = min(1.0, max(0.0, progress - plan.decay_start) / (1 - plan.decay_start))
    return plan.peak_rate + (plan.final_rate - plan.peak_rate) * fall


def build_optimizer(plan: Plan, model: GPT2LMHeadModel) -> torch.optim.AdamW:
    """AdamW that decays matrices only, not biases and norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.peak_rate, betas=(0.9, 0.95), fused=True)


@dataclass
class Trainer:
    """A run: the model, its optimizer, how far it has come, and its log."""

    plan: Plan
    tokenizer: PreTrainedTokenizerFast
    model: GPT2LMHeadModel
    checkpoint: Path
    device: str = "cpu"
    step: int = 0
    elapsed_s: float = 0.0
    losses: list[dict[str, float]] = field(default_factory=list)
    held_out: list[dict[str, float]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model.to(self.device)
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

    def train_step(self) -> float:
        """One optimizer step; returns the loss."""
        rate = learning_rate(self.plan, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = make_batch(self.plan, self.tokenizer, self.step).to(self.device)
        weights = token_weights(self.plan, self.tokenizer, self.step)
        loss = next_token_loss(self.model, batch, None if weights is None else weights.to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.item()

    def run(self, stop_after: int | None = None) -> None:
        """Train until the budget is used up (or `stop_after` steps are done); an interrupt saves a checkpoint."""
        batches = held_out_batches(self.plan, self.tokenizer)
        saved_s = self.elapsed_s
        bar = tqdm(
            total=100.0,
            initial=round(100 * self.progress, 2),
            desc="training",
            bar_format="{desc} {percentage:5.1f}%|{bar}| {elapsed} {postfix}",
        )
        try:
            while self.progress < 1 and (stop_after is None or self.step < stop_after):
                self.timed_step(bar, batches)
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

    def timed_step(self, bar: tqdm, batches: list[torch.Tensor]) -> None:
        """One step with its logging; its time counts towards the budget."""
        started = time.perf_counter()
        loss = self.train_step()
        if self.step % self.plan.held_out_interval == 0:
            self.record_held_out(batches)
        seconds = time.perf_counter() - started
        self.elapsed_s += seconds
        if self.step % self.plan.log_interval == 0 or self.step == 1:
            self.losses.append(self.log_line(loss))
        bar.update(100 * self.progress - bar.n)
        bar.set_postfix_str(
            f"step {self.step} loss {loss:.3f} {self.plan.tokens_per_step / seconds:,.0f} tokens/s", refresh=False
        )

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
        """Measure the held-out loss and log it."""
        if not self.held_out or self.held_out[-1]["step"] != self.step:
            self.held_out.append(
                {"step": self.step, "tokens": self.tokens, "loss": round(held_out_loss(self.model, batches), 4)}
            )

    def save_checkpoint(self) -> None:
        """Write everything a resumed run needs; an interrupted write leaves the old checkpoint in place."""
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "losses": self.losses,
            "held_out": self.held_out,
            "events": self.events,
            "plan": dataclasses.asdict(self.plan),
        }
        torch.save(state, self.checkpoint / "state.pt.part")
        self.tokenizer.save_pretrained(self.checkpoint / "tokenizer")
        (self.checkpoint / "state.pt.part").replace(self.checkpoint / "state.pt")

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


def resume_trainer(checkpoint: Path, device: str) -> Trainer:
    """A trainer in the state that `save_checkpoint` left."""
    state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
    plan = Plan(**state["plan"])
    tokenizer = AutoTokenizer.from_pretrained(checkpoint / "tokenizer")
    model = build_model(plan, tokenizer.eos_token_id)
    model.load_state_dict(state["model"])
    trainer = Trainer(plan, tokenizer, model, checkpoint, device)
    trainer.optimizer.load_state_dict(state["optimizer"])
    for name in ("step", "elapsed_s", "losses", "held_out", "events"):
        setattr(trainer, name, state[name])
    trainer.events.append(f"resumed at step {trainer.step}")
    return trainer


def start_trainer(plan: Plan, checkpoint: Path, device: str) -> Trainer:
    """A trainer at step 0, with a new tokenizer and new weights."""
    tokenizer = train_tokenizer(plan)
    return Trainer(plan, tokenizer, build_model(plan, tokenizer.eos_token_id), checkpoint, device)


def export(trainer: Trainer, out: Path, log_path: Path) -> None:
    """Write weights (fp16, tied matrices once), configuration, tokenizer and training log."""
    out.mkdir(parents=True, exist_ok=True)
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
    log_path.write_text(json.dumps(trainer.log(), indent=1) + "\n")


def drop_path(path: Path) -> None:
    """Remove from a configuration file where a model or tokenizer was loaded from."""
    content = json.loads(path.read_text())
    for key in ("_name_or_path", "name_or_path", "is_local", "local_files_only"):
        content.pop(key, None)
    path.write_text(json.dumps(content, indent=2) + "\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, help="token budget (default 20 M)")
    parser.add_argument(
        "--minutes", type=float, help="time budget; the schedule ends at whichever budget is used up first"
    )
    parser.add_argument("--tokens-per-step", type=int, help="trained positions per step")
    parser.add_argument("--peak-rate", type=float, help="highest learning rate")
    parser.add_argument("--seed", type=int, help="seed of weights and data")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--smoke", action="store_true", help="toy-sized model in under a minute")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--stop-after", type=int, help="save a checkpoint after this step and exit")
    parser.add_argument("--out", type=Path, help="folder for the model (default models/storyteller)")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="folder for checkpoints (default models/training/checkpoints, or OUT/checkpoints with --smoke)",
    )
    parser.add_argument(
        "--log",
        type=Path,
        help="training log (default models/training/training_log.json, or OUT/training_log.json with --out)",
    )
    return parser.parse_args(arguments)


def make_plan(arguments: argparse.Namespace) -> Plan:
    """The preset with the budgets and settings of the command line."""
    given = {name: getattr(arguments, name) for name in ("tokens", "minutes", "tokens_per_step", "peak_rate", "seed")}
    return dataclasses.replace(
        SMOKE if arguments.smoke else Plan(), **{name: value for name, value in given.items() if value is not None}
    )


def main() -> None:
    """Train or go on training, then export."""
    arguments = parse_arguments()
    if arguments.smoke and arguments.out is None:
        raise SystemExit("--smoke needs --out: it must not replace the bundled model")
    for stop_signal in (signal.SIGINT, signal.SIGTERM):  # background jobs start with SIGINT ignored
        signal.signal(stop_signal, signal.default_int_handler)
    torch.set_num_threads(arguments.threads)
    out = arguments.out or HERE.parent / "storyteller"
    checkpoint = arguments.checkpoint or (out / "checkpoints" if arguments.smoke else HERE / "checkpoints")
    log_path = arguments.log or (out if arguments.out else HERE) / "training_log.json"
    trainer = (
        resume_trainer(checkpoint, arguments.device)
        if arguments.resume
        else start_trainer(make_plan(arguments), checkpoint, arguments.device)
    )
    try:
        trainer.run(arguments.stop_after)
    except KeyboardInterrupt:
        raise SystemExit(f"interrupted at step {trainer.step}; go on with --resume") from None
    trainer.save_checkpoint()
    if arguments.stop_after and trainer.progress < 1:
        print(f"stopped at step {trainer.step}; go on with --resume")
        return
    export(trainer, out, log_path)
    loss = trainer.held_out[-1]["loss"]
    print(f"{trainer.tokens:,} tokens in {trainer.elapsed_s:,.0f} s, held-out loss {loss:.3f}, written to {out}")


if __name__ == "__main__":
    main()
