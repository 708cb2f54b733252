"""The main job from end to end: corpus, train, export, verify, serve, classify, load-test, report.

Composes the packages; every step is one of them. Steps that were done before are found done.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lockstep.clients import Prediction, SyncSentimentClient, raise_for_errors
from lockstep.clients.loadtest.page import write_page
from lockstep.clients.loadtest.plan import LoadPlan
from lockstep.clients.loadtest.report import BackendReport, LoadReport
from lockstep.clients.loadtest.run import run_loadtest
from lockstep.clients.output_files import write_whole
from lockstep.cores import usable_cores
from lockstep.exporters.export import ExportReport, Progress, export_model_async, possible_artifacts
from lockstep.exporters.source import Description
from lockstep.local_server import LocalServer, local_server
from lockstep.server.repository.catalog import scan
from lockstep.server.repository.manifest import Manifest, backend_name
from lockstep.zoo.train import Trained, train_all

MODELS = ("torch-bilstm", "torch-transformer", "keras-bigru", "tf2-lstm")
SENTENCES = (
    "A quietly brilliant film that earns every one of its tears.",
    "Dull, overlong, and entirely sure that it is neither.",
    "The battery died after two days and the seller never answered.",
    "Good.",
    "I expected nothing and was still disappointed, though the music, I must admit, stayed with me for a week.",
)
_OPEN_LOOP_SHARE = 0.4
"""Of the slowest backend's throughput: each backend of a model then answers the same arrivals without strain."""


class DemoFailed(Exception):
    """A step did not do what it promises; the message says which and what was seen."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Where things are kept, and how long each backend is measured."""

    cache: Path
    repository: Path
    out: Path
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One model's load tests."""

    closed: LoadReport
    open: LoadReport


def run(plan: DemoPlan, console: Console) -> None:
    """Do the whole job. Raises `DemoFailed`, and what its steps raise."""
    started = time.monotonic()
    plan.out.mkdir(parents=True, exist_ok=True)
    console.rule("1. Train: three frameworks, four models, one corpus")
    trained = train_all(MODELS, plan.cache)
    console.print(_training_table(trained))
    console.rule("2. Export, and refuse what does not answer as its source does")
    exports = asyncio.run(_export(trained, plan, console))
    console.print(_export_table(exports))
    refused = [f"{one.model}/{artifact.artifact}: {artifact.reason}" for one in exports for artifact in one.refused]
    if refused:
        raise DemoFailed("the parity gate refused " + "; ".join(refused))
    console.rule("3. Serve")
    manifests = {name: model.manifest for name, model in scan(plan.repository).models.items() if name in MODELS}
    state = plan.cache / "state"  # of its own: a server may run in this folder
    with local_server(plan.repository, plan.out / "server.log", "--state", str(state)) as server:
        console.print(f"serving {len(manifests)} models at {server.grpc}")
        console.rule("4. The same answer from every backend")
        _classify(server, manifests, console)
        console.rule("5. Load-test every backend")
        measured = {name: _measure(name, server, plan, console) for name in manifests}
    console.rule("6. Report")
    for name, one in measured.items():
        for report in (one.closed, one.open):
            write_whole(plan.out / f"{name}-{report.plan.mode}.json", report.to_json())
    summary = {"models": [_summary(manifests[name], one.open) for name, one in measured.items()]}
    write_whole(plan.out / "summary.json", json.dumps(summary, indent=2) + "\n")
    reports = [report for one in measured.values() for report in (one.closed, one.open)]
    write_page(plan.out / "index.html", reports, title="Lockstep demo")
    console.print(_backend_table(measured))
    _check(measured)
    console.print(
        f"\nDone in {time.monotonic() - started:.0f} s. Figures: {plan.out / 'summary.json'}; "
        f"page: {plan.out / 'index.html'}; models: {plan.repository}/\n\n"
        "What to do next:\n"
        f"  .venv/bin/lockstep serve --repository {plan.repository}\n"
        '  .venv/bin/lockstep classify --model torch-bilstm --all-backends "A film to remember."\n'
        "  .venv/bin/lockstep loadtest --model keras-bigru --seconds 10",
        highlight=False,
        soft_wrap=True,
    )


