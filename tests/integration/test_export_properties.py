"""Random stacks of recurrent layers, converted and held against their sources: no combination is special."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny.fixtures import framework_environment


@pytest.mark.parametrize(
    ("way", "examples"),
    [
        ("torch", 3),
        *(pytest.param(way, 25, marks=pytest.mark.long) for way in ("torch", "pt2", "keras", "tf1")),
    ],
)
@pytest.mark.timeout(900)
def test_a_random_stack_answers_as_its_source_does(way: str, examples: int, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.tiny.properties", way, str(examples), str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        env=framework_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert json.loads(finished.stdout.splitlines()[-1]) >= examples - 1
