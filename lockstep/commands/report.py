"""`lockstep report`: what was measured, written down for people.

Importing this module imports no framework and no measuring.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from lockstep.framework_report.gather import Gathered
    from lockstep.framework_report.measure import OnProgress
    from lockstep.framework_report.measurement import Measurement
    from lockstep.framework_report.settings import Settings

FAILED, SOME_UNMEASURED, INTERRUPTED = 1, 3, 130  # exit codes; 2 is click's own, for usage

_FILE = click.Path(path_type=Path)
_KINDS = ("latency", "padding", "epochs", "load")


@click.group("report")
def report() -> None:
    """Write a report of what was measured."""


@report.command("frameworks")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--cache", type=_FILE, default=Path(".cache"), show_default=True, help="Where the zoo is kept.")
@click.option("--repository", type=_FILE, default=Path("models"), show_default=True, metavar="DIR")
@click.option(
    "--matrix",
    type=_FILE,
    default=Path("reports/export-matrix.json"),
    show_default=True,
    help="The figures of `lockstep export matrix`.",
)
@click.option(
    "--recorded",
    type=_FILE,
    default=Path("docs/reports/export-matrix.md"),
    show_default=True,
    help="The matrix's report of an earlier run: comes first, and is marked, where --matrix lacks a model.",
)
@click.option("--texts", type=_FILE, help="Held-out texts.  [default: CACHE/corpus/test.jsonl]")
@click.option(
    "--data",
    type=_FILE,
    default=Path("reports/framework-comparison.json"),
    show_default=True,
    help="What was measured, to go on from.",
)
@click.option("--out", type=_FILE, default=Path("docs/reports/framework-comparison.md"), show_default=True)
@click.option("--page", type=_FILE, default=Path("reports/framework-comparison.html"), show_default=True)
@click.option(
    "--only",
    "kinds",
    multiple=True,
    type=click.Choice(_KINDS),
    help="Measure these alone; may be given several times.",
)
@click.option("--measure/--no-measure", default=True, show_default=True, help="Measure what is missing.")
@click.option("--again", is_flag=True, help="Measure what was measured before too.")
@click.option("--train", is_flag=True, help="First train and export what is missing: about an hour and a half.")
def frameworks_command(models: tuple[str, ...], train: bool, **options: Any) -> None:
    """Hold PyTorch, Keras, TensorFlow 2 and TensorFlow 1 side by side: the article's claims, measured.

    Reads what training and exporting left of MODEL (all of the zoo by default), and measures what is missing:
    latency of every artifact and its source's modes, throughput and latency under load, what padding costs in
    serving and in training. Resumable: what was measured, and has not changed, is not measured again. Measure
    on a machine that does nothing else; the report says how much others used of it.

    \b
    Exit codes: 0 all that is listed was measured; 1 an error; 2 wrong usage;
    3 something could not be measured (the report says why); 130 interrupted.
    """  # noqa: D301  click reads the \b
    from lockstep.zoo.registry import UnknownModel

    try:
        if train:
            _train_and_export(models, options)
        failed = _write(models, **options)
    except UnknownModel as error:
        raise click.BadParameter(str(error), param_hint="MODEL") from error
    except KeyboardInterrupt:
        click.echo("interrupted: what was measured is kept; run it again to go on", err=True)
        sys.exit(INTERRUPTED)
    for key, why in failed.items():
        click.echo(f"not measured: {key}: {why}", err=True)
    sys.exit(SOME_UNMEASURED if failed else 0)


def _train_and_export(models: tuple[str, ...], options: dict[str, Any]) -> None:
    from lockstep import export_matrix
    from lockstep.commands.export import shown_progress

    cache: Path = options["cache"]
    order = export_matrix.Order(
        rows=models,
        cache=cache,
        repository=options["repository"],
        report=options["matrix"].with_suffix(".md"),
        data=options["matrix"],
        verify_with=options["texts"] or cache / "corpus" / "test.jsonl",
        train=True,
    )
    with shown_progress() as on_progress:
        outcome = export_matrix.run(order, on_progress)
    for row, message in outcome.errors.items():
        click.echo(f"Error: {row}: {message}", err=True)


def _write(
    models: tuple[str, ...],
    *,
    cache: Path,
    repository: Path,
    matrix: Path,
    recorded: Path,
    texts: Path | None,
    data: Path,
    out: Path,
    page: Path,
    kinds: tuple[str, ...],
    measure: bool,
    again: bool,
) -> dict[str, str]:
    """Measure and write; return why, by key, what could not be measured was not."""
    from lockstep.clients.output_files import write_whole
    from lockstep.framework_report import render
    from lockstep.framework_report.gather import gather
    from lockstep.framework_report.measure import pending, run
    from lockstep.framework_report.measurement_store import Kept, StoreUnreadable
    from lockstep.framework_report.report_data import Facts
    from lockstep.framework_report.settings import Settings
    from lockstep.zoo.corpus import CorpusError
    from lockstep.zoo.registry import select

    try:
        kept = Kept.read(data)
        gathered = gather(select(models), cache, repository, matrix, recorded)
    except (StoreUnreadable, ValueError) as error:
        _fail(str(error))
    if not any(row.record is not None for row in gathered.rows):
        _fail(f"nothing of {cache / 'zoo'} is trained: run lockstep export matrix --train first, or add --train")
    settings, failed = Settings(), {}
    if measure:
        try:
            todo = pending(listed(gathered, settings, cache, texts, kinds), kept, again=again)
        except CorpusError as error:
            _fail(str(error))
        with _shown(len(todo)) as on_progress:
            failed = run(todo, kept, kept_command(models, kinds, again), on_progress)
    facts = Facts(gathered, kept)
    for path, text in (
        (out, render.markdown(facts, settings, failed)),
        (page, render.page(facts, settings, failed)),
    ):
        write_whole(path, text)
    click.echo(f"report: {out}; page: {page}; figures: {data}")
    return failed


def listed(
    gathered: Gathered, settings: Settings, cache: Path, texts: Path | None, kinds: tuple[str, ...]
) -> list[Measurement]:
    """List the measurements of these kinds, of all for none; raises `CorpusError` where there is no corpus."""
    from lockstep.framework_report import backend_latency, epochs, load, padding
    from lockstep.zoo.corpus import open_corpus

    verify_with = texts or cache / "corpus" / "test.jsonl"
    corpus = open_corpus(cache / "corpus")
    of_kind: dict[str, list[Measurement]] = {
        "latency": backend_latency.measurements(gathered, settings, verify_with),
        "padding": padding.measurements(gathered, settings, verify_with),
        "epochs": epochs.measurements(gathered, settings, corpus, cache / "tokenizer.json"),
        "load": load.measurements(gathered, settings, verify_with),
    }
    return [one for kind in _KINDS if not kinds or kind in kinds for one in of_kind[kind]]


def kept_command(models: tuple[str, ...], kinds: tuple[str, ...], again: bool) -> str:
    """Return the command line that a measurement is kept with, without its paths."""
    parts = ["lockstep report frameworks", *models, *(f"--only {kind}" for kind in kinds), *(["--again"] * again)]
    return " ".join(parts)


@contextmanager
def _shown(total: int) -> Iterator[OnProgress]:
    """Show progress on standard error: live on a terminal, else a line for each step."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Live

    from lockstep.commands import consoles
    from lockstep.framework_report.measure import Progress

    console = consoles.messages()
    if not console.is_terminal:

        def tell(progress: Progress) -> None:
            click.echo(f"[{progress.number}/{progress.total}] {progress.key}: {progress.message}", err=True)

        yield tell
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Live(*columns, console=console) as live:
        task = live.add_task("", total=total)

        def show(progress: Progress) -> None:
            live.update(task, completed=progress.number - 1, description=f"{progress.key}: {progress.message}")

        yield show
        live.update(task, completed=total, description="")


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(FAILED)