async def _export(trained: Sequence[Trained], plan: DemoPlan, console: Console) -> list[ExportReport]:
    def say(progress: Progress) -> None:
        what = f"{progress.model}/{progress.artifact}" if progress.artifact else progress.model
        console.print(f"  [dim]{what}[/dim]  {progress.message}", highlight=False, soft_wrap=True)

    slots = asyncio.Semaphore(usable_cores())
    async with asyncio.TaskGroup() as group:
        tasks = []
        for model in trained:
            description = Description.read(model.folder / "description.json")
            tasks.append(
                group.create_task(
                    export_model_async(
                        description,
                        model.folder,
                        artifacts=possible_artifacts(description),
                        verify_with=plan.cache / "corpus" / "test.jsonl",
                        repository=plan.repository,
                        slots=slots,
                        on_progress=say,
                    )
                )
            )
    return [task.result() for task in tasks]


def _classify(server: LocalServer, manifests: dict[str, Manifest], console: Console) -> None:
    """Ask every backend for the same sentences, and hold the answers against each other."""
    with SyncSentimentClient(server.grpc, timeout_s=60.0) as client:
        backends = {model.name: [one.name for one in model.backends] for model in client.models()}
        for model, manifest in manifests.items():
            answers: dict[str, list[Prediction]] = {}
            for backend in backends[model]:
                results = client.classify(SENTENCES, model=model, backend=backend)
                raise_for_errors(results)
                answers[backend] = [result for result in results if isinstance(result, Prediction)]
            positive = manifest.labels[-1]
            table = Table(title=f"{model}: probability of {positive}", title_justify="left", box=None)
            table.add_column("text", max_width=48, overflow="ellipsis", no_wrap=True)
            for backend in answers:
                table.add_column(backend, justify="right", no_wrap=True)
            for row, sentence in enumerate(SENTENCES):
                values = [f"{predictions[row].probabilities[positive]:.6f}" for predictions in answers.values()]
                table.add_row(sentence, *values)
            console.print(table)
            spread = max(
                max(column) - min(column)
                for row in range(len(SENTENCES))
                for column in [[predictions[row].probabilities[positive] for predictions in answers.values()]]
            )
            if spread > 1e-4:
                raise DemoFailed(f"the backends of {model} differ by {spread:.2g}")
            if len(answers) > 1:
                console.print(f"  largest difference between backends: {spread:.1e}\n", highlight=False)


def _measure(model: str, server: LocalServer, plan: DemoPlan, console: Console) -> Measured:
    """Find each backend's throughput, then offer all of them the same arrivals at a rate that all can hold."""
    texts = str(plan.cache / "corpus" / "test.jsonl")
    common: dict[str, Any] = {
        "model": model, "address": server.grpc, "http": server.http, "texts": texts, "rounds": 2, "warmup_s": 0.5,
    }  # fmt: skip
    with console.status(f"{model}: closed loop"):
        closed = run_loadtest(LoadPlan(**common, mode="closed", concurrency=32, seconds=plan.seconds))
    slowest = min(backend.achieved_rows_per_s for backend in closed.backends)
    rate = max(1.0, round(slowest * _OPEN_LOOP_SHARE))
    with console.status(f"{model}: open loop, {rate:g} rows/s"):
        opened = run_loadtest(LoadPlan(**common, mode="open", rate=rate, seconds=plan.seconds))
    if closed.interrupted or opened.interrupted:
        raise KeyboardInterrupt
    console.print(f"  {model}: {len(opened.backends)} backends at {rate:g} rows/s", highlight=False)
    return Measured(closed, opened)


def _check(measured: dict[str, Measured]) -> None:
    for name, one in measured.items():
        for report in (one.closed, one.open):
            for backend in report.backends:
                if backend.failed_rows or not backend.rows:
                    raise DemoFailed(
                        f"{name}@{backend.backend}: {backend.rows} rows answered, errors: {backend.errors or 'none'}"
                    )


