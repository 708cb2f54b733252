"""Publishing: whole or not at all, numbered, and never changed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import onnx
import pytest

from lockstep.exporters import publish as publishing
from lockstep.exporters.publish import PublishError, checksums, fingerprint, latest, publish, staging
from lockstep.server.repository.catalog import scan
from lockstep.server.repository.manifest import Artifact, Inputs, Manifest, Parity, Source, Tensor

IDS, LENGTHS = Tensor(name="input_ids", dtype="int64"), Tensor(name="lengths", dtype="int64")
PARITY = Parity(
    rows=1,
    batches=1,
    max_abs_diff=0.0,
    padding_invariance=0.0,
    label_agreement=1.0,
    atol=5e-5,
    rtol=1e-5,
    masks_beyond_end=True,
)


VARIANT = PARITY.model_copy(
    update={"atol": None, "rtol": None, "min_label_agreement": 0.99, "max_accuracy_points": 0.5}
)
GRAPH = onnx.ModelProto(producer_name="test").SerializeToString()


def stage(folder: Path, kind: str = "onnx", content: bytes = GRAPH) -> Manifest:
    """Fill a staged folder as an export does, and describe it."""
    (folder / kind).mkdir()
    (folder / kind / "model.onnx").write_bytes(content)
    (folder / "tokenizer.json").write_text("{}")
    return Manifest(
        name="model",
        version=1,
        labels=["no", "yes"],
        pad_id=0,
        vocabulary=10,
        max_tokens=8,
        tokenizer={"tokenizer.json": checksums(folder, folder)["tokenizer.json"]},
        source=Source(framework="torch", layer="RNN", sha256="0" * 64, versions={}),
        artifacts=[
            Artifact(
                kind=kind,
                runtime="onnxruntime",
                path=f"{kind}/model.onnx",
                files=checksums(folder / kind, folder),
                inputs=Inputs(input_ids=IDS, lengths=LENGTHS),
                logits=Tensor(name="logits", dtype="float32"),
                output="logits",
                activation="softmax",
                method="fused",
                parity=VARIANT if kind == "onnx-int8" else PARITY,
            )
        ],
    )


def published(repository: Path, kind: str = "onnx", content: bytes = GRAPH, carry: bool = False) -> Manifest:
    with staging(repository) as staged:
        manifest = stage(staged, kind, content)
        return publish(staged, repository, manifest, latest(repository, "model") if carry else None)


def test_what_is_published_is_what_the_catalog_reads(tmp_path: Path) -> None:
    manifest = published(tmp_path)
    catalog = scan(tmp_path)
    assert catalog.refused == {}
    assert catalog.models["model"].manifest == manifest


def test_versions_count_up_and_the_older_ones_stay(tmp_path: Path) -> None:
    assert published(tmp_path, content=b"old").version == 1
    assert published(tmp_path, content=b"new").version == 2
    assert (tmp_path / "model/1/onnx/model.onnx").read_bytes() == b"old"


def test_an_artifact_of_the_same_source_is_carried_into_the_next_version(tmp_path: Path) -> None:
    published(tmp_path, "onnx")
    manifest = published(tmp_path, "onnx-int8", carry=True)
    assert [artifact.kind for artifact in manifest.artifacts] == ["onnx", "onnx-int8"]
    assert scan(tmp_path).refused == {}
    assert scan(tmp_path).models["model"].manifest == manifest
    assert (tmp_path / "model/2/onnx/model.onnx").stat().st_nlink == 1


def test_a_taken_number_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, taken = os.rename, tmp_path / "model" / "1"

    def someone_is_first(source: Path, target: Path) -> None:
        if target == taken and not taken.exists():
            taken.mkdir()
            (taken / "theirs").touch()
        rename(source, target)

    monkeypatch.setattr(publishing.os, "rename", someone_is_first)
    assert published(tmp_path).version == 2
    assert [path.name for path in taken.iterdir()] == ["theirs"]


def test_a_full_disk_leaves_the_repository_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(publishing.os, "fsync", full)
        with pytest.raises(PublishError, match="No space left on device"):
            published(tmp_path)
    assert not (tmp_path / "model").exists()
    assert scan(tmp_path).models == {}
    assert published(tmp_path).version == 1


def test_what_a_killed_export_staged_is_swept_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    killed = tmp_path / ".staging" / "killed"
    killed.mkdir(parents=True)
    (killed / "half").write_bytes(b"half a model")
    with staging(tmp_path) as living:
        assert not killed.exists()
        with staging(tmp_path) as other:
            assert living.is_dir()
            assert other.is_dir()
    assert [path.name for path in (tmp_path / ".staging").iterdir()] == ["lock"]


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "a b", ""])
def test_a_name_that_would_leave_the_repository_or_hide_in_it_is_refused(name: str) -> None:
    with pytest.raises(PublishError, match="model name"):
        publishing.check_name(name)


def test_a_damaged_version_is_not_the_latest(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "model/1/onnx/model.onnx").write_bytes(b"damaged")
    assert latest(tmp_path, "model") is None
    assert published(tmp_path).version == 2


def test_a_fingerprint_changes_with_a_file_its_name_or_a_fact(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    one, other = {"a": tmp_path / "a"}, {"a": tmp_path / "b"}
    prints = [
        fingerprint(one, []),
        fingerprint(other, []),
        fingerprint({"b": tmp_path / "a"}, []),
        fingerprint(one, ["x"]),
    ]
    assert len(set(prints)) == 4
    assert fingerprint(one, ["x"]) == prints[3]
