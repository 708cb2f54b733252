"""The article's claims, each held against the numbers. Pure.

The article compares PyTorch, Keras and TensorFlow for language: which networks each has, how much code they take, how
fast they train, what static and dynamic graphs mean for texts of unequal length, and what can be deployed. The claims
are in our words. A claim whose numbers are missing is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from lockstep.exporters.source import Framework
from lockstep.framework_report.gather import SIDES, ModelRow
from lockstep.framework_report.report_data import (
    SAME_LSTM,
    SAME_TRANSFORMER,
    Facts,
    median,
    onnx_cost,
    ratio,
    spread,
)
from lockstep.framework_report.tables import COMMAND, MATRIX_COMMAND, milliseconds, percent, times

Verdict = Literal["holds", "holds in part", "does not hold", "not measured"]

TRAIN_COMMAND: Final = "lockstep train"

SAME_ACCURACY_POINTS: Final = 2.0
"""Percentage points within which accuracies count as the same: about twice the standard error on 2,000 texts."""

CLEARLY: Final = 1.1
"""A cost that exceeds another by less is not called greater."""

_RECURRENT_SIDES: Final = (Framework.TORCH, Framework.KERAS, Framework.TF2, Framework.TF1)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim, what was found, and whether it holds."""

    claim: str
    measured: str  # what was measured
    found: str  # the numbers in words
    verdict: Verdict
    command: str


@dataclass(frozen=True, slots=True)
class Group:
    """Claims of one origin."""

    title: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class _Finding:
    found: str
    verdict: Verdict


def claims(facts: Facts) -> tuple[Group, ...]:
    """Judge every claim by the numbers that there are: the article's, then those that its subject invites."""
    return (
        Group("What the article claims", tuple(_judged(facts, *one) for one in _OF_THE_ARTICLE)),
        Group("What it leaves open", tuple(_judged(facts, *one) for one in _LEFT_OPEN)),
    )


def _judged(facts: Facts, claim: str, measured: str, judge: Callable[[Facts], _Finding | None], command: str) -> Claim:
    finding = judge(facts) or _Finding("", "not measured")
    return Claim(claim, measured, finding.found, finding.verdict, command)


def _has_the_cells(facts: Facts) -> _Finding | None:
    counts = {}
    for framework in _RECURRENT_SIDES:
        rows = [row for row in facts.rows if row.framework is framework]
        trained = [row for row in rows if row.accuracy is not None]
        if not trained or len(trained) < len(rows):
            return None
        cells = sorted({row.layer.cell for row in trained} - {"Transformer"})
        counts[framework] = (len([row for row in trained if row.layer.cell != "Transformer"]), cells)
    found = "; ".join(f"{SIDES[one]} {count} models of {', '.join(cells)}" for one, (count, cells) in counts.items())
    whole = all(len(cells) == 3 for _, cells in counts.values())
    return _Finding(f"{found}. TensorFlow 2's cells are written by hand", "holds" if whole else "holds in part")


def _stacks(facts: Facts) -> _Finding | None:
    kinds: dict[str, Callable[[ModelRow], bool]] = {
        "both directions": lambda row: row.layer.bidirectional,
        "several layers": lambda row: row.layer.layers > 1,
        "single cells": lambda row: row.layer.single_cell,
    }
    rows = [row for row in facts.rows if any(fits(row) for fits in kinds.values())]
    known = [row for row in rows if row.cell("onnx") is not None]
    if not known or len(known) < len(rows):
        return None
    fused = [row for row in known if (row.cell("onnx") or {})["status"] == "fused"]
    found = "; ".join(
        f"{name}: {', '.join(dict.fromkeys(row.side for row in known if fits(row))) or 'none'}"
        for name, fits in kinds.items()
    )
    return _Finding(
        f"{found}. {len(fused)} of {len(known)} such models export to fused operators",
        "holds" if len(fused) == len(rows) else "holds in part",
    )


def _keras_is_shortest(facts: Facts) -> _Finding | None:
    found, verdicts = [], []
    for name, same in (("LSTM", SAME_LSTM), ("Transformer", SAME_TRANSFORMER)):
        rows = {row.framework: row for row in facts.of(same.values())}
        if len(rows) < len(same):
            return None
        model = {framework: row.model_lines for framework, row in rows.items()}
        listed = ", ".join(f"{SIDES[one]} {rows[one].model_lines} + {rows[one].training_lines}" for one in same)
        found.append(f"{name}: {listed}")
        verdicts.append(min(model, key=lambda one: model[one]) is Framework.KERAS)
    verdict: Verdict = "holds" if all(verdicts) else "holds in part" if any(verdicts) else "does not hold"
    return _Finding(f"lines of the model + of its training: {'; '.join(found)}", verdict)


