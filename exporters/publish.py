"""How a version of a model appears in the repository: whole, by one atomic rename, and never changed again.

Owns staging, checksums, version numbers and the carrying over of artifacts from an older version of the
same source. Knows no framework; `lockstep.server.repository.manifest` owns the format.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lockstep.exporters.conversion import ExportError
from lockstep.server.repository.catalog import PublishedModel, RefusedError, read_version, sha256_of
from lockstep.server.repository.manifest import MANIFEST_FILE, MODEL_NAME_PATTERN, Artifact, Manifest

TOKENIZER_FILE = "tokenizer.json"
STAGING = ".staging"
"""Folder of the repository, on its filesystem, that no catalog reads."""


class PublishError(ExportError):
    """The repository cannot take the version; the message says why."""


def check_name(name: str) -> None:
    """Raise `PublishError` where a model cannot be called so."""
    if not re.fullmatch(MODEL_NAME_PATTERN, name) or name.startswith("."):
        raise PublishError(f"model name {name!r}: use letters, digits, '.', '_' and '-', and no '.' in front")


def latest(repository: Path, name: str) -> PublishedModel | None:
    """Return the model's highest version where it is whole and what its manifest says, else None."""
    versions = _versions(repository / name)
    if not versions:
        return None
    try:
        return read_version(repository / name / str(versions[-1]))
    except RefusedError:
        return None  # a damaged version is left as it is; the next one replaces it


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """Yield an empty folder within the repository's filesystem, removed afterwards if still there.

    What exports that were killed left behind is removed too: each folder's lock is dropped by the system
    when its owner ends, however it ends. Raises `PublishError` where the repository cannot be written.
    """
    parent = repository / STAGING
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with (parent / "lock").open("wb") as door:
            fcntl.flock(door, fcntl.LOCK_EX)  # nobody sweeps while a folder has no lock yet
            _sweep(parent)
            folder = Path(tempfile.mkdtemp(dir=parent))
            folder.chmod(0o755)  # mkdtemp's 0700 would hide the model from a server of another user
            owned = _lock_of(folder).open("wb")
            fcntl.flock(owned, fcntl.LOCK_EX)
    except OSError as error:
        raise PublishError(f"{repository}: cannot be written ({error.strerror})") from error
    with owned:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _lock_of(folder).unlink(missing_ok=True)


def publish(
    staged: Path,
    repository: Path,
    manifest: Manifest,
    carried: PublishedModel | None = None,
) -> Manifest:
    """Make the staged folder the next version of the model; return its manifest as written.

    `manifest.version` is ignored: the version is the highest there is plus one. `carried` names a version
    of the same source whose other artifacts go along, byte for byte. Raises `PublishError`; the repository
    is then as it was.
    """
    check_name(manifest.name)
    folder = repository / manifest.name
    try:
        artifacts = list(manifest.artifacts)
        if carried is not None:
            artifacts += _carry(staged, carried, {artifact.kind for artifact in artifacts})
        folder.mkdir(exist_ok=True)
        while True:
            version = (_versions(folder) or [0])[-1] + 1
            complete = manifest.model_copy(
                update={"version": version, "artifacts": sorted(artifacts, key=lambda one: one.kind)}
            )
            document = complete.model_dump_json(indent=2, exclude_none=True)
            if Manifest.model_validate_json(document) != complete:
                raise AssertionError(f"{manifest.name}: the manifest does not read as it was written")
            _write(staged / MANIFEST_FILE, document)
            _sync(staged)
            try:
                os.rename(staged, folder / str(version))
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue  # another export took the number first
                raise
            _sync_folder(folder)
            return complete
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only where we made it and nothing is in it
        raise PublishError(f"{folder}: cannot be published ({error.strerror})") from error


def checksums(folder: Path, root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder`, by its path relative to `root`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): sha256_of(path) for path in files}


def fingerprint(files: Mapping[str, Path], facts: Sequence[str]) -> str:
    """Return one SHA-256 over named files and facts about them, in an order that names alone decide."""
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(fact.encode() + b"\0")
    for name in sorted(files):
        digest.update(f"{name}\0{sha256_of(files[name])}\0".encode())
    return digest.hexdigest()


def _carry(staged: Path, carried: PublishedModel, kinds: set[str]) -> list[Artifact]:
    kept = [artifact for artifact in carried.manifest.artifacts if artifact.kind not in kinds]
    for artifact in kept:
        for file in artifact.files:
            (staged / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(carried.folder / file, staged / file)
    return kept


def _versions(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if re.fullmatch(r"[1-9][0-9]*", entry.name))


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _sync(folder: Path) -> None:
    """Have every file and folder below on the disk before the rename makes them visible."""
    for parent, _, files in os.walk(folder):
        for file in files:
            with (Path(parent) / file).open("rb") as opened:
                os.fsync(opened.fileno())
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _sweep(parent: Path) -> None:
    """Remove every staging folder whose owner has ended. The caller holds the door's lock."""
    for folder in [entry for entry in parent.iterdir() if entry.is_dir()]:
        with _lock_of(folder).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its export is alive
            shutil.rmtree(folder, ignore_errors=True)
            _lock_of(folder).unlink(missing_ok=True)
