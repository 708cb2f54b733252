"""Folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lockstep.zoo.folders import exclusive, replacing, sha256


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with replacing(folder) as staging:
        (staging / "file").write_text("whole")
        assert not folder.exists()
    assert (folder / "file").read_text() == "whole"
    assert names(folder.parent) == ["folder"]


def test_folder_of_before_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with replacing(tmp_path / "folder") as staging:
            (staging / name).touch()
    assert names(tmp_path / "folder") == ["new"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_failure_keeps_the_folder_of_before_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    with replacing(tmp_path / "folder") as staging:
        (staging / "old").touch()

    def interrupted() -> None:
        with replacing(tmp_path / "folder") as staging:
            (staging / "half").touch()
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path / "folder") == ["old"]
    assert names(tmp_path) == ["folder"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    stale = tmp_path / ".folder.partial-killed"
    stale.mkdir()
    (stale / "half").touch()
    with replacing(tmp_path / "folder"):
        assert not stale.exists()


def test_lock_is_free_again_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="first"), exclusive(tmp_path / "folder"):
        raise OSError("first")
    with exclusive(tmp_path / "folder"):
        assert names(tmp_path) == [".folder.lock"]


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"bytes").hexdigest()
