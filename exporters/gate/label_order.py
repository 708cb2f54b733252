"""Whether labelled held-out texts say that the labels were named in another order than the outputs are in.

A source and its artifact share that mistake, so they agree with each other. A label's recall does not: a trained model
that answers the labels of known texts far below chance knows them, by other names. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lockstep.exporters.conversion import Outputs

_MOST_LABELS = 6
"""Every order is tried: of six labels there are 720."""

_SIGMAS = 4.0
"""Below chance: a model that knows nothing gets there once in 30,000 exports."""


def warning(outputs: Outputs, truths: NDArray[np.int64], labels: Sequence[str]) -> str | None:
    """Return what to look at where rows float32[rows, labels] are labelled (-1: not) in another order; else None.

    Judged by the mean recall of the labels, so that neither a majority nor a constant answer matters.
    """
    count = len(labels)
    answered, known = outputs[truths >= 0].argmax(axis=1), truths[truths >= 0]
    rows_of = np.bincount(known, minlength=count)
    if count > _MOST_LABELS or (rows_of == 0).any():
        return None
    recall = np.zeros((count, count))
    np.add.at(recall, (known, answered), 1 / rows_of[known])
    chance = 1 / count
    deviation = np.sqrt(np.sum(chance * (1 - chance) / rows_of)) / count
    mean = float(np.trace(recall)) / count
    if mean >= chance - _SIGMAS * deviation:
        return None
    orders = list(itertools.permutations(range(count)))
    best = max(orders, key=lambda order: sum(recall[true, column] for column, true in enumerate(order)))
    other = sum(recall[true, column] for column, true in enumerate(best)) / count
    return (
        f"of {len(known)} labelled rows it answers {mean:.1%} right (each label counting alike), far below chance, and "
        f"{other:.1%} if its outputs are {','.join(labels[true] for true in best)}: are the labels (--labels) in the "
        "order of the outputs, and those of the held-out texts right?"
    )
