"""`lockstep export`: a trained model in, verified artifacts in the repository out.

Importing this module imports no framework and no exporter.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from lockstep.standard_streams import writes_unicode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lockstep.exporters.export import ArtifactReport, ExportReport, OnProgress, Progress
    from lockstep.exporters.source import Description

    Order = tuple[Description, Path]  # a source, and what its paths are relative to

FAILED, SOME_REFUSED, INTERRUPTED = 1, 3, 130  # exit codes; 2 is click's own, for usage

_LOG_WIDTH = 120

_EXIT_CODES = """
\b
Exit codes: 0 all were published (or unchanged); 1 an error; 2 wrong usage;
3 some were refused; 130 interrupted.
"""

Function = TypeVar("Function", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


@click.group(
    "export", epilog="A refused artifact leaves nothing behind: the repository only ever holds whole versions."
)
def export() -> None:
    """Export a trained model, verify it against its source, publish it.

    Each artifact is executed by the worker that will serve it, over batches of many sizes and lengths of
    held-out text, and is published only where it answers as its source does.
    """


def _options(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_publishing = _options(
    click.option("--to", "to", metavar="KINDS", help="Artifacts, separated by commas.  [default: all there are]"),
    click.option("--repository", type=_FILE, default=Path("models"), show_default=True, metavar="DIR"),
    click.option(
        "--verify-with",
        type=_FILE,
        default=Path(".cache/corpus/test.jsonl"),
        show_default=True,
        metavar="TEXTS.JSONL",
        help='Held-out texts, one object a line: {"text": "...", "label": 0}; labels are optional.',
    ),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of each process."),
    click.option("--parallel", type=click.IntRange(1), default=2, show_default=True, help="Processes at once."),
    click.option("--dry-run", is_flag=True, help="Convert and verify, publish nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
)
_describing = _options(
    click.option("--name", required=True, help="Of the model in the repository."),
    click.option("--tokenizer", required=True, type=_FILE, metavar="TOKENIZER.JSON"),
    click.option("--labels", required=True, metavar="A,B", help="In the order of the model's outputs."),
    click.option("--layer", default="custom", show_default=True, help="The kind of layer in a word, for people."),
    click.option(
        "--max-tokens",
        type=click.IntRange(1),
        help="The longest text the model takes.  [default: the tokenizer's, the config's, or 512]",
    ),
    click.option(
        "--output",
        type=click.Choice(["logits", "probabilities"]),
        help="What the model answers.  [default: found; what you say is checked]",
    ),
    click.option(
        "--activation",
        type=click.Choice(["softmax", "sigmoid"]),
        help="What makes probabilities of logits; one sigmoid column becomes two labels.  [default: found, or softmax]",
    ),
)


_mapping = _options(
    click.option("--input-ids", metavar="TENSOR", help="The file's own name of the ids [batch, length]."),
    click.option("--attention-mask", metavar="TENSOR", help="Of the mask [batch, length], if it takes one."),
    click.option("--lengths", metavar="TENSOR", help="Of the lengths [batch], if it takes them."),
    click.option("--logits", metavar="TENSOR", help="Of the output [batch, labels]."),
)


@export.command("torch", epilog=_EXIT_CODES)
@click.argument("build", metavar="PACKAGE.MODULE:BUILD")
@click.option("--weights", required=True, type=_FILE, help="A .safetensors file, or a state_dict of tensors alone.")
@_describing
@_publishing
def torch_command(build: str, weights: Path, **options: Any) -> None:
    """Export a PyTorch model.

    BUILD returns the module; this imports and runs your own code. `forward` takes input_ids, and
    attention_mask or lengths, by these names, and returns [batch, labels].
    """
    _export_one("torch", build=build, weights=weights, **options)


@export.command("keras", epilog=_EXIT_CODES)
@click.argument("model", type=_FILE, metavar="MODEL.KERAS")
@_describing
@_publishing
def keras_command(model: Path, **options: Any) -> None:
    """Export a Keras model, saved under any backend.

    The file is loaded in Keras' safe mode, which runs no code of the file's.
    """
    _export_one("keras", build=None, weights=model, **options)


@export.command("tf2", epilog=_EXIT_CODES)
@click.argument("build", metavar="PACKAGE.MODULE:BUILD")
@click.option("--checkpoint", required=True, type=_FILE, metavar="PREFIX", help="Of tf.train.Checkpoint(model=module).")
@_describing
@_publishing
def tf2_command(build: str, checkpoint: Path, **options: Any) -> None:
    """Export a TensorFlow module.

    BUILD returns a tf.Module; this imports and runs your own code. Its `__call__` is a tf.function of
    input_ids, and lengths or attention_mask, by these names, and returns [batch, labels].
    """
    _export_one("tf2", build=build, weights=checkpoint, **options)


@export.command("tf1", epilog=_EXIT_CODES)
@click.argument("build", metavar="PACKAGE.MODULE:BUILD")
@click.option("--checkpoint", required=True, type=_FILE, metavar="PREFIX", help="Of tf.compat.v1.train.Saver.")
@_describing
@_publishing
def tf1_command(build: str, checkpoint: Path, **options: Any) -> None:
    """Export a TensorFlow 1 model.

    BUILD(ids, lengths) adds the model to the default graph and returns [batch, labels]; this imports and runs
    your own code. ids are int64[batch, length], lengths int64[batch].
    """
    _export_one("tf1", build=build, weights=checkpoint, **options)


@export.command("saved_model", epilog=_EXIT_CODES)
@click.argument("folder", type=_FILE, metavar="DIR")
@_mapping
@click.option("--signature", default="serving_default", show_default=True)
@_describing
@_publishing
def saved_model_command(folder: Path, **options: Any) -> None:
    """Export a SavedModel made elsewhere, by TensorFlow 1 or 2.

    It is served as it is, and as ONNX in whatever form can be had. Its tensors are found by their names and
    shapes, or named by you.
    """
    _export_one("saved_model", build=None, weights=folder, **options)


@export.command("huggingface", epilog=_EXIT_CODES)
@click.argument("folder", type=_FILE, metavar="DIR")
@click.option("--name", required=True, help="Of the model in the repository.")
@click.option("--tokenizer", type=_FILE, metavar="TOKENIZER.JSON", help="[default: DIR/tokenizer.json]")
@click.option("--labels", metavar="A,B", help="In the order of the model's outputs.  [default: the config's id2label]")
@click.option("--layer", help="The kind of layer in a word, for people.  [default: the config's model_type]")
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    help="The longest text.  [default: the least of the tokenizer's, the model's positions and the config's, or 512]",
)
@click.option(
    "--activation",
    type=click.Choice(["softmax", "sigmoid"]),
    help="What turns logits into probabilities.  [default: sigmoid for a multi-label model, else softmax]",
)
@_publishing
def huggingface_command(
    folder: Path, tokenizer: Path | None, labels: str | None, layer: str | None, **options: Any
) -> None:
    """Export a sequence classifier's checkpoint folder, as save_pretrained writes it.

    Read offline; weights are safetensors, and no code of the folder's runs. Token types are folded in.
    """
    config = _config(folder / "config.json")
    _export_one(
        "huggingface",
        build=None,
        weights=folder,
        tokenizer=tokenizer or folder / "tokenizer.json",
        labels=labels,
        layer=layer or str(config.get("model_type", "Transformer")),
        output="logits",
        **options,
    )


@click.group("import", epilog="What is imported is verified and published as an export is.")
def import_group() -> None:
    """Publish a model file made elsewhere, once it is verified."""


@import_group.command("onnx", epilog=_EXIT_CODES)
@click.argument("file", type=_FILE, metavar="FILE.ONNX")
@_mapping
@_describing
@_publishing
def import_onnx_command(file: Path, **options: Any) -> None:
    """Publish an ONNX file made elsewhere.

    There is no source to compare with, so what is verified is the file against itself: the same answer to a
    row alone and in any batch, whatever stands beyond its end, finite, and the same each time.
    """
    _export_one("onnx", build=None, weights=file, **options)


@export.command("matrix", epilog=_EXIT_CODES)
@click.argument("rows", nargs=-1, metavar="[ROW]...")
@click.option("--cache", type=_FILE, default=Path(".cache"), show_default=True, help="Where the zoo is kept.")
@click.option("--repository", type=_FILE, default=Path("models"), show_default=True, metavar="DIR")
@click.option("--report", type=_FILE, default=Path("docs/reports/export-matrix.md"), show_default=True)
@click.option("--data", type=_FILE, default=Path("reports/export-matrix.json"), show_default=True)
@click.option("--verify-with", type=_FILE, default=Path(".cache/corpus/test.jsonl"), show_default=True)
@click.option("--parallel", type=click.IntRange(1), default=2, show_default=True, help="Processes at once.")
@click.option("--train", is_flag=True, help="Train the rows that the cache lacks; else they are errors.")
@click.option("--again", is_flag=True, help="Do the rows that were done before too.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def matrix_command(rows: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Export every model of the zoo into every artifact, and report what came of each.

    Resumable: a row that was done, and whose source has not changed, is taken from the figures of before.
    """
    from lockstep import export_matrix

    try:
        with shown_progress() as on_progress:
            outcome = export_matrix.run(export_matrix.Order(rows=rows, **options), on_progress)
    except KeyboardInterrupt:
        click.echo("interrupted: rows that were done are kept; run it again to go on", err=True)
        sys.exit(INTERRUPTED)
    except export_matrix.UnknownRow as error:
        raise click.UsageError(str(error)) from error
    click.echo(json.dumps(outcome.cells, indent=2) if as_json else outcome.summary)
    for row, message in outcome.errors.items():
        click.echo(f"Error: {row}: {message}", err=True)
    sys.exit(FAILED if outcome.errors else SOME_REFUSED if outcome.refused else 0)


