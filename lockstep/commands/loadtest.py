"""`lockstep loadtest`: every backend of a model under the same load, side by side."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.commands.credentials import credential_options
from lockstep.commands.exit_codes import (
    CONNECT_S,
    NO_SERVER,
    fail,
    is_unwritable,
    let_go_of_output,
    no_server,
    unwritable,
)
from lockstep.commands.server_address import ServerAddress
from lockstep.commands.signals import Stop, stoppable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockstep.clients import Credentials
    from lockstep.clients.loadtest import Ceiling, LoadPlan, LoadRun, Progress, Setting, Slo

ROWS_FAILED, RUN_FAILED = 1, 3  # exit codes; 2 is click's own, for usage
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
            if not (0 < first < last < float("inf") and 2 <= many <= MOST_LOADS):
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


def _above_zero(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not value > 0:  # nor is nan
        raise click.BadParameter(f"{value:g} is not above 0")
    return value


def _texts(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    path = CORPUS_FILE if value == CORPUS else Path(value)
    if path.is_file():
        return str(path)
    why = "the corpus is not there: fetch it with `lockstep corpus`" if value == CORPUS else f"no file {value}"
    raise click.BadParameter(why)


@click.command("loadtest")
@click.option("--server", type=ServerAddress(), default="127.0.0.1:8001", show_default=True, metavar="HOST:PORT")
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
    "open: calls arrive at the rate, whether or not the server answers in time. "
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
    "--limit",
    "limit_s",
    default=1800.0,
    show_default=True,
    callback=_above_zero,
    metavar="SECONDS",
    help="No turn of a model begins later.",
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
    help="The server's metrics: thread budgets, CPU time, memory. "
    "Default: 127.0.0.1:8002 if the server is on this machine and answers there.",
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
    same texts at the same instants. Latency counts from the instant a call was meant to start. Each model's
    figures are printed and written when it is through. Ctrl-C and SIGTERM end the test and keep what was measured
    until then, as does whatever else ends it; a second signal ends it at once.

    \b
    lockstep loadtest                                  how many texts a second
    lockstep loadtest --rate 200                       how long they take at 200 a second
    lockstep loadtest --sweep-rate 50:800:8            how latency turns up as the load grows
    lockstep loadtest --slo p99=50ms                   the highest rate that meets the target
    lockstep loadtest --backends onnxruntime,free --texts reviews.jsonl

    Exit codes: 0 every text was answered; 1 some were not (a sweep or a search goes there on purpose: 0); 2 wrong
    usage, no such model or backend, or nowhere to write; 3 the test could not run, or not to its end; 4 no server
    answers, or not any more; 130 interrupted, 143 terminated.
    """  # noqa: D301  click reads the \b
    from lockstep.clients.loadtest import LoadPlan, LoadRun, Setting, Slo, loads_of, page  # noqa: F401  what it needs, too

    reports: _Reports | None = None
    with stoppable() as stop:
        try:
            if ceiling is True:
                _only_ceiling(load, stop)
                return
            swept = bool(rates or callers)
            if sum((swept, load["rate"] is not None, slo is not None)) > 1:
                raise click.UsageError("--rate, a sweep and --slo are different loads: name one kind")
            if mode is None:
                mode = "open" if load["rate"] is not None or (rates and not callers) else "closed"
            if mode == "open" and load["rate"] is None and rates:
                load["rate"] = rates[0]
            try:
                target = None if slo is None else Slo.parse(slo)
                plan = LoadPlan(model="", address=server, **{**load, "mode": mode})
                loads = loads_of(plan, rates=rates, callers=callers)
            except (ValueError, TypeError) as error:
                raise click.UsageError(str(error)) from error
            reports = _Reports(out, as_json=as_json, run=LoadRun((), command=_command(context)))
            names = _served(server, models, plan.backends, credentials)
            setting = Setting(
                credentials=credentials, limit_s=limit_s, ceiling=None if ceiling is False else _ceiling(plan, stop)
            )
            end = _run(names, loads, target, setting, stop, reports)
            reports.finish(end)
        except KeyboardInterrupt:
            done = "everything was written" if reports is not None and reports.any else "anything was measured"
            fail(f"{stop.word} before {done}", stop.exit_code)
    if not swept and target is None and reports.failed_rows:
        raise click.exceptions.Exit(ROWS_FAILED)


