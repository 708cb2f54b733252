"""A source in a process of its own, run in each of its modes: `python -m lockstep.framework_report.source_process FD`.

A process holds one framework, because frameworks alter what is process-wide. Standard input's first line is a
`SourceFiles`; the process then speaks JSON lines over the inherited socket FD: first the names of its modes, then for
each {"mode", "ids", "lengths"} what the run took and what it answered. What it cannot do it says as {"error": text}.

The modes are the ways in which the framework's users run the same model:

    torch, huggingface   eager
    keras                eager (the model called), predict (`model.predict`), graph (a `tf.function` of it)
    tf2                  eager (`tf.config.run_functions_eagerly`), graph (its own `tf.function`)
    tf1                  graph (a session)
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from lockstep.exporters.conversion import ATTENTION_MASK, INPUT_IDS, INPUT_NAMES, LENGTHS, OPENERS, SourceFiles, resolve
from lockstep.exporters.source import Framework

Run = Callable[[Any, Any], Any]
"""From int64[batch, length] and int64[batch] to float32[batch, labels]."""


def main() -> None:
    """Open the source and answer until the other end closes."""
    files = SourceFiles.model_validate_json(sys.stdin.readline())
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw", encoding="utf-8") as channel:
        modes = _answered(channel, partial(_open, files))
        if modes is None:
            return
        _tell(channel, {"modes": list(modes)})
        for line in channel:
            request = json.loads(line)
            run = modes[request["mode"]]
            ids = np.array(request["ids"], dtype=np.int64)
            lengths = np.array(request["lengths"], dtype=np.int64)
            timed = _answered(channel, partial(_time, run, ids, lengths))
            if timed is not None:
                _tell(channel, timed)


def _open(files: SourceFiles) -> Mapping[str, Run]:
    source = resolve(OPENERS[files.framework])(files)
    if files.framework is Framework.KERAS:
        return _keras_modes(source, files)
    if files.framework is Framework.TF2:
        return {"eager": _without_graphs(source.outputs), "graph": source.outputs}
    return {"graph" if files.framework is Framework.TF1 else "eager": source.outputs}


def _keras_modes(source: Any, files: SourceFiles) -> Mapping[str, Run]:
    import tensorflow as tf

    from lockstep.exporters.converters.tensorflow_forms import labelled

    def fed(ids: Any, lengths: Any) -> Any:
        mask = (np.arange(ids.shape[1])[None, :] < lengths[:, None]).astype(np.int64)
        arrays = {INPUT_IDS: ids, ATTENTION_MASK: mask, LENGTHS: lengths}
        taken = [arrays[name] for name in INPUT_NAMES if name in source.takes]
        return taken[0] if len(taken) == 1 else taken

    def eager(ids: Any, lengths: Any) -> Any:
        return labelled(source.model(fed(ids, lengths), training=False), files).numpy()

    def predict(ids: Any, lengths: Any) -> Any:
        answer = source.model.predict(fed(ids, lengths), batch_size=len(ids), verbose=0)
        return labelled(tf.constant(answer), files).numpy()

    return {"eager": eager, "predict": predict, "graph": source.outputs}


def _without_graphs(run: Run) -> Run:
    """Return the same run with every `tf.function` executed as the Python that it was made of."""
    import tensorflow as tf

    def eager(ids: Any, lengths: Any) -> Any:
        tf.config.run_functions_eagerly(True)
        try:
            return run(ids, lengths)
        finally:
            tf.config.run_functions_eagerly(False)

    return eager


def _time(run: Run, ids: Any, lengths: Any) -> dict[str, Any]:
    cpu_ns, wall_ns = time.process_time_ns(), time.monotonic_ns()
    outputs = run(ids, lengths)
    wall_ns, cpu_ns = time.monotonic_ns() - wall_ns, time.process_time_ns() - cpu_ns
    return {"wall_ns": wall_ns, "cpu_ns": cpu_ns, "outputs": np.asarray(outputs, dtype=np.float32).tolist()}


def _answered(channel: Any, do: Callable[[], Any]) -> Any:
    """Return what `do` returns, or `None` once the other end was told why not."""
    try:
        return do()
    except Exception as error:  # the other end decides what becomes of it
        _tell(channel, {"error": f"{type(error).__name__}: {error}"})
        return None


def _tell(channel: Any, message: Mapping[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
