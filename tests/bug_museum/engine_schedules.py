"""Exhibits: the engine's prefix cache, preemption, blocks, scheduler, and what it tells of its requests."""

from __future__ import annotations

from bug_museum.exhibit import Bug

SCHEDULES = (
    # Prefixes in the cache
    Bug(
        "an adapter's cached blocks are found by requests of other adapters",
        "engine/request",
        (("identity = self.adapter.identity if self.adapter else 0", "identity = 0"),),
        "test_engine_adapters.py::test_a_prefix_is_shared_within_an_adapter_only",
        "vllm #3264",
    ),
    Bug(
        "other weights under the same name find the cached blocks of the old ones",
        "engine/request",
        (("self.adapter.identity if", "int.from_bytes(self.adapter.name.encode()) if"),),
        "test_engine_adapters.py::test_other_weights_under_the_same_name_find_nothing_of_the_old_ones",
        "vllm #30931, #42125",
    ),
    Bug(
        "a block's key leaves out what stands before it",
        "engine/blocks",
        (("sha256(parent + array", "sha256(array"),),
        "test_engine_scheduler.py::test_a_key_is_of_everything_before_it",
        "vllm #12603",
    ),
    Bug(
        "prompts that collide can be worked out, since keys are sums of powers",
        "engine/blocks",
        (
            (
                '    return sha256(parent + array("q", tokens).tobytes()).digest()\n',
                "    key = int.from_bytes(parent)\n"
                "    for token in tokens:\n"
                "        key = (31 * key + token) % 2**256\n"
                "    return key.to_bytes(32)\n",
            ),
        ),
        "test_engine_scheduler.py::test_keys_tell_adapters_and_tokens_apart",
        "Megatron-LM #4158; other hashes that can be worked out: vllm #12621",
    ),
    Bug(
        "a block is found before it has been computed",
        "engine/scheduler",
        (
            (
                "            self._reserve(*work[-1])\n",
                "            self._reserve(*work[-1])\n"
                "            size = self.blocks.block_tokens\n"
                "            for block, key in zip(request.blocks, request.block_keys(work[-1].end // size, size)):\n"
                "                self.blocks.register(block, key)\n",
            ),
        ),
        "test_engine_scheduler.py::test_a_prefix_is_found_after_it_was_computed_and_not_before",
        "nano-vllm #208",
    ),
    Bug(
        "of a prompt that is cached in full nothing is left to compute",
        "engine/scheduler",
        (("(known - 1) // size", "known // size"),),
        "test_engine_scheduler.py::test_of_a_prompt_that_is_known_in_full_its_last_tokens_are_read_again",
        "nano-vllm #144, vllm #11186",
    ),
    Bug(
        "a block that is not full yet gets the key of a full one",
        "engine/scheduler",
        (
            (
                "keys = request.block_keys(request.computed // size, size)",
                "keys = request.block_keys(self.blocks.needed(request.computed), size)",
            ),
        ),
        "test_engine.py::test_an_answer_is_a_prefix_for_the_next_question",
        "Mooncake #4153, vllm-ascend #10440",
    ),
    Bug(
        "equal blocks that are computed in one step displace each other",
        "engine/blocks",
        (("        if key not in self.by_key and self.keys[block] is None:\n", "        if True:\n"),),
        "test_engine_scheduler.py::test_of_equal_blocks_computed_in_one_step_one_is_kept_and_all_can_be_given_away",
        "nano-vllm #219",
    ),
    Bug(
        "a block that was given away is still found by its old key",
        "engine/blocks",
        (("            del self.by_key[self.keys[oldest]]\n", ""),),
        "test_engine_scheduler.py::test_a_freed_block_can_be_found_until_it_is_needed_and_the_oldest_goes_first",
        "vllm #4761, kvcached #362",
    ),
    # Whose block is it?
    Bug(
        "a shared block counts as one that can be given away",
        "engine/blocks",
        (("            self.cached.pop(block, None)\n", ""),),
        "test_engine_scheduler.py::test_a_cached_block_that_is_shared_again_can_no_longer_be_given_away",
        "sglang #35270",
    ),
    Bug(
        "a shared block is given away when the first of its users leaves",
        "engine/blocks",
        (("            elif not self.references[block]:\n", "            else:\n"),),
        "test_engine_scheduler.py::test_a_shared_block_counts_once_and_outlives_its_first_owner",
        "mini-sglang #142",
    ),
    Bug(
        "whoever is preempted gives up the same blocks twice",
        "engine/scheduler",
        (
            (
                "        self._stop(request)\n        self.waiting[request.number] = request\n",
                "        self.blocks.release(request.blocks)\n"
                "        self._stop(request)\n"
                "        self.waiting[request.number] = request\n",
            ),
        ),
        "test_engine_scheduler.py::test_the_last_comer_is_preempted_keeps_its_answer_and_comes_back_first",
        "vllm #1556",
    ),
    Bug(
        "the blocks of a cancelled request are lost",
        "engine/scheduler",
        (
            (
                "        self.blocks.release(request.blocks)\n",
                '        if request.finish_reason != "cancelled":\n            self.blocks.release(request.blocks)\n',
            ),
        ),
        "test_engine.py::test_whoever_is_cancelled_leaves_nothing_behind_and_disturbs_nobody",
        "vllm-ascend #16662",
    ),
    # Preempted
    Bug(
        "a preempted request still counts as read what it has given up",
        "engine/scheduler",
        (("        request.blocks, request.computed = [], 0\n", "        request.blocks = []\n"),),
        "test_engine_scheduler.py::test_the_last_comer_is_preempted_keeps_its_answer_and_comes_back_first",
        "nano-vllm #211, #233",
    ),
    Bug(
        "what a preempted request wrote itself counts as a hit in the cache",
        "engine/scheduler",
        (("        if request.cached_tokens is None:", "        if True:"),),
        "test_engine_scheduler.py::test_what_a_preempted_request_wrote_itself_is_no_hit",
        "vllm #25780",
    ),
    Bug(
        "of a preempted request's answer only what comes afterwards is returned",
        "engine/scheduler",
        (
            (
                "        self.waiting.move_to_end(request.number, last=False)\n",
                "        self.waiting.move_to_end(request.number, last=False)\n"
                "        request.prompt_tokens = len(request.ids)\n",
            ),
        ),
        "test_engine_scheduler.py::test_the_last_comer_is_preempted_keeps_its_answer_and_comes_back_first",
        "vllm #16832",
    ),
    Bug(
        "a preempted request gets tokens before its answer has been read again",
        "engine/model",
        (("if row.end == len(row.request.ids)", "if row.end >= row.request.prompt_tokens"),),
        "test_engine_model.py::test_a_preempted_answer_is_read_again_in_chunks_before_it_goes_on",
        "vllm-gaudi #524",
    ),
    Bug(
        "a preempted request draws its random numbers from the beginning",
        "engine/scheduler",
        (
            (
                "        self.waiting.move_to_end(request.number, last=False)\n",
                "        self.waiting.move_to_end(request.number, last=False)\n"
                "        request.__post_init__()  # seeds its generator\n",
            ),
        ),
        "test_engine.py::test_a_preempted_request_goes_on_where_it_was",
        "vllm #19940",
    ),
    Bug(
        "a preempted request waits behind all others",
        "engine/scheduler",
        (("        self.waiting.move_to_end(request.number, last=False)\n", ""),),
        "test_engine_scheduler.py::test_the_last_comer_is_preempted_keeps_its_answer_and_comes_back_first",
        "vllm #41951",
    ),
    # Whose turn is it?
    Bug(
        "a request that can never fit waits for ever, and all others behind it",
        "engine/engine",
        (("        if needed > blocks.count:\n", "        if False:\n"),),
        "test_engine.py::test_a_request_that_just_fits_is_served_and_one_token_more_is_refused",
        "vllm #39734",
    ),
    Bug(
        "small requests overtake a large one for as long as they come",
        "engine/scheduler",
        (
            (
                "            request = next(iter(self.waiting.values()))\n"
                "            if not self._find_place(request):\n",
                "            request = next(filter(self._find_place, self.waiting.values()), None)\n"
                "            if request is None:\n",
            ),
        ),
        "test_engine_scheduler.py::test_nobody_overtakes_a_long_prompt_that_does_not_fit_yet",
        "proposed for vllm #31731 in #35852",
    ),
    Bug(
        "the rows that run already are not counted, and more run than may",
        "engine/scheduler",
        (("len(self.running) < self.max_rows", "len(work) < self.max_rows"),),
        "test_engine_scheduler.py::test_the_last_comer_is_preempted_keeps_its_answer_and_comes_back_first",
        "nano-vllm #271",
    ),
    Bug(
        "a request is admitted when its first chunk fits, to be preempted soon",
        "engine/scheduler",
        (("self.blocks.needed(known) - len(found)", "self.blocks.needed(min(known, self.step_tokens)) - len(found)"),),
        "test_engine_scheduler.py::test_a_newcomer_waits_until_there_is_room_for_its_whole_prompt",
        "vllm #25538, #37307",
    ),
    Bug(
        "a request that has reached its budget runs once more",
        "engine/engine",
        (("            if request.finish_reason:\n", '            if request.finish_reason == "stop":\n'),),
        "test_engine.py::test_events_tell_every_token_once_and_the_end_once",
        "sglang #18301",
    ),
    Bug(
        "who is cancelled while its prompt is being read stays in the batch",
        "engine/scheduler",
        (
            (
                "        if self.waiting.pop(request.number, None) is None:\n",
                "        waited = self.waiting.pop(request.number, None)\n"
                "        if waited is None and request.computed >= request.prompt_tokens:\n",
            ),
        ),
        "test_engine.py::test_whoever_is_cancelled_leaves_nothing_behind_and_disturbs_nobody",
        "mlx-vlm #2147",
    ),
    Bug(
        "any number of requests may wait",
        "engine/engine",
        (("        if waiting >= self.max_waiting:\n", "        if False:\n"),),
        "test_engine.py::test_so_many_may_wait_and_no_more",
        "vllm #18826",
    ),
    # What is told
    Bug(
        "the last event does not say that it is the last, and who waits for the end waits for ever",
        "engine/request",
        (("[token], self.finish_reason, self)", "[token], None, self)"),),
        "test_engine.py::test_events_tell_every_token_once_and_the_end_once",
        "transformers #42943",
    ),
    Bug(
        "the numbers of earlier requests are given out again",
        "engine/engine",
        (("Request(self._added, ids,", "Request(len(self.requests), ids,"),),
        "test_engine.py::test_a_request_that_comes_later_gets_the_same_answer",
        "transformers #45943",
    ),
    Bug(
        "the time of a prompt's first chunk is taken for that of the first token",
        "engine/engine",
        (
            (
                "        now_s = self.clock()\n",
                "        now_s = self.clock()\n"
                "        for row in work:\n"
                "            if row.request not in requests:\n"
                "                row.request.token_times_s.append(now_s)\n",
            ),
        ),
        "test_engine.py::test_every_time_stamp_lies_in_the_request",
        "xllm #2353",
    ),
)
