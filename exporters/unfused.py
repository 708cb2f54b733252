"""What a model costs in the form that its framework's converter gives it by itself: a Loop or Scan. For reports."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from lockstep.exporters import processes
from lockstep.exporters.conversion import Conversion, ConvertJob, runtime_of
from lockstep.exporters.export import JOB_TIMEOUT_S, OnProgress, Progress, artifact_spec, described
from lockstep.exporters.gate import held_out, verification
from lockstep.exporters.source import Description
from lockstep.server.core.artifact import Budget
from lockstep.server.runtimes.registry import ADAPTERS

_KIND = "onnx"


async def unfused_cost(
    description: Description,
    folder: Path,
    verify_with: Path,
    *,
    slots: asyncio.Semaphore,
    on_progress: OnProgress,
    threads: int = 1,
) -> dict[str, Any]:
    """Convert a source without stand-ins and measure it; return `recurrent_ops` and `cpu_ms_<shape>`.

    Nothing is verified or published. Raises `ExportError` where it cannot be converted, `BackendUnavailable`
    or `BatchFailed` where it cannot run.
    """

    def say(text: str) -> None:
        on_progress(Progress(description.name, "loop form", text))

    files, encoder = await described(description, folder)
    texts = held_out.read(verify_with, encoder, description.labels, files.pad_id)
    with tempfile.TemporaryDirectory(prefix="lockstep-") as temporary:
        work = Path(temporary) / _KIND
        work.mkdir()
        async with slots:
            answer = await processes.run(
                ConvertJob(source=files, artifact=_KIND, folder=work, threads=threads, fused=False),
                threads=threads,
                timeout_s=JOB_TIMEOUT_S,
                log=Path(temporary) / "convert.log",
                say=say,
            )
            conversion = Conversion.model_validate(answer)
            costs = await verification.measure(
                artifact_spec(conversion, work, files.labels),
                ADAPTERS[runtime_of(_KIND)],
                texts,
                max_tokens=files.max_tokens,
                budget=Budget(threads=threads),
                say=say,
            )
    on_progress(Progress(description.name, "loop form", "measured", done=True))
    return {"recurrent_ops": conversion.recurrent_ops, **{f"cpu_ms_{name}": cost for name, cost in costs.items()}}
