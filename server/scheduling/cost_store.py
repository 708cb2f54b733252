"""Cost models on disk, so that a restart need not measure again. One small JSON file for each circumstance.

The folder is the server's own: the repository may be read-only. Losing it costs a few seconds of measuring.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lockstep.server.scheduling.cost import CostModel

_log = logging.getLogger("lockstep.cost")
_FORMAT = 1


class CostStore:
    """Loads and saves cost models by the circumstances that they hold for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writable = True

    def load(self, circumstances: Mapping[str, str]) -> CostModel | None:
        """Return the model of these circumstances, or None where there is none that can be read."""
        path = self._path(circumstances)
        try:
            return CostModel.restore(json.loads(path.read_text())["model"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be used and is measured again: %s", path, error)
            return None

    def save(self, circumstances: Mapping[str, str], model: CostModel) -> None:
        """Keep a model; a folder that cannot be written is said once."""
        document = {"circumstances": dict(circumstances), "model": model.state()}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, suffix=".tmp", delete=False) as file:
                kept = Path(file.name)
                try:
                    json.dump(document, file)
                    file.flush()
                    kept.replace(self._path(circumstances))
                except BaseException:
                    kept.unlink(missing_ok=True)  # a disk that is full must not fill up with these
                    raise
        except OSError as error:
            if self._writable:
                _log.warning("costs are not kept: %s: %s", self._folder, error.strerror)
            self._writable = False

    def _path(self, circumstances: Mapping[str, str]) -> Path:
        key = json.dumps({**circumstances, "format": str(_FORMAT)}, sort_keys=True)
        return self._folder / f"cost-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def hardware() -> str:
    """Name the processor, as precisely as the system does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    names = {line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags"))}
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
