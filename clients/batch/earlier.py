"""What earlier runs of a plan have left: answers to go on from, or an output that is finished. Asks no server."""

from __future__ import annotations

import os
from pathlib import Path

from lockstep.clients.batch.batch_errors import PlanRefused, ResumeRefused
from lockstep.clients.batch.companions import ASSEMBLING, PARTIAL, PROGRESS, beside, lock, remove
from lockstep.clients.batch.journal import Journal, new_journal
from lockstep.clients.batch.paths import is_stream, placed
from lockstep.clients.batch.plan import BatchPlan
from lockstep.clients.batch.streams import Fingerprint, is_pipe, told, unreadable
from lockstep.clients.output_files import sync_folder


def rows_kept(plan: BatchPlan) -> int:
    """Return how many answers of a plan's runs are kept, for another run to go on after them."""
    try:
        plan = placed(plan)
        if plan.output is None or is_stream(plan.output) or is_pipe(plan.input):
            return 0
        journal = Journal.load(beside(plan.output, PROGRESS))
    except PlanRefused:
        return 0
    return 0 if journal is None else journal.position.row


def finished(plan: BatchPlan) -> Journal | None:
    """Tidy up after a run that was killed once its output had its name; return its journal if it was of this plan.

    `plan` is a checked one. Raises `PlanRefused`, `OutputFailed`.
    """
    begun = _begun(plan)
    if begun is None or not _has_its_name(plan, begun):
        return None
    assert plan.output is not None
    with told(plan.output):
        descriptor = os.open(plan.output, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            lock(descriptor, plan.output)
            if _begun(plan) != begun:
                raise PlanRefused(f"another run has just written {plan.output}: run the command again")
            _tidy_up(plan.output, begun)
        finally:
            os.close(descriptor)
    return begun if _is_of(begun, plan) else None


def answered(plan: BatchPlan) -> Journal | None:
    """Return the journal of a run of this plan that has answered every row, so that no server is needed.

    `plan` is a checked one. Changes nothing. Raises `PlanRefused`.
    """
    begun = _begun(plan)
    if begun is None or not begun.complete or not _is_of(begun, plan):
        return None
    return begun if _has_its_name(plan, begun) or _is_kept(plan, begun) else None


def to_go_on_from(plan: BatchPlan, fresh: Journal) -> Journal | None:
    """Return the journal of an earlier run of this plan; `None` if nothing is kept, or what is kept is discarded.

    `plan` is a checked one, `fresh` the journal that it begins with. Raises `PlanRefused`; `ResumeRefused` if the
    earlier run had another input, or would have answered otherwise.
    """
    begun = None if plan.restart else _begun(plan)
    if begun is None or not _is_kept(plan, begun):
        return None
    begun.check(fresh.input, fresh.work)
    return begun


def _begun(plan: BatchPlan) -> Journal | None:
    if plan.output is None or is_stream(plan.output):
        return None
    try:
        return Journal.load(beside(plan.output, PROGRESS))
    except ResumeRefused:
        if plan.restart:
            return None
        raise


def _is_kept(plan: BatchPlan, begun: Journal) -> bool:
    """Whether there are answers that a run can go on from, or should: where they are gone, it is told."""
    assert plan.output is not None
    if begun.output is not None:  # it had its name perhaps, and was moved or written since
        return beside(plan.output, PARTIAL).exists()
    return begun.complete or begun.position.row > 0


def _has_its_name(plan: BatchPlan, begun: Journal) -> bool:
    assert plan.output is not None
    if not begun.complete or begun.output is None:
        return False
    try:
        return _is_one(beside(plan.output, PARTIAL), plan.output) or Fingerprint.of(plan.output) == begun.output
    except FileNotFoundError:
        return False


def _is_of(begun: Journal, plan: BatchPlan) -> bool:
    if plan.restart or plan.input is None or is_pipe(plan.input):
        return False
    with unreadable(plan.input):
        if begun.input != Fingerprint.of(plan.input):
            return False
    asked = plan.asked
    if plan.model is not None:
        asked = {**asked, "the served name": plan.model}
    return all(begun.work.get(name) == value for name, value in asked.items())


def _is_one(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except FileNotFoundError:
        return False


def _tidy_up(output: Path, begun: Journal) -> None:
    journal, partial = beside(output, PROGRESS), beside(output, PARTIAL)
    if os.path.lexists(partial) and os.lstat(partial).st_size == begun.output_bytes:  # else it has come since
        remove(partial)
    for left in (beside(output, ASSEMBLING), new_journal(journal)):
        remove(left)
    sync_folder(output.parent)
    remove(journal)
