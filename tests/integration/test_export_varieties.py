"""What users write round recurrent layers, converted and compared with its source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny.fixtures import framework_environment

LOOPS = {"an activation that ONNX lacks"}


@pytest.mark.long
@pytest.mark.parametrize(("framework", "cases"), [("torch", 11), ("pt2", 11), ("keras", 14)])
def test_every_variety_is_right_and_fused_where_onnx_has_the_operator(
    framework: str, cases: int, tmp_path: Path
) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.tiny.varieties", framework, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        env=framework_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    results = json.loads(finished.stdout.splitlines()[-1])
    assert len(results) == cases
    assert {case: apart for case, (_, apart) in results.items() if not apart < 2e-6} == {}
    looped = {case for case, (operators, _) in results.items() if "Loop" in operators}
    assert looped == LOOPS & results.keys()
    assert all(operators for operators, _ in results.values())
