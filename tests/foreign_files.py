"""A folder like a user's own, with files named as modules that we import: each tells when it is executed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MARKER = "EXECUTED"
OURS = ("server", "exporters", "zoo", "protos", "clients")
OTHERS = ("random", "numpy", "onnxruntime", "grpc", "pip", "typing", "json", "tests", "tokenizers")
_PACKAGES = ("clients", "tests", "tokenizers")


def fill(folder: Path, names: Sequence[str] = OURS + OTHERS) -> Path:
    """Write the files, and return the folder."""
    folder.mkdir(exist_ok=True)
    code = f"open({str(folder / MARKER)!r}, 'a').write(__name__ + '\\n')\nraise ImportError('a foreign ' + __name__)\n"
    for name in names:
        if name in _PACKAGES:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(code)
        else:
            (folder / f"{name}.py").write_text(code)
    return folder


def executed(folder: Path) -> list[str]:
    """Return the names of the modules that were executed."""
    marker = folder / MARKER
    return marker.read_text().split() if marker.exists() else []
