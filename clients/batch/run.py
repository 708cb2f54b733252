"""A run, from its plan to the finished output. Composes readers, calls, encoders and outputs; prints nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from lockstep.clients.batch.answers import AnswerColumns
from lockstep.clients.batch.batch_errors import ColumnMissing, PlanRefused, RowFailedStrictly
from lockstep.clients.batch.calls import PROBE, Caller
from lockstep.clients.batch.csv_text import CsvEncoder, CsvReader
from lockstep.clients.batch.earlier import answered, finished, to_go_on_from
from lockstep.clients.batch.flow import Window, flow
from lockstep.clients.batch.journal import Journal, Work
from lockstep.clients.batch.json_lines import JsonLinesEncoder, JsonLinesReader, survey
from lockstep.clients.batch.output import Output, OutputFile, OutputPipe, ParquetAssembly, ParquetPipe
from lockstep.clients.batch.paths import checked, is_stream
from lockstep.clients.batch.plan import BatchPlan
from lockstep.clients.batch.rows import Chunk, Position, Reader, Rows
from lockstep.clients.batch.streams import Fingerprint, InterruptibleOutput, Source, is_pipe, unreadable
from lockstep.clients.choice import choose_backends, choose_model
from lockstep.clients.client import SentimentClient
from lockstep.clients.errors import DeadlineExceeded, RowError, Unavailable
from lockstep.clients.results import Prediction, Result

if TYPE_CHECKING:
    import pyarrow as pa

_CONNECT_S: Final = 5.0

Stage = Literal["survey", "classify", "finish"]
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `done` and `total` are rows or bytes of the input; `None` where they are unknown."""

    stage: Stage
    rows: int = 0  # answered, those of earlier runs included
    resumed_rows: int = 0  # those of earlier runs
    failed_rows: int = 0
    done: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run that went through has done."""

    rows: int  # of the whole output
    resumed_rows: int
    failed_rows: int
    seconds: float  # of this run
    finished_before: bool = False  # an earlier run had made the output whole; this one tidied up


class NoServer(Unavailable):
    """Nothing answers at the address when the run begins."""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class _Served:
    """The model as it is served when the run begins."""

    name: str
    version: str
    labels: tuple[str, ...]

    @property
    def work(self) -> Work:
        """What the answers depend on, by name."""
        return {"the served name": self.name, "the served version": self.version, "the served labels": [*self.labels]}

    @classmethod
    def of(cls, work: Work) -> _Served:
        """Return the model that an earlier run was answered by."""
        return cls(work["the served name"], work["the served version"], tuple(work["the served labels"]))


async def run_batch(plan: BatchPlan, on_progress: OnProgress = lambda _: None) -> Summary:
    """Carry out a plan; goes on where an earlier run of it ended.

    Raises `BatchError`; `NoServer`; any `CallError` for which no row is to blame;
    `lockstep.clients.choice.ChoiceUnclear`; `BrokenPipeError` if the reader of the output has gone. However it ends,
    what was answered until then, in order, is committed, and another run goes on from there (with files; a pipe has no
    second time).
    """
    began_s = time.monotonic()
    plan = checked(plan)
    if (done := finished(plan)) is not None:
        rows = done.position.row
        return Summary(rows, rows, done.failed_rows, time.monotonic() - began_s, finished_before=True)
    # Opened before anything else: what is opened first gets the number of a standard descriptor that is closed.
    with _source(plan) as source, _sink(plan) as sink:
        if (whole := answered(plan)) is not None:
            run = await _carried_out(plan, _Served.of(whole.work), None, source, sink, on_progress)
        else:
            async with _connected(plan) as client:
                served = await _find_model(client, plan)
                caller = Caller(client, served.name, plan.backend, truncate=plan.truncate)
                run = await _carried_out(plan, served, caller, source, sink, on_progress)
    return Summary(run.rows, run.resumed_rows, run.failed_rows, time.monotonic() - began_s)


async def _carried_out(
    plan: BatchPlan,
    served: _Served,
    caller: Caller | None,
    source: Source | None,
    sink: InterruptibleOutput | None,
    on_progress: OnProgress,
) -> _Run:
    """Answer the rows that are left, with nobody to ask if none are, and make the output whole."""
    with _Threads(source, sink) as threads:
        run = await threads.opening(_Run.open, plan, served, source, sink, on_progress)
        if caller is not None:
            await flow(
                functools.partial(threads.reading, run.reader.read),
                caller.ask,
                functools.partial(threads.writing, run.write),
                Window(plan.calls),
            )
        run.report("finish")
        await threads.writing(run.finish)
        return run


def needs_server(plan: BatchPlan) -> bool:
    """Whether there are rows to ask a server for; not if an earlier run has answered them all. Raises `PlanRefused`."""
    return answered(checked(plan)) is None


class _Threads:
    """A thread that reads and one that writes, so that neither a disk nor a pipe holds up the calls."""

    def __init__(self, source: Source | None, sink: InterruptibleOutput | None) -> None:
        """Take what their work may wait for: at the end it is interrupted."""
        self._waited_for = [one for one in (source, sink) if one is not None]
        self._run: _Run | None = None
        self._readers = ThreadPoolExecutor(1, "batch-reader")
        self._writers = ThreadPoolExecutor(1, "batch-writer")

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *_: object) -> None:
        """End reading, then writing, each on its thread after all that it was given, which may be under way; blocks.

        Not on a pipe: neither one that stays silent, nor one whose reader takes nothing more.
        """
        self._interrupt()
        try:
            self._readers.submit(self._close_reader).result()
        finally:
            try:
                self._writers.submit(self._stop).result()
            finally:
                self._readers.shutdown()
                self._writers.shutdown()

    def opening(self, work: Callable[..., _Run], *arguments: Any) -> Awaitable[_Run]:
        """Open a run on the reading thread: it is stopped at the end, were nobody waiting for it any more."""

        def opened() -> _Run:
            self._run = work(*arguments)
            return self._run

        return self.reading(opened)

    def reading(self, work: Callable[..., Found], *arguments: Any) -> Awaitable[Found]:
        return asyncio.get_running_loop().run_in_executor(self._readers, work, *arguments)

    def writing(self, work: Callable[..., Found], *arguments: Any) -> Awaitable[Found]:
        return asyncio.get_running_loop().run_in_executor(self._writers, work, *arguments)

    def _close_reader(self) -> None:
        if self._run is not None:
            self._run.reader.close()

    def _stop(self) -> None:
        if self._run is not None:
            self._run.stop()

    def _interrupt(self) -> None:
        for one in self._waited_for:
            one.interrupt()


class _Run:
    """An open run: what the writing thread owns."""

    def __init__(
        self,
        plan: BatchPlan,
        reader: Reader,
        encode: Callable[[Rows, list[Result]], bytes],
        output: Output,
        begun: Journal | None,
        on_progress: OnProgress,
    ) -> None:
        self.reader = reader
        self.output = output
        self.resumed_rows = self.rows = begun.position.row if begun else 0
        self.failed_rows = begun.failed_rows if begun else 0
        start = begun.position if begun else Position()
        self._done = start.row if plan.input_format == "parquet" else start.byte
        self._plan = plan
        self._encode = encode
        self._on_progress = on_progress
        self._committed_s = time.monotonic()
        self._finished = False

    @classmethod
    def open(
        cls,
        plan: BatchPlan,
        served: _Served,
        source: Source | None,
        sink: InterruptibleOutput | None,
        on_progress: OnProgress,
    ) -> _Run:
        """Open input and output."""
        columns = AnswerColumns(served.labels, plan.prefix)
        fingerprint, begun = None, None
        if plan.input is not None and not is_pipe(plan.input):
            with unreadable(plan.input):
                fingerprint = Fingerprint.of(plan.input)
        fresh = Journal(fingerprint, {**plan.asked, **served.work}, Position(), 0, 0)
        if plan.output is not None and sink is None:
            if plan.output.exists() and not plan.overwrite:
                raise PlanRefused(f"{plan.output} is there already: --overwrite replaces it")
            begun = to_go_on_from(plan, fresh)
        reader = _reader(plan, source, columns, begun.position if begun else Position(), on_progress)
        try:
            if reader.names is not None:
                columns.check(reader.names)
                if plan.text_column not in reader.names and plan.input_format != "jsonl":
                    raise ColumnMissing(plan.text_column, reader.names)
            encoder = _encoder(plan, reader, columns)
            output = _output(plan, sink, encoder, fresh, begun)
        except BaseException:
            reader.close()
            raise
        run = cls(plan, reader, encoder.encode, output, begun, on_progress)
        try:
            if begun is None:
                output.append(encoder.header, Position(), 0)
            run.report("classify")
        except BaseException:
            reader.close()
            output.close()
            raise
        return run

    def write(self, chunk: Chunk, results: list[Result]) -> None:
        """Append a chunk's answers; commit where it is time."""
        failed = [row for row, result in enumerate(results) if isinstance(result, RowError)]
        if failed and self._plan.strict:
            error = results[failed[0]]
            assert isinstance(error, RowError)
            raise RowFailedStrictly(f"row {self.rows + failed[0] + 1} failed: {error.kind}: {error.message}")
        self.output.append(self._encode(chunk.rows, results), chunk.end, len(failed))
        self.rows = chunk.end.row
        self.failed_rows += len(failed)
        self._done = chunk.done
        if time.monotonic() - self._committed_s >= self._plan.commit_s:
            self.output.commit()
            self._committed_s = time.monotonic()
        self.report("classify")

    def report(self, stage: Stage) -> None:
        """Say how far the run is."""
        self._on_progress(
            Progress(stage, self.rows, self.resumed_rows, self.failed_rows, self._done, self.reader.total)
        )

    def finish(self) -> None:
        """Make the output whole."""
        self.output.finish()
        self._finished = True

    def stop(self) -> None:
        """Commit what there is, and let go of the output."""
        try:
            if not self._finished:
                self.output.commit()
        finally:
            self.output.close()


