"""Text from a stream of tokens: never half a character, never half a stop string, never less than all in the end."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import test_properties  # noqa: F401  (loads the profile)
from conftest import VOCABULARY
from engine import Engine, Sampling
from engine.text import INCOMPLETE, TextStream, first_stop
from helpers import load_model

TOKENS = st.integers(0, VOCABULARY - 1)


def decoded(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def streamed(stream: TextStream, ids: list[int]) -> tuple[list[str], int]:
    """The pieces, the last one at the end, and after how many tokens the stream had enough."""
    pieces = []
    for token in ids:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return [*pieces, stream.finish()], len(pieces)


def by_hand(tokenizer, ids: list[int], stops: list[str], min_tokens: int) -> tuple[str, int]:
    """Text and number of tokens, found by decoding everything anew after every token and trying every end."""
    known = 0
    for count in range(1, len(ids) + 1):
        text = decoded(tokenizer, ids[:count])
        if text.endswith(INCOMPLETE) and count < len(ids):
            continue
        ends = [e for e in range(known + 1, len(text) + 1) if any(text[:e].endswith(stop) for stop in stops)]
        if ends and count > min_tokens:
            longest = max(len(stop) for stop in stops if text[: ends[0]].endswith(stop))
            return text[: ends[0] - longest], count
        known = len(text)
    return decoded(tokenizer, ids), len(ids)


@settings(max_examples=300)
@given(ids=st.lists(TOKENS, max_size=30))
def test_all_pieces_together_are_the_whole_text_whatever_the_bytes(tokenizer, ids):
    pieces, _ = streamed(TextStream(tokenizer), ids)
    assert "".join(pieces) == decoded(tokenizer, ids)


@settings(max_examples=200)
@given(text=st.text(max_size=20))
def test_no_piece_ends_inside_a_character(tokenizer, text):
    pieces, _ = streamed(TextStream(tokenizer), tokenizer(text)["input_ids"])
    assert "".join(pieces) == text
    assert INCOMPLETE in text or not any(INCOMPLETE in piece for piece in pieces)


def test_text_is_shown_as_soon_as_a_character_is_whole(tokenizer):
    pieces, _ = streamed(TextStream(tokenizer), tokenizer("aé€😀")["input_ids"])
    assert pieces == ["a", "", "é", "", "", "€", "", "", "", "😀", ""]


def test_an_answer_cut_inside_a_character_still_shows_what_is_there(tokenizer):
    ids = tokenizer("ab€")["input_ids"][:-1]
    assert streamed(TextStream(tokenizer), ids)[0] == ["a", "b", "", "", INCOMPLETE]


def test_stop_strings_found_anywhere_equal_a_search_by_hand(tokenizer):
    seen = Counter()
    few = st.sampled_from(tokenizer("ab é€")["input_ids"])

    @settings(max_examples=500)
    @given(
        ids=st.lists(few, max_size=20),
        stops=st.lists(st.text("ab é€", min_size=1, max_size=4), max_size=3),
        data=st.data(),
    )
    def law(ids, stops, data):
        min_tokens = data.draw(st.integers(0, len(ids)))
        pieces, count = streamed(TextStream(tokenizer, stops, min_tokens), ids)
        text, tokens = by_hand(tokenizer, ids, stops, min_tokens)
        assert ("".join(pieces), count) == (text, tokens)
        seen["stopped"] += tokens < len(ids)
        seen["not stopped"] += tokens == len(ids) > 0
        seen["a stop string over several tokens"] += tokens < len(ids) and any(len(stop) > 1 for stop in stops)
        seen["one was there too early"] += any(stop in decoded(tokenizer, ids[:min_tokens]) for stop in stops)

    law()
    assert min(seen.values()) > 0, seen


@pytest.mark.parametrize(
    ("text", "stops", "searched", "found"),
    [
        ("abcdef", ["f", "cd"], 0, (4, 2)),
        ("abcdef", ["d", "bcd"], 0, (4, 1)),
        ("abab", ["ab"], 1, (2, 0)),
        ("abab", ["ab"], 2, (4, 2)),
        ("abab", ["x"], 0, None),
        ("abab", [], 0, None),
    ],
)
def test_the_earliest_end_wins_and_of_two_the_longer(text, stops, searched, found):
    assert first_stop(text, stops, searched) == found


def test_nothing_of_a_stop_string_is_shown(tokenizer):
    stream = TextStream(tokenizer, ["<end>"])
    pieces, _ = streamed(stream, tokenizer("ok <en <end> more")["input_ids"])
    assert "".join(pieces) == "ok <en " and stream.stopped
    assert max(len("".join(pieces[:n])) for n in range(len(pieces))) <= len("ok <en ")


def test_what_was_held_back_is_shown_at_the_end(tokenizer):
    pieces, _ = streamed(TextStream(tokenizer, ["<end>"]), tokenizer("ok <en")["input_ids"])
    assert "".join(pieces[:-1]) == "ok " and pieces[-1] == "<en"


def test_only_what_may_be_a_stop_string_is_held_back(tokenizer):
    pieces, _ = streamed(TextStream(tokenizer, ["<end>", "<<"]), tokenizer("a<b<e<c")["input_ids"])
    assert pieces == ["a", "", "<b", "", "", "<e", "<c", ""]


def test_a_tokenizer_that_drops_the_first_space_loses_no_other():
    words = {"▁to": 0, "▁be": 1, "not": 2, "<end>": 3}
    inner = Tokenizer(models.WordLevel(words, unk_token="▁to"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    for ids in product(range(4), repeat=4):  # the last one is no text, and may stand anywhere
        pieces, _ = streamed(TextStream(tokenizer), list(ids))
        assert "".join(pieces) == decoded(tokenizer, list(ids)), ids


# --- In the engine -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def storyteller():
    return load_model()


def test_the_storytellers_words_come_one_by_one_and_make_the_whole(storyteller):
    model, tokenizer = storyteller
    engine, shown = Engine(model, tokenizer), []
    number = engine.add("Once upon a time", Sampling(max_tokens=30))
    while engine.requests:
        for event in engine.step():
            assert event.number == number and len(event.ids) == 1
            shown.append(event.text)
    assert "".join(shown) == decoded(tokenizer, event.request.output_ids) == event.request.text
    assert sum(map(bool, shown)) > 20 and event.finish_reason == "length"


def test_a_stop_string_ends_an_answer_and_is_not_in_it(storyteller):
    model, tokenizer = storyteller
    engine = Engine(model, tokenizer)
    for stop, min_tokens in (([], 0), ([". S"], 0), ([". S"], 29)):
        engine.add("Once upon a time", Sampling(max_tokens=30, stop=stop, min_tokens=min_tokens))
    whole, stopped, too_early = engine.run()
    assert stopped.text == whole.text[: whole.text.index(". S")] and stopped.finish_reason == "stop"
    assert stopped.output_ids == whole.output_ids[: len(stopped.output_ids)]
    assert len(stopped.output_ids) < 30
    assert too_early.text == whole.text and too_early.finish_reason == "length"


def test_the_end_of_sequence_token_is_in_the_ids_and_not_in_the_text(tokenizer, gpt2):
    engine = Engine(gpt2, tokenizer)
    engine.add([1, 2, 3], Sampling(max_tokens=6))
    (whole,) = engine.run()
    gpt2.generation_config.eos_token_id = whole.output_ids[3]
    engine = Engine(gpt2, tokenizer)
    engine.add([1, 2, 3], Sampling(max_tokens=6))
    engine.add([1, 2, 3], Sampling(max_tokens=6, ignore_eos=True))
    ended, going_on = engine.run()
    length = whole.output_ids.index(whole.output_ids[3]) + 1
    assert ended.output_ids == whole.output_ids[:length] and ended.finish_reason == "stop"
    assert ended.text == decoded(tokenizer, whole.output_ids[: length - 1])
    assert going_on.output_ids == whole.output_ids and going_on.finish_reason == "length"