@dataclass(frozen=True, slots=True)
class _End:
    """Why a test ends before its end."""

    why: str
    exit_code: int


class _Reports:
    """What was measured until now: printed as soon as a model is through, and kept in both files from then on."""

    def __init__(self, out: str, *, as_json: bool, run: LoadRun) -> None:
        """See that the files can be written: what was measured is not to be lost for want of a folder."""
        from lockstep.clients.output_files import check_writable

        self._run = run
        self._as_json = as_json
        self._unprinted: OSError | None = None  # why nothing more is written to standard output
        self._json_path, self._page_path = Path(f"{out}.json"), Path(f"{out}.html")
        if not Path(out).name or out.endswith("/"):
            raise click.BadParameter(f"{out!r} names no file", param_hint="--out")
        try:
            check_writable(self._json_path)
            check_writable(self._page_path)
        except OSError as error:
            raise click.BadParameter(f"{out} cannot be written: {error}", param_hint="--out") from error

    @property
    def any(self) -> bool:
        return bool(self._run.reports)

    @property
    def failed_rows(self) -> int:
        return sum(backend.failed_rows for report in self._run.reports for backend in report.backends)

    def add(self, found: LoadRun, *, left: Sequence[str]) -> None:
        """Take what was found of a model; `left` are those that are still to be measured."""
        reports = tuple(report for report in found.reports if report.backends)
        if not reports:
            return
        found = replace(found, reports=reports)
        if not self._as_json:
            self._print(_tables(found))
        self._run = replace(
            self._run,
            reports=self._run.reports + reports,
            searches=self._run.searches + found.searches,
            cut_short=f"not measured: {', '.join(left)}" if left else None,
        )
        if left and (error := self._write()) is not None:
            click.echo(f"Cannot write yet: {error}", err=True)

    def finish(self, end: _End | None) -> None:
        """Print and write what there is; ends the command where it is not all that was asked for."""
        if not self._run.reports:
            end = end or _End("nothing was measured", RUN_FAILED)
            fail(end.why, end.exit_code)
        if end is not None:
            why = "; ".join(filter(None, (end.why, self._run.cut_short)))
            self._run = replace(self._run, cut_short=why)
            click.echo(f"Error: {why}", err=True)
        if self._as_json:
            self._print(self._run.to_json() + "\n")
        error = self._write()
        if error is None:
            click.echo(f"Wrote {self._json_path} and {self._page_path}", err=True)
        else:
            click.echo(f"Error: cannot write {self._json_path} and {self._page_path}: {error}", err=True)
        if end is not None:
            raise click.exceptions.Exit(end.exit_code)
        if error is not None:
            raise click.exceptions.Exit(RUN_FAILED)
        if self._unprinted is not None:
            unwritable(self._unprinted)

    def _write(self) -> OSError | None:
        from lockstep.clients.loadtest import write_run
        from lockstep.clients.loadtest.page import write_page

        run = self._run
        try:
            write_run(self._json_path, run)
            write_page(
                self._page_path, run.reports, searches=run.searches, command=run.command, cut_short=run.cut_short
            )
        except OSError as error:
            return error
        return None

    def _print(self, text: str) -> None:
        if self._unprinted is not None:
            return
        try:
            click.echo(text, nl=False)
        except OSError as error:  # `| head`, a full disk: the files are written all the same
            if not is_unwritable(error):
                raise
            self._unprinted = error
            let_go_of_output()


def _tables(run: LoadRun) -> str:
    from lockstep.clients.loadtest.table import print_run
    from lockstep.commands import consoles

    return consoles.drawn(lambda console: print_run(run, console), width=140)


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


def _served(
    server: str, models: tuple[str, ...], backends: tuple[str, ...], credentials: Credentials
) -> tuple[str, ...]:
    """Return the models to test, each once; a name that the server lacks is said before anything is measured."""
    from lockstep.clients import CallError, DeadlineExceeded, SyncSentimentClient, Unavailable
    from lockstep.clients.choice import ChoiceUnclear, choose_backends, choose_model
    from lockstep.clients.loadtest import FREE

    try:
        with SyncSentimentClient(server, timeout_s=CONNECT_S, credentials=credentials) as client:
            served = client.models()
        chosen = [choose_model(served, name) for name in dict.fromkeys(models)] or [choose_model(served, None)]
        for model in chosen:
            pinned = [name for name in backends if name != FREE]
            if pinned or not backends:
                choose_backends(model, pinned)
    except (Unavailable, DeadlineExceeded) as error:
        no_server(server, error)
    except CallError as error:
        fail(f"{error.code.name}: {error}", RUN_FAILED)
    except ChoiceUnclear as error:
        raise click.UsageError(f"{error} (--model)" if not models else str(error)) from error
    return tuple(model.name for model in chosen)


