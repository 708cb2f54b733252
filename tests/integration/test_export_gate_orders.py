"""Every recurrent layer's gates against ONNX's operator, with biases that are not zero."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny.fixtures import framework_environment

CASES = {"torch": 4 * 2 * 2 * 2, "keras": 6 * 3 * 2}


@pytest.mark.parametrize("framework", list(CASES))
def test_every_layer_answers_as_its_operator_does(framework: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.tiny.recurrences", framework],
        cwd=Path(__file__).resolve().parents[2],
        env=framework_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    differences = json.loads(finished.stdout.splitlines()[-1])
    assert len(differences) == CASES[framework]
    wrong = {case: difference for case, difference in differences.items() if not difference < 2e-6}
    assert wrong == {}
