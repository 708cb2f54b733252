"""Environments of other people's clients: each its own, since their pins clash with ours and with each other's.

Made once, under `.cache`, and found again by what they hold. Where the packages cannot be reached, the tests that
need them are skipped with pip's reason; where pip fails otherwise, they fail.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache"
_UNREACHABLE = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "NameResolutionError",
    "ProxyError",
    "SSLError",
)
_TIMEOUT_S = 120


def environment(name: str) -> Path:
    """Return the interpreter of the environment of `requirements-<name>.txt`; make it where it is not there yet."""
    requirements = HERE / f"requirements-{name}.txt"
    holds = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / f"interop-{name}-{holds}"
    made = folder / "made"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"interop-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of the tests that run at once, one makes it
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
            # requirements are complete: nothing is resolved, and what comes is what was tried
            install = ["install", "--no-deps", "--no-compile", "--only-binary", ":all:", "--requirement", requirements]
            pip = subprocess.run(
                [sys.executable, "-m", "pip", "--python", folder, "--quiet", "--retries", "1", *install],
                capture_output=True,
                text=True,
            )
            if pip.returncode and any(sign in pip.stderr for sign in _UNREACHABLE):
                pytest.skip(f"the packages of {requirements.name} cannot be reached: {pip.stderr.splitlines()[-1]}")
            assert pip.returncode == 0, pip.stderr
            made.touch()
    return folder / "bin" / "python"


async def told_by(python: Path, script: str, *arguments: object, at: Path | None = None) -> dict[str, Any]:
    """Run a client's script in a process of its own, and return what it tells: one JSON object.

    It imports what its environment holds, and nothing of ours unless it is run `at` the repository.
    """
    path = {"PYTHONPATH": str(at or "")}
    stdout = await output_of(python, HERE / "clients" / script, *arguments, **path)
    told: dict[str, Any] = json.loads(stdout)
    return told


async def output_of(program: Path, *arguments: object, **environment: str) -> str:
    """Run a program to its end and return what it prints; it fails the test where it fails."""
    process = await asyncio.create_subprocess_exec(
        program,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{stdout.decode()}\n{stderr.decode()}"
    return stdout.decode()
