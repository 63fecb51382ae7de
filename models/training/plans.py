"""The plans of the training runs: everything that decides their outcome, as numbers with their reasons."""

import dataclasses
from dataclasses import dataclass

# (share of the tokens after which the entry ends, window lengths in tokens that take turns)
WindowSchedule = tuple[tuple[float, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Plan:
    """Everything that decides the outcome of a run; the defaults are those of the bundled GPT-2."""

    architecture: str = "gpt2"
    vocabulary: int = 4096
    context: int = 512  # tokens
    width: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 4  # heads of keys and values; GPT-2 has as many as query heads
    mlp_width: int = 1024
    # Attention costs less in short windows, and most documents fit into 256 tokens.
    windows: WindowSchedule = ((1.0, (256, 256, 512)),)
    memory_share: float = 0.0  # of the documents: books, letters, notes and sums; 0: the corpus of short documents only
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
    tokenizer_from: str = ""  # the folder under models/ whose tokenizer is used; empty: a new one is trained
    held_out_documents: int = 150
    held_out_memories: int = 0  # held-out books, letters, notes and sums beside them
    held_out_interval: int = 300  # steps
    log_interval: int = 50  # steps
    show_interval: int = 1  # steps; to show a loss is to wait for it
    checkpoint_minutes: float = 4.0

    # Text alone teaches no copying at this budget: every name comes out equally likely, story after story. So at
    # `drill_start` the model drills copying on bags of names, then learns stories with the weight on their names.
    drill: str = "names"  # what is copied, a key of `batches.DRILLS`
    drill_start: int = 1264  # step
    drill_steps: int = 80
    drill_every: int = 1  # 1: the drill's steps follow one another; 2: text takes turns with them
    focus_steps: int = 340  # steps in which tokens that are no names weigh `focus_weight`, names 1
    ramp_steps: int = 800  # steps in which that weight grows back to 1
    focus_weight: float = 0.02
    answer_weight: float = 1.0  # how much the tokens of an answer weigh, beside the weight they have already
    decay_start: float = 0.8  # share of the run after which the learning rate falls

    @property
    def drill_end(self) -> int:
        """The first step behind the drill."""
        return self.drill_start + self.drill_steps * self.drill_every

    def is_drill(self, step: int) -> bool:
        """Whether a step drills copying instead of reading text."""
        return self.drill_start <= step < self.drill_end and (step - self.drill_start) % self.drill_every == 0

    def text_weight(self, step: int) -> float:
        """The weight in the loss of tokens that are no names."""
        since = step - self.drill_end
        if since < 0 or since >= self.focus_steps + self.ramp_steps:
            return 1.0
        ramp = max(0, since - self.focus_steps) / self.ramp_steps
        return self.focus_weight + (1 - self.focus_weight) * ramp

    def window_length(self, step: int) -> int:
        """Trained positions of a window at a step, in tokens; the last entry stays in force behind the token budget."""
        share = step * self.tokens_per_step / self.tokens
        lengths = next((lengths for end, lengths in self.windows if share < end), self.windows[-1][1])
        return lengths[step % len(lengths)]


# The second model, of today's architecture and with a context of 2,048 tokens, for seven minutes of one GPU (or some 40
# hours of two CPU cores). The reasons for its numbers:
#
# Shape. Width 256 and six layers are what the GPT-2 has, so the two can be compared; four query heads of 64 share two
# heads of keys and values, and an MLP width of 640 in three matrices costs no more than 1,024 in two.
#
# Windows. Books have up to 1,800 tokens, and a window gets documents that fit into it whole. Windows of 2,048 are half
# of the steps from the beginning; those of 256 bring short documents, which are quick to generate.
#
# Packing. Documents follow one another in a window in random order, and attention sees the documents before, as in the
# GPT-2's training; the model learns from the end-of-text token what to leave alone. The longest document once came
# first, so that no book's questions were cut off. Then a proverb never began a window, and the model expected none
# there: 3.6 nats per token at the beginning, 2.6 behind a story. Where the window's end cuts off a few questions, other
# windows have them.
#
# Batch. On a GPU the time of a step hardly depends on its tokens up to 32,768 (25 ms on an H100 for 8,192 as for
# 32,768: the many small operations have to be launched), and 14 processes generate about as many tokens as are read.
#
# Copying. In text, copying pays late: without a drill, a run of 47 million tokens learned at 44 million that a hero
# keeps a name, all at once (the loss fell from 0.75 to 0.43 within 100 steps), and could still not look anything up: a
# random passage was as hard to predict the second time as the first. With bags of names for a drill, names are copied
# early, but by counting, and 31 % of the questions on books were answered. So every fourth step of the first two thirds
# repeats random passages, where nothing but looking up helps. Between 33 and 66 million tokens the drill's loss falls
# from 7.8 to 2.3 nats (about 2.2 is what the first passages cost), and the loss of answers from 0.81 to 0.27.
# Answers weigh four times as much as other tokens: they are a twentieth of a book, and what needs its memory.
LLAMA = Plan(
    architecture="llama",
    context=2048,
    kv_heads=2,
    mlp_width=640,
    windows=((1.0, (256, 2048, 1024, 2048)),),
    memory_share=0.4,
    tokens_per_step=32_768,
    tokens=600_000_000,
    peak_rate=2e-3,
    tokenizer_from="storyteller",
    held_out_memories=40,
    held_out_interval=1000,
    log_interval=100,
    show_interval=20,
    drill="passages",
    drill_start=0,
    drill_steps=3000,
    drill_every=4,
    focus_steps=0,
    ramp_steps=0,
    answer_weight=4.0,
)

SMOKE = Plan(
    vocabulary=512,
    context=128,
    width=64,
    layers=2,
    heads=2,
    kv_heads=2,
    mlp_width=256,
    windows=((1.0, (64, 64, 128)),),
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
PLANS = {"gpt2": Plan(), "llama": LLAMA}
SMOKE_PLANS = {
    "gpt2": SMOKE,
    "llama": dataclasses.replace(
        SMOKE,
        architecture="llama",
        kv_heads=1,
        mlp_width=128,
        windows=((0.5, (64, 128)), (1.0, (128, 512))),
        context=512,
        memory_share=0.25,
        held_out_memories=4,
        answer_weight=4.0,
    ),
}
