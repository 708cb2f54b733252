"""What a batch costs, measured: time as a function of (rows, longest length), for one artifact on one device.

A model of two parts. The *shape* is a sum of the terms that recurrent nets and Transformers are made of,

    a + b rows + c length + d rows x length + e rows x length^2        (all coefficients >= 0)

fitted to the measurements in relative terms, so that small batches count as much as large ones. The
*correction* is a factor on a grid of powers of two, interpolated between: it holds what no such formula
knows, caches above all (on CPUs a large batch of a Transformer is slower for each token than a small one).
Observations of the live server refine the correction; one that is far off moves it no further than a bound,
so that an outlier does little.

Knows no worker and no clock. Costs are nanoseconds; of what (CPU time, wall time) is the caller's choice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEARNING_RATE = 0.05
"""Share of a live observation's error that moves the correction: about the last 20 batches of a kind count."""

_LARGEST_STEP = 0.7
"""Of an observation, in natural logarithm: about a factor of two either way."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A batch that was executed."""

    rows: int
    length: int  # tokens, the longest row
    cost_ns: float


class CostModel:
    """Predicts the cost of a batch up to `max_rows` rows and `max_length` tokens."""

    def __init__(self, max_rows: int, max_length: int) -> None:
        self.max_rows = max_rows
        self.max_length = max_length
        self.observations = 0
        self._coefficients: Floats = np.array([0.0, 0.0, 0.0, 1.0, 0.0])
        self._correction: Floats = np.zeros((_cells(max_rows), _cells(max_length)))
        self._table: Floats | None = None

    @property
    def fitted(self) -> bool:
        """Whether it predicts measured costs, and not only padded tokens."""
        return self.observations > 0

    def fit(self, measurements: Sequence[Measurement]) -> None:
        """Fit the shape to measurements, then the correction to what remains of them."""
        rows = np.array([one.rows for one in measurements], dtype=np.float64)
        lengths = np.array([one.length for one in measurements], dtype=np.float64)
        costs = np.array([one.cost_ns for one in measurements], dtype=np.float64)
        self._coefficients = _nonnegative_fit(_terms(rows, lengths) / costs[:, None])
        self._correction = np.zeros_like(self._correction)
        remaining = np.log(costs / self._shape(rows, lengths))
        self._correction = _spread(self._correction.shape, rows, lengths, remaining)
        self.observations = len(measurements)
        self._table = None

    def observe(self, measurement: Measurement) -> float:
        """Learn from a batch of the live server; returns what it had been predicted to cost, ns."""
        predicted_ns = self.predict_ns(measurement.rows, measurement.length)
        error = math.log(measurement.cost_ns / predicted_ns)
        step = _LEARNING_RATE * min(_LARGEST_STEP, max(-_LARGEST_STEP, error))
        corners = self._corners(measurement.rows, measurement.length)
        norm = sum(weight * weight for _, weight in corners)
        for corner, weight in corners:
            self._correction[corner] += step * weight / norm
        self.observations += 1
        return predicted_ns

    def predict_ns(self, rows: int, length: int) -> float:
        """Return the predicted cost, ns, from the model as it is now."""
        fixed, row, token, area, square = self._coefficients.tolist()
        shape = fixed + row * rows + token * length + rows * length * (area + square * length)
        correction = sum(weight * float(self._correction[corner]) for corner, weight in self._corners(rows, length))
        cost_ns: float = max(1.0, shape) * math.exp(correction)
        return cost_ns

    def _corners(self, rows: int, length: int) -> list[tuple[tuple[int, int], float]]:
        """Return the four nodes of the grid round a batch, with their weights in bilinear interpolation."""
        y, x = math.log2(rows), math.log2(length)
        i, j = min(int(y), self._correction.shape[0] - 2), min(int(x), self._correction.shape[1] - 2)
        v, u = y - i, x - j
        return [
            ((i, j), (1 - v) * (1 - u)),
            ((i, j + 1), (1 - v) * u),
            ((i + 1, j), v * (1 - u)),
            ((i + 1, j + 1), v * u),
        ]

    def table(self) -> Floats:
        """Return predicted costs, ns, `[rows, length]` from 0 to the maxima; row and column 0 are 0.

        It never falls as rows or length grow: a padded batch computes all that a smaller one does, so where
        measurements say otherwise they are noise. Kept until `refresh`.
        """
        if self._table is None:
            grid = np.meshgrid(np.arange(1.0, self.max_rows + 1), np.arange(1.0, self.max_length + 1), indexing="ij")
            rows, lengths = grid[0].ravel(), grid[1].ravel()
            costs = self._shape(rows, lengths) * np.exp(_interpolate(self._correction, rows, lengths))
            table = np.zeros((self.max_rows + 1, self.max_length + 1))
            table[1:, 1:] = costs.reshape(self.max_rows, self.max_length)
            self._table = np.maximum.accumulate(np.maximum.accumulate(table, axis=0), axis=1)
        return self._table

    def refresh(self) -> None:
        """Let the next `table` show what was learned since the last."""
        self._table = None

    def state(self) -> dict[str, object]:
        """Return what `restore` takes, as JSON values."""
        return {
            "max_rows": self.max_rows,
            "max_length": self.max_length,
            "observations": self.observations,
            "coefficients": self._coefficients.tolist(),
            "correction": self._correction.tolist(),
        }

    @classmethod
    def restore(cls, state: dict[str, object]) -> CostModel:
        """Return the model that `state` was of; raises `ValueError`, `KeyError` or `TypeError` where it was not."""
        model = cls(int(str(state["max_rows"])), int(str(state["max_length"])))
        coefficients = np.array(state["coefficients"], dtype=np.float64)
        correction = np.array(state["correction"], dtype=np.float64)
        if coefficients.shape != model._coefficients.shape or correction.shape != model._correction.shape:
            raise ValueError("the state is of another form")
        if not (np.isfinite(coefficients).all() and np.isfinite(correction).all() and (coefficients >= 0).all()):
            raise ValueError("the state holds values that no fit gives")
        model._coefficients, model._correction = coefficients, correction
        model.observations = int(str(state["observations"]))
        return model

    def _shape(self, rows: Floats, lengths: Floats) -> Floats:
        costs: Floats = _terms(rows, lengths) @ self._coefficients
        return np.maximum(costs, 1.0)


