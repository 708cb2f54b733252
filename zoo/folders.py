"""How a folder of results appears: whole or not at all, once, however many processes ask for it.

Owns the staging folder, the rename and the lock. Knows nothing of what the folders hold.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` (a file beside it); blocks while another process holds it.

    The system drops the lock when its holder ends, however it ends.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty staging folder that becomes `folder` if the block ends well, and vanishes if not.

    The caller holds `exclusive(folder)`. What a killed process left staged is removed first. A reader
    sees the old folder, for an instant none, or the new one: never a part of one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}.partial-"
    for stale in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale)
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    staging.chmod(0o755)  # mkdtemp's 0700 would hide the results from other users
    try:
        yield staging
        if folder.exists():
            # A folder that holds something cannot be renamed over, so the old one steps aside first.
            retired = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
            os.rename(folder, retired / "old")
            os.rename(staging, folder)
            shutil.rmtree(retired)
        else:
            os.rename(staging, folder)
    finally:
        if staging.exists():
            shutil.rmtree(staging)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the bytes of `path`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
