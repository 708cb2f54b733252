"""`lockstep export`: what is wrong is named, and nothing is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lockstep.commands.export import export


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(export, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_importing_the_command_imports_no_framework_and_no_exporter() -> None:
    code = (
        "import sys, lockstep.commands.export\n"
        "heavy = {'torch', 'tensorflow', 'keras', 'onnx', 'onnxruntime', 'numpy', 'exporters'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("command", ["torch", "tf2", "folder"])
def test_help_says_that_it_runs_the_user_s_code(command: str) -> None:
    status, output = run(command, "--help")
    assert status == 0
    assert "this imports and runs" in " ".join(output.split())
    assert "3 some were refused" in " ".join(output.split())


def test_a_folder_without_a_description_is_named(tmp_path: Path) -> None:
    status, output = run("folder", str(tmp_path))
    assert status == 1
    assert f"{tmp_path / 'description.json'}: No such file" in output


def test_a_bad_description_names_the_field(tmp_path: Path) -> None:
    (tmp_path / "description.json").write_text('{"name": "a b"}')
    status, output = run("folder", str(tmp_path))
    assert status == 1
    assert "description.json: name: String should match" in output


OPTIONS = ("--tokenizer", "none.json", "--repository", "never")


def test_one_label_is_refused_in_a_sentence() -> None:
    status, output = run("keras", "none.keras", "--name", "m", "--labels", "a", *OPTIONS)
    assert status == 2
    assert "Error: name at least two labels, in the order of the outputs (1 named)" in output


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    status, output = run("keras", "none.keras", "--name", "m", "--labels", "a,b", *OPTIONS)
    assert status == 1
    assert "none.json: no such file" in output
    assert not Path("never").exists()


def test_an_artifact_that_the_framework_cannot_become_is_refused_with_those_it_can() -> None:
    status, output = run("keras", "m.keras", "--name", "m", "--labels", "a,b", "--to", "tflite", *OPTIONS)
    assert status == 1
    assert "cannot become 'tflite', only onnx, saved_model" in output


def test_one_label_is_a_usage_error() -> None:
    status, output = run("keras", "m.keras", "--name", "m", "--labels", "a", *OPTIONS)
    assert status == 2
    assert "labels" in output
