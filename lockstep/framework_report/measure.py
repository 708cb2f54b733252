"""Runs what has not been measured, one measurement after the other, and keeps each as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lockstep.framework_report.measurement import Measurement, MeasuringFailed
from lockstep.framework_report.measurement_store import Entry, Kept, Watch


@dataclass(frozen=True, slots=True)
class Progress:
    """What is measured now."""

    key: str
    number: int  # from 1
    total: int
    message: str


OnProgress = Callable[[Progress], None]


def pending(listed: Iterable[Measurement], kept: Kept, *, again: bool) -> list[Measurement]:
    """Return the measurements that are not there yet, or are of something that has changed since; all if `again`."""
    return [one for one in listed if again or not kept.stands(one.key, one.of)]


def run(measurements: list[Measurement], kept: Kept, command: str, on_progress: OnProgress) -> dict[str, str]:
    """Make the measurements; blocks. Returns why, by key, where one cannot be made.

    Ctrl-C raises `KeyboardInterrupt`: what was measured before is kept.
    """
    failed: dict[str, str] = {}
    for number, one in enumerate(measurements, 1):

        def say(message: str, key: str = one.key, number: int = number) -> None:
            on_progress(Progress(key, number, len(measurements), message))

        watch = Watch()
        try:
            value = one.run(say)
        except MeasuringFailed as error:
            failed[one.key] = str(error)
            say(f"not measured: {error}")
            continue
        kept.keep(one.key, Entry(one.of, command, watch.conditions(), value))
    return failed
