"""All exhibits, and those of the lessons' code. `exhibit.py` says how to add one."""

from __future__ import annotations

from bug_museum.engine_answers import ANSWERS
from bug_museum.engine_schedules import SCHEDULES
from bug_museum.exhibit import Bug

LESSONS = (
    # Whose answer is it?
    Bug(
        "answers in the order in which rows end",
        "utils",
        (
            (
                "        for request in served\n",
                "        for request in sorted(served, key=lambda r: len(r.output_ids))\n",
            ),
        ),
        "test_utils.py::test_every_answer_reaches_its_own_asker",
    ),
    Bug(
        "an answer goes to the row, not to the request",
        "helpers",
        (("        [batch.requests[row] for row in kept],\n", "        batch.requests[: len(kept)],\n"),),
        "test_helpers.py::test_runs_equal_generate",
    ),
    Bug(
        "the caller's requests are used up",
        "helpers",
        (("[fresh_copy(as_request(index, request)) for", "[as_request(index, request) for"),),
        "test_helpers.py::test_runs_leave_the_requests_alone_and_repeat",
    ),
    # When is an answer over?
    Bug(
        "a budget of one token yields two",
        "request",
        (("len(self.output_ids) >= self.max_tokens:", "len(self.output_ids) >= max(2, self.max_tokens):"),),
        "test_helpers.py::test_runs_equal_generate",
    ),
    Bug(
        "a budget of no tokens is served",
        "request",
        (("        if request.max_tokens == 0:\n", "        if False:\n"),),
        "test_helpers.py::test_runs_equal_generate",
    ),
    Bug(
        "the end-of-sequence token stops nothing",
        "request",
        (("        if token in eos and not self.ignore_eos:", "        if False:"),),
        "test_helpers.py::test_runs_stop_at_eos_like_generate",
    ),
    # Text
    Bug(
        "text is joined token by token, and 'é' is torn",
        "utils",
        (
            ("        tokenizer.decode(\n", '        "".join(tokenizer.decode([token]) for token in (\n'),
            (
                "            request.prompt_ids + request.output_ids,\n"
                "            skip_special_tokens=True,\n"
                "            clean_up_tokenization_spaces=False,\n"
                "        )\n",
                "            request.prompt_ids + request.output_ids\n        ))\n",
            ),
        ),
        "test_utils.py::test_characters_of_several_bytes_stay_whole",
    ),
    Bug(
        "batch_decode of a flat tensor joins all answers",
        "helpers",
        (
            (
                "return [tokenizer.decode(request.output_ids, skip_special_tokens=True) for request in served]",
                "return tokenizer.batch_decode(torch.tensor([token for r in served for token in r.output_ids]))",
            ),
        ),
        "test_helpers.py::test_generate_batch_equals_one_at_a_time",
        "course notebooks on transformers 5",
    ),
    # Padding, masks and positions
    Bug(
        "rows are padded on the right",
        "helpers",
        (
            ("        input_ids[row, start:] =", "        input_ids[row, : width - start] ="),
            ("        attention_mask[row, start:] = 1", "        attention_mask[row, : width - start] = 1"),
        ),
        "test_helpers.py::test_init_batch_pads_on_the_left",
        "the first thing to go wrong",
    ),
    Bug(
        "positions count the padding",
        "helpers",
        (
            (
                "    positions = attention_mask.cumsum(dim=-1) - 1\n",
                "    positions = torch.ones_like(attention_mask).cumsum(dim=-1) - 1\n",
            ),
        ),
        "test_helpers.py::test_a_row_is_the_same_whatever_its_neighbours",
        "calls without position_ids",
    ),
    Bug(
        "the mask is float32",
        "helpers",
        (
            (
                "    attention_mask = torch.zeros_like(input_ids)\n",
                "    attention_mask = torch.zeros(input_ids.shape)\n",
            ),
        ),
        "test_helpers.py::test_init_batch_pads_on_the_left",
    ),
    Bug(
        "merging pads the shorter cache on the right",
        "kv_cache",
        (
            ("        rows[:, :, :missing] = 0  #", "        rows[:, :, size - missing : size] = 0  #"),
            ("        rows[:, :, missing:size] = tensor", "        rows[:, :, : size - missing] = tensor"),
        ),
        "test_helpers.py::test_runs_equal_generate",
        "the first thing to go wrong",
    ),
    Bug(
        "a finished row walks on past the context",
        "helpers",
        (("[[not request.finished] for request in batch.requests]", "[[True] for request in batch.requests]"),),
        "test_helpers.py::test_requests_that_fill_the_context_ride_along_safely",
        "static batches near the context limit",
    ),
    Bug(
        "padding that no row needs any more is kept",
        "helpers",
        (("    width = int(mask.sum(dim=1).max())  #", "    width = mask.shape[1]  #"),),
        "test_helpers.py::test_filter_trims_the_width_to_the_longest_live_row",
    ),
    Bug(
        "an emptied batch keeps its width, and every newcomer is padded to it",
        "helpers",
        (
            ("    if not kept:\n        return empty_batch(), removed\n", ""),
            (
                "    width = int(mask.sum(dim=1).max())  #",
                "    width = int(mask.sum(dim=1).max()) if kept else mask.shape[1]  #",
            ),
            (
                "    if not len(batch1) or not len(batch2):\n        return batch2 if not len(batch1) else batch1\n",
                "    if not len(batch2) or batch1.past_key_values is None:\n"
                "        return batch1 if not len(batch2) else batch2\n",
            ),
        ),
        "test_properties.py::test_width_is_that_of_the_longest_live_row",
    ),
    # State
    Bug(
        "a used-up batch is taken again; its cache has grown meanwhile",
        "checks",
        (("    if mask.shape[1] != cached + new:\n", "    if False:\n"),),
        "test_helpers.py::test_a_used_up_batch_is_refused",
        "copy.copy of a batch, transformers 5",
    ),
    Bug(
        "importing loads the model",
        "models",
        (("_LOADING = Lock()\n", "_LOADING = Lock()\nMODEL = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=12))\n"),),
        "test_rooms.py::test_importing_the_modules_does_nothing",
    ),
    # Measuring
    Bug(
        "the first run, which warms up, is timed with the rest",
        "measure",
        (("            if turn >= warmup:\n", "            if True:\n"),),
        "test_measure.py::test_timed_runs_warmup_and_repeats",
    ),
    Bug(
        "two things are timed one after the other, not in turn",
        "measure",
        (
            (
                "    for turn in tqdm(range(warmup + repeats), desc=progress, leave=False, disable=progress is None):\n"
                "        for fn, runs in zip(functions, seconds, strict=True):\n",
                "    for fn, runs in zip(functions, seconds, strict=True):\n"
                "        for turn in tqdm(range(warmup + repeats), desc=progress, leave=False, disable=True):\n",
            ),
        ),
        "test_measure.py::test_compare_interleaves",
    ),
    Bug(
        "the time to the first token counts as a gap between tokens",
        "measure",
        (("[np.diff(times) for times in", "[np.diff([0.0, *times]) for times in"),),
        "test_measure.py::test_times_of_requests_follow_from_the_rows",
        "vLLM #7242",
    ),
    # Quantization
    Bug(
        "codes are truncated, not rounded",
        "utils",
        (("(grouped / scale + zero_point).round()", "(grouped / scale + zero_point).floor()"),),
        "test_utils.py::test_rounding_has_no_bias",
        "course notebooks, vLLM #45361",
    ),
    Bug(
        "a constant tensor divides by zero",
        "utils",
        (
            ("    step = torch.where(low == high, low.abs(), step)", "    #"),
            ("    scale = torch.where(step == 0, torch.ones_like(step), step)\n", "    scale = step\n"),
        ),
        "test_utils.py::test_constants_are_exact",
    ),
    Bug(
        "NaN and infinity spread silently",
        "checks",
        (("    if not torch.isfinite(t).all():\n", "    if False:\n"),),
        "test_checks.py::test_a_bad_call_says_what_is_wrong_and_changes_nothing",
    ),
    Bug(
        "the zero point is the smallest value, so 0.0 is no level",
        "utils",
        (
            ("    zero_point = (-low.clamp(max=0) / scale + 0.5).floor()\n", "    zero_point = -low / scale\n"),
            ("QuantState(scale, zero_point.to(torch.uint8), bits", "QuantState(scale, zero_point, bits"),
        ),
        "test_properties.py::test_rounding_moves_a_value_at_most_half_a_step",
    ),
    Bug(
        "the output head is quantized with the rest",
        "utils",
        (
            (
                "        if layer is not head and not linear.is_named(name, skip)\n",
                "        if not linear.is_named(name, skip)\n",
            ),
        ),
        "test_utils.py::test_quantize_model_touches_only_linear_layers_and_only_the_copy",
    ),
    Bug(
        "biases are quantized too",
        "utils",
        (
            (
                "else layer.bias.detach().clone())",
                "else dequantize(*quantize(layer.bias.detach())))",
            ),
        ),
        "test_utils.py::test_quantize_model_leaves_biases_norms_and_embeddings_alone",
    ),
    Bug(
        "quantizing destroys the original model",
        "utils",
        (
            (
                "    return linear.copy_with(model, replaced)\n",
                "    for name, layer in list(model.named_modules()):\n"
                "        if layer in replaced:\n"
                "            model.set_submodule(name, replaced[layer])\n"
                "    return model\n",
            ),
        ),
        "test_utils.py::test_quantize_model_touches_only_linear_layers_and_only_the_copy",
    ),
    # LoRA
    Bug(
        "both factors are random, so a new adapter changes the output",
        "utils",
        (("nn.Parameter(torch.zeros(out_features, r,", "nn.Parameter(torch.randn(out_features, r,"),),
        "test_utils.py::test_a_new_adapter_changes_nothing_bit_for_bit",
    ),
    Bug(
        "there is no alpha",
        "utils",
        (("(r if alpha is None else alpha) / r", "1.0"),),
        "test_utils.py::test_lora_layer_equals_peft",
    ),
    Bug(
        "the factors are plain tensors, missing from the state",
        "utils",
        (
            (
                "self.lora_a = nn.Parameter(torch.empty(r, in_features, **like))",
                "self.lora_a = torch.empty(r, in_features, **like)",
            ),
            (
                "self.lora_b = nn.Parameter(torch.zeros(out_features, r, **like))",
                "self.lora_b = torch.zeros(out_features, r, **like)",
            ),
        ),
        "test_utils.py::test_only_the_factors_train",
    ),
    Bug(
        "the factors' shapes are swapped, which a square layer hides",
        "utils",
        (
            ("torch.empty(r, in_features,", "torch.empty(r, out_features,"),
            ("torch.zeros(out_features, r,", "torch.zeros(in_features, r,"),
        ),
        "test_utils.py::test_lora_layer_equals_peft",
    ),
    Bug(
        "GPT-2's Conv1D is taken for a Linear",
        "linear",
        (("        return layer.weight.T\n", "        return layer.weight\n"),),
        "test_utils.py::test_quantized_linear_computes_with_the_dequantized_weight",
        "peft #315",
    ),
    Bug(
        "merging twice adds the update twice",
        "utils",
        (("        if not self.merged:\n", "        if True:\n"),),
        "test_utils.py::test_merge_and_unmerge",
        "the first thing to go wrong",
    ),
    # Features combined
    Bug(
        "an adapter takes its dtype from the scales of a quantized bfloat16 base, and the model crashes",
        "linear",
        (('return {"dtype": layer.dtype, "device"', 'return {"dtype": layer.scale.dtype, "device"'),),
        "test_utils.py::test_an_adapter_computes_in_the_dtype_of_a_quantized_base",
        "QLoRA code, whose scales are float32",
    ),
    Bug(
        "the ids of an earlier prompt are served again after the prompt has changed",
        "request",
        (
            (
                "[_prompt_ids(index, request.prompt, tokenizer) for",
                "[request.prompt_ids or _prompt_ids(index, request.prompt, tokenizer) for",
            ),
        ),
        "test_request.py::test_a_prompt_that_has_changed_is_tokenized_anew",
        "a cache keyed by the object, not by what it holds",
    ),
    Bug(
        "a caller who changes the shared model changes it for everybody",
        "models",
        (("    return copy.deepcopy(model), copy.deepcopy(tokenizer)\n", "    return model, tokenizer\n"),),
        "test_models.py::test_a_change_to_the_course_model_changes_nothing_for_later_callers",
        "module-level models in serving code",
    ),
    Bug(
        "a buffer is taken for one's own because it begins at the same address",
        "kv_cache",
        (
            (
                "self.keys is not self._views[0] or self.values is not self._views[1]:",
                "self.keys.data_ptr() != self._buffers.keys.data_ptr():",
            ),
        ),
        "test_kv_cache.py::test_a_growing_layer_goes_on_after_any_change_as_a_dynamic_one_does",
        "an earlier version of this project",
    ),
)

BUGS = LESSONS + SCHEDULES + ANSWERS
