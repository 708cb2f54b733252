"""The table's own bounds, and that a row is done once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lockstep import export_matrix
from lockstep.export_matrix import CELL_KEYS, REQUIRED, Order, UnknownRow, check_bounds, render, run


def cell(row: str, artifact: str, status: str = "fused", small: float = 0.1, large: float = 2.0, **more: Any) -> Any:
    known = dict.fromkeys(CELL_KEYS) | {"row": row, "artifact": artifact, "status": status, "export_s": 1.0}
    costs = {"cpu_ms_b1_t32": small, "cpu_ms_b32_t64": large, "source_cpu_ms_b1_t32": 1.0, "source_cpu_ms_b32_t64": 3.0}
    return known | costs | {"recurrent_ops": {"LSTM": 1} if status == "fused" else {}} | more


def rows(**changed: Any) -> dict[str, dict[str, Any]]:
    return {
        "keras-lstm": {
            "cells": [cell("keras-lstm", "onnx", **changed), cell("keras-lstm", "saved_model", "exact", 1.4, 5.5)],
            "loop": {"recurrent_ops": {"Loop": 1}, "cpu_ms_b1_t32": 0.8, "cpu_ms_b32_t64": 4.6},
        },
        "torch-transformer": {
            "cells": [cell("torch-transformer", kind, "exact", 0.5, 3.0) for kind in ("onnx", "torch")],
            "loop": None,
        },
    }


def broken(known: dict[str, dict[str, Any]]) -> list[str]:
    return [line for bound in check_bounds(known) for line in bound.broken]


def test_the_table_has_every_row_of_the_zoo() -> None:
    assert len(REQUIRED) == 32
    assert REQUIRED["torch-bilstm"] == {"onnx": "fused", "torch": "may"}
    assert REQUIRED["keras-transformer"] == {"onnx": "x", "saved_model": "x"}
    assert REQUIRED["hf-minilm"] == {"onnx": "x", "torch": "x"}


def test_figures_within_the_bounds_break_none() -> None:
    assert broken(rows()) == []


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"status": "loop", "reason": "why"}, "keras-lstm onnx: loop (why)"),
        ({"status": "refused", "reason": "why", "small": None, "large": None}, "keras-lstm onnx: refused (why)"),
        ({"small": 0.4}, "keras-lstm: 0.40 of 0.80 ms = 0.50"),
        ({"large": 4.5}, "keras-lstm: 4.50 of 4.60 ms = 0.98"),
    ],
    ids=["a loop", "a refusal", "slow alone", "slow in a batch"],
)
def test_what_breaks_a_bound_is_named(changed: dict[str, Any], line: str) -> None:
    assert line in broken(rows(**changed))


def test_the_report_has_a_line_for_every_artifact_and_every_reason() -> None:
    known = rows(status="loop", reason="no operator")
    text = render(known, {"tf1-gru": "not trained"}, check_bounds(known))
    assert text.count("| keras-lstm |") == 3  # two artifacts, one loop form
    assert "- `keras-lstm` onnx: loop: no operator" in text
    assert "- `tf1-gru`: not trained" in text
    assert "| does not hold |" in text


def order(folder: Path, *names: str) -> Order:
    data = folder / "reports" / "matrix.json"
    return Order(names, folder / "cache", folder / "models", folder / "matrix.md", data, folder / "texts.jsonl")


def test_a_row_that_is_not_trained_is_an_error_that_says_so(tmp_path: Path) -> None:
    outcome = run(order(tmp_path, "tf1-gru"), lambda progress: None)
    assert "not trained" in outcome.errors["tf1-gru"]
    assert json.loads((tmp_path / "reports" / "matrix.json").read_text()) == []
    assert "tf1-gru" in (tmp_path / "matrix.md").read_text()


def test_a_row_is_done_once_as_long_as_its_source_and_its_artifacts_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache" / "zoo" / "keras-lstm"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.keras").write_text("weights")
    described = {"name": "keras-lstm", "framework": "keras", "layer": "LSTM", "labels": ["no", "yes"]}
    described |= {"tokenizer": "tokenizer.json", "weights": "model.keras", "max_tokens": 8}
    (folder / "description.json").write_text(json.dumps(described))
    done = []

    async def refused_row(description: Any, *_: Any) -> dict[str, Any]:
        done.append(description.name)
        return {"cells": [cell("keras-lstm", "onnx", "refused", None, None, reason="why")], "loop": None}

    monkeypatch.setattr(export_matrix, "_row", refused_row)
    for expected in (1, 1):
        outcome = run(order(tmp_path, "keras-lstm"), lambda progress: None)
        assert (len(done), outcome.refused) == (expected, 1)
    (folder / "model.keras").write_text("other weights")
    run(order(tmp_path, "keras-lstm"), lambda progress: None)
    assert len(done) == 2


def test_a_row_that_the_zoo_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownRow, match="no model 'keras-nothing'"):
        run(order(tmp_path, "keras-nothing"), lambda progress: None)
