"""`python -m benchmarks.run`: measure the rows of the performance report and write it.

    --list          the rows and experiments
    --only KEY      one row, or all of an experiment; may be repeated
    --quick         a smoke run: short windows, two pairs, reports of its own
    --resume        keep the rounds that are already there

Results are saved after every round. Exit codes: 0 measured, 1 something failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.compare import PAIRS, interleaved
from benchmarks.experiments import EXPERIMENTS, FULL, QUICK, Bench, Experiment, Figures, Row
from benchmarks.gateway import Generator
from benchmarks.generator import LoadFailed
from benchmarks.models import ModelNotMade
from benchmarks.offline import OfflineFailed
from benchmarks.report import Measured, Results, commit, estimate, machine, markdown, notes_of, shown
from benchmarks.workload import of_corpus
from lockstep.local_server import ServerFailed
from lockstep.zoo.corpus import fetch

_STARTED_S = time.monotonic()
_QUICK_PAIRS = 2
_FAILURES = (LoadFailed, ServerFailed, OfflineFailed, ModelNotMade)


def main() -> int:
    """Measure what the command line asks for."""
    options = _parse()
    if options.list:
        for experiment in EXPERIMENTS:
            print(f"{experiment.key}{' (only where it is named)' if experiment.extra else ''}")
            for row in experiment.rows:
                print(f"    {row.key:36} {row.bound or ''!s:>8}  {row.figure}")
        return 0
    results = _results(options)
    with Generator() as generator:
        workload = of_corpus(fetch(options.cache / "corpus"))
        servers = options.cache / "bench" / "servers"
        shutil.rmtree(servers / "state", ignore_errors=True)  # costs are measured again, as at a first start
        bench = Bench(options.cache, servers, workload, QUICK if options.quick else FULL, generator, say)
        bench.bounds.update(results.bounds)
        results.circumstances |= machine() | {
            "workload": f"{len(workload.texts):,} texts, {workload.documents} of them documents, {workload.fingerprint}"
        }
        failed = False
        for experiment in EXPERIMENTS:
            rows = [row for row in experiment.rows if _wanted(experiment, row, options.only)]
            failed |= not _measure(experiment, rows, bench, results, options)
            _write(results, options)
    say(f"{options.report} and {options.json} are written")
    return int(failed)


def say(message: str) -> None:
    """Print a line of progress, with the minutes since the start."""
    elapsed_s = int(time.monotonic() - _STARTED_S)
    print(f"[{elapsed_s // 60:2d}:{elapsed_s % 60:02d}] {message}", flush=True)


def _measure(
    experiment: Experiment, rows: Sequence[Row], bench: Bench, results: Results, options: argparse.Namespace
) -> bool:
    """Measure the rows of one experiment, as many rounds as they lack. Returns whether all went well."""
    lacking = {row.key: options.pairs - len(results.rows.get(row.key, Measured()).rounds) for row in rows}
    rows = [row for row in rows if lacking[row.key] > 0]
    if not rows:
        return True
    rounds = max(lacking[row.key] for row in rows)
    wanted = frozenset(name for row in rows for name in row.needs)
    began_s, before_s = time.monotonic(), max(results.rows.get(row.key, Measured()).seconds for row in rows)
    say(f"{experiment.key}: {rounds} rounds of {', '.join(sorted(wanted))}")
    load, now, measured_commit = os.getloadavg()[0], datetime.now(UTC).isoformat(timespec="seconds"), commit()
    for row in rows:
        measured = results.rows.setdefault(row.key, Measured())
        measured.load, measured.measured_at, measured.commit, measured.error = load, now, measured_commit, ""
    try:
        with ExitStack() as stack:
            conditions = experiment.open(bench, stack, wanted)
            for found in interleaved(conditions, rounds, _tell):
                for row in rows:
                    measured = results.rows[row.key]
                    measured.seconds = before_s + time.monotonic() - began_s
                    if len(measured.rounds) < options.pairs:
                        measured.rounds.append({name: found[name] for name in row.needs})
                results.bounds = {name: dict(bound) for name, bound in bench.bounds.items()}
                results.circumstances |= {f"model {name}": model.source for name, model in bench.models.items()}
                results.save(options.json)
    except _FAILURES as error:
        say(f"  {experiment.key} FAILED: {error}")
        for row in rows:
            results.rows[row.key].error = str(error)
        return False
    for row in rows:
        figure = estimate(row, results.rows[row.key])
        verdict = f", bound {row.bound}: {figure.verdict(row.bound)}" if row.bound else ""
        interval = f"{shown(row, figure.low)} to {shown(row, figure.high)}"
        say(f"  {row.key}: {shown(row, figure.median)} ({interval}){verdict}")
    return True


def _wanted(experiment: Experiment, row: Row, only: Sequence[str]) -> bool:
    return bool({row.key, experiment.key} & set(only)) if only else not experiment.extra


def _tell(number: int, name: str, figures: Figures) -> None:
    names = ("texts_per_s", "rows_per_s", "cpu_ms", "batch_rows", "padding", "p50_ms", "p99_ms", "echo_ms")
    brief = ", ".join(f"{name} {figures[name]:,.4g}" for name in names if name in figures)
    say(f"  round {number + 1}, {name}: {brief}")


def _results(options: argparse.Namespace) -> Results:
    """Return the results so far that are kept: all with --resume, those of other rows with --only."""
    if not options.json.is_file() or not (options.resume or options.only):
        return Results({})
    try:
        results = Results.load(options.json)
    except (ValueError, TypeError, KeyError) as error:
        sys.exit(f"{options.json}: {error}")
    if not options.resume:
        again = {
            row.key for experiment in EXPERIMENTS for row in experiment.rows if _wanted(experiment, row, options.only)
        }
        results.rows = {key: measured for key, measured in results.rows.items() if key not in again}
    return results


def _write(results: Results, options: argparse.Namespace) -> None:
    results.save(options.json)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    command = "make bench" if not options.quick else "python -m benchmarks.run --quick"
    kept = options.json if not options.json.is_absolute() else Path(options.json.name)
    options.report.write_text(markdown(results, command, kept, notes_of(options.report)), encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    parser.add_argument("--only", action="append", default=[], metavar="KEY", help="a row or an experiment; repeatable")
    parser.add_argument("--quick", action="store_true", help="a smoke run, with reports of its own")
    parser.add_argument("--resume", action="store_true", help="keep the rounds that are already there")
    parser.add_argument(
        "--pairs", type=int, metavar="N", help=f"rounds  [default: {PAIRS}; {_QUICK_PAIRS} with --quick]"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--report", type=Path, help="[default: docs/reports/performance.md]")
    parser.add_argument("--json", type=Path, help="[default: reports/performance.json]")
    options = parser.parse_args()
    known = {experiment.key for experiment in EXPERIMENTS}
    known |= {row.key for experiment in EXPERIMENTS for row in experiment.rows}
    if unknown := set(options.only) - known:
        parser.error(f"--only {', '.join(sorted(unknown))}: see --list")
    options.pairs = options.pairs or (_QUICK_PAIRS if options.quick else PAIRS)
    reports, name = (Path("reports"), "performance-quick") if options.quick else (Path("docs/reports"), "performance")
    options.report = options.report or reports / f"{name}.md"
    options.json = options.json or Path("reports") / f"{name}.json"
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted: --resume goes on from here")
        sys.exit(130)
