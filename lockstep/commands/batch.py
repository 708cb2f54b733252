"""`lockstep batch`: a whole file through a server, in order; a run that was stopped goes on where it was."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from lockstep.commands.credentials import credential_options
from lockstep.commands.exit_codes import SIGNALLED, fail, no_server
from lockstep.commands.seconds import Seconds
from lockstep.commands.server_address import ServerAddress
from lockstep.commands.signals import taking_signals

if TYPE_CHECKING:
    from lockstep.clients import Credentials
    from lockstep.clients.batch import BatchPlan, Summary

ROWS_FAILED, RUN_FAILED = 1, 3  # exit codes; 2 is click's own, for usage
_ONE_REQUEST_S: Final = 0.5
"""Signals so close are one request: what runs us may pass on to us what its whole process group gets."""
FORMAT = click.Choice(["jsonl", "csv", "parquet"])
_PATH = click.Path(allow_dash=True, path_type=Path)


@click.command("batch")
@click.argument("input", type=_PATH)
@click.argument("output", type=_PATH)
@click.option("--text-column", default="text", show_default=True, metavar="NAME", help="Holds what is classified.")
@click.option("--server", type=ServerAddress(), metavar="HOST:PORT", help="[default: 127.0.0.1:8001]")
@click.option("--local", is_flag=True, help="Start a server for this run, and stop it afterwards.")
@click.option(
    "--repository",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models"),
    show_default=True,
    help="The models of --local.",
)
@click.option("--model", metavar="NAME", help="May be left out where the server has one model.")
@click.option("--backend", metavar="NAME", help="Pin the rows to this backend; else the server chooses.")
@click.option("--truncate", is_flag=True, help="Cut a text that is too long; else its row is an error.")
@click.option(
    "--prefix", default="", metavar="TEXT", help="Of the added columns' names: predicted_ gives predicted_label."
)
@click.option("--strict", is_flag=True, help="Stop at the first row that fails.")
@click.option("--overwrite", is_flag=True, help="Replace an output that is there.")
@click.option("--restart", is_flag=True, help="Begin anew where an earlier run was stopped.")
@click.option("--input-format", type=FORMAT, help="Where the name does not say it.")
@click.option("--output-format", type=FORMAT, help="Where the name does not say it.")
@click.option("--rows-per-call", type=click.IntRange(1), default=64, show_default=True, metavar="N")
@click.option("--calls", type=click.IntRange(1), default=8, show_default=True, metavar="N", help="In flight at once.")
@click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Of a call, retries included: how long a server may be away before the run stops.",
)
@click.option(
    "--commit",
    "commit_s",
    type=Seconds(least_open=False),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How much of the work a kill may cost.",
)
@click.option("--quiet", is_flag=True, help="Show errors only.")
@credential_options
def batch(
    input: Path,
    output: Path,
    text_column: str,
    server: str | None,
    local: bool,
    repository: Path,
    model: str | None,
    backend: str | None,
    truncate: bool,
    prefix: str,
    strict: bool,
    overwrite: bool,
    restart: bool,
    input_format: Any,
    output_format: Any,
    rows_per_call: int,
    calls: int,
    timeout_s: float,
    commit_s: float,
    quiet: bool,
    credentials: Credentials,
) -> None:
    """Classify the texts of a file, row by row, into another.

    \b
    lockstep batch reviews.csv rated.csv --text-column review
    lockstep batch reviews.jsonl rated.parquet --model keras-bigru --truncate
    lockstep batch reviews.parquet rated.parquet --local --repository models
    zcat reviews.jsonl.gz | lockstep batch - - --input-format jsonl \\
        --output-format jsonl | head

    INPUT and OUTPUT are .jsonl, .csv or .parquet, in any combination; - is standard input or output.
    A text input may be compressed (.gz, .bz2, .xz, .zst). Rows and columns keep their order, and five
    columns are added: label, score, probabilities, truncated, error. A row that fails is written with its
    error, and the run goes on.

    A run that is stopped, by Ctrl-C, a kill or a power cut, goes on where it was when it is started again
    with the same words. OUTPUT appears when it is whole; until then there are OUTPUT.partial and
    OUTPUT.progress. A second Ctrl-C, or SIGTERM, waits for nothing.

    Exit codes: 0 every row was answered; 1 some were not; 2 wrong usage, or no such model or column;
    3 the run stopped, or the input is not what its format says; 4 no server answers; 130 interrupted,
    143 terminated, 141 the reader of the output has gone.
    """  # noqa: D301  click reads the \b
    if local and server is not None:
        raise click.UsageError("--local and --server exclude each other")
    import pyarrow  # noqa: F401  where it is not installed, say so before a server is asked

    from lockstep.clients.batch import BatchError, BatchPlan, ChunkLimits, PlanRefused, format_of, needs_server

    source, target = (None if str(path) == "-" else path for path in (input, output))
    _check_standard(source, target)

    def plan(address: str) -> BatchPlan:
        try:
            return BatchPlan(
                input=source,
                output=target,
                address=address,
                input_format=format_of(source, input_format, output=False),
                output_format=format_of(target, output_format, output=True),
                text_column=text_column,
                model=model,
                backend=backend,
                truncate=truncate,
                prefix=prefix,
                credentials=credentials,
                limits=ChunkLimits(rows=rows_per_call),
                calls=calls,
                timeout_s=timeout_s,
                commit_s=commit_s,
                strict=strict,
                overwrite=overwrite,
                restart=restart,
            )
        except PlanRefused as error:
            raise click.UsageError(str(error)) from error

    try:
        asks = needs_server(plan(""))  # what is wrong with it is said before a server is started
    except PlanRefused as error:
        raise click.UsageError(str(error)) from error
    except BatchError as error:
        fail(str(error), RUN_FAILED)
    with _stoppable() as stop:
        try:
            with _server(server, local and asks, repository, quiet) as address:
                summary = _run(plan(address), stop, quiet=quiet)
        except KeyboardInterrupt:  # while a server was started or stopped
            _stopped(stop, "")
    if not quiet:
        _say(_told(summary, output))
    if summary.failed_rows:
        raise click.exceptions.Exit(ROWS_FAILED)


def _check_standard(source: Path | None, target: Path | None) -> None:
    """End the command if a standard stream is to be used that was closed when the process began: Python has none."""
    if source is None and sys.__stdin__ is None:
        fail("standard input is closed: pipe the rows in, or name a file", RUN_FAILED)
    if target is None and sys.__stdout__ is None:
        fail("standard output is closed: pipe it on, or name a file", RUN_FAILED)


class _Stop:
    """The signal that asked us to stop, if one did; what to do then."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.act: Callable[[], object] | None = None
        self._asked_s = 0.0

    def __call__(self, number: int, _: object = None) -> None:
        now_s = time.monotonic()
        if self.signal is not None:
            if now_s - self._asked_s > _ONE_REQUEST_S:
                _leave(self.signal)
            return
        self.signal, self._asked_s = number, now_s
        if self.act is None:
            raise KeyboardInterrupt
        self.act()


