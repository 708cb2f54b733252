"""What a list of labels must be: each has a name of its own, or answers by label could not tell them apart."""

from __future__ import annotations

from collections.abc import Sequence


def fault(labels: Sequence[str]) -> str | None:
    """Say what is wrong with labels, in the order of a model's outputs; None where nothing is."""
    places: dict[str, int] = {}
    for place, label in enumerate(labels, start=1):
        if not label.strip():
            return f"label {place} of {len(labels)} is empty: give each label a name"
        if label in places:
            return f"labels {places[label]} and {place} are both {label!r}: give each label a name of its own"
        places[label] = place
    return None