def _summary(manifest: Manifest, report: LoadReport) -> dict[str, Any]:
    return {
        "model": manifest.name,
        "source_framework": manifest.source.framework,
        "layer": manifest.source.layer,
        "accuracy_sentences": manifest.source.accuracy_sentences,
        "backends": [_backend_summary(manifest, backend) for backend in report.backends],
    }


def _backend_summary(manifest: Manifest, backend: BackendReport) -> dict[str, Any]:
    (artifact,) = (one for one in manifest.artifacts if backend_name(one) == backend.backend)
    return {
        "backend": backend.backend,
        "rows": backend.rows,
        "errors": backend.failed_rows,
        "offered_rows_per_s": round(backend.offered_rows_per_s, 3),
        "achieved_rows_per_s": round(backend.achieved_rows_per_s, 3),
        "p50_ms": backend.latency.p50_ms,
        "p99_ms": backend.latency.p99_ms,
        "mean_batch_rows": backend.mean_batch_rows,
        "padding_ratio": backend.padding_ratio,
        "phases_ms": backend.phases_ms,
        "max_abs_diff_to_source": artifact.parity.max_abs_diff,
        "padding_invariance": artifact.parity.padding_invariance,
    }


def _training_table(trained: Sequence[Trained]) -> Table:
    table = Table("model", "framework", "layer", title="Accuracy on held-out text", title_justify="left", box=None)
    for heading in ("sentences", "documents", "trained in"):
        table.add_column(heading, justify="right")
    for model in trained:
        record = model.record
        table.add_row(
            model.id,
            record.framework,
            record.layer,
            f"{record.accuracy_sentences:.1%}",
            f"{record.accuracy_documents:.1%}",
            "cached" if model.cached else f"{record.train_s:.0f} s",
        )
    return table


def _export_table(exports: Sequence[ExportReport]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("artifact", "form", "recurrence"):
        table.add_column(heading, no_wrap=True)
    for heading in ("size", "max diff", "padding", "accuracy", "source's"):
        table.add_column(heading, justify="right", no_wrap=True)
    for report in exports:
        table.add_row(f"[bold]{report.model}[/bold]")
        for artifact in report.artifacts:
            table.add_row(
                f"  {artifact.artifact}",
                artifact.status.value,
                ", ".join(f"{count} {name}" for name, count in artifact.recurrent_ops.items()) or "-",
                "-" if artifact.bytes is None else f"{artifact.bytes / 1e6:.1f} MB",
                _scientific(artifact.max_abs_diff),
                _scientific(artifact.padding_invariance),
                _share(artifact.accuracy),
                _share(artifact.source_accuracy),
            )
    return table


def _backend_table(measured: dict[str, Measured]) -> Table:
    table = Table(title="Every backend, measured", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("backend", no_wrap=True)
    for heading in ("max/s", "offered/s", "answered/s", "p50 ms", "p99 ms", "errors", "batch", "padding"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, one in measured.items():
        table.add_row(f"[bold]{name}[/bold]")
        for backend, closed in zip(one.open.backends, one.closed.backends, strict=True):
            table.add_row(
                f"  {backend.backend}",
                f"{closed.achieved_rows_per_s:.0f}",
                f"{backend.offered_rows_per_s:.1f}",
                f"{backend.achieved_rows_per_s:.1f}",
                f"{backend.latency.p50_ms:.1f}",
                f"{backend.latency.p99_ms:.1f}",
                str(backend.failed_rows + closed.failed_rows),
                f"{closed.mean_batch_rows or 0:.1f}",
                f"{closed.padding_ratio or 1:.2f}",
            )
    table.caption = (
        "max/s, batch and padding (padded tokens / tokens): 32 callers in a closed loop.\n"
        "The rest: the same Poisson arrivals for each backend of a model, from the intended start."
    )
    table.caption_justify = "left"
    return table


def _scientific(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
