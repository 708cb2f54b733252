"""The parent's end of a job process: start it, hear it, learn of its end.

A slot bounds how many run at once, over all exports that share it. Knows no framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import IO, Any

from lockstep import child_processes
from lockstep.exporters.conversion import ConversionError, Say, SourceError, Strict
from lockstep.server.runtimes.memory_kills import MemoryKills, killed

_LOG_TAIL_LINES = 12


async def run(job: Strict, *, threads: int, timeout_s: float, log: Path, say: Say) -> dict[str, Any]:
    """Run one job in a fresh process and return its result.

    The frameworks' own output goes to the file `log`. Raises the `SourceError` or `ConversionError` that
    the job reports; `ConversionError` with the end of the log where the process died or took longer than
    `timeout_s`. Cancelling kills the process.
    """
    ours, theirs = os.pipe()
    kills = MemoryKills.now()
    with log.open("wb") as output, os.fdopen(ours, "rb") as channel:
        try:
            process = await asyncio.create_subprocess_exec(
                *child_processes.command("lockstep.exporters.job:main", str(theirs), str(os.getpid())),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[theirs],
                env=_environment(threads),
                start_new_session=True,  # Ctrl-C is the parent's to answer
            )
        finally:
            os.close(theirs)
        try:
            async with asyncio.timeout(timeout_s):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: its log says why
                    await _tell(process, job)
                message = await _listen(channel, say)
                code = await process.wait()
        except TimeoutError:
            raise ConversionError(f"the job took longer than {timeout_s:.0f} s and was ended") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if "result" in message:
        result: dict[str, Any] = message["result"]
        return result
    if "error" in message:
        raise (SourceError if message["source"] else ConversionError)(message["error"])
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        cause += f" ({killed(kills, MemoryKills.now())})"
    raise ConversionError(f"the job's process ended with {cause}; its last words: {_tail(log)}")


async def _tell(process: asyncio.subprocess.Process, job: Strict) -> None:
    if process.stdin is None:
        raise AssertionError("started without a pipe to its standard input")
    process.stdin.write(job.model_dump_json().encode())
    await process.stdin.drain()
    process.stdin.close()


async def _listen(channel: IO[bytes], say: Say) -> dict[str, Any]:
    """Pass on what the job says until it closes its end; return its last message that is more than that."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), channel)
    last: dict[str, Any] = {}
    try:
        while line := await reader.readline():
            message = json.loads(line)
            if "say" in message:
                say(message["say"])
            else:
                last = message
    finally:
        transport.close()
    return last


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n".join(lines[-_LOG_TAIL_LINES:]) or "(none)"


def _environment(threads: int) -> dict[str, str]:
    return child_processes.environment(
        {
            "KERAS_BACKEND": "tensorflow",
            "CUDA_VISIBLE_DEVICES": "-1",  # an export runs on the CPU, so that its graph names no device
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "PYTHONUNBUFFERED": "1",
        },
        threads=threads,
    )