@contextlib.asynccontextmanager
async def _connected(plan: BatchPlan) -> AsyncIterator[SentimentClient]:
    """Have a client until the block ends. Raises `PlanRefused` for an address or credentials that will not do."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            client = SentimentClient(plan.address, timeout_s=plan.timeout_s, credentials=plan.credentials)
            await stack.enter_async_context(client)
        except (ValueError, OSError) as error:
            raise PlanRefused(str(error)) from error
        yield client


async def _find_model(client: SentimentClient, plan: BatchPlan) -> _Served:
    try:
        await client.live(timeout_s=min(_CONNECT_S, plan.timeout_s))
    except (Unavailable, DeadlineExceeded) as error:
        raise NoServer(str(error), code=error.code) from error
    model = choose_model(await client.models(), plan.model)
    if plan.backend is not None:
        choose_backends(model, (plan.backend,))
    # Before anything is written: the answer names the model's labels, and shows that the model answers.
    (answer,) = await client.classify([PROBE], model=model.name, backend=plan.backend, truncate=True)
    if not isinstance(answer, Prediction):
        raise answer.as_exception()
    return _Served(model.name, model.version, tuple(answer.probabilities))


@contextlib.contextmanager
def _source(plan: BatchPlan) -> Iterator[Source | None]:
    """Open a text input until the block ends."""
    if plan.input_format == "parquet":
        yield None
        return
    with unreadable(plan.input):
        source = Source(plan.input)
    try:
        yield source
    finally:
        source.close()


@contextlib.contextmanager
def _sink(plan: BatchPlan) -> Iterator[InterruptibleOutput | None]:
    """Have a pipe for the output until the block ends; it is opened later."""
    if not is_stream(plan.output):
        yield None
        return
    with contextlib.closing(InterruptibleOutput(plan.output)) as sink:
        yield sink


def _reader(
    plan: BatchPlan, source: Source | None, columns: AnswerColumns, start: Position, on_progress: OnProgress
) -> Reader:
    with unreadable(plan.input):
        if source is None:
            from lockstep.clients.batch.parquet import ParquetReader

            assert plan.input is not None
            return ParquetReader(plan.input, plan.text_column, plan.limits, start)
        if plan.input_format == "csv":
            return CsvReader(source, plan.text_column, plan.limits, start)
        schema = _survey(plan, source, columns, on_progress)
        return JsonLinesReader(source, plan.text_column, plan.limits, start, schema)


def _survey(plan: BatchPlan, source: Source, columns: AnswerColumns, on_progress: OnProgress) -> pa.Schema | None:
    if source.pipe is not None:
        return None
    on_progress(Progress("survey"))
    return survey(source, plan.text_column, columns, types=plan.output_format == "parquet")


def _encoder(plan: BatchPlan, reader: Reader, columns: AnswerColumns) -> Any:
    if plan.output_format == "jsonl":
        return JsonLinesEncoder(columns)
    if plan.output_format == "csv":
        names = reader.names or ()
        if isinstance(reader, CsvReader):
            return CsvEncoder(columns, names, reader.header, reader.line_end)
        return CsvEncoder(columns, names)
    from lockstep.clients.batch.parquet import ArrowEncoder

    assert reader.schema is not None
    return ArrowEncoder(columns, reader.schema)


def _output(
    plan: BatchPlan, sink: InterruptibleOutput | None, encoder: Any, fresh: Journal, begun: Journal | None
) -> Output:
    parquet = plan.output_format == "parquet"
    if sink is None:
        assert plan.output is not None
        assembly = ParquetAssembly(encoder.schema) if parquet else None
        return OutputFile(plan.output, fresh, begun, assembly, overwrite=plan.overwrite, restart=plan.restart)
    sink.open()
    return ParquetPipe(sink, encoder.schema) if parquet else OutputPipe(sink)
