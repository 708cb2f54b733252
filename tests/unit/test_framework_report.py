"""The frameworks side by side: what was not measured is shown as such, and claims are judged by numbers alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lockstep import export_matrix
from lockstep.commands.report import report
from lockstep.export_matrix import CELL_KEYS
from lockstep.framework_report import padding, render
from lockstep.framework_report.claims import Claim, claims
from lockstep.framework_report.gather import Gathered, Layer, gather
from lockstep.framework_report.measure import Progress, pending, run
from lockstep.framework_report.measurement import Measurement, MeasuringFailed, Say
from lockstep.framework_report.measurement_store import Conditions, Entry, Kept, StoreUnreadable
from lockstep.framework_report.recorded import parse, read_report
from lockstep.framework_report.report_data import SAME_LSTM, Facts
from lockstep.framework_report.settings import Settings
from lockstep.framework_report.tables import UNKNOWN, Section, sections
from lockstep.zoo.registry import select

MODELS = ("torch-lstm", "keras-lstm", "tf2-lstm", "tf1-basiclstm", "torch-transformer")
CONDITIONS = Conditions("2026-01-02T03:04:05+00:00", 1.5, 2, 0.25)


def record(model: str, **changed: Any) -> dict[str, Any]:
    return {
        "model": model,
        "framework": model.partition("-")[0],
        "layer": "LSTM",
        "parameters": 1_000,
        "epochs": 2,
        "train_s": 30.0,
        "cpu_s": 40.0,
        "accuracy_sentences": 0.77,
        "accuracy_documents": 0.75,
        "validation_accuracy": 0.8,
        "seed": 7,
        "lines_of_code": 80,
        "model_lines": 30,
        "versions": {"python": "3.11"},
        "fingerprint": f"of {model}",
    } | changed


def cell(model: str, artifact: str, **changed: Any) -> dict[str, Any]:
    known = dict.fromkeys(CELL_KEYS) | {"row": model, "artifact": artifact, "status": "exact", "recurrent_ops": {}}
    costs = {"cpu_ms_b1_t32": 0.2, "cpu_ms_b32_t64": 3.0, "bytes": 2_000_000, "export_s": 1.0}
    return known | costs | {"accuracy_sentences": 0.77, "max_abs_diff": 1e-6, "padding_invariance": 0.0} | changed


def trained(cache: Path, model: str, **changed: Any) -> None:
    folder = cache / "zoo" / model
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(record(model, **changed)))


def exported(matrix: Path, **rows: list[dict[str, Any]]) -> None:
    matrix.write_text("[]")
    state = {
        name.replace("_", "-"): {
            "source": "",
            "framework": "",
            "layer": "",
            "cells": cells,
            "loop": None,
            "methods": {},
        }
        for name, cells in rows.items()
    }
    matrix.with_name(f"{matrix.stem}.state.json").write_text(json.dumps(state))


def found(tmp_path: Path, models: tuple[str, ...] = MODELS) -> Gathered:
    return gather(
        select(models), tmp_path / "cache", tmp_path / "models", tmp_path / "matrix.json", tmp_path / "recorded.md"
    )


def facts(tmp_path: Path, **measured: dict[str, Any]) -> Facts:
    entries = {key.replace("__", "/").replace("_", "-"): value for key, value in measured.items()}
    kept = Kept(
        tmp_path / "kept.json", {key: Entry("", "by hand", CONDITIONS, value) for key, value in entries.items()}
    )
    return Facts(found(tmp_path), kept)


def claim(known: Facts, words: str) -> Claim:
    (one,) = (one for group in claims(known) for one in group.claims if words in one.claim)
    return one


def section(known: Facts, anchor: str) -> Section:
    (one,) = (one for one in sections(known, Settings()) if one.anchor == anchor)
    return one


def epoch(cpu_s: float) -> dict[str, Any]:
    return {"texts": 128, "steps": 1, "all_steps": 2, "wall_s": 1.0, "cpu_s": cpu_s, "corpus_texts": 1_000}


@pytest.mark.parametrize(
    ("words", "layer"),
    [
        ("RNN", Layer("RNN", 1, False, False)),
        ("2 BiGRU", Layer("GRU", 2, True, False)),
        ("LSTMCell", Layer("LSTM", 1, False, True)),
        ("BasicRNN", Layer("RNN", 1, False, False)),
        ("Peephole LSTM", Layer("LSTM", 1, False, False)),
        ("3 LSTM", Layer("LSTM", 3, False, False)),
        ("DistilBERT", Layer("Transformer", 1, False, False)),
    ],
)
def test_a_layer_is_what_its_entry_says(words: str, layer: Layer) -> None:
    assert Layer.of(words) == layer


def test_every_layer_of_the_zoo_is_told_apart() -> None:
    cells = {entry.id: Layer.of(entry.layer).cell for entry in select(())}
    assert {name for name, kind in cells.items() if kind == "Transformer"} == {
        name for name in cells if "transformer" in name or name.startswith("hf-")
    }


def test_a_model_that_was_not_trained_is_there_without_figures(tmp_path: Path) -> None:
    trained(tmp_path / "cache", "torch-lstm")
    rows = {row.id: row for row in found(tmp_path).rows}
    assert tuple(rows) == MODELS
    assert rows["torch-lstm"].record is not None
    assert (rows["keras-lstm"].record, rows["keras-lstm"].cells, rows["keras-lstm"].published) == (None, (), None)
    cells = {line[0]: line for line in section(facts(tmp_path), "training").tables[0].cells}
    assert cells["torch-lstm"][6:8] == ("1,000", "2")
    assert set(cells["keras-lstm"][6:]) == {UNKNOWN}
    assert cells["keras-lstm"][3] == "not trained"


def test_a_published_version_that_is_not_what_its_manifest_says_is_an_error(tmp_path: Path) -> None:
    version = tmp_path / "models" / "torch-lstm" / "1"
    version.mkdir(parents=True)
    (version / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"torch-lstm/1: manifest.json"):
        found(tmp_path)


def test_a_refused_artifact_is_shown_with_its_reason_and_counted_as_refused(tmp_path: Path) -> None:
    exported(
        tmp_path / "matrix.json",
        torch_lstm=[cell("torch-lstm", "onnx", status="fused", recurrent_ops={"LSTM": 1})],
        keras_lstm=[
            cell("keras-lstm", "onnx", status="refused", reason="row 3 differs", cpu_ms_b1_t32=None, bytes=None),
            cell("keras-lstm", "saved_model"),
        ],
    )
    lines = {line[:2]: line for line in section(facts(tmp_path), "exports").tables[0].cells}
    assert lines["torch-lstm", "onnx"][2:5] == ("this", "fused", "1 LSTM")
    assert lines["keras-lstm", "onnx"][3] == "refused: row 3 differs"
    assert lines["keras-lstm", "onnx"][5] == lines["keras-lstm", "onnx"][9] == UNKNOWN
    assert lines["tf2-lstm", UNKNOWN][3] == "not exported yet"
    side_by_side = {line[0]: line[1:] for line in section(facts(tmp_path), "side-by-side").tables[0].cells}
    assert side_by_side["artifacts that passed the gate"] == ("1 of 1", "1 of 2", UNKNOWN, UNKNOWN, UNKNOWN)
    assert side_by_side["recurrent models that export fused"][:2] == ("1 of 1", "0 of 1")


def test_nothing_is_judged_and_no_number_is_invented_where_nothing_was_measured(tmp_path: Path) -> None:
    known = facts(tmp_path)
    judged = [one for group in claims(known) for one in group.claims]
    # Lines of code are counted in the source, trained or not; of one Transformer there is no line here.
    assert {(one.verdict, one.found) for one in judged} == {("not measured", "")}
    assert all(one.command for one in judged)
    for part in sections(known, Settings()):
        for table in part.tables:
            for line in table.cells:
                numbers = [text for text in line[table.words :] if re.search(r"\d", text)]
                if "lines" in line[0] or part.anchor == "training":
                    continue  # of code, which is there
                # How many were trained, of how many, is known.
                assert all(re.fullmatch(r"0( of \d+)?", text) for text in numbers), (part.anchor, line)


def test_every_table_has_as_many_cells_as_columns(tmp_path: Path) -> None:
    trained(tmp_path / "cache", "torch-lstm")
    exported(tmp_path / "matrix.json", torch_lstm=[cell("torch-lstm", "onnx")])
    for part in sections(facts(tmp_path, **measured()), Settings()):
        for table in part.tables:
            assert {len(line) for line in table.cells} <= {len(table.columns)}, part.anchor


def measured() -> dict[str, dict[str, Any]]:
    figures = {"wall_ms": 2.0, "cpu_ms": 2.0, "trip_ms": 2.1, "difference": 1e-7}
    shapes = {"b1_t32": figures, "b32_t64": figures}
    return {
        "latency__torch_lstm": {
            "lengths": {"onnxruntime": shapes, "torch": shapes},
            "modes": {"eager": shapes, "torch": shapes, "onnxruntime": shapes},
        },
        "padding__torch_lstm": {
            "cpu_ms": {"onnxruntime": {"sorted": 0.1, "arrival": 0.2, "fixed-256": 0.4, "blind-256": 0.8}},
            "padding": {"sorted": 1.1, "fixed-256": 7.0},
            "accuracy": {"whole": 0.77, "fixed-256": 0.77, "blind-256": 0.5},
            "cut_share": {"256": 0.0},
        },
        "epochs__torch_lstm__dynamic": epoch(0.064),
        "load__torch_lstm": {
            "rate": 50.0,
            "callers": 32,
            "closed": {
                "onnxruntime": {
                    "rows_per_s": 900.0,
                    "mean_batch_rows": None,
                    "padding_ratio": 1.2,
                    "cpu_ms": 1.5,
                    "failed_rows": 0,
                }
            },
            "open": {"onnxruntime": {"p50_ms": 2.0, "p99_ms": 9.0, "failed_rows": 3}},
            "warnings": ["the generator lacked CPU"],
        },
    }


def test_figures_reach_their_tables(tmp_path: Path) -> None:
    known = facts(tmp_path, **measured())
    padded = section(known, "padding").tables
    assert padded[0].cells[0][:5] == ("torch-lstm", "onnxruntime", "told the lengths", "0.10", "2.00×")
    assert padded[0].cells[0][-1] == "4.0×"
    assert padded[0].cells[1][-1] == "8.0×"
    assert padded[1].cells[1][-1] == "50.0%"
    (load,) = section(known, "load").tables[0].cells
    assert load == ("torch-lstm", "onnxruntime", "900", UNKNOWN, "1.20", "1.50", "50", "2.00", "9.00", "3")
    assert "the generator lacked CPU" in section(known, "load").text[-1]
    # One of two steps was counted: half of the 128 texts.
    assert section(known, "static-training").tables[0].cells[0][2:4] == ("1.00", "1.0")
    conditions = {line[0]: line for line in section(known, "conditions").tables[0].cells}
    assert conditions["under load"][2] == "2026-01-02 03:04"
    assert conditions["under load"][-1] == "25.0% (at most 25.0%)"


def test_half_of_the_numbers_judge_no_comparison(tmp_path: Path) -> None:
    trained(tmp_path / "cache", "torch-lstm")
    known = facts(tmp_path, **measured())
    assert claim(known, "Static graphs train faster").verdict == "not measured"
    assert claim(known, "least code").verdict == "not measured"
    assert claim(known, "As ONNX").verdict == "not measured"


@pytest.mark.parametrize(
    ("torch_s", "verdict"), [(0.05, "does not hold"), (9.0, "holds")], ids=["PyTorch first", "PyTorch last"]
)
def test_a_verdict_follows_the_numbers(tmp_path: Path, torch_s: float, verdict: str) -> None:
    costs = {f"epochs__{model.replace('-', '_')}__dynamic": epoch(1.0) for model in SAME_LSTM.values()}
    known = facts(tmp_path, **costs | {"epochs__torch_lstm__dynamic": epoch(torch_s)})
    judged = claim(known, "Static graphs train faster")
    assert judged.verdict == verdict
    assert "Keras 15.6" in judged.found  # 1 s of 64 texts


def test_padding_that_counts_as_text_is_told_from_padding_that_does_not(tmp_path: Path) -> None:
    judged = claim(facts(tmp_path, **measured()), "Padding must be masked")
    assert judged.verdict == "holds"
    assert judged.found == "padded to 256 tokens: torch-lstm 77.0% told the lengths, 50.0% not told"


def test_measurements_of_models_that_the_report_is_not_about_are_left_out(tmp_path: Path) -> None:
    known = facts(tmp_path, **measured())
    other = Facts(found(tmp_path, ("keras-lstm",)), known.kept)
    assert other.entries("load") == {}
    assert other.padded("torch-lstm", "onnxruntime", "sorted") is None


def rows_of(*lengths: int) -> list[Any]:
    return [np.arange(1, length + 1, dtype=np.int64) for length in lengths]


def test_batches_of_every_make_hold_each_row_once() -> None:
    rows = rows_of(*(1 + number * 7 % 50 for number in range(100)))
    for make in ("sorted", "arrival", "fixed-50", "blind-50"):
        made = padding.batches(rows, 0, make)
        assert sorted(int(row) for batch in made for row in batch.rows) == list(range(100)), make
        for batch in made:
            for place, row in enumerate(batch.rows):
                length = len(rows[row])
                assert (batch.ids[place, :length] == rows[row]).all()
                assert not batch.ids[place, length:].any()


def test_makes_differ_in_padding_and_in_what_the_runtime_is_told() -> None:
    rows = rows_of(3, 40, 5, 39)
    sizes = {make: sum(batch.ids.size for batch in padding.batches(rows, 0, make)) for make in ("sorted", "arrival")}
    assert sizes == {"sorted": 160, "arrival": 160}
    (fixed,), (blind,) = (padding.batches(rows, 0, make) for make in ("fixed-64", "blind-64"))
    assert fixed.ids.shape == blind.ids.shape == (4, 64)
    assert fixed.lengths.tolist() == [3, 40, 5, 39]
    assert blind.lengths.tolist() == [64] * 4
    many = rows_of(*[4] * 64, *[64] * 64)
    assert {batch.ids.shape[1] for batch in padding.batches(many, 0, "sorted")} == {4, 64}


def measurement(key: str, do: Callable[[], dict[str, Any]], of: str = "1") -> Measurement:
    def measure(say: Say) -> dict[str, Any]:
        say("measuring")
        return do()

    return Measurement(key, of, measure)


def fail() -> dict[str, Any]:
    raise MeasuringFailed("no such artifact")


def interrupt() -> dict[str, Any]:
    raise KeyboardInterrupt


def test_what_was_measured_before_an_interruption_is_kept_and_not_measured_again(tmp_path: Path) -> None:
    listed = [
        measurement("load/a", lambda: {"figure": 1}),
        measurement("load/b", interrupt),
        measurement("load/c", lambda: {"figure": 3}),
    ]
    kept = Kept.read(tmp_path / "kept.json")
    told: list[Progress] = []
    with pytest.raises(KeyboardInterrupt):
        run(listed, kept, "lockstep report frameworks", told.append)
    assert [(one.key, one.number, one.total) for one in told] == [("load/a", 1, 3), ("load/b", 2, 3)]
    kept = Kept.read(tmp_path / "kept.json")
    assert kept.value("load/a") == {"figure": 1}
    assert kept.entries["load/a"].command == "lockstep report frameworks"
    assert [one.key for one in pending(listed, kept, again=False)] == ["load/b", "load/c"]
    assert [one.key for one in pending(listed, kept, again=True)] == ["load/a", "load/b", "load/c"]
    changed = measurement("load/a", lambda: {"figure": 2}, of="2")
    assert pending([changed], kept, again=False) == [changed]


def test_what_cannot_be_measured_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    kept = Kept.read(tmp_path / "kept.json")
    listed = [measurement("load/a", fail), measurement("load/b", dict)]
    assert run(listed, kept, "", lambda _: None) == {"load/a": "no such artifact"}
    assert list(kept.entries) == ["load/b"]
    text = render.markdown(Facts(found(tmp_path), kept), Settings(), {"load/a": "no such artifact"})
    assert "- load/a: no such artifact" in text


def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text('{"format": 0, "measurements": {}}')
    with pytest.raises(StoreUnreadable, match=r"kept\.json.*format 0.*move it away"):
        Kept.read(tmp_path / "kept.json")


def test_the_page_stands_alone_and_draws_what_there_is(tmp_path: Path) -> None:
    trained(tmp_path / "cache", "torch-lstm")
    page = render.page(facts(tmp_path, **measured()), Settings(), {})
    outside_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!#)""", outside_scripts)
    assert "<script src" not in page
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    figures = json.loads(found[1])
    assert {"plot-padding-lstm", "plot-modes-alone", "plot-epochs", "plot-load"} <= figures.keys()
    assert "plot-loops" not in figures  # nothing was exported
    assert all(f'id="{element}"' in page for element in figures)


