"""The report's tables: from facts to cells in words. Pure; `render` writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lockstep.framework_report.gather import SIDES, ModelRow
from lockstep.framework_report.report_data import (
    SAME_LSTM,
    SAME_TRANSFORMER,
    Facts,
    cpu_per_epoch,
    median,
    onnx_cost,
    ratio,
    spread,
)
from lockstep.framework_report.settings import KINDS, MODE_SHAPES, Settings
from lockstep.server.repository.manifest import backend_name

UNKNOWN: Final = "–"
"""In place of a number that was not measured."""

COMMAND: Final = "lockstep report frameworks"
MATRIX_COMMAND: Final = "lockstep export matrix --train"

_SHOWN_WARNINGS: Final = 3
"""Of the load test: most repeat for each model."""


@dataclass(frozen=True, slots=True)
class Table:
    """Headings and cells, all of them text. The first `words` columns are words, the others numbers."""

    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    words: int = 1


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report: what it tells, its tables, and the command that makes its numbers."""

    anchor: str
    title: str
    short: str  # the title in a word or two, for the page's head
    text: tuple[str, ...]  # paragraphs
    tables: tuple[Table, ...]
    command: str


def sections(facts: Facts, settings: Settings) -> tuple[Section, ...]:
    """Return the report's parts after the claims, in their order."""
    return (
        _side_by_side(facts),
        _layers(facts),
        _training(facts),
        _exports(facts),
        _latency(facts, settings),
        _load(facts),
        _padding(facts, settings),
        _static_training(facts, settings),
        _modes(facts),
        _conditions(facts),
    )


def shown(value: float | None, digits: int = 2) -> str:
    """Return a number, or what stands for none."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def milliseconds(value: float | None) -> str:
    """Return milliseconds with three digits that count."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(value: float | None) -> str:
    """Return a share as a percentage."""
    return UNKNOWN if value is None else f"{value:.1%}"


