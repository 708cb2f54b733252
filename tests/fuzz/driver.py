"""Drives a property with Hypothesis for so many cases."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from tests.fuzz.properties import Property


def broken_by(one: Property, *, examples: int, seed: int) -> BaseException | None:
    """Return the error of the smallest case that breaks a promise, with the case in its notes; None where none does."""

    @seeded(seed)
    @settings(
        max_examples=examples,
        deadline=None,  # the machine may be busy; a hang is found by whoever runs this
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(one.cases)
    def check(case: Any) -> None:
        one.holds(case)

    try:
        check()
    except Exception as error:  # anything but a refusal is a finding
        return error
    return None