def test_the_command_says_what_to_run_where_nothing_is_trained(tmp_path: Path) -> None:
    done = CliRunner().invoke(report, ["frameworks", "--cache", str(tmp_path), "--repository", str(tmp_path / "no")])
    assert done.exit_code == 1
    assert "lockstep export matrix --train" in done.output


def test_the_command_writes_both_reports_without_measuring(tmp_path: Path) -> None:
    trained(tmp_path / "cache", "torch-lstm")
    paths = {"--cache": "cache", "--repository": "models", "--matrix": "matrix.json", "--data": "data.json"}
    paths |= {"--recorded": "recorded.md"}
    paths |= {"--out": "out.md", "--page": "page.html"}
    flags = [text for flag, name in paths.items() for text in (flag, str(tmp_path / name))]
    done = CliRunner().invoke(report, ["frameworks", "--no-measure", *flags])
    assert done.exit_code == 0, done.output
    assert "| torch-lstm | PyTorch | LSTM |" in (tmp_path / "out.md").read_text()
    assert (tmp_path / "page.html").stat().st_size > 1_000_000  # plotly.js is in it
    assert not (tmp_path / "data.json").exists()


def test_an_unknown_model_is_a_usage_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(report, ["frameworks", "nobody", "--cache", str(tmp_path)])
    assert done.exit_code == 2
    assert "no model 'nobody' in the zoo" in done.output


