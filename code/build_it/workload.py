"""The course's requests: what the learner's parts are tried on."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from helpers import Request

SLOTS, ROOM = 8, 400  # rows at once, and tokens of cache reserved at once: the room is full before the slots are

OPENINGS = (
    "Once upon a time there was a",
    "The rain in Spain falls mainly on",
    "What comes up must come down again",
    "Dear Anna, thank you for your",
    "The quick brown fox jumped over the",
    "Once upon a time an old owl",
    "A little mouse wanted to see the",
    "Early one morning the miller",
)


def course_requests(
    tokenizer: PreTrainedTokenizerBase, count: int = 32, *, long: int = 100, short: int = 10
) -> list[Request]:
    """Requests with the course's openings in turn as prompts: every 8th asks for `long` tokens, the others for `short`.

    They run to their budget, so that every run makes the same number of tokens. The prompts have different lengths.
    """
    requests = []
    for number in range(count):
        prompt_ids = tokenizer(OPENINGS[number % len(OPENINGS)])["input_ids"]
        budget = long if number % 8 == 0 else short
        requests.append(Request(prompt_ids, budget, ignore_eos=True, prompt_ids=prompt_ids))
    return requests