@export.command("folder", epilog=_EXIT_CODES)
@click.argument("folders", nargs=-1, required=True, type=_FILE, metavar="DIR...")
@_publishing
def folder_command(folders: tuple[Path, ...], **options: Any) -> None:
    """Export source folders, each with its description.json.

    A description may name PACKAGE.MODULE:BUILD; this imports and runs that code.
    """
    from pydantic import ValidationError

    from lockstep.exporters.source import Description

    orders = []
    for folder in folders:
        path = folder / "description.json"
        try:
            orders.append((Description.read(path), folder))
        except OSError as error:
            _fail(f"{path}: {error.strerror}: a source folder holds a description.json")
        except ValidationError as error:
            _fail(f"{path}: {_first_fault(error)}")
    _run(orders, **options)


def _export_one(
    framework: str,
    *,
    build: str | None,
    weights: Path,
    name: str,
    tokenizer: Path,
    labels: str | None,
    layer: str,
    max_tokens: int | None,
    output: str | None,
    activation: str | None,
    input_ids: str | None = None,
    attention_mask: str | None = None,
    lengths: str | None = None,
    logits: str | None = None,
    signature: str = "serving_default",
    **options: Any,
) -> None:
    from pydantic import ValidationError

    from lockstep.exporters.source import Description

    roles = {"input_ids": input_ids, "attention_mask": attention_mask, "lengths": lengths, "logits": logits}
    try:
        description = Description.model_validate(
            {
                "name": name,
                "framework": framework,
                "layer": layer,
                "labels": () if labels is None else tuple(label.strip() for label in labels.split(",")),
                "tokenizer": str(tokenizer),
                "weights": str(weights),
                "build": build,
                "max_tokens": max_tokens,
                "output": output,
                **({"activation": activation} if activation is not None else {}),
                "tensors": {role: name for role, name in roles.items() if name},
                "signature": signature,
            }
        )
    except ValidationError as error:
        raise click.UsageError(_first_fault(error)) from error
    _run([(description, Path.cwd())], **options)