def test_an_earlier_run_s_report_stands_in_and_is_marked(tmp_path: Path) -> None:
    of_all = {
        model: {
            "cells": [
                cell(model, "onnx", status="fused", recurrent_ops={"LSTM": 2}, source_accuracy_sentences=0.75),
                cell(model, "saved_model", status="refused", reason="a | b: c", cpu_ms_b1_t32=None, bytes=None),
            ],
            "loop": {"recurrent_ops": {"Loop": 1}, "cpu_ms_b1_t32": 0.8, "cpu_ms_b32_t64": 4.6},
        }
        for model in ("keras-lstm", "tf1-basiclstm")
    }
    text = export_matrix.render(of_all, {}, [])
    assert {row: known["cells"] for row, known in parse(text, "x.md").items()} == {
        row: known["cells"] for row, known in of_all.items()
    }
    assert parse(text, "x.md")["keras-lstm"]["loop"] == of_all["keras-lstm"]["loop"]
    (tmp_path / "recorded.md").write_text(text)
    # Costs of two runs do not compare: the earlier one comes first until this one is whole.
    exported(tmp_path / "matrix.json", keras_lstm=[cell("keras-lstm", "onnx")], torch_lstm=[cell("torch-lstm", "onnx")])
    runs = {line[:2]: line[2] for line in section(facts(tmp_path), "exports").tables[0].cells}
    assert runs["keras-lstm", "onnx"] == runs["tf1-basiclstm", "onnx"] == "earlier"
    assert runs["torch-lstm", "onnx"] == "this"
    assert next(row.accuracy for row in found(tmp_path).rows if row.id == "tf1-basiclstm") == 0.75
    sources = [line for line in section(facts(tmp_path), "conditions").tables[0].cells if "earlier" in line[2]]
    assert [line[3] for line in sources] == ["2"]
    exported(tmp_path / "matrix.json", **{model.replace("-", "_"): [cell(model, "onnx")] for model in MODELS})
    assert not any(row.earlier for row in found(tmp_path).rows)


def test_a_report_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "recorded.md").write_text("# Another\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n")
    with pytest.raises(ValueError, match=r"recorded\.md: not a report of lockstep export matrix"):
        found(tmp_path)


def test_the_committed_matrix_can_be_read() -> None:
    rows = read_report(Path(__file__).parents[2] / "docs" / "reports" / "export-matrix.md")
    assert rows.keys() <= {entry.id for entry in select(())}
    assert all(cells["cells"] for cells in rows.values())