def _same_accuracy(facts: Facts) -> _Finding | None:
    found, apart = [], []
    for name, same in (("LSTM", SAME_LSTM), ("Transformer", SAME_TRANSFORMER)):
        rows = facts.of(same.values())
        values = [row.accuracy for row in rows]
        between = spread(values)
        if between is None or None in values or len(values) < len(same):
            return None
        found.append(f"{name} {percent(between[0])} to {percent(between[1])}")
        apart.append((between[1] - between[0]) * 100)
    verdict: Verdict = "holds" if max(apart) <= SAME_ACCURACY_POINTS else "does not hold"
    return _Finding("; ".join(found), verdict)


def _training_speed(facts: Facts) -> _Finding | None:
    costs = {framework: facts.text_ms(model) for framework, model in SAME_LSTM.items()}
    known = {framework: cost for framework, cost in costs.items() if cost is not None}
    if len(known) < len(costs):
        return None
    order = sorted(known, key=lambda framework: known[framework])
    found = ", ".join(f"{SIDES[framework]} {milliseconds(known[framework])}" for framework in order)
    dynamic_first = order[0] is Framework.TORCH
    unpacked = facts.text_ms(SAME_LSTM[Framework.TORCH], "fixed-64")
    more = "" if unpacked is None else f"; PyTorch without packing, every text padded to 64: {milliseconds(unpacked)}"
    return _Finding(
        f"CPU ms a text, the same LSTM: {found}; dearest / cheapest {times(known[order[-1]] / known[order[0]])}{more}",
        "does not hold" if dynamic_first else "holds",
    )


def _graph_trains_faster(facts: Facts) -> _Finding | None:
    ratios = {
        framework: ratio(facts.eager_text_ms(SAME_LSTM[framework]), facts.text_ms(SAME_LSTM[framework]))
        for framework in (Framework.KERAS, Framework.TF2)
    }
    if None in ratios.values():
        return None
    known = {framework: value for framework, value in ratios.items() if value is not None}
    found = ", ".join(f"{SIDES[framework]} {times(value)}" for framework, value in known.items())
    return _Finding(
        f"without graphs the same LSTM's training costs: {found}",
        "holds" if min(known.values()) > CLEARLY else "does not hold",
    )


def _padding_costs_training(facts: Facts) -> _Finding | None:
    found, known = [], {}
    for length in (64, 256):
        ratios = {
            framework: ratio(facts.text_ms(model, f"fixed-{length}"), facts.text_ms(model))
            for framework, model in SAME_LSTM.items()
        }
        known[length] = [value for value in ratios.values() if value is not None]
        if len(known[length]) < len(ratios):
            return None
        listed = ", ".join(f"{SIDES[framework]} {times(value)}" for framework, value in ratios.items())
        found.append(f"every text padded to {length} tokens {listed}")
    return _Finding(
        f"the LSTM's training, CPU time against dynamic lengths: {'; '.join(found)}",
        "holds"
        if min(known[64] + known[256]) > CLEARLY
        else "holds in part"
        if max(known[256]) > CLEARLY
        else "does not hold",
    )


def _padding_costs_serving(facts: Facts) -> _Finding | None:
    found: list[str] = []
    ratios: list[float] = []
    for model in ("torch-lstm", "keras-lstm", "torch-transformer", "keras-transformer"):
        for backend in facts.padded_backends(model):
            cost = facts.padded_ratio(model, backend, "fixed-256")
            if cost is not None:
                found.append(f"{model} on {backend} {times(cost)}")
                ratios.append(cost)
    if not ratios:
        return None
    return _Finding(
        f"padded to 256 tokens, against sorted dynamic lengths: {', '.join(found)}",
        "holds" if min(ratios) > CLEARLY else "holds in part" if max(ratios) > CLEARLY else "does not hold",
    )


