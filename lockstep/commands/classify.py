"""`lockstep classify`: texts in, labels out, with the time of every phase."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lockstep.commands.credentials import credential_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clients import Credentials, Result

    Answers = list[tuple[str, list[Result]]]  # (backend or "", a result for each text)

ROW_FAILED, CALL_FAILED, NO_SERVER = 1, 3, 4  # exit codes; 2 is click's own, for usage
CONNECT_S = 3.0


@click.command("classify")
@click.argument("texts", nargs=-1, required=True, metavar='"TEXT"... | -')
@click.option(
    "--server",
    default="127.0.0.1:8001",
    show_default=True,
    metavar="HOST:PORT[,HOST:PORT]",
    help="Several serve the same models: what one cannot answer, another does.",
)
@click.option("--model", metavar="NAME", help="May be left out where the server has one model.")
@click.option("--backend", metavar="NAME", help="Pin the texts to this backend; else the server chooses.")
@click.option("--all-backends", is_flag=True, help="Ask every backend of the model and compare the answers.")
@click.option("--truncate", is_flag=True, help="Cut a text that is too long instead of refusing it.")
@click.option("--timeout", "timeout_s", default=30.0, show_default=True, metavar="SECONDS", help="Retries included.")
@credential_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object for each text and backend.")
def classify(
    texts: tuple[str, ...],
    server: str,
    model: str | None,
    backend: str | None,
    all_backends: bool,
    truncate: bool,
    timeout_s: float,
    credentials: Credentials,
    as_json: bool,
) -> None:
    """Classify texts and show where the time went.

    A lone - reads texts from standard input, one a line.

    Exit codes: 0 every text was answered; 1 some were not; 2 wrong usage, or no such model or
    backend; 3 the call failed; 4 no server answers.
    """
    if backend is not None and all_backends:
        raise click.UsageError("--backend and --all-backends exclude each other")
    asked = _texts(texts)

    import asyncio

    from clients import CallError
    from clients.choice import ChoiceUnclear

    try:
        name, answers = asyncio.run(
            _ask(
                asked,
                server=server,
                model=model,
                backend=backend,
                all_backends=all_backends,
                truncate=truncate,
                timeout_s=timeout_s,
                credentials=credentials,
            )
        )
    except (ChoiceUnclear, ValueError) as error:
        raise click.UsageError(str(error)) from error
    except CallError as error:
        _fail(f"{error.code.name}: {error}", CALL_FAILED)

    if as_json:
        click.echo(json.dumps(_documents(asked, name, answers), indent=2, ensure_ascii=False))
    else:
        _print(asked, name, answers)
    from clients import RowError

    if any(isinstance(result, RowError) for _, results in answers for result in results):
        raise click.exceptions.Exit(ROW_FAILED)


def _texts(arguments: tuple[str, ...]) -> list[str]:
    if arguments != ("-",):
        return list(arguments)
    lines = [line.rstrip("\r\n") for line in sys.stdin]
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise click.UsageError("standard input holds no text")
    return texts


def _fail(message: str, exit_code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    raise click.exceptions.Exit(exit_code)


async def _ask(
    texts: list[str],
    *,
    server: str,
    model: str | None,
    backend: str | None,
    all_backends: bool,
    truncate: bool,
    timeout_s: float,
    credentials: Credentials,
) -> tuple[str, Answers]:
    import asyncio

    from clients import DeadlineExceeded, SentimentClient, Unavailable
    from clients.choice import choose_backends, choose_model

    async with SentimentClient(server, timeout_s=timeout_s, credentials=credentials) as client:
        try:
            await client.live(timeout_s=min(CONNECT_S, timeout_s))
        except (Unavailable, DeadlineExceeded) as error:
            _fail(f"no server answers at {server}: {error}\nStart one with: lockstep serve", NO_SERVER)
        chosen = choose_model(await client.models(), model)
        if all_backends:
            backends: Sequence[str | None] = choose_backends(chosen, ())
        elif backend is not None:
            backends = choose_backends(chosen, (backend,))
        else:
            backends = (None,)
        answers = await asyncio.gather(
            *(client.classify(texts, model=chosen.name, backend=pinned, truncate=truncate) for pinned in backends)
        )
    return chosen.name, [(pinned or "", results) for pinned, results in zip(backends, answers, strict=True)]


def _documents(texts: list[str], model: str, answers: Answers) -> list[dict[str, Any]]:
    from clients import RowError

    documents: list[dict[str, Any]] = []
    for row, text in enumerate(texts):
        for pinned, results in answers:
            result = results[row]
            document: dict[str, Any] = {"text": text, "model": model}
            if isinstance(result, RowError):
                document["backend"] = pinned or None
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


def _print(texts: list[str], model: str, answers: Answers) -> None:
    from dataclasses import fields

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from clients import Phases, RowError

    # A pipe has no width of its own: the tables keep their columns there.
    console = Console(width=None if sys.stdout.isatty() else 120)
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
    failures: list[str] = []
    for row, text in enumerate(texts):
        for index, (pinned, results) in enumerate(answers):
            result = results[row]
            number, shown = (str(row + 1), Text(text)) if index == 0 else ("", Text())
            if isinstance(result, RowError):
                labels.add_row(number, shown, pinned, Text(result.kind, "red"))
                failures.append(f"text {row + 1}{f' on {pinned}' * bool(pinned)}: {result.message}")
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
    if len(answers) > 1:
        console.print(_agreement(answers), highlight=False)
    for failure in failures:
        console.print(Text(failure, "red"))


def _agreement(answers: Answers) -> str:
    """Say whether every backend gave every text the same label, and how far probabilities differ at most."""
    from clients import Prediction

    agree, widest, compared = True, 0.0, 0
    for results in zip(*(results for _, results in answers), strict=True):
        predictions = [result for result in results if isinstance(result, Prediction)]
        if len(predictions) < 2:
            continue
        compared += 1
        agree &= len({prediction.label for prediction in predictions}) == 1
        for label in predictions[0].probabilities:
            found = [prediction.probabilities[label] for prediction in predictions]
            widest = max(widest, max(found) - min(found))
    if not compared:
        return "No text was answered by two backends."
    verdict = "agree on every label" if agree else "DISAGREE on a label"
    return f"{len(answers)} backends {verdict}; their probabilities differ by {widest:.1e} at most."
