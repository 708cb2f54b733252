"""Commands in a folder whose files have names of modules that we import: none is executed, and all works."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lockstep import child_processes
from lockstep.clients.credentials import Credentials
from lockstep.clients.loadtest.fleet import Fleet
from lockstep.clients.loadtest.plan import LoadPlan
from lockstep.server.core.artifact import ArtifactSpec, Budget, TensorSpec
from lockstep.server.runtimes.worker_process import Launch, WorkerProcess
from lockstep.zoo.releases import pip_download
from tests import doubles, foreign_files

FOREIGN = foreign_files.OURS + foreign_files.OTHERS
LOCKSTEP = Path(sys.executable).with_name("lockstep")


@pytest.fixture(params=["", "an empty part of PYTHONPATH", "PYTHONPATH names a folder with modules named as ours"])
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The current folder."""
    folder = foreign_files.fill(tmp_path / "mine", foreign_files.OURS if "names" in request.param else FOREIGN)
    monkeypatch.chdir(folder)
    if request.param:
        first = str(folder) if "names" in request.param else ""
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([first, os.environ.get("PYTHONPATH", "")]))
    return folder


async def test_a_worker_executes_no_file_of_the_current_folder(foreign: Path, tmp_path: Path) -> None:
    path = doubles.publish(tmp_path / "models", "model") / "onnx" / "model"
    ids, lengths, logits = TensorSpec("ids", "int64"), TensorSpec("lengths", "int64"), TensorSpec("logits", "float32")
    artifact = ArtifactSpec(str(path), ids, attention_mask=None, lengths=lengths, logits=logits, labels=2)
    worker = await WorkerProcess.start(Launch("tests.doubles:SumAdapter", artifact, Budget()))
    executed = await worker.execute(np.ones((1, 3), dtype=np.int64), np.array([3]))
    await worker.stop()
    assert executed.outputs.shape == (1, 2)
    assert foreign_files.executed(foreign) == []


async def test_a_generator_of_load_executes_no_file_of_the_current_folder(foreign: Path) -> None:
    plan = LoadPlan(model="tiny", concurrency=2, seconds=1.0, rounds=1, warmup_s=0.0, processes=2)
    async with Fleet(plan, ["127.0.0.1:1"] * 2, Credentials()):
        pass
    assert foreign_files.executed(foreign) == []


def test_a_training_or_a_fetch_executes_no_file_of_the_current_folder(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = child_processes.command("lockstep.zoo.train:main", "--help")
    done = subprocess.run(words, env=child_processes.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "fetched").mkdir()
    done = pip_download("no-such-project", "1.0", "0" * 64, "wheel", tmp_path / "fetched")
    assert "No matching distribution" in done.stderr
    assert foreign_files.executed(foreign) == []


@pytest.mark.parametrize("command", [[str(LOCKSTEP)], [sys.executable, "-m", "lockstep"]], ids=["script", "module"])
def test_a_file_through_a_server_of_its_own_executes_no_file_of_the_current_folder(
    foreign: Path, tiny_repository: Path, command: list[str]
) -> None:
    if command[1:] and os.environ.get("PYTHONPATH", "").startswith(os.pathsep):
        pytest.skip("Python itself reads the current folder, twice, before it comes to us")
    (foreign / "texts.jsonl").write_text('{"text": "word1 word2"}\n')
    words = ["batch", "texts.jsonl", "out.jsonl", "--local", "--repository", str(tiny_repository)]
    done = subprocess.run([*command, *words, "--model", "tiny-bigru"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "label" in (foreign / "out.jsonl").read_text()
    assert foreign_files.executed(foreign) == []


@pytest.mark.parametrize("command", [[str(LOCKSTEP)], [sys.executable, "-m", "lockstep"]], ids=["script", "module"])
def test_the_command_runs_in_a_folder_that_was_removed(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "gone").mkdir()
    words = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *command, "--version"]
    done = subprocess.run(words, cwd=tmp_path / "gone", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