def _short_lengths_cost_accuracy(facts: Facts) -> _Finding | None:
    model = "torch-lstm"
    whole = facts.padded_accuracy(model, "whole")
    known = {length: facts.padded_accuracy(model, f"fixed-{length}") for length in (16, 32, 64, 256)}
    if whole is None or None in known.values():
        return None
    shares = {length: facts.padded_value(model, "cut_share", str(length)) for length in known}
    listed = ", ".join(
        f"{length} tokens {percent(value)} ({percent(shares[length])} of the texts cut)"
        for length, value in known.items()
    )
    lost = (whole - (known[16] or 0.0)) * 100
    return _Finding(
        f"{model}, uncut {percent(whole)}: {listed}", "holds" if lost > SAME_ACCURACY_POINTS else "does not hold"
    )


def _masks_matter(facts: Facts) -> _Finding | None:
    found, lost = [], []
    for model in ("torch-lstm", "tf1-basiclstm", "torch-transformer"):
        told, blind = facts.padded_accuracy(model, "fixed-256"), facts.padded_accuracy(model, "blind-256")
        if told is None or blind is None:
            continue
        found.append(f"{model} {percent(told)} told the lengths, {percent(blind)} not told")
        lost.append((told - blind) * 100)
    if not found:
        return None
    return _Finding(
        f"padded to 256 tokens: {'; '.join(found)}",
        "holds"
        if min(lost) > SAME_ACCURACY_POINTS
        else "holds in part"
        if max(lost) > SAME_ACCURACY_POINTS
        else "does not hold",
    )


def _graph_serves_faster(facts: Facts) -> _Finding | None:
    found, ratios = [], []
    for framework in (Framework.KERAS, Framework.TF2):
        model = SAME_LSTM[framework]
        eager, graph = facts.mode(model, "eager", "b1_t32"), facts.mode(model, "graph", "b1_t32")
        if eager is None or graph is None:
            return None
        found.append(f"{SIDES[framework]} eager {milliseconds(eager)} ms, graph {milliseconds(graph)} ms")
        ratios.append(eager / graph)
    model = SAME_LSTM[Framework.TORCH]
    eager, exported = facts.mode(model, "eager", "b1_t32"), facts.mode(model, "torch", "b1_t32")
    if eager is None or exported is None:
        return None
    found.append(f"PyTorch eager {milliseconds(eager)} ms, its exported graph {milliseconds(exported)} ms")
    in_torch = eager / exported > CLEARLY
    verdict: Verdict = "holds" if min(ratios) > CLEARLY and in_torch else "holds in part"
    return _Finding(f"the LSTM, one text of 32 tokens: {'; '.join(found)}", verdict)


def _everything_deploys(facts: Facts) -> _Finding | None:
    counts = {}
    for framework, side in SIDES.items():
        rows = [row for row in facts.rows if row.framework is framework]
        if any(not row.cells for row in rows):
            continue
        cells = [cell for row in rows for cell in row.cells]
        plain = [cell for cell in cells if "-" not in cell["artifact"]]
        if plain:
            counts[side] = (sum(cell["status"] != "refused" for cell in plain), len(plain))
    if "PyTorch" not in counts or len(counts) < 2:
        return None
    found = ", ".join(f"{side} {passed} of {tried}" for side, (passed, tried) in counts.items())
    passed, tried = counts["PyTorch"]
    return _Finding(
        f"artifacts that answer as their source does: {found}",
        "does not hold" if passed == tried else "holds in part",
    )


def _one_graph_serves_all(facts: Facts) -> _Finding | None:
    found, ratios = [], []
    for framework, model in SAME_LSTM.items():
        native = "torch" if framework is Framework.TORCH else "tensorflow"
        mine, onnx = facts.mode(model, native, "b1_t32"), facts.mode(model, "onnxruntime", "b1_t32")
        each = ratio(mine, onnx)
        if each is None:
            return None
        found.append(f"{SIDES[framework]} {milliseconds(mine)} / {milliseconds(onnx)} ms = {times(each)}")
        ratios.append(each)
    batch = [
        ratio(
            facts.mode(model, "torch" if framework is Framework.TORCH else "tensorflow", "b32_t64"),
            facts.mode(model, "onnxruntime", "b32_t64"),
        )
        for framework, model in SAME_LSTM.items()
    ]
    between = spread(batch)
    more = f"; 32 texts of 64: {times(between[0])} to {times(between[1])}" if between else ""
    return _Finding(
        f"the LSTM, own format / ONNX, one text of 32 tokens: {', '.join(found)}{more}",
        "holds" if min(ratios) > CLEARLY else "holds in part" if max(ratios) > CLEARLY else "does not hold",
    )


