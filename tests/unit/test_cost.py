"""The cost model finds the shapes that artifacts have, and learns what it was not shown."""

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.server.scheduling import cost_store
from lockstep.server.scheduling.cost import CostModel, Measurement, probe_shapes


def rnn(rows: float, length: float) -> float:
    return 2e4 + 3e3 * length + 900 * rows * length


def transformer(rows: float, length: float) -> float:
    return 1e5 + 5e4 * rows * length + 120 * rows * length**2


def cached(rows: float, length: float) -> float:
    """A Transformer on a CPU: each token costs 1.4 times as much once the batch has left the cache."""
    return transformer(rows, length) * (1.4 if rows * length > 1024 else 1.0)


def measured(cost: object, shapes: list[tuple[int, int]], noise: float = 0.0) -> list[Measurement]:
    generator = np.random.default_rng(0)
    return [
        Measurement(rows, length, cost(rows, length) * float(np.exp(noise * generator.standard_normal())))  # type: ignore[operator]
        for rows, length in shapes
    ]


def errors(model: CostModel, cost: object) -> np.ndarray:
    shapes = [(rows, length) for rows in (1, 3, 7, 20, 50, 64) for length in (5, 12, 33, 90, 200, 256)]
    return np.array([abs(model.predict_ns(*shape) / cost(*shape) - 1) for shape in shapes])  # type: ignore[operator]


@pytest.mark.parametrize("cost", [rnn, transformer])
def test_it_fits_linear_and_superlinear_artifacts_from_few_batches(cost: object) -> None:
    model = CostModel(64, 256)
    model.fit(measured(cost, probe_shapes(64, 256, 4096), noise=0.05))
    assert np.median(errors(model, cost)) < 0.05
    assert errors(model, cost).max() < 0.25


def test_it_finds_that_large_batches_cost_more_for_each_token() -> None:
    model = CostModel(64, 256)
    model.fit(measured(cached, probe_shapes(64, 256, 16_384)))
    small, large = model.predict_ns(8, 64) / (8 * 64), model.predict_ns(64, 256) / (64 * 256)
    assert large / small == pytest.approx(cached(64, 256) / cached(8, 64) * (8 * 64) / (64 * 256), rel=0.2)


def test_it_extrapolates_to_batches_that_there_was_no_time_to_measure() -> None:
    model = CostModel(64, 256)
    model.fit(measured(transformer, [shape for shape in probe_shapes(64, 256, 16_384) if shape[0] * shape[1] <= 512]))
    assert model.predict_ns(64, 256) == pytest.approx(transformer(64, 256), rel=0.3)


def test_it_learns_from_the_live_server_that_everything_takes_longer() -> None:
    model = CostModel(64, 256)
    model.fit(measured(rnn, probe_shapes(64, 256, 4096)))
    generator = np.random.default_rng(1)
    for _ in range(3000):
        rows, length = int(generator.integers(1, 65)), int(generator.integers(4, 257))
        model.observe(Measurement(rows, length, 1.6 * rnn(rows, length)))
    assert np.median(errors(model, lambda rows, length: 1.6 * rnn(rows, length))) < 0.05


def test_an_outlier_does_little() -> None:
    model = CostModel(64, 256)
    model.fit(measured(rnn, probe_shapes(64, 256, 4096)))
    before = model.predict_ns(16, 64)
    model.observe(Measurement(16, 64, 1000 * before))
    assert model.predict_ns(16, 64) < 1.1 * before


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 16), st.integers(1, 64), st.floats(1e3, 1e9)), min_size=1, max_size=20))
def test_the_table_is_finite_positive_and_never_falls(found: list[tuple[int, int, float]]) -> None:
    model = CostModel(16, 64)
    model.fit([Measurement(*one) for one in found])
    table = model.table()
    assert table.shape == (17, 65)
    assert np.isfinite(table).all()
    assert (table[1:, 1:] > 0).all()
    assert (np.diff(table[1:, 1:], axis=0) >= 0).all()
    assert (np.diff(table[1:, 1:], axis=1) >= 0).all()


def test_its_state_is_restored_and_nonsense_is_not() -> None:
    model = CostModel(64, 256)
    model.fit(measured(cached, probe_shapes(64, 256, 4096)))
    again = CostModel.restore(model.state())
    assert again.predict_ns(13, 77) == model.predict_ns(13, 77)
    with pytest.raises(ValueError, match="another form"):
        CostModel.restore(model.state() | {"coefficients": [1.0]})
    with pytest.raises(ValueError, match="values that no fit gives"):
        CostModel.restore(model.state() | {"coefficients": [-1.0] * 5})


def test_an_unfitted_model_counts_padded_tokens() -> None:
    model = CostModel(4, 8)
    assert not model.fitted
    assert model.predict_ns(2, 8) == 16


def test_probes_begin_with_the_cheapest_and_stay_within_limits() -> None:
    shapes = probe_shapes(64, 256, 4096)
    areas = [rows * length for rows, length in shapes]
    assert areas == sorted(areas)
    assert max(area for area, (rows, _) in zip(areas, shapes, strict=True) if rows > 1) <= 4096
    assert (64, 64) in shapes
    assert (1, 256) in shapes
    assert probe_shapes(1, 1, 1) == [(1, 1)]


def test_costs_that_find_no_room_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    cost_store.CostStore(tmp_path).save({"artifact": "a"}, CostModel(4, 16))
    assert list(tmp_path.iterdir()) == []
