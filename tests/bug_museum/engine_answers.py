"""Exhibits: the engine's forward, its adapters, the choice of tokens, and the text of answers."""

from __future__ import annotations

from bug_museum.exhibit import Bug

ANSWERS = (
    # The forward over flat tokens
    Bug(
        "a later chunk of a prompt is read as if it were the first",
        "engine/model",
        (("numbers(r.ids[i] for", "numbers(r.ids[i - (0 if r.output_tokens else r.computed)] for"),),
        "test_engine_model.py::test_a_prompt_read_in_chunks_of_any_size_gets_the_same_answer",
        "tinygrad #15182, ferrox #37",
    ),
    Bug(
        "a chunk's mask begins where the chunk begins",
        "engine/model",
        (("> own  # (R, T, S)", "> own - own[:, :1] * (rows[0].tokens > 1)  # (R, T, S)"),),
        "test_engine_model.py::test_a_prompt_read_in_chunks_of_any_size_gets_the_same_answer",
        "sparkinfer #3, candle #3743",
    ),
    Bug(
        "all rows of a step get the positions of the longest",
        "engine/architectures",
        (("flat.positions[None])]", "flat.positions.max().expand(1, len(x)))]"),),
        "test_engine.py::test_rotary_positions_of_other_kinds",
        "unsloth #3803",
    ),
    Bug(
        "query heads look at the key heads in turn, not group by group",
        "engine/model",
        (
            (
                "q.view(rows, tokens, groups, shared, size).permute(0, 2, 3, 1, 4)",
                "q.view(rows, tokens, shared, groups, size).permute(0, 3, 2, 1, 4)",
            ),
            ("(shared, tokens)).permute(0, 3, 1, 2, 4)", "(shared, tokens)).permute(0, 3, 2, 1, 4)"),
        ),
        "test_engine_model.py::test_neighbouring_query_heads_share_a_key_head",
        "onnx #7274, jax-js #180",
    ),
    # Adapters
    Bug(
        "rows without an adapter get the last one, whose index is -1",
        "engine/adapters",
        (
            (
                "        if request.adapter is not None:\n            rows.setdefault(request.adapter",
                "        if request.adapter or rows:\n            rows.setdefault(request.adapter or list(rows)[-1]",
            ),
        ),
        "test_engine_adapters.py::test_rows_without_an_adapter_are_the_same_to_the_last_bit",
        "vllm #48421",
    ),
    Bug(
        "rows are counted by request, and a chunk's tokens get a neighbour's adapter",
        "engine/adapters",
        (("        start += tokens\n", "        start += 1\n"),),
        "test_engine_adapters.py::test_every_row_gets_its_own_adapter",
        "vllm #4995",
    ),
    Bug(
        "the scaling of rank-stabilized adapters is that of ordinary ones",
        "engine/adapters",
        (('0.5 if config.get("use_rslora") else 1.0', "1.0"),),
        "test_engine_adapters.py::test_every_row_gets_its_own_adapter",
        "TensorRT-LLM #1668, vllm #6909",
    ),
    Bug(
        "an adapter's file is unpickled, and runs what stands in it",
        "engine/adapters",
        (
            (
                "        return load(file.read_bytes())",
                '        with file.open("rb") as opened:\n            return torch.load(opened, weights_only=False)',
            ),
        ),
        "test_engine_adapters.py::test_nothing_in_a_pickle_is_executed",
        "TensorRT-LLM #13391",
    ),
    # The next token
    Bug(
        "a seeded row draws from the generator of a neighbour that has no seed",
        "engine/sampling",
        (
            (
                "request.random.random())\n",
                "next((r for r in requests if r.sampling.seed is None), request).random.random())\n",
            ),
        ),
        "test_engine_sampling.py::test_a_seeded_answer_does_not_depend_on_its_neighbours",
        "vllm #51226",
    ),
    Bug(
        "top-p drops the token that crosses the threshold",
        "engine/sampling",
        (("likelier = likeliest.cumsum(-1) - likeliest", "likelier = likeliest.cumsum(-1)"),),
        "test_engine_sampling.py::test_the_tokens_that_can_be_chosen_are_those_of_transformers",
        "reasoning-from-scratch #164, fish-speech #1171",
    ),
    Bug(
        "log probabilities are those after the end was forbidden",
        "engine/sampling",
        (("before = logits.clone() if", "before = logits if"),),
        "test_engine_sampling.py::test_log_probabilities_are_of_what_the_model_said_before_the_end_was_forbidden",
        "vllm #9453",
    ),
    # Text
    Bug(
        "half characters are shown",
        "engine/text",
        (("if not new or new.endswith(INCOMPLETE):", "if not new:"),),
        "test_engine_text.py::test_text_is_shown_as_soon_as_a_character_is_whole",
        "vllm-mlx #109, exo #1691",
    ),
    Bug(
        "a stop string over several tokens is not seen",
        "engine/text",
        (("first_stop(self._pending, self.stop, searched)", "first_stop(new, self.stop)"),),
        "test_engine_text.py::test_nothing_of_a_stop_string_is_shown",
        "text-generation-inference #1039, mlx-knife #68",
    ),
    Bug(
        "the first half of a stop string is shown",
        "engine/text",
        (("return self._show(new)", "return self._show(new, is_last=True)"),),
        "test_engine_text.py::test_nothing_of_a_stop_string_is_shown",
        "vllm #3574",
    ),
    Bug(
        "a stop string ends an answer that is still too short",
        "engine/text",
        ((" if len(self._ids) > self.min_tokens else None", ""),),
        "test_engine_text.py::test_a_stop_string_ends_an_answer_and_is_not_in_it",
        "vllm #21987",
    ),
    Bug(
        "what was held back is lost when an answer ends",
        "engine/text",
        (('"" if self.stopped else self._show(self._new_text(), is_last=True)', '""'),),
        "test_engine_text.py::test_what_was_held_back_is_shown_at_the_end",
        "llama.cpp #15007",
    ),
)
