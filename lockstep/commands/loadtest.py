"""`lockstep loadtest`: every backend of a model under the same load, side by side."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.commands.credentials import credential_options
from lockstep.commands.ending import CONNECT_S, fail, no_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clients import Credentials
    from clients.loadtest import Ceiling, LoadPlan, LoadRun, Progress, Setting, Slo

ROWS_FAILED, RUN_FAILED, INTERRUPTED = 1, 3, 130  # exit codes; 2 is click's own, for usage
EXTRA = ("hdrh", "jinja2", "plotly", "psutil")
CORPUS = "corpus"
CORPUS_FILE = Path(".cache/corpus/test.jsonl")  # where `lockstep corpus` puts it
MOST_LOADS = 64
CEILING_S = 3.0


def _names(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for names in value for name in names.split(",") if name)


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Read `1,2,4` or `LOW:HIGH:COUNT`, which is evenly spaced."""
    if value is None:
        return ()
    try:
        if ":" in value:
            low, high, count = value.split(":")
            first, last, many = float(low), float(high), int(count)
            if not (0 < first < last and 2 <= many <= MOST_LOADS):
                raise click.BadParameter(f"{value}: 0 < LOW < HIGH, and COUNT from 2 to {MOST_LOADS}")
            return tuple(float(f"{first + (last - first) * n / (many - 1):.4g}") for n in range(many))
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value}: expected LOW:HIGH:COUNT or numbers separated by commas") from None
    if not all(0 < number < float("inf") for number in numbers) or len(numbers) > MOST_LOADS:
        raise click.BadParameter(f"{value}: up to {MOST_LOADS} numbers above 0")
    return numbers


