"""Convert random stacks and hold each artifact against its source, many in one process.

`python -m tests.tiny.properties torch|pt2|keras|tf1 EXAMPLES FOLDER` prints how many were held; an example that
fails is shrunk by hypothesis and printed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lockstep.exporters.conversion import Conversion, Framework, SourceFiles
from tests.tiny import random_models
from tests.tiny.random_models import Spec
from tests.tiny.varieties import Answers, by_onnxruntime, by_torch, difference, files

MOST = 2e-5
"""Differences to the source that are rounding: random weights make small numbers, and a relu's are not bounded."""

specs = st.builds(
    Spec,
    kind=st.sampled_from(["RNN", "GRU", "LSTM"]),
    variant=st.integers(0, 2),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple),
    both=st.booleans(),
    width=st.integers(1, 6),
    bias=st.booleans(),
    pooling=st.sampled_from(["final", "mean", "max", "attention"]),
    head=st.lists(st.integers(1, 5), max_size=2).map(tuple),
    seed=st.integers(0, 99),
)


def torch_source(folder: Path) -> SourceFiles:
    from safetensors.torch import save_file

    weights = folder / "model.safetensors"
    save_file(random_models.torch_model().state_dict(), weights)
    return files("random", Framework.TORCH, weights, "tests.tiny.random_models:torch_model")


def keras_source(folder: Path) -> SourceFiles:
    import keras

    keras.backend.clear_session()
    weights = folder / "model.keras"
    random_models.keras_model().save(weights)
    return files("random", Framework.KERAS, weights, None)


def tf1_source(folder: Path) -> SourceFiles:
    from tests.tiny.tf1_sources import write

    write(folder / "model", random_models.tf1_model, random_models.current[-1].seed)
    return files("random", Framework.TF1, folder / "model", "tests.tiny.random_models:tf1_model")


WAYS: dict[str, tuple[Any, str, str, Any]] = {
    "torch": (torch_source, "torch_source", "torch2onnx", by_onnxruntime),
    "pt2": (torch_source, "torch_source", "torch2pt2", by_torch),
    "keras": (keras_source, "keras_source", "keras2onnx", by_onnxruntime),
    "tf1": (tf1_source, "tf1_source", "tf12onnx", by_onnxruntime),
}


def hold(way: str, spec: Spec, folder: Path) -> None:
    from importlib import import_module

    write, opener, converter, run = WAYS[way]
    random_models.current.append(spec)
    described = write(folder)
    source = Answers(import_module(f"lockstep.exporters.sources.{opener}").open_source(described))
    conversion: Conversion = import_module(f"lockstep.exporters.converters.{converter}").convert(
        described, folder, lambda text: None
    )
    assert set(conversion.recurrent_ops) == {spec.kind}, conversion
    apart = difference(source, conversion, folder, run)
    assert apart < MOST, f"{spec}: {apart}"


def main(way: str, examples: int, folder: Path) -> int:
    held = 0

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(specs)
    def every_stack_is_right(spec: Spec) -> None:
        nonlocal held
        hold(way, spec, Path(tempfile.mkdtemp(dir=folder)))
        held += 1

    every_stack_is_right()
    return held


if __name__ == "__main__":
    os.environ["TF_USE_LEGACY_KERAS"] = "1" if sys.argv[1] == "tf1" else "0"
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