def _loops_cost(facts: Facts) -> _Finding | None:
    def ratios(shape: str) -> list[float]:
        found = []
        for row in facts.rows:
            cell = row.cell("onnx")
            each = ratio(row.loop[f"cpu_ms_{shape}"], cell[f"cpu_ms_{shape}"]) if row.loop and cell else None
            if each is not None:
                found.append(each)
        return found

    alone, together = ratios("b1_t32"), ratios("b32_t64")
    if not alone or not together:
        return None
    return _Finding(
        f"Loop or Scan / fused, {len(alone)} models: one text of 32 tokens {times(min(alone))} to {times(max(alone))} "
        f"(median {times(median(alone))}); 32 of 64 {times(min(together))} to {times(max(together))} "
        f"(median {times(median(together))})",
        "holds" if min(alone + together) > CLEARLY else "holds in part",
    )


def _gru_is_cheaper(facts: Facts) -> _Finding | None:
    pairs = (
        ("torch-gru", "torch-lstm"),
        ("keras-gru", "keras-lstm"),
        ("tf2-gru", "tf2-lstm"),
        ("tf1-gru", "tf1-basiclstm"),
    )
    found: list[str] = []
    all_ratios: list[float] = []
    for shape, name in (("b1_t32", "one text of 32 tokens"), ("b32_t64", "32 of 64")):
        ratios = []
        for gru, lstm in pairs:
            costs = {row.id: onnx_cost(row, shape) for row in facts.of((gru, lstm))}
            ratios.append(ratio(costs.get(gru), costs.get(lstm)))
        between = spread(ratios)
        if between is None or None in ratios:
            return None
        found.append(f"{name} {times(between[0])} to {times(between[1])}")
        all_ratios += between
    cheaper, some = max(all_ratios) < 1 / CLEARLY, min(all_ratios) < 1 / CLEARLY
    return _Finding(
        f"GRU / LSTM of the same sizes, CPU time as ONNX: {', '.join(found)}",
        "holds" if cheaper else "holds in part" if some else "does not hold",
    )


def _gates_help(facts: Facts) -> _Finding | None:
    values: dict[str, list[float]] = {"RNN": [], "GRU": [], "LSTM": []}
    for row in facts.rows:
        plain = row.layer.layers == 1 and not row.layer.bidirectional
        if row.accuracy is not None and plain and row.layer.cell in values:
            values[row.layer.cell].append(row.accuracy)
    if not all(values.values()):
        return None
    means = {cell: sum(found) / len(found) for cell, found in values.items()}
    found = ", ".join(f"{cell} {percent(mean)} ({len(values[cell])} models)" for cell, mean in means.items())
    gained = (min(means["GRU"], means["LSTM"]) - means["RNN"]) * 100
    verdict: Verdict = "holds" if gained > SAME_ACCURACY_POINTS else "holds in part" if gained > 0 else "does not hold"
    return _Finding(f"mean accuracy of one layer, one direction: {found}", verdict)


def _more_layers_help(facts: Facts) -> _Finding | None:
    models = ("torch-lstm", "torch-bilstm", "torch-bilstm-2")
    known = _accuracy_at_cost(facts, models, "b32_t64")
    if known is None:
        return None
    accuracies, listed = known
    gained = (max(accuracies.values()) - accuracies["torch-lstm"]) * 100
    return _Finding(
        f"accuracy, and CPU of 32 texts of 64 tokens as ONNX: {listed}",
        "holds" if gained > SAME_ACCURACY_POINTS else "does not hold",
    )


def _transformers_win(facts: Facts) -> _Finding | None:
    known = _accuracy_at_cost(facts, ("torch-lstm", "torch-transformer", "hf-minilm"), "b1_t32")
    if known is None:
        return None
    accuracies, listed = known
    scratch = (accuracies["torch-transformer"] - accuracies["torch-lstm"]) * 100 > SAME_ACCURACY_POINTS
    pretrained = (accuracies["hf-minilm"] - accuracies["torch-lstm"]) * 100 > SAME_ACCURACY_POINTS
    verdict: Verdict = "holds" if scratch and pretrained else "holds in part" if pretrained else "does not hold"
    return _Finding(
        f"accuracy, and CPU of one text of 32 tokens as ONNX: {listed}; torch-transformer is trained from scratch, "
        "hf-minilm is pretrained",
        verdict,
    )