def _run(
    orders: Sequence[Order],
    *,
    to: str | None,
    repository: Path,
    verify_with: Path,
    threads: int,
    parallel: int,
    dry_run: bool,
    as_json: bool,
) -> NoReturn:
    import asyncio

    asked = tuple(kind.strip() for kind in to.split(",") if kind.strip()) if to else None

    async def export_all(on_progress: OnProgress) -> list[ExportReport | BaseException]:
        from lockstep.exporters.export import export_model_async, possible_artifacts

        slots = asyncio.Semaphore(parallel)
        return await asyncio.gather(
            *(
                export_model_async(
                    description,
                    folder,
                    artifacts=asked or possible_artifacts(description),
                    verify_with=verify_with,
                    repository=repository,
                    threads=threads,
                    slots=slots,
                    dry_run=dry_run,
                    on_progress=on_progress,
                )
                for description, folder in orders
            ),
            return_exceptions=True,
        )

    try:
        with shown_progress() as on_progress:
            results = asyncio.run(export_all(on_progress))
    except KeyboardInterrupt:
        click.echo("interrupted: what was published before is whole, and nothing else was left behind", err=True)
        sys.exit(INTERRUPTED)
    _finish(orders, results, as_json)


def _finish(orders: Sequence[Order], results: Sequence[ExportReport | BaseException], as_json: bool) -> NoReturn:
    from lockstep.exporters.conversion import ExportError

    reports: list[ExportReport] = []
    errors: list[tuple[str, str]] = []
    for (description, _), result in zip(orders, results, strict=True):
        if isinstance(result, ExportError):
            errors.append((description.name, str(result)))
        elif isinstance(result, BaseException):
            raise result
        else:
            reports.append(result)
    if as_json:
        document = {
            "models": [dataclasses.asdict(report) for report in reports],
            "errors": [{"model": name, "error": message} for name, message in errors],
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=not writes_unicode(sys.stdout)))
    elif reports:
        _print(reports)
    for name, message in errors:
        click.echo(f"Error: {name}: {message}", err=True)
    sys.exit(FAILED if errors else SOME_REFUSED if any(report.refused for report in reports) else 0)


