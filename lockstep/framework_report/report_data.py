"""The numbers that the report is made of, by name; `None` where there is none. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lockstep.exporters.source import Framework
from lockstep.framework_report.epochs import DYNAMIC, EAGER
from lockstep.framework_report.gather import Gathered, ModelRow
from lockstep.framework_report.measurement_store import Conditions, Entry, Kept
from lockstep.framework_report.padding import DYNAMIC as SORTED

SAME_LSTM: Final = {
    Framework.TORCH: "torch-lstm",
    Framework.KERAS: "keras-lstm",
    Framework.TF2: "tf2-lstm",
    Framework.TF1: "tf1-basiclstm",
}
"""The same model in each framework: embedding 64, one LSTM of 64, its final state, a linear head."""

SAME_TRANSFORMER: Final = {
    Framework.TORCH: "torch-transformer",
    Framework.KERAS: "keras-transformer",
    Framework.TF2: "tf2-transformer",
}
"""The same Transformer: width 64, two blocks of four heads, a masked mean, a linear head."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is known."""

    gathered: Gathered
    kept: Kept

    @property
    def rows(self) -> tuple[ModelRow, ...]:
        """The models of the zoo, in its order."""
        return self.gathered.rows

    def of(self, models: Iterable[str]) -> list[ModelRow]:
        """Return the named models that the report is about."""
        wanted = set(models)
        return [row for row in self.rows if row.id in wanted]

    def entries(self, kind: str) -> dict[str, Entry]:
        """Return the measurements of a kind by subject."""
        return {
            key.partition("/")[2]: entry
            for key, entry in sorted(self.kept.entries.items())
            if key.startswith(f"{kind}/") and self._is_shown(key)
        }

    def conditions(self, kind: str) -> list[Conditions]:
        """Return when and beside what a kind was measured."""
        return [entry.conditions for entry in self.entries(kind).values()]

    def latency(self, model: str, backend: str, shape: str, figure: str = "trip_ms") -> float | None:
        """Return what one batch takes on a backend, ms."""
        return _number(self._value("latency", model), "lengths", backend, shape, figure)

    def mode(self, model: str, name: str, shape: str, figure: str = "wall_ms") -> float | None:
        """Return what one batch takes in a mode of the source, or on a backend, in the comparison of both, ms."""
        return _number(self._value("latency", model), "modes", name, shape, figure)

    def modes(self, model: str) -> tuple[str, ...]:
        """Return the names of that comparison, the source's modes first."""
        return tuple((self._value("latency", model) or {}).get("modes", {}))

    def padded(self, model: str, backend: str, make: str) -> float | None:
        """Return the CPU time of a text in batches of one make, ms."""
        return _number(self._value("padding", model), "cpu_ms", backend, make)

    def padded_ratio(self, model: str, backend: str, make: str) -> float | None:
        """Return that time as a multiple of the time in sorted batches."""
        return ratio(self.padded(model, backend, make), self.padded(model, backend, SORTED))

    def padded_accuracy(self, model: str, make: str) -> float | None:
        """Return the share of held-out texts answered right."""
        return _number(self._value("padding", model), "accuracy", make)

    def padded_value(self, model: str, *names: str) -> float | None:
        """Return another figure of the padding's measurement."""
        return _number(self._value("padding", model), *names)

    def padded_backends(self, model: str) -> tuple[str, ...]:
        """Return the backends whose padding was measured."""
        return tuple((self._value("padding", model) or {}).get("cpu_ms", {}))

    def text_ms(self, model: str, condition: str = DYNAMIC, figure: str = "cpu_s") -> float | None:
        """Return the time that training takes for one text, ms: CPU time, or `wall_s`."""
        told = self._value("epochs", f"{model}/{condition}")
        if told is None:
            return None
        # The steps that are counted hold their share of the texts.
        texts: float = told["texts"] * told["steps"] / told["all_steps"]
        return float(told[figure]) * 1e3 / texts

    def epoch_s(self, model: str, condition: str = DYNAMIC) -> float | None:
        """Return what an epoch of the whole corpus would take at that pace, CPU s."""
        each, told = self.text_ms(model, condition), self._value("epochs", f"{model}/{condition}")
        return None if each is None or told is None else each * float(told["corpus_texts"]) / 1e3

    def eager_text_ms(self, model: str) -> float | None:
        """Return the CPU time that training without graphs takes for one text, ms."""
        return self.text_ms(model, EAGER)

    def load(self, model: str, mode: str, backend: str, figure: str) -> float | None:
        """Return a figure of a backend under load; `mode` is closed or open."""
        return _number(self._value("load", model), mode, backend, figure)

    def loaded(self, model: str) -> dict[str, Any] | None:
        """Return a model's load test."""
        return self._value("load", model)

    def _value(self, kind: str, subject: str) -> dict[str, Any] | None:
        key = f"{kind}/{subject}"
        return self.kept.value(key) if self._is_shown(key) else None

    def _is_shown(self, key: str) -> bool:
        model = key.split("/")[1]
        return any(row.id == model for row in self.rows)


def ratio(value: float | None, to: float | None) -> float | None:
    """Return value / to where both are known."""
    return None if value is None or not to else value / to


def spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the least and the greatest of those that are known; `None` where fewer than two are."""
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if len(known) > 1 else None


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of those that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def cpu_per_epoch(row: ModelRow) -> float | None:
    """Return the CPU seconds of one epoch of the model's own training."""
    return None if row.record is None else row.record.cpu_s / row.record.epochs


def onnx_cost(row: ModelRow, shape: str) -> float | None:
    """Return the CPU time of one batch as ONNX by the export matrix, ms."""
    cell = row.cell("onnx")
    value = None if cell is None else cell[f"cpu_ms_{shape}"]
    return None if value is None else float(value)


def _number(value: Any, *names: str) -> float | None:
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return None if value is None else float(value)
