"""A version that is not what its manifest says is refused by name; the others are served."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockstep.server.repository.catalog import RefusedError, highest_versions, read_latest, read_version, scan
from lockstep.server.repository.manifest import MANIFEST_FILE
from tests import doubles


def test_the_highest_version_of_each_model_is_served(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "one", version=2)
    doubles.publish(tmp_path, "one", version=10)
    doubles.publish(tmp_path, "two")
    (tmp_path / ".staging").mkdir()
    (tmp_path / "one" / "011").mkdir()
    (tmp_path / "README").write_text("not a model")
    catalog = scan(tmp_path)
    assert {name: model.manifest.version for name, model in catalog.models.items()} == {"one": 10, "two": 1}
    assert catalog.refused == {}


def test_a_corrupt_model_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    (doubles.publish(tmp_path, "broken") / "onnx" / "model").write_bytes(b"something else")
    doubles.publish(tmp_path, "sound")
    catalog = scan(tmp_path)
    assert list(catalog.models) == ["sound"]
    assert "onnx/model has sha256" in catalog.refused["broken"].reason


def test_a_folder_that_no_model_could_be_stops_nobody(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "sound")
    (tmp_path / "lost+found").mkdir()
    doubles.publish(tmp_path, "badname").parent.rename(tmp_path / "bad name")
    catalog = scan(tmp_path)
    assert list(catalog.models) == ["sound"]
    assert list(catalog.refused) == ["bad name"]
    assert "is not a model name" in catalog.refused["bad name"].reason
    with pytest.raises(FileNotFoundError, match=r"no model '\.\./sound' is .*there are: bad name, sound"):
        read_latest(tmp_path, "../sound")


def test_what_cannot_be_read_is_refused_and_the_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doubles.publish(tmp_path, "sound")
    locked = doubles.publish(tmp_path, "locked").parent
    long_named = doubles.publish(tmp_path, "long") / MANIFEST_FILE
    long_named.write_text(long_named.read_text().replace("onnx/model", "o" * 300))
    iterdir = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    catalog = scan(tmp_path)
    assert list(catalog.models) == ["sound"]
    assert catalog.refused["locked"].reason == "locked: cannot be read: Permission denied"
    assert "cannot be read: File name too long" in catalog.refused["long"].reason
    assert highest_versions(tmp_path) == {"long": 1, "sound": 1}


def test_an_older_version_is_not_served_in_place_of_a_corrupt_one(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "one", version=1)
    (doubles.publish(tmp_path, "one", version=2) / MANIFEST_FILE).write_text("{")
    catalog = scan(tmp_path)
    assert catalog.models == {}
    assert catalog.refused["one"].version == 2


def _outside(folder: Path, file: str) -> None:
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["artifacts"][0]["files"] = {file: "0" * 64}
    manifest["artifacts"][0]["path"] = file
    doubles.rewrite_manifest(folder, artifacts=manifest["artifacts"])


def _symbolic_link(folder: Path) -> None:
    target = folder.parents[1] / "outside"
    target.write_bytes((folder / "onnx" / "model").read_bytes())
    (folder / "onnx" / "model").unlink()
    (folder / "onnx" / "model").symlink_to(target)


def _linked_folder(folder: Path) -> None:
    (folder / "onnx").rename(folder.parents[1] / "outside")
    (folder / "onnx").symlink_to(folder.parents[1] / "outside")


def _unlink(path: Path) -> None:
    path.unlink()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda folder: _unlink(folder / MANIFEST_FILE), "manifest.json is missing"),
    "no JSON": (lambda folder: (folder / MANIFEST_FILE).write_text("{"), "manifest.json"),
    "unknown field": (lambda folder: doubles.rewrite_manifest(folder, colour="red"), "colour"),
    "wrong type": (lambda folder: doubles.rewrite_manifest(folder, max_tokens="64"), "max_tokens"),
    "no artifact": (lambda folder: doubles.rewrite_manifest(folder, artifacts=[]), "artifacts"),
    "of another model": (lambda folder: doubles.rewrite_manifest(folder, name="other"), "is of other/1"),
    "missing file": (lambda folder: _unlink(folder / "onnx" / "model"), "onnx/model is missing"),
    "missing tokenizer": (lambda folder: _unlink(folder / "tokenizer.json"), "tokenizer.json is missing"),
    "wrong checksum": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json has sha256"),
    "unlisted file": (lambda folder: (folder / "onnx" / "extra").write_text("x"), "onnx/extra is not in the manifest"),
    "parent path": (lambda folder: _outside(folder, "../../secret"), "leaves the version's folder"),
    "absolute path": (lambda folder: _outside(folder, "/etc/passwd"), "leaves the version's folder"),
    "symbolic link": (_symbolic_link, "symbolic link"),
    "linked folder": (_linked_folder, "symbolic link"),
    "hard link": (lambda folder: os.link(folder / "onnx" / "model", folder.parents[1] / "other"), "hard link"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    folder = doubles.publish(tmp_path, "model")
    assert read_version(folder).manifest.name == "model"
    harm, message = DAMAGE[damage]
    harm(folder)
    with pytest.raises(RefusedError, match=r"^model/1: ") as caught:
        read_version(folder)
    assert message in str(caught.value)


def test_a_repository_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="lockstep export"):
        scan(tmp_path / "nowhere")
