"""Where an output path leads, and files that appear whole."""

import os
import socket
import stat
from pathlib import Path

import pytest

from lockstep.clients import output_files
from lockstep.clients.output_files import check_writable, destination, write_whole
from tests.failing_disk import FailingDisk


def test_a_link_stays_and_the_file_behind_it_is_written(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("before")
    link.symlink_to("file")
    write_whole(link, "after")
    assert (link.readlink(), file.read_text()) == (Path("file"), "after")


def test_a_link_to_nothing_makes_the_file_that_it_names(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("file")
    write_whole(link, "after")
    assert (link.readlink(), (tmp_path / "file").read_text()) == (Path("file"), "after")


def test_a_file_keeps_its_mode_and_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    file.chmod(0o640)
    owner = (1234, 1234) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(file, *owner)
    write_whole(file, "after")
    found = file.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, *owner)


def test_a_new_file_has_the_mode_that_the_process_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "new", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_descriptor_of_the_process_is_written_through_and_its_link_stays(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    file.write_text("before, ")
    with file.open("a") as opened:
        link.symlink_to(f"/proc/self/fd/{opened.fileno()}")
        write_whole(link, "after")
        assert destination(Path(f"/dev/fd/{opened.fileno()}")).descriptor == opened.fileno()
    assert (link.is_symlink(), file.read_text()) == (True, "before, after")
    with pytest.raises(OSError, match="is closed"):
        write_whole(link, "nobody takes it")


def test_a_device_is_written_and_stays_one() -> None:
    write_whole(Path("/dev/null"), "text")
    check_writable(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_what_is_no_output_is_refused_and_stays(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="socket is a socket: name a file"):
            write_whole(tmp_path / "socket", "text")
    with pytest.raises(OSError, match="is a folder: name a file"):
        check_writable(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["socket"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FailingDisk()
    disk.stand_in(monkeypatch, [output_files])
    file = tmp_path / "file"
    file.write_text("before")
    for step in range(1, 5):  # open, write, fsync, replace
        disk.fill_at(step)
        with pytest.raises(OSError, match="No space left"):
            write_whole(file, "after")
        assert file.read_text() == "before"
        assert [one.name for one in tmp_path.iterdir()] == ["file"]
    disk.recover()
    write_whole(file, "after")
    assert file.read_text() == "after"
