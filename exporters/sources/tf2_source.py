"""TensorFlow sources: the author's `tf.Module` with its checkpoint, called by the names of its inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lockstep.exporters.conversion import (
    ATTENTION_MASK,
    INPUT_IDS,
    INPUT_NAMES,
    LENGTHS,
    LOGITS,
    Ending,
    Ids,
    Lengths,
    Outputs,
    SourceError,
    SourceFiles,
)
from lockstep.exporters.converters.tensorflow_forms import ending, serving_function, versions
from lockstep.exporters.sources.user_code import build_function

if TYPE_CHECKING:
    import tensorflow as tf


class Tf2Source:
    """A module whose `__call__` is a `tf.function`, and the dtype of each input that it takes."""

    def __init__(self, module: tf.Module, takes: dict[str, tf.DType], files: SourceFiles) -> None:
        self.module = module
        self.inputs = tuple(name for name in INPUT_NAMES if name in takes)
        self.columns = 0  # of the module's answer; known once its graph is traced
        self._takes = takes
        self.serving = serving_function(self._call, self.inputs, files)
        """The artifact's function, which is the module's own."""
        self.serving.get_concrete_function()

    @property
    def versions(self) -> dict[str, str]:
        """The version of TensorFlow."""
        return versions()

    def outputs(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Run the module's function."""
        mask = (np.arange(ids.shape[1])[None, :] < lengths[:, None]).astype(np.int64)
        arrays = {INPUT_IDS: ids, ATTENTION_MASK: mask, LENGTHS: lengths}
        outputs: Outputs = self.serving(*(arrays[name] for name in self.inputs))[LOGITS].numpy()
        return outputs

    def ending(self, ids: Ids, lengths: Lengths) -> Ending | None:
        """Return the operator that its graph ends in."""
        del ids, lengths
        return ending(self.serving)

    def _call(self, **tensors: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        answer = self.module(**{name: tf.cast(tensors[name], self._takes[name]) for name in self.inputs})
        if isinstance(answer, dict) and len(answer) == 1:
            (answer,) = answer.values()
        if not isinstance(answer, tf.Tensor):
            raise SourceError(f"__call__ returned a {type(answer).__name__}, not a tensor [batch, labels]")
        self.columns = int(answer.shape[1]) if answer.shape.rank == 2 and answer.shape[1] else 1
        return answer


def open_source(files: SourceFiles, prepare: Callable[[tf.Module], None] | None = None) -> Tf2Source:
    """Build the module and restore its checkpoint; raises `SourceError` naming what is at fault.

    `prepare` is given the module before its graph is traced.
    """
    build = build_function(files.build, files.python_path)  # before the import below, which takes seconds
    import tensorflow as tf

    module = build()
    if not isinstance(module, tf.Module):
        raise SourceError(f"build {files.build!r} returned a {type(module).__name__}, not a tf.Module")
    if prepare is not None:
        prepare(module)
    source = Tf2Source(module, _takes(module), files)  # traces it, so that variables made late exist
    try:
        status = tf.train.Checkpoint(model=module).read(str(files.weights))
        status.assert_existing_objects_matched()
    except AssertionError as error:
        raise SourceError(f"checkpoint {files.weights} does not fit {files.build}: {error}") from error
    except (tf.errors.OpError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(f"checkpoint {files.weights}: cannot be read: {reason}") from error
    if not module.variables:
        raise SourceError(f"build {files.build!r} returned a module without variables")
    return source


def _takes(module: tf.Module) -> dict[str, tf.DType]:
    import tensorflow as tf

    function = module.__call__
    python = getattr(function, "python_function", None)
    if python is None:
        raise SourceError(f"{type(module).__name__}.__call__ is not a tf.function: decorate it")
    parameters: dict[str, Any] = {
        name: parameter for name, parameter in inspect.signature(python).parameters.items() if name != "self"
    }
    signature = getattr(function, "input_signature", None) or [tf.TensorSpec(None, tf.int64) for _ in parameters]
    unknown = [name for name in parameters if name not in INPUT_NAMES]
    if unknown or INPUT_IDS not in parameters or len(parameters) < 2 or len(signature) != len(parameters):
        raise SourceError(
            f"__call__({', '.join(parameters)}): it must take input_ids, and attention_mask or lengths "
            "(or both), by these names, and nothing else"
        )
    return {name: spec.dtype for name, spec in zip(parameters, signature, strict=True)}