def _whole(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    return tuple(max(1, round(number)) for number in _numbers(context, parameter, value))


def _texts(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    path = CORPUS_FILE if value == CORPUS else Path(value)
    if path.is_file():
        return str(path)
    why = "the corpus is not there: fetch it with `lockstep corpus`" if value == CORPUS else f"no file {value}"
    raise click.BadParameter(why)


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
    help="closed: callers that wait for their answers, to find the throughput. "
    "open: calls that come whether or not the server keeps up, to find the latency at a rate. "
    "Default: open where a rate is given, else closed.",
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
@click.option(
    "--sweep-rate",
    "rates",
    callback=_numbers,
    metavar="LOW:HIGH:COUNT",
    help="An open loop at each of these rates (or at a list: 50,100,200), to find where latency turns up.",
)
@click.option(
    "--sweep-concurrency",
    "callers",
    callback=_whole,
    metavar="N,N,...",
    help="A closed loop of each of these many callers.",
)
@click.option(
    "--slo",
    metavar="p99=50ms",
    help="Search for the highest rate at which this holds, on every backend; each try lasts seconds / rounds.",
)
@click.option(
    "--seconds", default=10.0, show_default=True, help="Measured for each backend and load, all its rounds together."
)
@click.option("--rows", type=int, metavar="N", help="Texts measured for each backend and load at most.")
@click.option(
    "--rounds", default=3, show_default=True, help="Turns that each backend gets, interleaved with the others'."
)
@click.option(
    "--warmup", "warmup_s", default=1.0, show_default=True, metavar="SECONDS", help="Unmeasured, in each turn."
)
@click.option(
    "--limit", "limit_s", default=1800.0, show_default=True, metavar="SECONDS", help="No turn of a model begins later."
)
@click.option("--texts-per-call", default=1, show_default=True, metavar="N")
@click.option(
    "--texts",
    callback=_texts,
    metavar="FILE|corpus",
    help='.jsonl (objects with a "text") or one text a line; `corpus`: what `lockstep corpus` fetched. '
    "Default: a built-in sample.",
)
@click.option(
    "--lengths",
    metavar="DISTRIBUTION",
    help="Synthetic texts instead, of so many words: fixed:32, uniform:1:128, lognormal:mean=24,sigma=0.6,max=256.",
)
@click.option(
    "--wire",
    type=click.Choice(["unary", "stream"]),
    default="unary",
    show_default=True,
    help="unary: a call each. stream: messages on one stream of each generator process.",
)
@click.option("--truncate/--no-truncate", default=True, show_default=True, help="Cut texts that are too long.")
@click.option("--timeout", "timeout_s", default=10.0, show_default=True, metavar="SECONDS", help="Of each call.")
@click.option("--seed", default=0, show_default=True, help="Of the texts' order and the arrivals.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Processes that generate the load. Default: one for every four cores, 8 at most.",
)
@click.option(
    "--ceiling/--no-ceiling",
    default=None,
    help="What the generator itself can send, measured against a server that answers at once: only that, or not. "
    "Default: for a second, before the test.",
)
@click.option(
    "--http",
    metavar="HOST:PORT",
    help="The server's metrics: thread budgets, CPU time, memory. Default: 127.0.0.1:8002 if it answers.",
)
@click.option(
    "--out",
    default="reports/loadtest",
    show_default=True,
    metavar="PATH",
    help="Writes PATH.json and PATH.html.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of tables.")
@credential_options
@click.pass_context
def loadtest(
    context: click.Context,
    /,
    *,
    server: str,
    models: tuple[str, ...],
    mode: str | None,
    rates: tuple[float, ...],
    callers: tuple[int, ...],
    slo: str | None,
    limit_s: float,
    ceiling: bool | None,
    out: str,
    as_json: bool,
    credentials: Credentials,
    **load: Any,
) -> None:
    """Load-test the backends of a model side by side.

    Backends take short turns (A B, B A, ...), so that a drift of the machine hits all alike, with the
    same texts at the same instants. Latency counts from the instant a call was meant to start. Ctrl-C
    stops, and prints what was measured until then.

    \b
    lockstep loadtest                                  how many texts a second
    lockstep loadtest --rate 200                       how long they take at 200 a second
    lockstep loadtest --sweep-rate 50:800:8            how latency turns up as the load grows
    lockstep loadtest --slo p99=50ms                   the highest rate that holds it
    lockstep loadtest --backends onnxruntime,free --texts reviews.jsonl

    Exit codes: 0 every text was answered; 1 some were not (a sweep or a search goes there on purpose: 0); 2 wrong
    usage, or no such model or backend; 3 the test could not run; 4 no server answers; 130 interrupted.
    """  # noqa: D301  click reads the \b
    from dataclasses import replace

    try:
        from clients.loadtest import LoadPlan, Setting
        from clients.loadtest.page import write_page
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        fail(f"the load test needs {error.name}: pip install 'lockstep[loadtest]'", RUN_FAILED)

    from clients.loadtest import LoadRun, Slo, write_run

    if ceiling is True:
        _only_ceiling(load)
        return
    swept = bool(rates or callers)
    if sum((swept, load["rate"] is not None, slo is not None)) > 1:
        raise click.UsageError("--rate, a sweep and --slo are different loads: name one kind")
    if mode is None:
        mode = "open" if load["rate"] is not None or (rates and not callers) else "closed"
    if mode == "open" and load["rate"] is None and rates:
        load["rate"] = rates[0]
    chosen = models or _only_model(server, credentials)
    load["mode"] = mode
    try:
        promise = None if slo is None else Slo.parse(slo)
        plans = [LoadPlan(model=model, address=server, **load) for model in chosen]
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from error

    setting = Setting(
        credentials=credentials, limit_s=limit_s, ceiling=None if ceiling is False else _ceiling(plans[0])
    )
    measured = LoadRun((), command=_command(context))
    for found in _run(plans, rates, callers, promise, setting):
        measured = replace(
            measured, reports=measured.reports + found.reports, searches=measured.searches + found.searches
        )
    run = measured
    if not run.reports:
        fail("interrupted before anything was measured", INTERRUPTED)
    json_path, page_path = Path(f"{out}.json"), Path(f"{out}.html")
    write_run(json_path, run)
    write_page(page_path, run.reports, searches=run.searches, command=run.command)
    _print(run, as_json=as_json)
    click.echo(f"Wrote {json_path} and {page_path}", err=True)
    if run.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    if (
        not swept
        and promise is None
        and any(backend.failed_rows for report in run.reports for backend in report.backends)
    ):
        raise click.exceptions.Exit(ROWS_FAILED)


def _command(context: click.Context) -> str:
    """Return the command line without what was left to its default."""
    words = ["lockstep", "loadtest"]
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words.append(parameter.opts[0] if value or not parameter.secondary_opts else parameter.secondary_opts[0])
            continue
        parts = (
            [f"{part:g}" if isinstance(part, float) else str(part) for part in value]
            if isinstance(value, tuple)
            else [f"{value:g}" if isinstance(value, float) else str(value)]
        )
        words += [parameter.opts[0], ",".join(parts)]
    return shlex.join(words)


def _only_model(server: str, credentials: Credentials) -> tuple[str, ...]:
    from clients import CallError, DeadlineExceeded, SyncSentimentClient, Unavailable
    from clients.choice import ChoiceUnclear, choose_model

    try:
        with SyncSentimentClient(server, timeout_s=CONNECT_S, credentials=credentials) as client:
            return (choose_model(client.models(), None).name,)
    except (Unavailable, DeadlineExceeded) as error:
        no_server(server, error)
    except CallError as error:
        fail(f"{error.code.name}: {error}", RUN_FAILED)
    except ChoiceUnclear as error:
        raise click.UsageError(f"{error} (--model)") from error


def _only_ceiling(load: dict[str, Any]) -> None:
    from clients.loadtest import LoadPlan
    from clients.loadtest.ceiling import ECHO

    kept = ("texts", "lengths", "texts_per_call", "wire", "processes", "seed", "timeout_s")
    try:
        plan = LoadPlan(model=ECHO, **{name: load[name] for name in kept})
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _ceiling(plan, seconds=CEILING_S)


def _ceiling(plan: LoadPlan, *, seconds: float | None = None) -> Ceiling:
    """Measure what the generator can send, and say it."""
    from rich.console import Console

    from clients.loadtest import CeilingUnknown, TextsUnreadable, measure_ceiling
    from clients.loadtest.table import ceiling_line

    console = Console(stderr=True)
    try:
        with console.status("measuring what the generator itself can send"):
            found = measure_ceiling(plan) if seconds is None else measure_ceiling(plan, seconds=seconds)
    except (CeilingUnknown, TextsUnreadable) as error:
        fail(str(error), RUN_FAILED)
    except KeyboardInterrupt:
        fail("interrupted before anything was measured", INTERRUPTED)
    if seconds is None:
        console.print(ceiling_line(found), style="dim", highlight=False, soft_wrap=True)
    else:
        click.echo(ceiling_line(found))
    return found


def _run(
    plans: list[LoadPlan], rates: tuple[float, ...], callers: tuple[int, ...], slo: Slo | None, setting: Setting
) -> Iterator[LoadRun]:
    """Run the plans and yield what each found; an interrupted one is the last, and is there if it measured anything."""
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from clients import CallError, DeadlineExceeded, Unavailable
    from clients.choice import ChoiceUnclear
    from clients.loadtest import LoadRun, LoadTestError, TextsUnreadable, loads_of, run_search, run_sweep

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    for plan in plans:
        loads = loads_of(plan, rates=rates, callers=callers)
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"{plan.model}: waking its backends", total=None)

            def show(progress: Progress, bar: Bar = bar, task: Any = task) -> None:
                leg = progress.leg
                bar.update(
                    task,
                    description=f"{progress.plan.model}: {leg.backend}, {progress.plan.load}, round {leg.round + 1}",
                    total=progress.legs,
                    completed=progress.number - 1,
                )

            showing = replace(setting, on_progress=show)

            try:
                if slo is None:
                    run = LoadRun(run_sweep(loads, showing))
                else:
                    found = run_search(plan, slo, showing)
                    run = LoadRun(found.reports, (found.search,))
            except KeyboardInterrupt:
                break
            except (Unavailable, DeadlineExceeded) as error:
                no_server(plan.address, error)
            except ChoiceUnclear as error:
                raise click.UsageError(str(error)) from error
            except (CallError, LoadTestError, TextsUnreadable, OSError) as error:
                fail(str(error), RUN_FAILED)
        yield replace(run, reports=tuple(report for report in run.reports if report.backends))
        if run.interrupted:
            break


def _print(run: LoadRun, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(json.loads(run.to_json()), indent=2))
        return
    from rich.console import Console

    from clients.loadtest.table import print_run

    # A pipe has no width of its own: the table keeps its columns there.
    console = Console(width=None if sys.stdout.isatty() else 140)
    print_run(run, console)