def _only_ceiling(load: dict[str, Any], stop: Stop) -> None:
    from lockstep.clients.loadtest import LoadPlan
    from lockstep.clients.loadtest.ceiling import ECHO

    kept = ("texts", "lengths", "texts_per_call", "wire", "processes", "seed", "timeout_s")
    try:
        plan = LoadPlan(model=ECHO, **{name: load[name] for name in kept})
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _ceiling(plan, stop, seconds=CEILING_S)


def _ceiling(plan: LoadPlan, stop: Stop, *, seconds: float | None = None) -> Ceiling:
    """Measure what the generator can send, and say it."""
    from lockstep.clients.loadtest import CeilingUnknown, TextsUnreadable
    from lockstep.clients.loadtest.ceiling import SECONDS
    from lockstep.clients.loadtest.ceiling import ceiling as measure
    from lockstep.clients.loadtest.table import ceiling_line
    from lockstep.commands import consoles

    console = consoles.messages()
    try:
        with console.status("measuring what the generator itself can send"):
            found = stop.run(measure(plan, seconds=seconds or SECONDS))
    except (CeilingUnknown, TextsUnreadable) as error:
        fail(str(error), RUN_FAILED)
    if seconds is None:
        console.print(ceiling_line(found), style="dim", highlight=False, soft_wrap=True)
    else:
        click.echo(ceiling_line(found))
    return found


def _run(
    names: Sequence[str],
    loads: Sequence[LoadPlan],
    slo: Slo | None,
    setting: Setting,
    stop: Stop,
    reports: _Reports,
) -> _End | None:
    """Measure model after model, and tell `reports`; returns why not all of them, where that is so."""
    for number, name in enumerate(names):
        found, end = _measure(name, loads, slo, setting, stop)
        left = names[number + 1 :]
        reports.add(found, left=left)
        if end is None and stop.signal is not None and (found.interrupted or left):
            end = _End(stop.word, stop.exit_code)
        if end is not None:
            return end
    return None


def _measure(
    name: str, loads: Sequence[LoadPlan], slo: Slo | None, setting: Setting, stop: Stop
) -> tuple[LoadRun, _End | None]:
    """Measure a model; returns what was found until it ended, and why it ended before its end."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from lockstep.clients import CallError, DeadlineExceeded, Unavailable
    from lockstep.clients.choice import ChoiceUnclear
    from lockstep.clients.loadtest import CutShort, LoadRun, LoadTestError, TextsUnreadable
    from lockstep.clients.loadtest.find import measure_search
    from lockstep.clients.loadtest.run import measure_sweep
    from lockstep.commands import consoles

    plans = [replace(load, model=name) for load in loads]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=consoles.messages(), transient=True) as bar:
        task = bar.add_task(f"{name}: waking its backends", total=None)

        def show(progress: Progress) -> None:
            leg = progress.leg
            bar.update(
                task,
                description=f"{progress.plan.model}: {leg.backend}, {progress.plan.load}, round {leg.round + 1}",
                total=progress.legs,
                completed=progress.number - 1,
            )

        setting = replace(setting, on_progress=show)
        try:
            if slo is None:
                return LoadRun(stop.run(measure_sweep(plans, setting))), None
            found = stop.run(measure_search(plans[0], slo, setting))
            return LoadRun(found.reports, (found.search,)), None
        except CutShort as error:
            kept = LoadRun(error.reports, () if error.search is None else (error.search,))
            return kept, _End(f"{name}: {error}", RUN_FAILED)
        except KeyboardInterrupt:
            end = _End(stop.word, stop.exit_code)
        except (Unavailable, DeadlineExceeded) as error:
            end = _End(f"{name}: no server answers at {plans[0].address} any more: {error}", NO_SERVER)
        except (CallError, ChoiceUnclear, LoadTestError, TextsUnreadable, OSError) as error:
            end = _End(f"{name}: {error}", RUN_FAILED)
    return LoadRun(()), end
