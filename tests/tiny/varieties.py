"""Models of many shapes, converted to ONNX and held against their sources in one process.

`python -m tests.tiny.varieties torch|pt2|keras FOLDER` prints {case: [recurrent operators, largest difference]}:
each row alone in the source against the same row in a padded batch of the artifact. What the gate does
through a worker is done here in place, since conversions of these kinds do not disturb each other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from lockstep.exporters.conversion import Conversion, Framework, SourceFiles
from tests.tiny.texts import MAX_TOKENS, VOCABULARY

ROWS = [np.random.default_rng(size).integers(1, VOCABULARY, size, dtype=np.int64) for size in (9, 1, 30, 4, 17)]


def files(name: str, framework: Framework, weights: Path, build: str | None, **more: Any) -> SourceFiles:
    return SourceFiles(
        name=name,
        framework=framework,
        weights=weights,
        build=build,
        python_path=(Path.cwd(),),
        labels=2,
        output=more.get("output", "logits"),
        activation=more.get("activation", "softmax"),
        pad_id=0,
        max_tokens=MAX_TOKENS,
    )


Feeds = dict[str, "np.ndarray[Any, Any]"]


def by_onnxruntime(path: Path, feeds: Feeds) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], feeds)[0]


def by_torch(path: Path, feeds: Feeds) -> Any:
    import torch

    return torch.export.load(path).module()(*map(torch.tensor, feeds.values())).detach().numpy()


def difference(source: Any, conversion: Conversion, folder: Path, run: Any = by_onnxruntime) -> float:
    lengths = np.array([len(row) for row in ROWS], dtype=np.int64)
    inside = np.arange(lengths.max())[None, :] < lengths[:, None]
    # Anything but the padding's id stands beyond the rows' ends.
    ids = np.random.default_rng(0).integers(1, VOCABULARY, inside.shape, dtype=np.int64)
    for number, row in enumerate(ROWS):
        ids[number, : len(row)] = row
    feeds = {"input_ids": ids, "attention_mask": inside.astype(np.int64), "lengths": lengths}
    got = run(folder / conversion.path, {name: feeds[name] for name in conversion.inputs})
    alone = [source.outputs(row[None], np.array([len(row)], dtype=np.int64))[0] for row in ROWS]
    return float(np.abs(got - np.stack(alone)).max())


def keras_cases() -> dict[str, tuple[Callable[[], Any], dict[str, str]]]:
    import keras

    layers = keras.layers
    masks: list[Any] = []  # Keras passes no mask of itself to a layer that is given an initial state

    def built(body: Callable[[Any], Any], head: int = 2, **dense: Any) -> Callable[[], Any]:
        def build() -> Any:
            ids = keras.Input((None,), dtype="int64", name="ids")
            masks.append(keras.ops.not_equal(ids, 0))
            x = body(layers.Embedding(VOCABULARY, 6, mask_zero=True)(ids))
            return keras.Model(ids, layers.Dense(head, **dense)(x))

        return build

    def explicit_mask() -> Any:
        ids = keras.Input((None,), dtype="int32", name="input_ids")
        mask = keras.Input((None,), dtype="bool", name="attention_mask")
        x = layers.Embedding(VOCABULARY, 6)(ids)
        for _ in range(2):
            x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x, mask=mask)
        x = layers.GlobalAveragePooling1D()(x, mask=mask)
        return keras.Model([ids, mask], layers.Dense(1, activation="sigmoid")(x))

    def sequential() -> Any:
        embedding = layers.Embedding(VOCABULARY, 6, mask_zero=True)
        return keras.Sequential([keras.Input((None,)), embedding, layers.GRU(4), layers.Dense(2)])

    def encoder_decoder(x: Any) -> Any:
        _, *states = layers.Bidirectional(layers.LSTM(4, return_state=True))(x)
        return layers.Bidirectional(layers.LSTM(4))(x, initial_state=states, mask=masks[-1])

    def both(mode: str, **more: Any) -> Callable[[Any], Any]:
        return lambda x: layers.Bidirectional(layers.GRU(4, **more), merge_mode=mode)(x)

    def backward_then_forward(x: Any) -> Any:
        _, state = layers.GRU(4, go_backwards=True, return_state=True)(x)
        return layers.GRU(4)(x, initial_state=state, mask=masks[-1])

    def nested(x: Any) -> Any:
        inner = keras.Sequential([keras.Input((None, 6)), layers.SimpleRNN(5, return_sequences=True)])
        return layers.LSTM(4)(inner(x))

    def own_merge(x: Any) -> Any:
        forward, backward = layers.Bidirectional(layers.SimpleRNN(4), merge_mode=None)(x)
        return layers.Subtract()([forward, backward])

    cases: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
        f"merge {mode}": (built(both(mode)), {}) for mode in ("concat", "sum", "ave", "mul")
    }
    return cases | {
        "merge none": (built(own_merge), {}),
        "reset before": (built(both("concat", reset_after=False)), {}),
        "backward state as initial": (built(backward_then_forward), {}),
        "states of both as initial": (built(encoder_decoder), {}),
        "nested model": (built(nested), {}),
        "sequential": (sequential, {}),
        "one sigmoid unit": (
            built(lambda x: layers.LSTM(4)(x), 1, activation="sigmoid"),
            {"output": "probabilities", "activation": "sigmoid"},
        ),
        "one logit": (built(lambda x: layers.LSTM(4)(x), 1), {"activation": "sigmoid"}),
        "explicit mask": (explicit_mask, {"output": "probabilities", "activation": "sigmoid"}),
        "an activation that ONNX lacks": (built(lambda x: layers.GRU(4, activation="gelu")(x)), {}),
    }


def run_keras(folder: Path) -> dict[str, tuple[dict[str, int], float]]:
    from lockstep.exporters.converters.keras2onnx import convert
    from lockstep.exporters.sources.keras_source import open_source

    results = {}
    for number, (name, (build, more)) in enumerate(keras_cases().items()):
        model = build()
        random = np.random.default_rng(number)
        model.set_weights([random.uniform(-1, 1, array.shape) for array in model.get_weights()])
        work = folder / str(number)
        work.mkdir()
        weights = work / "model.keras"
        model.save(weights)
        described = files(name, Framework.KERAS, weights, None, **more)
        conversion = convert(described, work, lambda text: None)
        results[name] = (conversion.recurrent_ops, difference(open_source(described), conversion, work))
    return results


def run_torch(folder: Path, target: str = "torch2onnx") -> dict[str, tuple[dict[str, int], float]]:
    from importlib import import_module

    from safetensors.torch import save_file

    from lockstep.exporters.sources.torch_source import open_source
    from tests.tiny import torch_varieties

    convert = import_module(f"lockstep.exporters.converters.{target}").convert
    run = by_torch if target == "torch2pt2" else by_onnxruntime
    results: dict[str, tuple[dict[str, int], float]] = {}
    sources = []
    for number, name in enumerate(torch_varieties.CASES):
        build = f"tests.tiny.torch_varieties:{name}"
        weights = folder / f"{name}.safetensors"
        save_file(torch_varieties.seeded(getattr(torch_varieties, name)(), number).state_dict(), weights)
        sources.append(files(name, Framework.TORCH, weights, build))
    # All sources answer before the first conversion swaps the packing functions.
    opened = [Answers(open_source(described)) for described in sources]
    for described, source in zip(sources, opened, strict=True):
        work = folder / described.name
        work.mkdir()
        conversion = convert(described, work, lambda text: None)
        results[described.name] = (conversion.recurrent_ops, difference(source, conversion, work, run))
    return results


def run_pt2(folder: Path) -> dict[str, tuple[dict[str, int], float]]:
    return run_torch(folder, "torch2pt2")


class Answers:
    """What a source answers to each row alone, computed at once."""

    def __init__(self, source: Any) -> None:
        self._known = {row.tobytes(): source.outputs(row[None], np.array([len(row)], dtype=np.int64)) for row in ROWS}

    def outputs(self, ids: Any, lengths: Any) -> Any:
        del lengths
        return self._known[ids[0].tobytes()]


if __name__ == "__main__":
    print(json.dumps({"torch": run_torch, "pt2": run_pt2, "keras": run_keras}[sys.argv[1]](Path(sys.argv[2]))))
