"""What the doubles answer to the requests of the clients' scripts, worked out here."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from tests import doubles

TEXTS = ("good film", "bad", "the good film")


def outputs(texts: Sequence[str] = TEXTS) -> dict[str, Any]:
    """Return the outputs for texts, near enough for float32."""
    probabilities = [_softmax(*doubles.row_logits(doubles.encode(text))) for text in texts]
    return {
        "probabilities": [pytest.approx(row, rel=1e-6) for row in probabilities],
        "label": ["negative" if row[0] > row[1] else "positive" for row in probabilities],
        "truncated": [False] * len(texts),
    }


def _softmax(*logits: float) -> list[float]:
    exponentials = [math.exp(logit) for logit in logits]
    return [one / sum(exponentials) for one in exponentials]
