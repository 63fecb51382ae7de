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
    longest_first: bool = False  # the order of the documents in a window
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
    checkpoint_minutes: float = 4.0

    # Text alone teaches no copying at this budget: every name comes out equally likely, story after story. So at
    # `drill_start` the model drills copying on bags of names, then learns stories with the weight on their names.
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


# The second model, of today's architecture and with a context of 2,048 tokens, for two CPU cores and two to two and a
# half hours. The reasons for its numbers:
#
# Shape. A step's time is in the matrix products of its 5.2 million parameters and in the many small operations around
# them, and the latter grow with the number of layers. Width 256 and six layers are what the GPT-2 has, so the two can
# be compared; four query heads of 64 share two heads of keys and values, and an MLP width of 640 in three matrices
# costs no more than 1,024 in two. The limit of eight million parameters would allow seven or eight layers, but then
# the same hours would hold a quarter fewer tokens, and copying and facts need tokens more than depth.
#
# Windows. Attention's cost grows with the window (at 2,048 tokens it adds more than half to the matrix products), so
# most tokens are read in short windows and the first fifth of the run has 256 and 512 only. A window gets documents
# that fit into it whole: notes from the start, books of up to 512 tokens from the first window of 512, books of up to
# 1,800 tokens once windows of 2,048 come. Rotary positions work poorly at distances that were never trained, so long
# windows must not be a short visit at the end: they make up half of the last two fifths, six million tokens, and the
# learning rate has fallen only after they have been there for half of that time.
#
# Packing. Documents follow one another in a window, and attention sees the documents before, as in the GPT-2's
# training. A mask per document would switch off the causal kernel, which skips half of the work, and the model learns
# from the end-of-text token what to leave alone. The longest document comes first, so that the window's end cuts off a
# short one: a book's questions stand at its end, and no window may hold questions whose book it does not hold. This has
# a price, which one run showed: a proverb never begins a window, so the model expects none there (202 proverbs and
# sayings: 3.6 nats per token at the beginning, 2.6 behind a story; the GPT-2 has learned them better).
#
# Batch. 4,096 tokens a step give 7,300 steps for 30 million tokens. At so few tokens in all, more steps do better than
# larger ones; beside the forward and backward pass, AdamW's own time is small. Matrix products are in bfloat16
# (autocast), weights and moments in float32.
#
# Copying. The GPT-2 learned to copy only from the drill, in the middle of its run. Here the drill comes right after
# the warm-up of the learning rate: 200 steps of it take turns with text, so that nothing is forgotten meanwhile and
# the names' step is practised on stories at once. Then come stories with the weight on names, but with five times the
# weight on all other tokens that the GPT-2 had, because they too have to be learned in these steps. Answers weigh
# four times as much all along: they are a twentieth of a book's tokens, and the only ones that need its memory. In one
# run names were kept, but looking up what was told of a name was not learned: train.py says what was seen.
LLAMA = Plan(
    architecture="llama",
    context=2048,
    kv_heads=2,
    mlp_width=640,
    windows=((0.2, (256, 256, 256, 512)), (0.6, (512, 512, 512, 1024)), (1.0, (2048, 512, 2048, 1024))),
    memory_share=0.25,
    longest_first=True,
    tokens=30_000_000,
    tokenizer_from="storyteller",
    held_out_memories=40,
    drill_start=220,
    drill_steps=200,
    drill_every=2,
    focus_steps=400,
    ramp_steps=800,
    focus_weight=0.1,
    answer_weight=4.0,
    decay_start=0.8,
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
        longest_first=True,
        held_out_memories=4,
        answer_weight=4.0,
    ),
}
