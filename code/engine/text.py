"""Tokens to text as they come: no half characters, no half stop strings, nothing lost at the end."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer shows for bytes that are no whole character


def first_stop(text: str, stops: Sequence[str], searched: int = 0) -> tuple[int, int] | None:
    """(end, start) of the stop string that is complete first, of two that end together the longer one.

    So many characters as `searched` says were searched before: what ends among them does not count.

    >>> first_stop("to be or not", ["or not", "be o", "o"], searched=2)
    (7, 3)
    """
    starts = ((text.find(stop, max(0, searched + 1 - len(stop))), len(stop)) for stop in stops)
    return min(((start + length, start) for start, length in starts if start >= 0), default=None)


class TextStream:
    """The text of one answer, handed out as its tokens come.

    All that is shown, put together, is `tokenizer.decode(ids)` without special tokens, up to the first string of `stop`
    that is complete; one that is complete with the first `min_tokens` tokens does not count. Nor does the prompt: an
    answer that begins inside a character begins with the mark for an incomplete one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = (), min_tokens: int = 0) -> None:
        self.tokenizer, self.stop, self.min_tokens = tokenizer, tuple(stop), min_tokens
        self.stopped = False
        self._ids: list[int] = []
        self._context = 0  # decoding begins here: some tokenizers write a token in other ways at the beginning
        self._decoded = 0  # the text of the tokens before this one is known
        self._pending = ""  # known, but not shown yet

    def push(self, token: int) -> str:
        """Take the next token; the text that can be shown now, often none."""
        self._ids.append(token)
        new = self._new_text()
        if not new or new.endswith(INCOMPLETE):
            return ""
        self._context, self._decoded = self._decoded, len(self._ids)
        return self._show(new)

    def finish(self) -> str:
        """No token will follow: the rest of the text."""
        return "" if self.stopped else self._show(self._new_text(), is_last=True)

    def _new_text(self) -> str:
        """The text of the tokens that were not decoded yet."""
        known = self._decode(self._ids[self._context : self._decoded])
        return self._decode(self._ids[self._context :])[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _show(self, new: str, is_last: bool = False) -> str:
        """Add `new` to what is pending, and take out what comes before a stop string or can no longer be in one."""
        searched, self._pending = len(self._pending), self._pending + new
        found = first_stop(self._pending, self.stop, searched) if len(self._ids) > self.min_tokens else None
        self.stopped = found is not None
        begun = (n for stop in self.stop for n in range(1, len(stop)) if self._pending.endswith(stop[:n]))
        held_back = 0 if is_last else max(begun, default=0)
        size = found[1] if found else len(self._pending) - held_back
        shown, self._pending = self._pending[:size], self._pending[size:]
        return shown
