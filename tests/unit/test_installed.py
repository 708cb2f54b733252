"""An interpreter that lacks what a runtime needs is found out beforehand, and what to install is named."""

import logging
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from lockstep.server.app import App
from lockstep.server.config import ConfigurationError, ServerConfig
from lockstep.server.runtimes import installed
from lockstep.server.runtimes.installed import Installed
from lockstep.server.runtimes.registry import ADAPTERS
from tests import doubles
from tests.serving import eventually, serving

NEEDS = {"tests.doubles:SumAdapter": "no_such_runtime"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with nothing but the standard library."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return str(folder / "bin" / "python")


def test_what_our_own_interpreter_lacks_is_named_with_what_to_install() -> None:
    found = Installed(NEEDS).missing(sys.executable, "tests.doubles:SumAdapter")
    assert found == "no_such_runtime is not installed: pip install 'lockstep[no_such_runtime]'"
    assert Installed(NEEDS).missing(sys.executable, "tests.doubles:HostileAdapter") == ""
    assert Installed({"it:It": "numpy"}).missing(sys.executable, "it:It") == ""


def test_what_another_interpreter_lacks_is_named_with_its_pip(bare: str, tmp_path: Path) -> None:
    found = Installed().missing(bare, ADAPTERS["onnxruntime"])
    assert found == f"{bare} has no onnxruntime and no numpy: {bare} -m pip install onnxruntime numpy"
    nowhere = str(tmp_path / "python")
    assert Installed().missing(nowhere, ADAPTERS["torch"]) == (
        f"the interpreter {nowhere} cannot be run: No such file or directory"
    )
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho '[[3, 9], []]'\n")
    old.chmod(0o755)
    assert Installed().missing(str(old), ADAPTERS["torch"]) == f"{old} is Python 3.9: a worker needs 3.11 or newer"
    assert Installed().missing("/bin/false", ADAPTERS["torch"]) == (
        "/bin/false is not a Python interpreter that works: exit code 1"
    )
    assert Installed({"it:It": "json", "and:And": "numpy"}).missing(sys.executable, "and:And") == ""


def test_a_left_over_folder_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_such_runtime").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "is not installed" in Installed(NEEDS).missing(sys.executable, "tests.doubles:SumAdapter")


def test_where_no_runtime_is_installed_nothing_starts_and_each_reason_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(installed, "_NEEDS", dict.fromkeys(doubles.ADAPTERS.values(), "no_such_runtime"))
    for name in ("one", "two"):
        doubles.publish(tmp_path, name)
    with pytest.raises(ConfigurationError) as caught:
        App(ServerConfig(repository=tmp_path), adapters=doubles.ADAPTERS)
    assert caught.value.message.endswith(
        "one, two: no_such_runtime is not installed: pip install 'lockstep[no_such_runtime]'"
    )
    assert caplog.text == ""


async def test_a_model_is_served_by_those_backends_whose_runtime_is_there(
    tmp_path: Path, bare: str, caplog: pytest.LogCaptureFixture
) -> None:
    doubles.publish(tmp_path, "model")
    adapters = {**doubles.ADAPTERS, "onnxruntime": ADAPTERS["onnxruntime"]}
    models = {"model": {"backends": {"onnxruntime": {"python": bare}}}}
    with caplog.at_level(logging.WARNING, logger="lockstep"):
        async with serving(tmp_path, adapters, models=models) as served:
            lacking = served.batcher("model").backend("onnxruntime")
            assert served.batcher("model").preferred.name == "tensorflow"
            assert lacking.reason.startswith(f"{bare} has no onnxruntime")
            await eventually(lambda: served.batcher("model").ready)
    assert caplog.text.count("model@onnxruntime cannot start: ") == 1


def test_check_finds_an_interpreter_without_its_runtime_and_tells_each_reason_once(tmp_path: Path, bare: str) -> None:
    for name in ("one", "two"):
        doubles.publish(tmp_path / "models", name)
    (tmp_path / "models/two/1/onnx/model").write_bytes(b"changed")
    file = tmp_path / "lockstep.toml"
    file.write_text(f'[models.one.backends.tensorflow]\npython = "{bare}"\n')
    words = ["serve", "--check", "--repository", str(tmp_path / "models"), "--config", str(file)]
    done = subprocess.run([sys.executable, "-m", "lockstep", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert said.count("onnx/model has sha256") == 1
    assert said.count("tensorflow numpy") == 1
    assert f"one@tensorflow cannot start: {bare} has no tensorflow and no numpy" in said
