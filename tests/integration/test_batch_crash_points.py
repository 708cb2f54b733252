"""Runs of `lockstep batch` that are killed, or find no room, before each step that changes the disk."""

from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from lockstep.clients import output_files
from lockstep.clients.batch import BatchPlan, ChunkLimits, OutputFailed, companions, earlier, journal, output, run_batch
from tests.batch_files import FORMATS, write
from tests.failing_disk import FailingDisk, Killed
from tests.wire_double import ServerDouble

ROWS = [{"id": number, "text": None if number == 3 else f"good {number}"} for number in range(5)]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    found = FailingDisk()
    found.stand_in(monkeypatch, (output_files, output, journal, companions, earlier))
    return found


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def plan_of(source: Path, target: Path, address: str, **options: bool) -> BatchPlan:
    kind = source.suffix[1:]
    limits = ChunkLimits(rows=2)
    return BatchPlan(source, target, address, kind, kind, limits=limits, calls=1, commit_s=0, **options)  # type: ignore[arg-type]


async def at_every_step(
    kind: str,
    tmp_path: Path,
    strike: Callable[[int], object],
    disk: FailingDisk,
    *,
    replaces: bool,
    after: Callable[[BatchPlan], Awaitable[None]],
) -> int:
    """Run a plan once for each step, which strikes, then again as it is; return how many steps there are."""
    source = write(tmp_path / f"in.{kind}", ROWS)
    async with ServerDouble() as server:
        whole = tmp_path / f"whole.{kind}"
        first = await run_batch(plan_of(source, whole, server.address))
        for step in count(1):
            folder = tmp_path / f"step {step}"
            folder.mkdir()
            target = folder / f"out.{kind}"
            if replaces:
                target.write_text("before")
                target.chmod(0o640)
            plan = plan_of(source, target, server.address, overwrite=replaces)
            strike(step)
            try:
                await run_batch(plan)
            except (Killed, OutputFailed):
                assert disk.struck
            reached = disk.struck
            disk.recover()
            if not reached:
                return step - 1
            if replaces and target.read_bytes() != whole.read_bytes():
                assert target.read_text() == "before"
            if names_in(folder) != [target.name] or target.read_bytes() != whole.read_bytes():
                await after(plan)
                again = await run_batch(plan)
                assert (again.rows, again.failed_rows) == (first.rows, first.failed_rows), step
            assert target.read_bytes() == whole.read_bytes(), step
            assert names_in(folder) == [target.name], step
            assert not replaces or target.stat().st_mode & 0o777 == 0o640
    raise AssertionError


async def nothing(_: BatchPlan) -> None:
    """Do nothing."""


@pytest.mark.parametrize("replaces", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("kind", FORMATS)
async def test_a_run_that_is_killed_before_any_step_is_finished_by_the_same_command(
    kind: str, replaces: bool, tmp_path: Path, disk: FailingDisk
) -> None:
    steps = await at_every_step(kind, tmp_path, disk.die_at, disk, replaces=replaces, after=nothing)
    assert steps > 25


@pytest.mark.parametrize("kind", FORMATS)
async def test_a_run_that_finds_no_room_at_any_step_is_finished_by_the_same_command(
    kind: str, tmp_path: Path, disk: FailingDisk
) -> None:
    steps = await at_every_step(kind, tmp_path, disk.fill_at, disk, replaces=False, after=nothing)
    assert steps > 25


@pytest.mark.parametrize("kind", ["csv", "parquet"])
async def test_a_run_that_is_killed_twice_is_finished_by_the_same_command(
    kind: str, tmp_path: Path, disk: FailingDisk
) -> None:
    async def killed_again(plan: BatchPlan) -> None:
        for step in (1, 2, 5):
            disk.die_at(step)
            try:
                await run_batch(plan)
            except Killed:
                assert disk.struck
            disk.recover()

    await at_every_step(kind, tmp_path, disk.die_at, disk, replaces=True, after=killed_again)
