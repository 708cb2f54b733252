"""Where `lockstep batch` writes, and what it finds there: finished runs, links, streams, closed descriptors."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lockstep.clients import output_files
from lockstep.clients.batch import BatchPlan, companions, earlier, journal, output, rows_kept, run_batch
from lockstep.commands.batch import batch
from tests.batch_files import read, rows_of, write
from tests.failing_disk import FailingDisk, Killed
from tests.wire_double import double_in_a_thread

NOBODY = "127.0.0.1:1"


def run(*words: object) -> Result:
    return CliRunner().invoke(batch, [str(word) for word in words])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def killed_before_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchPlan:
    """A run whose output has its name, and its journal still; of its three rows the second is an error."""
    (tmp_path / "in.jsonl").write_text('{"text": "good"}\noops\n{"text": "bad"}\n')
    disk = FailingDisk()
    disk.stand_in(monkeypatch, (output_files, output, journal, companions, earlier))
    with double_in_a_thread() as server:
        plan = BatchPlan(tmp_path / "in.jsonl", tmp_path / "whole.jsonl", server.address, "jsonl", "jsonl")
        asyncio.run(run_batch(plan))
        disk.die_at(len(disk.steps))
        plan = replace(plan, output=tmp_path / "out.jsonl")
        with pytest.raises(Killed):
            asyncio.run(run_batch(plan))
    monkeypatch.undo()
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl", "out.jsonl.progress", "whole.jsonl"]
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    return replace(plan, address=NOBODY)


@pytest.mark.parametrize("flags", [(), ("--overwrite",), ("--strict",)])
def test_a_finished_run_is_told_and_tidied_up_without_a_server(
    flags: tuple[str, ...], killed_before_the_last_step: BatchPlan, tmp_path: Path
) -> None:
    plan = killed_before_the_last_step
    result = run(plan.input, plan.output, "--server", NOBODY, *flags)
    assert result.exit_code == 1, result.output  # as the run itself: a row has an error
    assert "out.jsonl: 3 rows, finished by an earlier run; 1 with an error" in result.output
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl", "whole.jsonl"]


def test_a_file_that_came_after_a_finished_run_stays(killed_before_the_last_step: BatchPlan, tmp_path: Path) -> None:
    plan = killed_before_the_last_step
    theirs = tmp_path / "out.jsonl.partial"
    theirs.write_text("a download")
    assert "finished by an earlier run" in run(plan.input, plan.output, "--server", NOBODY).output
    assert (theirs.read_text(), names_in(tmp_path)[2:]) == ("a download", ["out.jsonl.partial", "whole.jsonl"])


def test_a_file_that_came_after_an_output_was_moved_stays(killed_before_the_last_step: BatchPlan) -> None:
    plan = killed_before_the_last_step
    assert plan.output is not None
    plan.output.unlink()
    theirs = plan.output.with_name("out.jsonl.partial")
    theirs.write_text("a download")
    with double_in_a_thread() as server:
        for flags in ((), ("--restart",)):
            refused = run(plan.input, plan.output, "--server", server.address, *flags)
            assert (refused.exit_code, "is not what its journal says" in refused.output) == (2, True)
    assert theirs.read_text() == "a download"


def test_a_finished_run_starts_no_server_of_its_own(killed_before_the_last_step: BatchPlan, tmp_path: Path) -> None:
    plan = killed_before_the_last_step
    result = run(plan.input, plan.output, "--local", "--repository", tmp_path)
    assert (result.exit_code, "finished by an earlier run" in result.output) == (1, True)
    assert "Starting" not in result.output


def test_a_finished_run_does_not_keep_another_one_from_its_output(killed_before_the_last_step: BatchPlan) -> None:
    plan = killed_before_the_last_step
    assert plan.input is not None
    assert plan.output is not None
    plan.input.write_text('{"text": "tomorrow"}\n')
    with double_in_a_thread() as server:
        refused = run(plan.input, plan.output, "--server", server.address)
        assert (refused.exit_code, "--overwrite replaces it" in refused.output) == (2, True)
        assert run(plan.input, plan.output, "--server", server.address, "--overwrite").exit_code == 0
    assert [row["text"] for row in read(plan.output)] == ["tomorrow"]


def test_an_output_that_was_moved_away_after_its_run_is_written_again(killed_before_the_last_step: BatchPlan) -> None:
    plan = killed_before_the_last_step
    assert plan.output is not None
    plan.output.rename(plan.output.with_name("moved.jsonl"))
    with double_in_a_thread() as server:
        assert run(plan.input, plan.output, "--server", server.address).exit_code == 1
    assert len(read(plan.output)) == 3


def test_an_output_that_was_written_by_hand_since_is_not_replaced(killed_before_the_last_step: BatchPlan) -> None:
    plan = killed_before_the_last_step
    assert plan.output is not None
    plan.output.write_text("mine")
    with double_in_a_thread() as server:
        refused = run(plan.input, plan.output, "--server", server.address)
    assert (refused.exit_code, plan.output.read_text()) == (2, "mine")
    assert "--overwrite replaces it" in refused.output


def test_kept_answers_of_a_file_are_not_discarded_for_a_pipe(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\n" + "good\n" * 100 + '"never closed')
    with double_in_a_thread() as server:
        plan = BatchPlan(source, target, server.address, "csv", "csv")
        assert run(source, target, "--server", server.address).exit_code == 3
        assert rows_kept(plan) == 64
        words = ("batch", "-", str(target), "--input-format", "csv", "--server", server.address)
        done = subprocess.run([sys.executable, "-m", "lockstep", *words], input=b"text\ngood\n", stderr=-1, check=False)
        assert done.returncode == 2
        assert b"64 answers of an earlier run are kept" in done.stderr
        assert rows_kept(plan) == 64
        source.write_text("text\nfine\n")
        assert run(source, target, "--server", server.address, "--restart").exit_code == 0


def test_a_link_as_output_stays_and_its_file_keeps_its_mode(tmp_path: Path) -> None:
    source, link, file = write(tmp_path / "in.csv", rows_of(3)), tmp_path / "out.csv", tmp_path / "data" / "real.csv"
    file.parent.mkdir()
    file.write_text("before")
    file.chmod(0o640)
    link.symlink_to(file)
    with double_in_a_thread() as server:
        assert run(source, link, "--server", server.address).exit_code == 2
        assert file.read_text() == "before"
        assert run(source, link, "--server", server.address, "--overwrite").exit_code == 0
    assert (link.readlink(), file.stat().st_mode & 0o777, len(read(file))) == (file, 0o640, 3)
    assert names_in(file.parent) == ["real.csv"]


def test_a_name_of_standard_output_is_written_through_and_stays(tmp_path: Path) -> None:
    source, link, file = write(tmp_path / "in.csv", rows_of(3)), tmp_path / "stdout", tmp_path / "file.csv"
    link.symlink_to("/proc/self/fd/1")  # as /dev/stdout is
    file.write_text("before\n")
    words = [sys.executable, "-m", "lockstep", "batch", str(source), str(link), "--output-format", "csv"]
    with double_in_a_thread() as server, file.open("ab") as appended:
        done = subprocess.run([*words, "--overwrite", "--server", server.address], stdout=appended, check=False)
    assert (done.returncode, link.is_symlink()) == (0, True)
    first, header, *records = file.read_text().splitlines()
    assert (first, header.startswith("id,text,where,label"), len(records) >= 3) == ("before", True, True)
    assert names_in(tmp_path) == ["file.csv", "in.csv", "stdout"]


def test_an_input_that_is_written_through_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", rows_of(3))
    before = source.read_bytes()
    words = [sys.executable, "-m", "lockstep", "batch", str(source), "-", "--output-format", "csv"]
    with double_in_a_thread() as server, source.open("ab") as appended:
        done = subprocess.run([*words, "--server", server.address], stdout=appended, stderr=-1, check=False)
    assert (done.returncode, source.read_bytes()) == (2, before)
    assert b"the output is the input" in done.stderr


@pytest.mark.parametrize(
    ("redirections", "words", "status", "says"),
    [
        (
            "<&-",
            "- out.csv --input-format csv",
            3,
            b"Error: standard input is closed: pipe the rows in, or name a file",
        ),
        (">&-", "in.csv - --output-format csv", 3, b"Error: standard output is closed: pipe it on, or name a file"),
        ("2>&-", "in.csv out.csv", 0, b""),
        ("2>/dev/full", "in.csv out.csv", 0, b""),
        ("<&- >&- 2>&-", "in.csv out.csv", 0, b""),
    ],
)
def test_a_standard_stream_that_is_closed_or_full_stops_only_a_run_that_needs_it(
    redirections: str, words: str, status: int, says: bytes, tmp_path: Path
) -> None:
    write(tmp_path / "in.csv", rows_of(3))
    with double_in_a_thread() as server:
        line = f'exec "$0" -m lockstep batch {words} --server {server.address} {redirections}'
        done = subprocess.run(["sh", "-c", line, sys.executable], cwd=tmp_path, stderr=-1, check=False)
    assert (done.returncode, done.stderr.strip()) == (status, says)
    assert (tmp_path / "out.csv").exists() == (status == 0)
