"""One thing to measure: its key, what it is of, and how. What `latency`, `padding`, `epochs` and `load` each list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Not run yet. `run` blocks; it raises `MeasuringFailed` where the thing cannot be measured."""

    key: str  # "<kind>/<subject>"
    of: str  # see `settings.fingerprint`
    run: Callable[[Say], dict[str, Any]]

    @property
    def kind(self) -> str:
        """The first part of the key."""
        return self.key.partition("/")[0]


class MeasuringFailed(Exception):
    """A measurement cannot be made; the others go on. The message says why."""
