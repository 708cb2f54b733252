"""Where a plan's input and output lead, and what cannot be done with them. Opens nothing."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from lockstep.clients.batch.batch_errors import PlanRefused
from lockstep.clients.batch.companions import companions
from lockstep.clients.batch.compression import COMPRESSED
from lockstep.clients.batch.plan import BatchPlan
from lockstep.clients.batch.streams import is_pipe
from lockstep.clients.output_files import Destination, destination


def checked(plan: BatchPlan) -> BatchPlan:
    """Return a plan whose output is a file, through no link, or a stream. Raises `PlanRefused`."""
    plan = placed(plan)
    if plan.input is not None:
        try:
            kind = plan.input.stat().st_mode
        except FileNotFoundError:
            raise PlanRefused(f"there is no file {plan.input}") from None
        except OSError as error:
            raise PlanRefused(f"{plan.input}: {error.strerror}") from error
        if stat.S_ISDIR(kind):
            raise PlanRefused(f"{plan.input} is a folder: name a file")
    if plan.output is not None and not is_stream(plan.output):
        if not plan.output.parent.is_dir():
            raise PlanRefused(f"there is no folder {plan.output.parent}")
        if plan.input is not None and _is_one(plan.output, plan.input):
            raise PlanRefused("the output is the input: name another file")
        for one in companions(plan.output):
            if plan.input is not None and _is_one(one, plan.input):
                raise PlanRefused(f"the input has the name of what a run keeps beside {plan.output}: rename it")
    elif plan.input is not None and _is_written(plan.output, plan.input):
        raise PlanRefused("the output is the input: name another file")
    if is_pipe(plan.input):
        if plan.input_format == "parquet":
            raise PlanRefused("Parquet is read from its end: name a file, a pipe will not do")
        if plan.input_format == "jsonl" and plan.output_format != "jsonl":
            raise PlanRefused(
                f"JSON lines are read twice to find the columns of {plan.output_format}: "
                "name a file, a pipe will not do (or write jsonl)"
            )
    if plan.input is not None and plan.input.suffix.lower() in COMPRESSED and plan.input_format == "parquet":
        raise PlanRefused("a compressed Parquet file has to be unpacked first")
    return plan


def placed(plan: BatchPlan) -> BatchPlan:
    """Return a plan whose output leads where it should through no link. Raises `PlanRefused`."""
    if plan.output is None:
        return plan
    where = _destination(plan.output)
    if where.stream:
        return replace(plan, output=None) if where.descriptor == 1 else plan
    return replace(plan, output=where.path)


def is_stream(output: Path | None) -> bool:
    """Whether an output is written through and not kept: standard output, a FIFO, a character device."""
    return output is None or _destination(output).stream


def _destination(path: Path) -> Destination:
    try:
        return destination(path)
    except OSError as error:
        raise PlanRefused(f"{path}: {error.strerror}" if error.strerror else str(error)) from error


def _is_written(stream: Path | None, path: Path) -> bool:
    """Whether a stream that this process has open is a regular file, and this one."""
    descriptor = 1 if stream is None else _destination(stream).descriptor
    if descriptor is None or not path.is_file():
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:  # a closed one is told when it is opened
        return False


def _is_one(path: Path, other: Path) -> bool:
    return path.exists() and os.path.samefile(path, other)
