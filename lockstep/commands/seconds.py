"""The type of options that are a length of time."""

from __future__ import annotations

import math
from typing import Any

import click


class Seconds(click.FloatRange):
    """Seconds: finite, and more than nothing where no other bounds are given. Neither `nan` nor `inf` is a time."""

    name = "seconds"

    def __init__(self, least_s: float = 0.0, most_s: float | None = None, *, least_open: bool | None = None) -> None:
        """Take the bounds; the lower one is open (not to be had itself) where it is 0, unless said otherwise."""
        super().__init__(least_s, most_s, min_open=least_s == 0.0 if least_open is None else least_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number of seconds."""
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a number of seconds", param, ctx)
        return seconds