def times(value: float | None) -> str:
    """Return a ratio."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}×" if value >= 20 else f"{value:.1f}×" if value >= 3 else f"{value:.2f}×"


def _side_by_side(facts: Facts) -> Section:
    columns = ["", *SIDES.values()]
    groups = {side: [row for row in facts.rows if row.side == side] for side in SIDES.values()}

    def line(name: str, of: Callable[[list[ModelRow]], str]) -> tuple[str, ...]:
        return (name, *(of(rows) for rows in groups.values()))

    def same(models: dict[Any, str], of: Callable[[ModelRow], str]) -> Callable[[list[ModelRow]], str]:
        def cell(rows: list[ModelRow]) -> str:
            return next((of(row) for row in rows if row.id in models.values()), UNKNOWN)

        return cell

    def lines(row: ModelRow) -> str:
        return f"{row.model_lines} + {row.training_lines}"

    def accuracy(row: ModelRow) -> str:
        return percent(row.accuracy)

    def best(rows: list[ModelRow]) -> str:
        known = [row.accuracy for row in rows if row.accuracy is not None]
        return percent(max(known, default=None))

    def artifacts(rows: list[ModelRow]) -> str:
        cells = [cell for row in rows for cell in row.cells if "-" not in cell["artifact"]]
        passed = sum(cell["status"] != "refused" for cell in cells)
        return f"{passed} of {len(cells)}" if cells else UNKNOWN

    def fused(rows: list[ModelRow]) -> str:
        recurrent = [row for row in rows if row.layer.cell != "Transformer" and row.cell("onnx") is not None]
        done = sum(row.cell("onnx")["status"] == "fused" for row in recurrent)  # type: ignore[index]  # asked above
        return f"{done} of {len(recurrent)}" if recurrent else UNKNOWN

    def epoch(row: ModelRow) -> str:
        return shown(facts.epoch_s(row.id), 1)

    def native(row: ModelRow) -> str | None:
        return None if row.published is None else _native(row)

    def alone(row: ModelRow, onnx: bool) -> str:
        backend = "onnxruntime" if onnx else native(row)
        return milliseconds(facts.latency(row.id, backend, "b1_t32") if backend else None)

    def under_load(row: ModelRow, onnx: bool) -> str:
        backend = "onnxruntime" if onnx else native(row)
        return shown(facts.load(row.id, "closed", backend, "rows_per_s") if backend else None, 0)

    cells = (
        line("models trained", lambda rows: f"{sum(row.record is not None for row in rows)} of {len(rows)}"),
        line("lines: the LSTM + its training", same(SAME_LSTM, lines)),
        line("lines: the Transformer + its training", same(SAME_TRANSFORMER, lines)),
        line("CPU s an epoch, one core: the LSTM", same(SAME_LSTM, epoch)),
        line("accuracy: the LSTM", same(SAME_LSTM, accuracy)),
        line("accuracy: the Transformer", same(SAME_TRANSFORMER, accuracy)),
        line("accuracy: the best of all its models", best),
        line("artifacts that passed the gate", artifacts),
        line("recurrent models that export fused", fused),
        line("LSTM, one text of 32 tokens, own format: ms", same(SAME_LSTM, lambda row: alone(row, False))),
        line("the same as ONNX: ms", same(SAME_LSTM, lambda row: alone(row, True))),
        line("LSTM under load, own format: texts/s", same(SAME_LSTM, lambda row: under_load(row, False))),
        line("the same as ONNX: texts/s", same(SAME_LSTM, lambda row: under_load(row, True))),
    )
    return Section(
        "side-by-side",
        "Side by side",
        "Side by side",
        (
            "The same LSTM and the same Transformer, trained on the same texts with the same recipe in each framework. "
            "Own format: a `.pt2` archive of PyTorch, a SavedModel of the others. Sentences: held-out ones that people "
            "rated. Hugging Face's models have no LSTM; one is pretrained.",
        ),
        (Table(tuple(columns), cells),),
        f"{MATRIX_COMMAND}; {COMMAND}",
    )


def _layers(facts: Facts) -> Section:
    def cell(side: str, fits: Callable[[ModelRow], bool]) -> str:
        return (
            ", ".join(row.id for row in facts.rows if row.side == side and row.accuracy is not None and fits(row))
            or UNKNOWN
        )

    def recurrence(kind: str) -> Callable[[ModelRow], bool]:
        def fits(row: ModelRow) -> bool:
            layer = row.layer
            plain = layer.layers == 1 and not layer.bidirectional and not layer.single_cell
            return layer.cell == kind and plain and "Peephole" not in row.entry.layer

        return fits

    kinds: dict[str, Callable[[ModelRow], bool]] = {
        "simple RNN": recurrence("RNN"),
        "GRU": recurrence("GRU"),
        "LSTM": recurrence("LSTM"),
        "both directions": lambda row: row.layer.bidirectional and row.layer.layers == 1,
        "several layers": lambda row: row.layer.layers > 1,
        "single cells in a loop of one's own": lambda row: row.layer.single_cell,
        "peepholes": lambda row: "Peephole" in row.entry.layer,
        "Transformer": lambda row: row.layer.cell == "Transformer",
    }
    cells = tuple((name, *(cell(side, fits) for side in SIDES.values())) for name, fits in kinds.items())
    return Section(
        "layers",
        "Which layers each framework has, trained here",
        "Layers",
        (
            "TensorFlow 2 has no recurrent layer of its own beside Keras's: its cells are written by hand, under "
            "`tf.while_loop`. TensorFlow 1's stacks are `MultiRNNCell` of `DropoutWrapper`.",
        ),
        (Table(("", *SIDES.values()), cells, words=1 + len(SIDES)),),
        "lockstep train",
    )


def _training(facts: Facts) -> Section:
    cells = []
    for row in facts.rows:
        record = row.record
        lines = (str(row.model_lines), str(row.model_lines + row.training_lines))
        if record is None:
            when = "in an earlier run" if row.accuracy is not None else "not trained"
            rest = (*[UNKNOWN] * 4, percent(row.accuracy), UNKNOWN)
            cells.append((row.id, row.side, row.entry.layer, when, *lines, *rest))
            continue
        cells.append(
            (
                row.id,
                row.side,
                row.entry.layer,
                row.trained_at or UNKNOWN,
                *lines,
                f"{record.parameters:,}",
                str(record.epochs),
                shown(record.train_s, 0),
                shown(cpu_per_epoch(row), 1),
                percent(record.accuracy_sentences),
                percent(record.accuracy_documents),
            )
        )
    columns = (
        *("model", "framework", "layer", "trained", "lines: model", "with training", "parameters", "epochs"),
        *("wall s", "CPU s an epoch", "sentences", "documents"),
    )
    return Section(
        "training",
        "Lines of code, seconds to train, accuracy",
        "Training",
        (
            "A line counts where it holds code: no comments, docstrings, blank lines or imports, and nothing that all "
            "frameworks share. Training used what cores were free, so wall time says what somebody waited and CPU time "
            "what it cost; both include choosing the best epoch, and CPU time the framework's own start. To compare "
            "speed, read the trainings on one core below (static against dynamic lengths): these may have run beside "
            "other work.",
        ),
        (Table(columns, tuple(cells), words=4),),
        "lockstep train (each model's training.json)",
    )


def _exports(facts: Facts) -> Section:
    cells = []
    for row in facts.rows:
        if not row.cells:
            cells.append((row.id, UNKNOWN, UNKNOWN, "not exported yet", *[UNKNOWN] * 7))
        for cell in row.cells:
            operators = " ".join(f"{count} {kind}" for kind, count in cell["recurrent_ops"].items())
            refused = cell["status"] == "refused"
            cells.append(
                (
                    row.id,
                    cell["artifact"],
                    "earlier" if row.earlier else "this",
                    f"refused: {cell['reason']}" if refused else cell["status"],
                    operators or UNKNOWN,
                    shown(None if cell["bytes"] is None else cell["bytes"] / 1e6),
                    _small(cell["max_abs_diff"]),
                    _small(cell["padding_invariance"]),
                    percent(cell["accuracy_sentences"]),
                    milliseconds(cell["cpu_ms_b1_t32"]),
                    milliseconds(cell["cpu_ms_b32_t64"]),
                )
            )
    loops = tuple(
        (
            row.id,
            "earlier" if row.earlier else "this",
            " ".join(f"{count} {kind}" for kind, count in row.loop["recurrent_ops"].items()),
            *(
                text
                for shape in ("b1_t32", "b32_t64")
                for text in (
                    milliseconds(row.loop[f"cpu_ms_{shape}"]),
                    milliseconds(onnx_cost(row, shape)),
                    times(ratio(row.loop[f"cpu_ms_{shape}"], onnx_cost(row, shape))),
                )
            ),
        )
        for row in facts.rows
        if row.loop is not None
    )
    columns = (
        *("model", "artifact", "run", "result", "recurrence", "MB", "difference", "padding", "accuracy"),
        *("CPU ms B1xT32", "CPU ms B32xT64"),
    )
    loop_columns = (
        "model",
        "run",
        "tf2onnx alone",
        "B1xT32: Loop ms",
        "fused",
        "ratio",
        "B32xT64: Loop ms",
        "fused",
        "ratio",
    )
    return Section(
        "exports",
        "What exports, and how",
        "Exports",
        (
            "`fused`: the recurrence became ONNX's RNN, GRU or LSTM operator with `sequence_lens`. `exact`: the "
            "framework's own graph, or one without recurrence. An artifact is published only if it answers as its "
            "source does, alone and in any batch, whatever stands in the padding: difference and padding are the "
            "largest that were seen.",
            "Run: this one, or an earlier one, whose report (`docs/reports/export-matrix.md`) comes first where this "
            "run has not exported every model: costs of two runs do not compare.",
            "What a Loop costs: the same model through tf2onnx alone, beside the fused operator.",
        ),
        (Table(columns, tuple(cells), words=5), Table(loop_columns, loops, words=3)),
        MATRIX_COMMAND,
    )


def _latency(facts: Facts, settings: Settings) -> Section:
    shapes = [f"b1_t{length}" for length in settings.lengths_alone]
    shapes += [f"b32_t{length}" for length in settings.lengths_together]
    cells = []
    for row in facts.rows:
        if row.published is None:
            continue
        for artifact in sorted(row.published.manifest.artifacts, key=lambda one: one.kind):
            backend = backend_name(artifact)
            figures = [facts.latency(row.id, backend, shape) for shape in shapes]
            cells.append((row.id, backend, *(milliseconds(figure) for figure in figures)))
    columns = ("model", "backend", *(_shape(shape) for shape in shapes))
    return Section(
        "latency",
        "Latency of each artifact",
        "Latency",
        (
            "Milliseconds from handing a full batch to the worker that serves it until the answer is back: one thread, "
            "medians of interleaved rounds. B1xT32: one text of 32 tokens.",
        ),
        (Table(columns, tuple(cells), words=2),),
        f"{COMMAND} --only latency",
    )


def _load(facts: Facts) -> Section:
    cells = []
    for row in facts.rows:
        found = facts.loaded(row.id)
        if found is None:
            continue
        for backend, closed in found["closed"].items():
            opened = found["open"].get(backend, {})
            cells.append(
                (
                    row.id,
                    backend,
                    shown(closed["rows_per_s"], 0),
                    shown(closed["mean_batch_rows"], 1),
                    shown(closed["padding_ratio"]),
                    milliseconds(closed["cpu_ms"]),
                    shown(found["rate"], 0),
                    milliseconds(opened.get("p50_ms")),
                    milliseconds(opened.get("p99_ms")),
                    str(closed["failed_rows"] + opened.get("failed_rows", 0)),
                )
            )
    columns = (
        *(
            "model",
            "backend",
            "most texts/s",
            "rows a batch",
            "padding",
            "CPU ms a text",
            "offered/s",
            "p50 ms",
            "p99 ms",
            "failed",
        ),
    )
    warned = [
        f"{row.id}: {warning}" for row in facts.rows for warning in (facts.loaded(row.id) or {}).get("warnings", ())
    ]
    text = [
        "One text a call over a local server whose cores the load generator shares. Most texts/s, rows a batch, "
        "padding (padded tokens / tokens) and CPU ms a text (of all the server's processes): callers in a closed loop. "
        "p50 and p99: the same Poisson arrivals for every backend of a model, at half of what the weakest can do, from "
        "the instant a call was meant to start."
    ]
    if warned:
        more = f"; {len(warned) - _SHOWN_WARNINGS} more are in the figures" if len(warned) > _SHOWN_WARNINGS else ""
        text.append("The load test warned: " + "; ".join(warned[:_SHOWN_WARNINGS]) + f"{more}.")
    return Section(
        "load", "Under load", "Load", tuple(text), (Table(columns, tuple(cells), words=2),), f"{COMMAND} --only load"
    )


def _padding(facts: Facts, settings: Settings) -> Section:
    costs, accuracies = [], []
    makes = ["arrival", *(f"fixed-{length}" for length in settings.fixed_lengths)]
    blind = [f"blind-{length}" for length in settings.fixed_lengths]
    for row in facts.of(settings.padding):
        for backend in facts.padded_backends(row.id):
            for name, shown_makes in (("told the lengths", makes), ("not told", [UNKNOWN, *blind])):
                ratios = [facts.padded_ratio(row.id, backend, make) for make in shown_makes]
                if any(figure is not None for figure in ratios):
                    base = milliseconds(facts.padded(row.id, backend, "sorted"))
                    costs.append((row.id, backend, name, base, *(times(figure) for figure in ratios)))
        for name, prefix in (("told the lengths", "fixed"), ("not told", "blind")):
            found = [facts.padded_accuracy(row.id, f"{prefix}-{length}") for length in settings.fixed_lengths]
            if any(figure is not None for figure in found):
                whole = percent(facts.padded_accuracy(row.id, "whole"))
                accuracies.append((row.id, name, whole, *(percent(figure) for figure in found)))
    first = next((row.id for row in facts.of(settings.padding) if facts.padded_backends(row.id)), None)
    if first is not None:
        shares = [facts.padded_value(first, "cut_share", str(length)) for length in settings.fixed_lengths]
        accuracies.append(("texts that are cut", UNKNOWN, percent(0.0), *(percent(share) for share in shares)))
        paddings = [facts.padded_value(first, "padding", make) for make in ("sorted", *makes)]
        costs.append(("padded tokens / tokens", UNKNOWN, UNKNOWN, *(times(one) for one in paddings)))
    cost_columns = ("model", "backend", "runtime is", "sorted: CPU ms a text", "as they come", *_fixed(settings))
    accuracy_columns = ("model", "runtime is", "dynamic", *_fixed(settings))
    return Section(
        "padding",
        "Static against dynamic lengths, in serving",
        "Padding in serving",
        (
            "The same held-out texts, sentences and documents as the corpus mixes them, through the same artifact in "
            "batches of several makes. Sorted: by length, in batches of a bounded area, which is what dynamic lengths "
            "make possible. As they come: 32 rows padded to the longest. Fixed: 32 rows cut or padded to so many "
            "tokens, which is what a graph of static shape takes. Figures are CPU time a text as a multiple of sorted. "
            "A fixed length below the longest text computes less because it reads less: see the accuracy below.",
            "Told the lengths: the runtime knows where each row ends, and may stop there. Not told: every position "
            "counts, as in a static graph without a mask; the answer is then another one, as the accuracy shows. "
            "Keras makes its mask of the ids, so it always knows.",
        ),
        (Table(cost_columns, tuple(costs), words=3), Table(accuracy_columns, tuple(accuracies), words=2)),
        f"{COMMAND} --only padding",
    )


def _static_training(facts: Facts, settings: Settings) -> Section:
    cells = []
    for row in facts.of(settings.epochs):
        dynamic = facts.text_ms(row.id)
        fixed = [facts.text_ms(row.id, f"fixed-{length}") for length in settings.epoch_lengths]
        cells.append(
            (
                row.id,
                row.side,
                milliseconds(dynamic),
                shown(facts.epoch_s(row.id), 1),
                *(text for one in fixed for text in (milliseconds(one), times(ratio(one, dynamic)))),
                milliseconds(facts.eager_text_ms(row.id)),
                times(ratio(facts.eager_text_ms(row.id), dynamic)),
            )
        )
    columns = (
        *("model", "framework", "dynamic: CPU ms a text", "an epoch: CPU s"),
        *(text for length in settings.epoch_lengths for text in (f"fixed {length}: CPU ms a text", "ratio")),
        *("without graphs: CPU ms a text", "ratio"),
    )
    return Section(
        "static-training",
        "Static against dynamic lengths, in training",
        "Padding in training",
        (
            "The zoo's own training code on a part of the corpus, 64 rows a step, one core, the first step (which "
            "builds what is built once) not counted. Dynamic: batches of similar lengths, padded to their longest. "
            "Fixed: every text cut or padded to so many tokens, all of which are computed. An epoch: of the whole "
            "corpus, at the pace that was measured. Without graphs: `tf.config.run_functions_eagerly`; PyTorch has "
            "none to leave away, and TensorFlow 1 nothing else. PyTorch's dynamic batches are packed "
            "(`pack_padded_sequence`), its fixed ones are not: every row has the same length.",
        ),
        (Table(columns, tuple(cells), words=2),),
        f"{COMMAND} --only epochs",
    )


def _modes(facts: Facts) -> Section:
    names = {
        "eager": "eager",
        "predict": "Keras predict",
        "graph": "graph",
        "tensorflow": "SavedModel",
        "torch": "`.pt2`",
        "onnxruntime": "ONNX",
    }
    tables = []
    for rows_in, length in MODE_SHAPES:
        shape = f"b{rows_in}_t{length}"
        cells = []
        for row in facts.rows:
            found = facts.modes(row.id)
            if not found:
                continue
            figures = {name: facts.mode(row.id, name, shape) for name in names}
            slowest = figures["eager"] if figures["eager"] is not None else figures["graph"]
            difference = spread([facts.mode(row.id, name, shape, "difference") for name in found if name in names])
            cells.append(
                (
                    row.id,
                    row.side,
                    *(milliseconds(figures[name]) for name in names),
                    times(ratio(slowest, figures["onnxruntime"])),
                    _small(difference[1] if difference else None),
                )
            )
        columns = (
            *("model", "framework", *(f"{text}: ms" for text in names.values())),
            *("source / ONNX", "largest difference"),
        )
        tables.append(Table((f"{_shape(shape)}: model", *columns[1:]), tuple(cells), words=2))
    return Section(
        "modes",
        "Eager against graph",
        "Eager and graph",
        (
            "The trained source as its users run it, and its artifacts, each in a process of its own with one thread, "
            "in turns. Milliseconds of the execution alone, medians. Eager: PyTorch's module; the Keras model called; "
            "TensorFlow 2 with `run_functions_eagerly`. Graph: a `tf.function`; of TensorFlow 1 a session. Source / "
            "ONNX: eager, or of TensorFlow 1 the session, over ONNX Runtime. All give the same answer: the last column "
            "is the largest difference of a logit to the source's first mode.",
        ),
        tuple(tables),
        f"{COMMAND} --only latency",
    )


def _conditions(facts: Facts) -> Section:
    what = {
        "latency": "latency, eager against graph",
        "padding": "static against dynamic, serving",
        "epochs": "static against dynamic, training",
        "load": "under load",
    }
    cells = []
    for kind in KINDS:
        known = facts.conditions(kind)
        if not known:
            cells.append((what[kind], f"{COMMAND} --only {kind}", "not measured", *[UNKNOWN] * 4))
            continue
        others = sorted(one.others_share for one in known)
        middle = median(others)
        instants = sorted(one.at for one in known)
        cells.append(
            (
                what[kind],
                f"{COMMAND} --only {kind}",
                _instants(instants),
                str(len(known)),
                shown(sum(one.seconds for one in known), 0),
                str(known[0].cores),
                f"{percent(middle)} (at most {percent(others[-1])})",
            )
        )
    trained = sorted({row.trained_at for row in facts.rows if row.trained_at})
    gathered = facts.gathered
    done = sum(bool(row.cells) and not row.earlier for row in facts.rows)
    earlier = sum(row.earlier for row in facts.rows)
    cells.append(
        (
            "lines, seconds to train, accuracy",
            "lockstep train",
            " to ".join(dict.fromkeys((trained[0], trained[-1]))) if trained else "not trained",
            str(sum(row.record is not None for row in facts.rows)),
            *[UNKNOWN] * 3,
        )
    )
    subject = "what exports, sizes, their CPU costs"
    cells.append((subject, MATRIX_COMMAND, gathered.matrix_at or "not run", str(done), *[UNKNOWN] * 3))
    if earlier:
        text = f"an earlier run: {gathered.recorded}"
        cells.append(
            (f"{subject}, accuracy of models not trained now", MATRIX_COMMAND, text, str(earlier), *[UNKNOWN] * 3)
        )
    columns = ("numbers", "command", "when (UTC)", "measurements", "s", "cores", "of the machine used by others")
    text = (
        "Ratios are of one run, in turns. Of the machine used by others: CPU time of processes that had nothing to do "
        "with the measurement, as a share of all cores; where it is much, read CPU times and ratios, not latencies. "
        f"Versions: {_versions(facts)}."
    )
    return Section(
        "conditions",
        "Where each number comes from",
        "Sources",
        (text,),
        (Table(columns, tuple(cells), words=3),),
        f"{COMMAND} (measures what is missing), --again (measures anew), --no-measure (writes the report alone)",
    )


def _native(row: ModelRow) -> str | None:
    """Return the backend of the framework's own format."""
    assert row.published is not None
    runtimes = {artifact.runtime for artifact in row.published.manifest.artifacts} - {"onnxruntime"}
    return next(iter(runtimes), None)


def _small(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0e}" if value else "0"


def _shape(name: str) -> str:
    rows, _, length = name.partition("_t")
    return f"B{rows[1:]}xT{length}"


def _fixed(settings: Settings) -> Iterable[str]:
    return (f"fixed {length}" for length in settings.fixed_lengths)


def _instants(ordered: Sequence[str]) -> str:
    first, last = (instant[:16].replace("T", " ") for instant in (ordered[0], ordered[-1]))
    return first if first == last else f"{first} to {last}"


def _versions(facts: Facts) -> str:
    found: dict[str, str] = {}
    for row in facts.rows:
        if row.record is not None:
            found |= row.record.versions
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items())) or "none, for nothing was trained"
