"""Why a source cannot answer: found by trying, so that only an established cause is named. Knows no framework.

Each probe runs the source on rows of its own. What no probe establishes is told as the source's own error, and nothing
is guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lockstep.exporters.conversion import Ids, Lengths, Outputs, SourceError

Run = Callable[[Ids, Lengths], Outputs]

_LENGTHS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)


@dataclass(frozen=True, slots=True)
class Probe:
    """A source that failed on a batch, and what is known of it."""

    run: Run
    ids: Ids  # int64[batch, length] of the batch
    max_tokens: int
    vocabulary: int  # ids of the tokenizer are below it

    def cause(self) -> str | None:
        """Return why the batch failed, as a clause about the source, or None where no probe establishes it."""
        rows = self.ids.shape[0]
        if rows == 1:
            if self._works(np.repeat(self.ids, 2, axis=0)):
                return (
                    "it answers two rows, not one: a row alone loses its batch axis (a squeeze() without an axis?); "
                    "name the axis that is squeezed"
                )
            return self._of_a_row(self.ids)
        failing = next((row[None] for row in self.ids if not self._works(row[None])), None)
        if failing is None:
            return f"it answers each row alone, not {rows} at once: its batch axis is fixed; make it take any batch"
        return self._of_a_row(failing)

    def _of_a_row(self, row: Ids) -> str | None:
        return self._of_its_ids(row) or self._of_its_length(row)

    def _of_its_ids(self, row: Ids) -> str | None:
        """Find the first id that the source cannot look up, if a row of lower ids is answered."""

        def works(number: int) -> bool:
            return self._works(np.full_like(row, number))

        last = max(self.vocabulary - 1, int(row.max()))
        if works(last):
            return None
        lowest = next((number for number in (0, 1, 2, 3) if number < last and works(number)), None)
        if lowest is None:
            return None
        known, unknown = lowest, last
        while unknown - known > 1:
            middle = (known + unknown) // 2
            known, unknown = (middle, unknown) if works(middle) else (known, middle)
        return (
            f"it answers rows of id {known}, not of id {unknown}, and the tokenizer makes ids up to {last}: its "
            f"embedding has {unknown} rows and needs {last + 1}; give the tokenizer that the model was trained with"
        )

    def _of_its_length(self, row: Ids) -> str | None:
        """Find the lengths that the source answers."""
        length = row.shape[1]

        def works(tokens: int) -> bool:
            return self._works(np.full((1, tokens), row[0, 0]))  # of one id: nothing but the length differs

        if works(length):
            return None
        tried = sorted({tokens for tokens in (*_LENGTHS, self.max_tokens) if tokens <= self.max_tokens} | {length})
        answered = [tokens for tokens in tried if works(tokens)]
        answered = (
            answered or [tokens for tokens in range(1, min(self.max_tokens, _LENGTHS[-1]) + 1) if works(tokens)][:2]
        )
        if not answered:
            return None
        shortest, longest = answered[0], answered[-1]
        if shortest == longest and not works(shortest - 1 or shortest + 1) and not works(shortest + 1):
            return (
                f"it answers rows of exactly {shortest} tokens, and no others: its length axis is fixed; make it take "
                "any length (keras.Input((None,)), a dynamic axis of the export)"
            )
        if length < shortest:
            least = _first(works, length, shortest)
            return (
                f"it answers rows of {least} tokens and more, not of {least - 1}: a convolution or a pooling is wider "
                f"than such a row; pad inside the model to at least {least} tokens"
            )
        if length > longest:
            most = _first(lambda tokens: not works(tokens), longest, length) - 1
            return f"it answers rows of up to {most} tokens, not of {most + 1}: give --max-tokens {most}"
        return None

    def _works(self, ids: Ids) -> bool:
        lengths = np.full(ids.shape[0], ids.shape[1], dtype=np.int64)
        try:
            answer = self.run(ids, lengths)
        except Exception:  # whatever it is: the source does not answer
            return False
        return answer.ndim == 2 and answer.shape[0] == ids.shape[0] and bool(np.isfinite(answer).all())


def check_repeatable(run: Run, ids: Ids, first: Outputs, bound: float = 1e-4) -> None:
    """Raise `SourceError` if a source answers int64[batch, length] otherwise than `first`, float32[batch, labels].

    `bound` is what float32 may differ by from one run to the next.
    """
    again = run(ids, np.full(ids.shape[0], ids.shape[1], dtype=np.int64))
    difference = float(np.max(np.abs(again - first), initial=0.0))
    if difference > bound * max(1.0, float(np.max(np.abs(first), initial=0.0))):
        raise SourceError(
            f"the source answers the same rows differently when it is asked again (by up to {difference:.3g}): it "
            "draws random numbers (dropout that is on at inference?) or keeps a state between calls; switch that off"
        )


def _first(holds: Callable[[int], bool], below: int, at: int) -> int:
    """Return the least number above `below` for which something holds; it does at `at`, and not at `below`."""
    while at - below > 1:
        middle = (below + at) // 2
        below, at = (below, middle) if holds(middle) else (middle, at)
    return at
