"""Models that the project has never seen, in folders of their own, exported by the command line alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny.fixtures import framework_environment
from tests.tiny.texts import write_texts, write_tokenizer

STRANGERS = Path(__file__).resolve().parents[1] / "strangers"
ROOT = STRANGERS.parents[1]

Case = tuple[str, tuple[str, ...], dict[str, tuple[str, dict[str, int]]]]
CASES: dict[str, Case] = {
    "torch": (
        "model.safetensors",
        ("stranger_torch:build", "--weights", "model.safetensors", "--labels", "bad,so-so,good"),
        {"onnx": ("fused", {"GRU": 2, "LSTM": 2}), "torch": ("exact", {"GRU": 2, "LSTM": 1})},
    ),
    "keras": (
        "model.keras",
        ("model.keras", "--labels", "bad,good", "--output", "probabilities", "--activation", "sigmoid"),
        {"onnx": ("fused", {"GRU": 1, "LSTM": 1}), "saved_model": ("exact", {})},
    ),
    "tf1": (
        "checkpoints/model",
        ("stranger_tf1:build", "--checkpoint", "checkpoints/model", "--labels", "bad,good"),
        {"onnx": ("fused", {"GRU": 1, "LSTM": 1, "RNN": 1}), "saved_model": ("exact", {})},
    ),
    "tf2": (
        "checkpoints/model",
        ("stranger_tf2:build", "--checkpoint", "checkpoints/model", "--labels", "bad,good"),
        {"onnx": ("fused", {"GRU": 1, "LSTM": 1}), "saved_model": ("exact", {})},
    ),
    "huggingface": (
        "checkpoint",
        ("checkpoint", "--tokenizer", "tokenizer.json"),
        {"onnx": ("exact", {}), "torch": ("exact", {})},
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("framework", list(CASES))
def test_a_stranger_is_exported_by_the_command_line_alone_and_fused(framework: str, tmp_path: Path) -> None:
    weights, arguments, expected = CASES[framework]
    shutil.copy(STRANGERS / f"stranger_{framework}.py", tmp_path)
    write_tokenizer(tmp_path / "tokenizer.json")
    # Labels of the texts may be given or not; these have two, which not every stranger has.
    lines = [json.loads(line) for line in write_texts(tmp_path / "labelled.jsonl").read_text().splitlines()]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": line["text"]}) + "\n" for line in lines))
    environment = {**framework_environment(), "TF_USE_LEGACY_KERAS": "1" if framework == "tf1" else "0"}
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    (tmp_path / weights).parent.mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, f"stranger_{framework}.py", weights],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": search},
        check=True,
        capture_output=True,
    )
    common = ["--name", "stranger", "--verify-with", "texts.jsonl", "--max-tokens", "64", "--json"]
    if framework != "huggingface":
        common += ["--tokenizer", "tokenizer.json"]
    done = subprocess.run(
        [sys.executable, "-m", "lockstep", "export", framework, *arguments, *common],
        cwd=tmp_path,
        env={**framework_environment(), "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (report,) = json.loads(done.stdout)["models"]
    artifacts = {one["artifact"]: (one["status"], one["recurrent_ops"]) for one in report["artifacts"]}
    assert artifacts == expected
    assert all(one["padding_invariance"] < 5e-5 for one in report["artifacts"])
    assert sorted(path.name for path in (tmp_path / "models" / "stranger").iterdir()) == ["1"]