def probe_shapes(max_rows: int, max_length: int, max_padded_tokens: int) -> list[tuple[int, int]]:
    """Return the batches to measure at warm-up, cheapest first: powers of four of rows, of two of length.

    Who measures stops when the time is up: what is then missing is the largest batches, which the shape
    extrapolates to and the live server refines.
    """
    rows = [1, 2, *(4**power for power in range(1, 6) if 4**power < max_rows), max_rows]
    lengths = [*(2**power for power in range(3, 14) if 2**power < max_length), max_length]
    shapes = {(r, n) for r, n in itertools.product(rows, lengths) if r == 1 or r * n <= max_padded_tokens}
    return sorted((shape for shape in shapes if shape[0] <= max_rows), key=lambda shape: (shape[0] * shape[1], shape))


def _terms(rows: Floats, lengths: Floats) -> Floats:
    """Return [measurement, term]."""
    return np.stack([np.ones_like(rows), rows, lengths, rows * lengths, rows * lengths**2], axis=1)


def _nonnegative_fit(relative_terms: Floats) -> Floats:
    """Return the coefficients >= 0 that bring `relative_terms @ coefficients` closest to 1, in least squares.

    With five terms every set of them that may be positive is tried: the best fit without a negative
    coefficient is the constrained optimum.
    """
    target = np.ones(len(relative_terms))
    count = relative_terms.shape[1]
    best, best_error = np.zeros(count), np.inf
    for chosen in _subsets(range(count)):
        columns = list(chosen)
        scale = np.linalg.norm(relative_terms[:, columns], axis=0)
        solution = np.linalg.lstsq(relative_terms[:, columns] / scale, target, rcond=None)[0] / scale
        if (solution < 0).any():
            continue
        error = float(((relative_terms[:, columns] @ solution - target) ** 2).sum())
        if error < best_error:
            best, best_error = np.zeros(count), error
            best[columns] = solution
    return best


def _subsets(items: Iterable[int]) -> Iterable[tuple[int, ...]]:
    pool = tuple(items)
    return itertools.chain.from_iterable(itertools.combinations(pool, size) for size in range(1, len(pool) + 1))


def _cells(maximum: int) -> int:
    """Return how many powers of two reach from 1 to `maximum`, and one beyond."""
    return max(2, int(np.ceil(np.log2(max(2, maximum)))) + 1)


def _interpolate(grid: Floats, rows: Floats, lengths: Floats) -> Floats:
    """Return the grid's values at (rows, lengths), bilinear in their logarithms."""
    y, x = np.log2(rows), np.log2(lengths)
    i = np.minimum(y.astype(np.int64), grid.shape[0] - 2)
    j = np.minimum(x.astype(np.int64), grid.shape[1] - 2)
    v, u = y - i, x - j
    below = grid[i, j] * (1 - u) + grid[i, j + 1] * u
    above = grid[i + 1, j] * (1 - u) + grid[i + 1, j + 1] * u
    between: Floats = below * (1 - v) + above * v
    return between


def _spread(shape: tuple[int, ...], rows: Floats, lengths: Floats, values: Floats) -> Floats:
    """Return a grid whose every node has the mean of the values, weighted by nearness in the logarithms."""
    y, x = np.log2(rows), np.log2(lengths)
    nodes_y, nodes_x = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    distance = (nodes_y[..., None] - y) ** 2 + (nodes_x[..., None] - x) ** 2
    weights = np.exp(-distance / 0.3) + 1e-12
    spread: Floats = (weights * values).sum(axis=-1) / weights.sum(axis=-1)
    return spread
