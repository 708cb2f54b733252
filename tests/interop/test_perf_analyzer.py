"""perf_analyzer, the best-known load tool of the protocol, drives the server and agrees with its statistics."""

import ctypes
import json
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.environments import environment, output_of
from tests.serving import Served

REQUESTS = 40
TEXTS = {"data": [{"text": ["good film"]}, {"text": ["bad"]}, {"text": ["the good film"]}]}
IDS = {
    "data": [
        {"input_ids": {"content": [2, 4, 6, 3], "shape": [4]}, "lengths": [4]},
        {
            "input_ids": {"content": [2, 5, 3], "shape": [3]},
            "attention_mask": {"content": [1, 1, 1], "shape": [3]},
        },
    ]
}  # fmt: skip


@dataclass(frozen=True)
class PerfAnalyzer:
    """The program, and where it finds the libraries that came with it."""

    program: Path
    libraries: str = ""

    async def run(self, served: Served, model: str, data: Path, *options: str) -> str:
        """Return what it prints of one measurement."""
        return await output_of(
            self.program, "-m", model, "-i", "grpc", "-u", f"127.0.0.1:{served.app.grpc_port}",
            "--input-data", data, "--request-count", REQUESTS, *options, LD_LIBRARY_PATH=self.libraries,
        )  # fmt: skip


@pytest.fixture(scope="session", params=["today's", "of 2024"])
def perf_analyzer(request: pytest.FixtureRequest) -> PerfAnalyzer:
    """The tool of today needs glibc 2.38; an older one runs on older systems, if they have a library that it needs."""
    if request.param == "today's":
        glibc = platform.libc_ver()[1]
        if tuple(map(int, glibc.split("."))) < (2, 38):
            pytest.skip(f"perf_analyzer's wheel needs glibc 2.38, here is {glibc}")
        packages = _packages(environment("perf-analyzer"))
        return PerfAnalyzer(packages / "perf_analyzer" / "bin" / "perf_analyzer")
    try:
        ctypes.CDLL("libb64.so.0d")
    except OSError as error:
        pytest.skip(f"perf_analyzer of 2024 needs libb64 (Debian: libb64-0d): {error}")
    python = environment("perf-analyzer-2.48")
    libraries = _packages(python) / "nvidia" / "cuda_runtime" / "lib"
    return PerfAnalyzer(python.with_name("perf_analyzer"), str(libraries))


def _packages(python: Path) -> Path:
    (packages,) = (python.parents[1] / "lib").glob("python*/site-packages")
    return packages


MEASUREMENTS: dict[str, tuple[str, dict[str, object], Sequence[str], int]] = {
    "one call at a time": ("model", TEXTS, (), 1),
    "calls at once": ("model", TEXTS, ("-a", "--concurrency-range", "4"), 1),
    "a stream": ("model", TEXTS, ("-a", "--streaming", "--concurrency-range", "4"), 1),
    "rows of a call": ("model", TEXTS, ("-b", "8"), 8),
    "compressed": ("model", TEXTS, ("--grpc-compression-algorithm", "gzip"), 1),
    "ids": ("model", IDS, (), 1),
    "pinned": ("model@tensorflow", TEXTS, (), 1),
}


async def test_it_measures_the_server_and_its_statistics(
    served: Served, perf_analyzer: PerfAnalyzer, tmp_path: Path
) -> None:
    data = tmp_path / "data.json"
    for name, (model, rows, options, batch) in MEASUREMENTS.items():
        data.write_text(json.dumps(rows))
        printed = await perf_analyzer.run(served, model, data, *options)
        figures = {
            what: int(count) for what, count in re.findall(r"^ +(\w[\w ]+ count): (\d+)", printed, flags=re.MULTILINE)
        }
        # what its last statistics tell may not hold the calls that were answered meanwhile, and never more
        calls = figures["Successful request count"]
        assert REQUESTS // 2 <= calls <= figures["Request count"], f"{name}: {printed}"
        assert figures["Inference count"] == calls * batch, f"{name}: {printed}"
        assert 0 < figures["Execution count"] <= calls, f"{name}: {printed}"
        assert "queue" in printed
        assert "compute infer" in printed


async def test_what_it_cannot_have_is_told_to_whoever_runs_it(
    served: Served, perf_analyzer: PerfAnalyzer, tmp_path: Path
) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps(TEXTS))
    with pytest.raises(AssertionError, match="no model 'nope' is served; served are: model, other"):
        await perf_analyzer.run(served, "nope", data)
    with pytest.raises(AssertionError, match="this server takes tensors in messages only"):
        await perf_analyzer.run(served, "model", data, "--shared-memory", "system")