def _leave(number: int) -> NoReturn:
    """End the process at once: as after a kill, but with the exit code, and the cursor that a bar hides."""
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(sys.stderr.fileno(), b"\x1b[?25h\n")
    os._exit(SIGNALLED + number)


@contextlib.contextmanager
def _stoppable() -> Iterator[_Stop]:
    """Have Ctrl-C and SIGTERM end the block in order, and a second one the process at once."""
    stop = _Stop()
    with taking_signals(stop):
        yield stop


@contextlib.contextmanager
def _server(address: str | None, local: bool, repository: Path, quiet: bool) -> Iterator[str]:
    if not local:
        yield address or "127.0.0.1:8001"
        return
    from lockstep.local_server import ServerFailed, local_server

    if not repository.is_dir():
        raise click.UsageError(f"there is no folder {repository} (--repository)")
    with tempfile.TemporaryDirectory(prefix="lockstep-batch-") as folder:
        if not quiet:
            _say(f"Starting a server of {repository}")
        try:
            state = Path(folder) / "state"  # not in the folder where we are
            with local_server(repository, Path(folder) / "server.log", "--state", str(state)) as server:
                yield server.grpc
        except ServerFailed as error:
            fail(str(error), RUN_FAILED)


def _run(plan: BatchPlan, stop: _Stop, *, quiet: bool) -> Summary:
    import asyncio

    from lockstep.clients import CallError
    from lockstep.clients.batch import (
        BatchError,
        InputUnreadable,
        NoServer,
        PlanRefused,
        RowFailedStrictly,
        run_batch,
    )
    from lockstep.clients.choice import ChoiceUnclear
    from lockstep.commands.batch_progress import shown

    async def carry_out() -> Summary:
        running = asyncio.current_task()
        loop = asyncio.get_running_loop()
        assert running is not None
        stop.act = lambda: loop.call_soon_threadsafe(running.cancel)
        try:
            return await run_batch(plan, on_progress)
        finally:
            stop.act = None

    try:
        with shown(quiet=quiet) as on_progress, asyncio.Runner() as runner:
            return runner.run(carry_out())
    except asyncio.CancelledError:
        _stopped(stop, _kept(plan))
    except (PlanRefused, ChoiceUnclear) as error:
        raise click.UsageError(str(error)) from error
    except NoServer as error:
        no_server(plan.address, error)
    except CallError as error:
        fail(f"{error.code.name}: {error}{_kept(plan)}", RUN_FAILED)
    except RowFailedStrictly as error:
        fail(f"{error}{_kept(plan, 'without --strict ')}", ROWS_FAILED)
    except InputUnreadable as error:  # the same command would end there again
        fail(str(error), RUN_FAILED)
    except BatchError as error:
        fail(f"{error}{_kept(plan)}", RUN_FAILED)
    except BrokenPipeError:
        raise click.exceptions.Exit(SIGNALLED + signal.SIGPIPE) from None


def _stopped(stop: _Stop, kept: str) -> NoReturn:
    number = stop.signal or signal.SIGINT
    word = "Interrupted" if number == signal.SIGINT else "Terminated"
    _say(f"{word}.{kept}")
    raise click.exceptions.Exit(SIGNALLED + number)


def _kept(plan: BatchPlan, otherwise: str = "") -> str:
    """Say what there is to go on from, if anything."""
    from lockstep.clients.batch import rows_kept

    rows = rows_kept(plan)
    return (
        f"\nWhat was answered is kept ({rows:,} rows): {otherwise}the same command goes on from there." if rows else ""
    )


def _told(summary: Summary, output: Path) -> str:
    name = "standard output" if str(output) == "-" else str(output)
    failed = f"; {summary.failed_rows:,} with an error" if summary.failed_rows else ""
    if summary.finished_before:
        return f"{name}: {summary.rows:,} rows, finished by an earlier run{failed}. --overwrite classifies them again"
    fresh = summary.rows - summary.resumed_rows
    resumed = f", {summary.resumed_rows:,} of them by an earlier run" if summary.resumed_rows else ""
    rate = f" ({fresh / summary.seconds:,.0f}/s)" if fresh else ""
    return f"{name}: {summary.rows:,} rows{resumed}, in {summary.seconds:,.1f} s{rate}{failed}"


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # nobody can be told; the exit code stands
        click.echo(message, err=True)
