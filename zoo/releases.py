"""A release of a project, fetched from the index that pip is configured for, and believed by its checksum alone.

Owns the call of pip. Knows nothing of what a release holds, and makes no error of pip's words: its caller
knows what the file was for.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

from lockstep import child_processes

Form = Literal["source", "wheel"]


def pip_download(project: str, version: str, sha256: str, form: Form, folder: Path) -> subprocess.CompletedProcess[str]:
    """Fetch one file of a release into `folder`, without its dependencies; blocks for as long as that takes.

    Pip reads the metadata of a source distribution by running its `setup.py`. It is therefore run in
    hash-checking mode, which compares the checksum before anything of the file is read.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{project}=={version} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-P", "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--no-build-isolation", "--no-binary" if form == "source" else "--only-binary", ":all:"]
    command += ["--require-hashes", "--dest", str(folder), "--requirement", str(requirements)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=child_processes.environment())


def other_checksum(done: subprocess.CompletedProcess[str]) -> str | None:
    """Return the SHA-256 that pip got where it refused the file for it, and `None` where it failed otherwise."""
    got = re.search(r"Got\s+([0-9a-f]{64})", done.stderr)
    return got[1] if got else None


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Return the end of what pip said, indented."""
    return "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-6:])
