"""`lockstep classify`: texts in, labels out, with the time of every phase."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from lockstep.commands.client_options import asking
from lockstep.commands.credentials import credential_options
from lockstep.commands.seconds import Seconds
from lockstep.commands.server_address import ServerAddress
from lockstep.standard_streams import writes_unicode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lockstep.clients import Comparison, Credentials, Result, RowError, ServedModel, SyncSentimentClient

ROW_FAILED = 1  # exit code
CALL_S, COMPARE_S = 30.0, 120.0
"""Of a call by default. Comparing starts the backends that do not run, and a framework takes its time."""


@dataclass(frozen=True, slots=True)
class _Answers:
    """What was asked of one backend, or of whichever the server chose."""

    backend: str  # empty: the server chose
    results: Sequence[Result]  # one for each text; none where there is an error
    error: RowError | None = None  # why the backend failed as a whole

    def to(self, row: int) -> Result:
        """Return what became of one text."""
        return self.error or self.results[row]


@click.command("classify")
@click.argument("texts", nargs=-1, required=True, metavar='"TEXT"... | -')
@click.option(
    "--server",
    type=ServerAddress(),
    default="127.0.0.1:8001",
    show_default=True,
    metavar="HOST:PORT[,HOST:PORT]",
    help="Several serve the same models: what one cannot answer, another does.",
)
@click.option("--model", metavar="NAME", help="May be left out where the server has one model.")
@click.option("--backend", metavar="NAME", help="Pin the texts to this backend; else the server chooses.")
@click.option("--all-backends", is_flag=True, help="Ask every backend of the model and compare the answers.")
@click.option("--truncate", is_flag=True, help="Cut a text that is too long instead of refusing it.")
@click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(),
    metavar="SECONDS",
    help=f"Retries included. [default: {CALL_S:g}; with --all-backends, which starts those that do not run, "
    f"{COMPARE_S:g}]",
)
@credential_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object for each text and backend.")
def classify(
    texts: tuple[str, ...],
    server: str,
    model: str | None,
    backend: str | None,
    all_backends: bool,
    truncate: bool,
    timeout_s: float | None,
    credentials: Credentials,
    as_json: bool,
) -> None:
    """Classify texts and show where the time went.

    A lone - reads texts from standard input, one a line.

    Exit codes: 0 every text was answered; 1 some were not; 2 wrong usage, or no such model or
    backend; 3 the call failed, or the output cannot be written; 4 no server answers; 130 interrupted.
    """
    if backend is not None and all_backends:
        raise click.UsageError("--backend and --all-backends exclude each other")
    asked = _texts(texts)
    if timeout_s is None:
        timeout_s = COMPARE_S if all_backends else CALL_S
    from lockstep.clients.choice import choose_backends, choose_model

    comparison: Comparison | None = None
    with asking(server, timeout_s, credentials) as client:
        chosen = choose_model(client.models(), model)
        if all_backends:
            comparison = _compare(client, chosen, asked, truncate=truncate, timeout_s=timeout_s)
            answers = [_Answers(one.backend, one.results, one.error) for one in comparison.backends]
        else:
            if backend is not None:
                choose_backends(chosen, (backend,))
            answers = [
                _Answers(backend or "", client.classify(asked, model=chosen.name, backend=backend, truncate=truncate))
            ]
    if as_json:
        documents = _documents(asked, chosen.name, answers)
        click.echo(json.dumps(documents, indent=2, ensure_ascii=not writes_unicode(sys.stdout)))
    else:
        _print(asked, chosen.name, answers, [] if comparison is None else _verdicts(comparison))
    from lockstep.clients import RowError

    if any(isinstance(one.to(row), RowError) for one in answers for row in range(len(asked))):
        raise click.exceptions.Exit(ROW_FAILED)


def _compare(
    client: SyncSentimentClient, model: ServedModel, texts: Sequence[str], *, truncate: bool, timeout_s: float
) -> Comparison:
    """Ask every backend at once; says whom it waits for where some do not run yet."""
    starting = [backend.name for backend in model.backends if not backend.ready]
    note = f"Waiting for {', '.join(starting)} to start, {timeout_s:g} s at most (--timeout)"
    with _shown(note) if starting else contextlib.nullcontext():
        return client.compare(texts, model=model.name, truncate=truncate)


@contextlib.contextmanager
def _shown(note: str) -> Iterator[None]:
    """Show a note on standard error while the block runs: moving in a terminal, a line elsewhere."""
    from lockstep.commands import consoles

    console = consoles.messages()
    if console.is_terminal:
        with console.status(note):
            yield
    else:
        click.echo(note, err=True)
        yield


def _texts(arguments: tuple[str, ...]) -> list[str]:
    if arguments != ("-",):
        return list(arguments)
    texts = []
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise click.UsageError(
                f"line {number} of standard input is not UTF-8: byte {error.start + 1} is 0x{line[error.start]:02x}"
            ) from error
        if text.strip():
            texts.append(text)
    if not texts:
        raise click.UsageError("standard input holds no text")
    return texts


def _documents(texts: list[str], model: str, answers: list[_Answers]) -> list[dict[str, Any]]:
    from lockstep.clients import RowError

    documents: list[dict[str, Any]] = []
    for row, text in enumerate(texts):
        for one in answers:
            result = one.to(row)
            document: dict[str, Any] = {"text": text, "model": model}
            if isinstance(result, RowError):
                document["backend"] = one.backend or None
                document["error"] = {
                    "kind": result.kind,
                    "code": result.code.name,
                    "message": result.message,
                }
            else:
                document |= {
                    "backend": result.backend,
                    "label": result.label,
                    "score": result.score,
                    "probabilities": dict(result.probabilities),
                    "truncated": result.truncated,
                    "tokens": result.tokens,
                    "batch_rows": result.batch_rows,
                    "batch_tokens": result.batch_tokens,
                    "phases_ms": result.phases.as_dict(),
                }
            documents.append(document)
    return documents


def _print(texts: list[str], model: str, answers: list[_Answers], verdicts: list[str]) -> None:
    from dataclasses import fields

    from rich import box
    from rich.table import Table
    from rich.text import Text

    from lockstep.clients import Phases, RowError
    from lockstep.commands import consoles

    # A pipe has no width of its own: the tables keep their columns there.
    console = consoles.answers(120)
    style: dict[str, Any] = {
        "title_justify": "left",
        "box": box.SIMPLE_HEAD,
        "padding": (0, 1, 0, 0),
        "pad_edge": False,
    }
    labels = Table(title=model, **style)
    labels.add_column("#", justify="right", min_width=len(str(len(texts))))
    labels.add_column("text", no_wrap=True, overflow="ellipsis", max_width=60)
    for heading in ("backend", "label"):
        labels.add_column(heading, no_wrap=True)
    for heading in ("probability", "tokens", "batch"):
        labels.add_column(heading, justify="right", no_wrap=True)
    times = Table(title="Where the time went, ms by the server's clock", **style)
    times.add_column("#", justify="right", min_width=len(str(len(texts))))
    times.add_column("backend", no_wrap=True)
    for phase in (*(field.name.removesuffix("_ms") for field in fields(Phases)), "total"):
        times.add_column(phase, justify="right", no_wrap=True)
    failures = [f"{one.backend}: {one.error.message}" for one in answers if one.error is not None]
    for row, text in enumerate(texts):
        for index, one in enumerate(answers):
            result = one.to(row)
            number, shown = (str(row + 1), Text(text)) if index == 0 else ("", Text())
            if isinstance(result, RowError):
                labels.add_row(number, shown, one.backend, Text(result.kind, "red"))
                if one.error is None:
                    failures.append(f"text {row + 1}{f' on {one.backend}' * bool(one.backend)}: {result.message}")
                continue
            tokens = f"{result.tokens}{' (cut)' * result.truncated}"
            labels.add_row(
                number, shown, result.backend, result.label, f"{result.score:.4f}", tokens, str(result.batch_rows)
            )
            phases = (*result.phases.as_dict().values(), result.phases.total_ms)
            times.add_row(number, result.backend, *(f"{phase_ms:.2f}" for phase_ms in phases))
    console.print(labels)
    if times.row_count:
        console.print(times)
    for verdict in verdicts:
        console.print(verdict, highlight=False)
    for failure in failures:
        console.print(Text(failure, "red"))


def _verdicts(comparison: Comparison) -> list[str]:
    """Say how far answers are apart, as the server measured it: of exact backends together, of each variant alone."""
    from lockstep.clients import Prediction

    if len(comparison.backends) < 2:
        return []
    verdicts = []
    together = comparison.agreement
    if together.texts:
        exact = [one for one in comparison.backends if one.held_to_float32]
        answered = sum(any(isinstance(result, Prediction) for result in one.results) for one in exact)
        same = "agree on every label" if not together.labels_differ else "DISAGREE on a label"
        verdicts.append(
            f"{answered} backends {same}; their probabilities differ by {together.largest_difference:.1e} at most."
        )
    for one in comparison.backends:
        apart = one.agreement
        if one.held_to_float32 or one.backend == comparison.reference or not apart.texts:
            continue
        same = (
            "gives the same labels as"
            if not apart.labels_differ
            else f"gives {apart.labels_differ} of {apart.texts} texts another label than"
        )
        verdicts.append(
            f"{one.backend}, a variant, {same} {comparison.reference}; "
            f"probabilities differ by {apart.largest_difference:.1e} at most."
        )
    return verdicts or ["No text was answered by two backends."]
