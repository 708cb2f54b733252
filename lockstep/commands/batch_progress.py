"""How far a batch run is, on standard error: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lockstep.commands import consoles

if TYPE_CHECKING:
    from lockstep.clients.batch import Progress as RunProgress
    from lockstep.clients.batch.run import Stage

_LINE_EVERY_S: Final = 10.0
_STAGES: Final[dict[Stage, str]] = {
    "survey": "Reading through the input",
    "classify": "Classifying",
    "finish": "Writing the output",
}


@contextlib.contextmanager
def shown(*, quiet: bool) -> Iterator[Callable[[RunProgress], None]]:
    """Yield what shows progress; it may be called from any thread."""
    if quiet or sys.stderr is None:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines()


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[RunProgress], None]]:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=consoles.messages(),
        expand=True,
    )
    with bar:
        pace = _Pace()
        stage: Stage | None = None
        task = bar.add_task("", total=None, rows="")

        def show(progress: RunProgress) -> None:
            nonlocal stage, task
            if progress.stage == "classify" != stage:
                if progress.resumed_rows:
                    bar.console.print(f"Going on after row {progress.resumed_rows:,}.")
                bar.remove_task(task)  # what earlier runs did is not this one's pace
                task = bar.add_task("", completed=progress.done, total=progress.total, rows="")
            stage = progress.stage
            bar.update(
                task,
                description=_STAGES[progress.stage],
                completed=progress.done,
                total=progress.total,
                rows=_figures(progress, pace),
            )

        yield show


class _Lines:
    """A line when a stage begins, and every ten seconds."""

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._said_s = 0.0
        self._pace = _Pace()

    def __call__(self, progress: RunProgress) -> None:
        now_s = time.monotonic()
        figures = _figures(progress, self._pace)
        if progress.stage != self._stage:
            self._stage = progress.stage
            self._said_s = now_s
            resumed = f", going on after row {progress.resumed_rows:,}" if progress.resumed_rows else ""
            self._say(_STAGES[progress.stage] + (resumed if progress.stage == "classify" else ""))
        elif now_s - self._said_s >= _LINE_EVERY_S:
            self._said_s = now_s
            share = f"{progress.done / progress.total:.0%}, " if progress.total else ""
            self._say(f"{share}{figures}{self._pace.left(progress)}")

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a log that is full or gone stops no run
            print(line, file=sys.stderr, flush=True)


class _Pace:
    """Rows a second, and the seconds that are left, of this run."""

    def __init__(self) -> None:
        self._began: tuple[float, int, int] | None = None

    def rows_per_s(self, progress: RunProgress) -> float:
        seconds, rows, _ = self._since(progress)
        return rows / seconds if seconds > 0 else 0.0

    def left(self, progress: RunProgress) -> str:
        seconds, _, done = self._since(progress)
        if not progress.total or done <= 0:
            return ""
        left_s = seconds * (progress.total - progress.done) / done
        return f", {left_s // 60:.0f}:{left_s % 60:02.0f} left"

    def _since(self, progress: RunProgress) -> tuple[float, int, int]:
        now_s = time.monotonic()
        if self._began is None or progress.stage == "survey":
            self._began = (now_s, progress.rows, progress.done)
        began_s, rows, done = self._began
        return now_s - began_s, progress.rows - rows, progress.done - done


def _figures(progress: RunProgress, pace: _Pace) -> str:
    failed = f", {progress.failed_rows:,} errors" if progress.failed_rows else ""
    return f"{progress.rows:,} rows, {pace.rows_per_s(progress):,.0f}/s{failed}"
