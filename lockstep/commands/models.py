"""`lockstep models`: what a running server serves, on which backends, and how exactly."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lockstep.commands.client_options import EXIT_CODES, asking, client_options
from lockstep.standard_streams import writes_unicode

if TYPE_CHECKING:
    from lockstep.clients import Credentials, ListedBackend, ModelList

STYLES = {"ready": "green", "down": "red", "starting": "yellow", "stopped": "dim"}


@click.command("models", epilog=EXIT_CODES)
@click.option("--model", metavar="NAME", help="This one only.")
@client_options
def models(model: str | None, server: str, timeout_s: float, credentials: Credentials, as_json: bool) -> None:
    """List the models of a running server: backends, devices, states, parity; what is not served, and why.

    Parity is of the artifact against its source model, on held-out text, as it was measured before it was published:
    the largest difference of an output from the source's, and of a row in a batch from the row alone.
    """
    with asking(server, timeout_s, credentials) as client:
        listed = client.list_models(model)
    if as_json:
        click.echo(json.dumps(asdict(listed), indent=2, ensure_ascii=not writes_unicode(sys.stdout)))
    else:
        _print(listed)


def _print(listed: ModelList) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from lockstep.commands import consoles

    # A pipe has no width of its own: the table keeps its columns there.
    console = consoles.answers(160, highlight=False)
    for model in listed.models:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
        table.title = Text.assemble(
            (model.name, "bold"),
            f" version {model.version}, {model.framework} {model.layer}, up to {model.max_tokens} tokens, "
            f"labels {' '.join(model.labels)}; {model.queued_rows} rows wait",
        )
        table.add_column("backend", no_wrap=True)
        for heading in ("state", "device", "artifact", "method"):
            table.add_column(heading, no_wrap=True)
        for heading in ("workers", "MB", "max diff vs source", "max diff batched", "labels agree", "accuracy"):
            table.add_column(heading, justify="right")
        for backend in model.backends:
            parity = backend.parity
            table.add_row(
                f"{backend.name}{' *' * backend.preferred}",
                Text(backend.state, STYLES.get(backend.state, "")),
                f"{backend.device} x {backend.threads}",
                backend.artifact,
                backend.method,
                f"{backend.workers}/{backend.instances}{_restarts(backend)}",
                f"{backend.artifact_bytes / 1e6:.2f}",
                f"{parity.largest_difference:.1e}",
                f"{parity.padding_invariance:.1e}",
                f"{parity.label_agreement:.2%}",
                _accuracy(backend),
            )
        console.print(table)
        for backend in model.backends:
            if backend.reason:
                console.print(Text(f"{backend.name}: {backend.reason}", "red"))
        for kind, reason in model.refused_artifacts.items():
            console.print(Text(f"{kind} was not published: {reason}", "yellow"))
    if any(backend.preferred for model in listed.models for backend in model.backends):
        console.print("* takes the rows that name no backend")
    for unloaded in listed.unloaded:
        console.print(Text(f"{unloaded.name} version {unloaded.version} is not served: {unloaded.reason}", "yellow"))
    for refused in listed.refused:
        console.print(Text(f"{refused.name} is not served: {refused.reason}", "red"))


def _restarts(backend: ListedBackend) -> str:
    return f", {backend.restarts} restarts" if backend.restarts else ""


def _accuracy(backend: ListedBackend) -> str:
    accuracy, source = backend.parity.accuracy, backend.parity.source_accuracy
    if accuracy is None:
        return ""
    return f"{accuracy:.2%}" if source is None else f"{accuracy:.2%} (source {source:.2%})"
