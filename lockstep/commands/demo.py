"""`lockstep demo`: the main job, on this machine, from nothing to a report."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache"),
    show_default=True,
    help="Folder that keeps the corpus and the trained models.",
)
@click.option(
    "--repository",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models"),
    show_default=True,
    help="Folder that the models are published into.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reports/demo"),
    show_default=True,
    help="Folder for the report.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5),
    default=3.0,
    show_default=True,
    help="How long each load test measures each backend.",
)
def demo(cache: Path, repository: Path, out: Path, seconds: float) -> None:
    """Do the main job: train, export, verify, serve, classify, load-test, report.

    The first run takes minutes, most of them training. What was done is kept: a second run starts at once.
    """
    from lockstep.clients import ClientError
    from lockstep.clients.loadtest.session import LoadTestError
    from lockstep.commands import consoles
    from lockstep.demo import DemoFailed, DemoPlan, run
    from lockstep.exporters.conversion import ExportError
    from lockstep.local_server import ServerFailed
    from lockstep.zoo.corpus import CorpusError
    from lockstep.zoo.train import TrainingFailed

    try:
        run(DemoPlan(cache, repository, out, seconds), consoles.answers())
    except* (ClientError, LoadTestError, ExportError, DemoFailed, ServerFailed, CorpusError, TrainingFailed) as errors:
        raise click.ClickException("; ".join(str(error) for error in errors.exceptions)) from errors