def _accuracy_at_cost(facts: Facts, models: tuple[str, ...], shape: str) -> tuple[dict[str, float], str] | None:
    """Return each model's accuracy, and in words beside what it costs as ONNX by the export matrix."""
    accuracies: dict[str, float] = {}
    listed = []
    for row in facts.of(models):
        cost = onnx_cost(row, shape)
        if row.accuracy is None or cost is None:
            return None
        accuracies[row.id] = row.accuracy
        listed.append(f"{row.id} {percent(row.accuracy)} at {milliseconds(cost)} ms")
    return (accuracies, ", ".join(listed)) if len(accuracies) == len(models) else None


def _tensorboard(facts: Facts) -> _Finding | None:
    trained = [row for row in facts.rows if row.record is not None]
    if not trained:
        return None
    logged = [row for row in trained if row.logged]
    sides = ", ".join(dict.fromkeys(row.side for row in logged))
    return _Finding(
        f"{len(logged)} of {len(trained)} trained models left TensorBoard's events: {sides}",
        "holds" if len(logged) == len(trained) else "holds in part",
    )


_Judge = Callable[[Facts], _Finding | None]

_OF_THE_ARTICLE: Final[Iterable[tuple[str, str, _Judge, str]]] = (
    (
        "PyTorch, Keras and TensorFlow each have the simple RNN, the GRU and the LSTM",
        "models trained, by cell",
        _has_the_cells,
        TRAIN_COMMAND,
    ),
    (
        "Recurrent layers stack, run in both directions, and come as single cells",
        "such models, and what becomes of them in an export",
        _stacks,
        MATRIX_COMMAND,
    ),
    ("Keras takes the least code", "lines of the same two models", _keras_is_shortest, TRAIN_COMMAND),
    (
        "Static graphs train faster than PyTorch's dynamic one",
        "training of the same LSTM on one core, dynamic lengths",
        _training_speed,
        f"{COMMAND} --only epochs",
    ),
    (
        "A graph trains faster than the same code run eagerly",
        "the same training with and without TensorFlow's graphs",
        _graph_trains_faster,
        f"{COMMAND} --only epochs",
    ),
    (
        "Static lengths make training pay for padding",
        "the same training at a fixed length",
        _padding_costs_training,
        f"{COMMAND} --only epochs",
    ),
    (
        "Static lengths make serving pay for padding",
        "the same texts, padded to the maximum or sorted by length",
        _padding_costs_serving,
        f"{COMMAND} --only padding",
    ),
    (
        "A graph serves faster than eager code",
        "the same LSTM, eager and as a graph of its own framework",
        _graph_serves_faster,
        f"{COMMAND} --only latency",
    ),
    (
        "TensorFlow is for deployment, PyTorch for research",
        "artifacts that pass the parity gate",
        _everything_deploys,
        MATRIX_COMMAND,
    ),
    ("Every framework logs to TensorBoard", "events left by the trainings", _tensorboard, TRAIN_COMMAND),
)

_LEFT_OPEN: Final[Iterable[tuple[str, str, _Judge, str]]] = (
    (
        "The framework does not decide how good the model is",
        f"accuracy of the same two models; the same within {SAME_ACCURACY_POINTS:g} points",
        _same_accuracy,
        TRAIN_COMMAND,
    ),
    (
        "A short fixed length saves time and loses text",
        "accuracy at fixed lengths",
        _short_lengths_cost_accuracy,
        f"{COMMAND} --only padding",
    ),
    (
        "Padding must be masked",
        "accuracy where nobody tells the model where a text ends",
        _masks_matter,
        f"{COMMAND} --only padding",
    ),
    (
        "As ONNX a model is served faster than in its own framework's format",
        "the same LSTM in its own format and as ONNX",
        _one_graph_serves_all,
        f"{COMMAND} --only latency",
    ),
    (
        "A recurrence that is exported as a Loop is slow",
        "the same models as a Loop or Scan, and fused",
        _loops_cost,
        MATRIX_COMMAND,
    ),
    ("A GRU is cheaper than an LSTM", "the same sizes in each framework", _gru_is_cheaper, MATRIX_COMMAND),
    ("Gates make recurrent networks better", "accuracy by cell", _gates_help, TRAIN_COMMAND),
    (
        "More layers and both directions make them better still",
        "accuracy and cost, PyTorch's LSTM",
        _more_layers_help,
        MATRIX_COMMAND,
    ),
    (
        "Transformers are better than recurrent networks",
        "accuracy and cost",
        _transformers_win,
        MATRIX_COMMAND,
    ),
)