@contextmanager
def shown_progress() -> Iterator[OnProgress]:
    """Show progress on standard error: live on a terminal, else a line for each step."""
    from rich.progress import Progress as Live
    from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    from lockstep.commands import consoles

    console = consoles.messages()
    if not console.is_terminal:

        def tell(progress: Progress) -> None:
            click.echo(f"{_subject(progress)}: {progress.message}", err=True)

        yield tell
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[now]}"), TimeElapsedColumn())
    with Live(*columns, console=console) as live:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            subject = _subject(progress)
            if subject not in tasks:
                tasks[subject] = live.add_task(subject, total=1, now="")
            live.update(tasks[subject], now=progress.message, completed=int(progress.done))

        yield show


def _subject(progress: Progress) -> str:
    return f"{progress.model} {progress.artifact or 'source'}"


def _print(reports: Sequence[ExportReport]) -> None:
    from rich.table import Table

    from lockstep.commands import consoles

    # Narrow enough for a terminal of 80 columns.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("model", "artifact", "result"):
        table.add_column(heading, no_wrap=True)
    for heading in ("size", "diff", "padding", "accuracy", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for report in reports:
        for artifact in report.artifacts:
            table.add_row(report.model, *_cells(artifact))
    # A pipe or a log has no width of its own.
    console = consoles.answers(_LOG_WIDTH)
    console.print(table)
    for report in reports:
        for artifact in report.artifacts:
            if artifact.reason:
                click.echo(f"{report.model} {artifact.artifact}: {artifact.status}: {artifact.reason}")
        if report.output:
            click.echo(f"{report.model}: {report.output}")
        if report.warning:
            click.echo(f"{report.model}: warning: {report.warning}")
        version = f" (version {report.version})" if report.version else ""
        click.echo(f"{report.model}: {report.outcome}{version}")
    click.echo(
        "diff: largest difference to the source; padding: largest difference that other rows of a batch make; "
        "accuracy: of the artifact, and of the source (where it differs)"
    )


def _cells(artifact: ArtifactReport) -> tuple[str, ...]:
    operators = "".join(f" {count} {kind}" for kind, count in artifact.recurrent_ops.items())
    accuracy, before = _share(artifact.accuracy), _share(artifact.source_accuracy)
    return (
        artifact.artifact,
        f"{artifact.status.value}{operators}",
        f"{artifact.bytes / 1e6:.1f} MB" if artifact.bytes is not None else "-",
        _small(artifact.max_abs_diff),
        _small(artifact.padding_invariance),
        accuracy if accuracy == before else f"{accuracy} ({before})",
        f"{artifact.seconds:.1f}",
    )


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _first_fault(error: Any) -> str:
    """Return the first fault of a pydantic `ValidationError` in words."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")  # which pydantic puts before a sentence of ours
    return f"{where}: {message}" if where else message


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        _fail(f"{path}: {error}: a checkpoint folder holds a config.json")
    return config if isinstance(config, dict) else {}


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(FAILED)
