"""What a repository offers: the highest version of each model, checked against its manifest.

Reads `<repository>/<model>/<version>/`. A version that is not exactly what its manifest says is refused
with the reason, and the other models go on: an older version is never served in its place unasked.
Names that begin with a dot are not models (publishing stages there), nor is a folder that no model could have the
name of and that holds no version, such as a file system's own lost+found.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from lockstep.server.core.artifact import ArtifactSpec, TensorSpec
from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.repository.manifest import MANIFEST_FILE, MODEL_NAME_PATTERN, Artifact, Manifest, Tensor
from lockstep.server.repository.onnx_references import external_files

_CHUNK_BYTES = 1 << 20


class RefusedError(Exception):
    """A version cannot be served; the message names the file and what is wrong with it."""

    version: int | None = None


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A version that is what its manifest says."""

    folder: Path
    manifest: Manifest
    file_bytes: Mapping[str, int]  # of every file in the manifest, relative to the folder, when it was checked

    @property
    def tokenizer(self) -> Path:
        """Its tokenizer's file."""
        return self.folder / next(iter(self.manifest.tokenizer))

    def bytes_of(self, artifact: Artifact) -> int:
        """Return the size of an artifact's files, which need not be there any more."""
        return sum(self.file_bytes[file] for file in artifact.files)

    def spec(self, artifact: Artifact) -> ArtifactSpec:
        """Return what a worker must know of one of its artifacts."""
        return ArtifactSpec(
            path=str((self.folder / artifact.path).resolve()),
            input_ids=_tensor(artifact.inputs.input_ids),
            attention_mask=_tensor(artifact.inputs.attention_mask) if artifact.inputs.attention_mask else None,
            lengths=_tensor(artifact.inputs.lengths) if artifact.inputs.lengths else None,
            logits=_tensor(artifact.logits),
            labels=len(self.manifest.labels),
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A model that is not served, and why."""

    name: str
    version: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """A repository as it was found."""

    models: dict[str, PublishedModel] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)


def scan(repository: Path) -> Catalog:
    """Read every model's highest version; raises `NotADirectoryError` where the repository is not a folder."""
    if not repository.is_dir():
        raise NotADirectoryError(f"{repository} is not a folder: publish a model there first (lockstep export --help)")
    catalog = Catalog()
    for name in _models(repository):
        try:
            catalog.models[name] = read_latest(repository, name)
        except RefusedError as error:
            catalog.refused[name] = Refused(name, error.version, str(error))
    return catalog


def highest_versions(repository: Path) -> dict[str, int]:
    """Return the highest version of each model that has one, unread; raises `OSError` where there is no repository."""
    found = {}
    for name in _models(repository):
        with contextlib.suppress(OSError):  # `read_latest` tells of it where it is asked for
            found[name] = _highest_version(repository / name)
    return {name: version for name, version in found.items() if version is not None}


def read_latest(repository: Path, name: str) -> PublishedModel:
    """Read a model's highest version; raises `RefusedError`, `FileNotFoundError` where there is no such model."""
    if name not in (known := _models(repository)):
        raise FileNotFoundError(f"no model {name!r} is in the repository; there are: {', '.join(known)}")
    if not _may_be_a_model(name):
        raise RefusedError(f"{name!r} is not a model name: use letters, digits, dots, underscores and hyphens")
    folder = repository / name
    try:
        version = _highest_version(folder)
    except OSError as error:
        raise RefusedError(f"{name}: cannot be read: {error.strerror}") from error
    if version is None:
        raise RefusedError(f"{name}: holds no version (a folder named by a positive integer)")
    try:
        return read_version(folder / str(version))
    except RefusedError as error:
        error.version = version
        raise


def read_version(folder: Path) -> PublishedModel:
    """Read `<model>/<version>` and check every file of it; raises `RefusedError` naming what is wrong."""
    where = f"{folder.parent.name}/{folder.name}"
    try:
        return _read_version(folder, where)
    except OSError as error:
        file = Path(error.filename).name if error.filename else "it"
        raise RefusedError(f"{where}: {file[:80]} cannot be read: {error.strerror}") from error


def _read_version(folder: Path, where: str) -> PublishedModel:
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError as error:
        raise RefusedError(f"{where}: {MANIFEST_FILE} is missing") from error
    except ValidationError as error:
        first = error.errors()[0]
        field_name = ".".join(str(part) for part in first["loc"]) or "the document"
        raise RefusedError(f"{where}: {MANIFEST_FILE}: {field_name}: {first['msg']}") from error
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise RefusedError(f"{where}: {MANIFEST_FILE} is of {manifest.name}/{manifest.version}")
    if len(manifest.tokenizer) != 1:
        raise RefusedError(f"{where}: {MANIFEST_FILE}: tokenizer must name exactly one file")
    listed = dict(manifest.tokenizer)
    for artifact in manifest.artifacts:
        listed |= artifact.files
        if not any(PurePosixPath(file).is_relative_to(artifact.path) for file in artifact.files):
            raise RefusedError(f"{where}: artifact {artifact.kind}: its path {artifact.path} is none of its files")
    file_bytes = {file: _check_file(where, folder, file, sha256) for file, sha256 in listed.items()}
    for artifact in manifest.artifacts:
        for file in artifact.files:
            if file.endswith(".onnx"):
                _check_references(where, folder, file, artifact)
    for path in sorted(folder.rglob("*")):
        name = _name(path, folder)
        if (path.is_symlink() or not path.is_dir()) and name not in listed and name != MANIFEST_FILE:
            raise RefusedError(f"{where}: {name} is not in the manifest")
    return PublishedModel(folder, manifest, file_bytes)


@dataclass(frozen=True, slots=True)
class ArtifactFiles:
    """The files of one artifact, as a worker is about to load them."""

    model: PublishedModel
    artifact: Artifact

    def verify(self) -> tuple[tuple[int, ...], ...]:
        """Check every file against the manifest, whole, and that none came to them; return their stamp from before.

        Blocks for as long as reading the files takes. Raises `BackendUnavailable` naming the file.
        """
        stamp = self.stamp()
        folder, where = self.model.folder, self._where
        try:
            for file, sha256 in self.artifact.files.items():
                _check_file(where, folder, file, sha256)
            root = folder / self.artifact.path
            for path in root.rglob("*") if root.is_dir() else ():
                if (path.is_symlink() or not path.is_dir()) and _name(path, folder) not in self.artifact.files:
                    raise RefusedError(f"{where}: {_name(path, folder)} is not in the manifest")
        except RefusedError as error:
            raise BackendUnavailable(f"{error}: it was changed after it was published") from error
        except OSError as error:
            raise self._unreadable(error) from error
        return stamp

    def stamp(self) -> tuple[tuple[int, ...], ...]:
        """Return what tells whether a file was written to or replaced; raises `BackendUnavailable`."""
        try:
            found = [(self.model.folder / file).stat() for file in self.artifact.files]
        except OSError as error:
            raise self._unreadable(error) from error
        return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found)

    @property
    def _where(self) -> str:
        return f"{self.model.manifest.name}/{self.model.manifest.version}"

    def _unreadable(self, error: OSError) -> BackendUnavailable:
        file = Path(error.filename).name if error.filename else "a file"
        return BackendUnavailable(f"{self._where}: {file} cannot be read: {error.strerror}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal; raises `OSError`, which names the file."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed read, of a bad disk say, does not name it
        raise
    return digest.hexdigest()


def _check_file(where: str, folder: Path, file: str, sha256: str) -> int:
    """Hold a file against its checksum; returns its size, bytes."""
    parts = PurePosixPath(file).parts
    if not parts or PurePosixPath(file).is_absolute() or ".." in parts or "\\" in file:
        raise RefusedError(f"{where}: {file!r} leaves the version's folder")
    path = folder
    for part in parts:
        path /= part
        if path.is_symlink():
            raise RefusedError(f"{where}: {file} is or passes through a symbolic link")
    if not path.is_file():
        raise RefusedError(f"{where}: {file} is missing")
    found = path.stat()
    if found.st_nlink > 1:
        raise RefusedError(f"{where}: {file} is a hard link: its content can change from outside the folder")
    actual = sha256_of(path)
    if actual != sha256:
        raise RefusedError(f"{where}: {file} has sha256 {actual[:12]}…, the manifest says {sha256[:12]}…")
    return found.st_size


def _check_references(where: str, folder: Path, file: str, artifact: Artifact) -> None:
    """Refuse an ONNX file that keeps tensors in files which the manifest does not list, wherever they are."""
    try:
        locations = external_files(folder / file)
    except ValueError as error:
        raise RefusedError(f"{where}: {file}: {error}") from error
    for location in sorted(locations):
        if (PurePosixPath(file).parent / location).as_posix() not in artifact.files:
            raise RefusedError(f"{where}: {file} keeps tensors in {location!r}, which is none of the artifact's files")


def _models(repository: Path) -> list[str]:
    folders = (one for one in repository.iterdir() if not one.name.startswith(".") and _is_folder(one))
    return sorted(one.name for one in folders if _may_be_a_model(one.name) or _holds_versions(one))


def _may_be_a_model(name: str) -> bool:
    return re.fullmatch(MODEL_NAME_PATTERN, name) is not None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return True  # what it is cannot be seen: whoever reads it is told why


def _holds_versions(folder: Path) -> bool:
    try:
        return _highest_version(folder) is not None
    except OSError:
        return False


def _highest_version(folder: Path) -> int | None:
    names = (one.name for one in folder.iterdir() if one.is_dir())
    return max((int(name) for name in names if re.fullmatch(r"[1-9][0-9]*", name)), default=None)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _tensor(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.dtype)
