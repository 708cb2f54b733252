"""`lockstep loadtest`: every backend of a model under the same load, side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from clients.loadtest import LoadPlan, LoadReport, Progress

ROWS_FAILED, RUN_FAILED, NO_SERVER, INTERRUPTED = 1, 3, 4, 130  # exit codes; 2 is click's own, for usage
CONNECT_S = 3.0
EXTRA = ("hdrh", "jinja2", "plotly")


def _names(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for names in value for name in names.split(",") if name)


@click.command("loadtest")
@click.option("--server", default="127.0.0.1:8001", show_default=True, metavar="HOST:PORT")
@click.option(
    "--model",
    "models",
    multiple=True,
    callback=_names,
    metavar="NAME[,NAME]",
    help="May be left out where the server has one model; several are tested one after the other.",
)
@click.option(
    "--backends",
    multiple=True,
    callback=_names,
    metavar="NAME[,NAME]",
    help="Default: every backend of the model. `free` pins the rows to none.",
)
@click.option(
    "--mode",
    type=click.Choice(["closed", "open"]),
    default="closed",
    show_default=True,
    help="closed: callers that wait for their answers, to find the throughput. "
    "open: calls that come whether or not the server keeps up, to find the latency at a rate.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["poisson", "constant"]),
    default="poisson",
    show_default=True,
    help="How the calls of an open loop are spaced.",
)
@click.option("--concurrency", default=32, show_default=True, metavar="N", help="Callers of a closed loop.")
@click.option("--rate", type=float, metavar="R", help="Texts a second of an open loop.")
@click.option("--seconds", default=10.0, show_default=True, help="Measured for each backend, all its rounds together.")
@click.option("--rows", type=int, metavar="N", help="Texts measured for each backend at most.")
@click.option(
    "--rounds", default=3, show_default=True, help="Turns that each backend gets, interleaved with the others'."
)
@click.option(
    "--warmup", "warmup_s", default=1.0, show_default=True, metavar="SECONDS", help="Unmeasured, in each turn."
)
@click.option("--texts-per-call", default=1, show_default=True, metavar="N")
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help='.jsonl (objects with a "text") or one text a line. Default: a built-in sample.',
)
@click.option("--truncate/--no-truncate", default=True, show_default=True, help="Cut texts that are too long.")
@click.option("--timeout", "timeout_s", default=10.0, show_default=True, metavar="SECONDS", help="Of each call.")
@click.option("--seed", default=0, show_default=True, help="Of the texts' order and the arrivals.")
@click.option(
    "--http",
    metavar="HOST:PORT",
    help="The server's metrics, to check that thread budgets are equal. Default: 127.0.0.1:8002 if it answers.",
)
@click.option(
    "--out",
    default="reports/loadtest",
    show_default=True,
    metavar="PATH",
    help="Writes PATH.json and PATH.html.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of tables.")
def loadtest(
    server: str,
    models: tuple[str, ...],
    backends: tuple[str, ...],
    mode: str,
    arrivals: str,
    concurrency: int,
    rate: float | None,
    seconds: float,
    rows: int | None,
    rounds: int,
    warmup_s: float,
    texts_per_call: int,
    texts: str | None,
    truncate: bool,
    timeout_s: float,
    seed: int,
    http: str | None,
    out: str,
    as_json: bool,
) -> None:
    """Load-test the backends of a model side by side.

    Backends take short turns (A B, B A, ...), so that a drift of the machine hits all alike, with the
    same texts at the same instants. Latency counts from the instant a call was meant to start. Ctrl-C
    stops, and prints what was measured until then.

    \b
    lockstep loadtest                                  how many texts a second
    lockstep loadtest --mode open --rate 200           how long they take at 200 a second
    lockstep loadtest --backends onnxruntime,free --texts reviews.jsonl

    Exit codes: 0 every text was answered; 1 some were not; 2 wrong usage, or no such model or
    backend; 3 the test could not run; 4 no server answers; 130 interrupted.
    """  # noqa: D301  click reads the \b
    try:
        from clients.loadtest import LoadPlan
        from clients.loadtest.page import write_page
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        _fail(f"the load test needs {error.name}: pip install 'lockstep[loadtest]'", RUN_FAILED)
    from typing import cast, get_args

    from clients.loadtest import write_reports
    from clients.loadtest.plan import Arrivals, Mode

    assert mode in get_args(Mode)
    assert arrivals in get_args(Arrivals)
    chosen = models or _only_model(server)
    try:
        plans = [
            LoadPlan(
                model=model,
                address=server,
                backends=backends,
                mode=cast("Mode", mode),
                arrivals=cast("Arrivals", arrivals),
                concurrency=concurrency,
                rate=rate,
                seconds=seconds,
                rows=rows,
                rounds=rounds,
                warmup_s=warmup_s,
                texts_per_call=texts_per_call,
                truncate=truncate,
                timeout_s=timeout_s,
                seed=seed,
                texts=texts,
                http=http,
            )
            for model in chosen
        ]
    except ValueError as error:
        raise click.UsageError(str(error)) from error

    reports = _run(plans)
    if not reports:
        _fail("interrupted before anything was measured", INTERRUPTED)
    json_path, page_path = Path(f"{out}.json"), Path(f"{out}.html")
    write_reports(json_path, reports)
    write_page(page_path, reports)
    _print(reports, as_json=as_json)
    click.echo(f"Wrote {json_path} and {page_path}", err=True)
    if any(report.interrupted for report in reports):
        raise click.exceptions.Exit(INTERRUPTED)
    if any(backend.failed_rows for report in reports for backend in report.backends):
        raise click.exceptions.Exit(ROWS_FAILED)


def _fail(message: str, exit_code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    raise click.exceptions.Exit(exit_code)


def _no_server(server: str, error: Exception) -> NoReturn:
    _fail(f"no server answers at {server}: {error}\nStart one with: lockstep serve", NO_SERVER)


def _only_model(server: str) -> tuple[str, ...]:
    from clients import CallError, DeadlineExceeded, SyncSentimentClient, Unavailable
    from clients.choice import ChoiceUnclear, choose_model

    try:
        with SyncSentimentClient(server, timeout_s=CONNECT_S) as client:
            return (choose_model(client.models(), None).name,)
    except (Unavailable, DeadlineExceeded) as error:
        _no_server(server, error)
    except CallError as error:
        _fail(f"{error.code.name}: {error}", RUN_FAILED)
    except ChoiceUnclear as error:
        raise click.UsageError(f"{error} (--model)") from error


def _run(plans: list[LoadPlan]) -> list[LoadReport]:
    """Run the plans; an interrupted one ends the list, and is in it if it measured anything."""
    from rich.console import Console

    from clients import CallError, DeadlineExceeded, Unavailable
    from clients.choice import ChoiceUnclear
    from clients.loadtest import LoadTestError, TextsUnreadable, run_loadtest

    reports: list[LoadReport] = []
    console = Console(stderr=True)
    for plan in plans:
        with console.status(f"{plan.model}: waking its backends") as status:

            def show(progress: Progress, plan: LoadPlan = plan) -> None:
                leg = progress.leg
                status.update(
                    f"{plan.model}: {leg.backend}, round {leg.round + 1} of {plan.rounds} "
                    f"({progress.number}/{progress.legs}, {leg.warmup_s + leg.window_s:.1f} s each)"
                )

            try:
                report = run_loadtest(plan, on_progress=show)
            except KeyboardInterrupt:
                break
            except (Unavailable, DeadlineExceeded) as error:
                _no_server(plan.address, error)
            except ChoiceUnclear as error:
                raise click.UsageError(str(error)) from error
            except (CallError, LoadTestError, TextsUnreadable) as error:
                _fail(str(error), RUN_FAILED)
        if report.backends:
            reports.append(report)
        if report.interrupted:
            break
    return reports


def _print(reports: list[LoadReport], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([json.loads(report.to_json()) for report in reports], indent=2))
        return
    from rich.console import Console

    from clients.loadtest.table import print_report

    # A pipe has no width of its own: the table keeps its columns there.
    console = Console(width=None if sys.stdout.isatty() else 140)
    for report in reports:
        print_report(report, console)
