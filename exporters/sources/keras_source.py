"""Keras sources: a `.keras` file under the TensorFlow backend, whichever backend it was saved under.

A source that derives its mask from the ids gets `lengths` in its artifact: the ids beyond each row's end
are set to what the source masks before it sees them, so that no answer depends on what stands there.
"""

from __future__ import annotations

import zipfile
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
from lockstep.exporters.converters.tensorflow_forms import ending, inside, serving_function, versions

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class KerasSource:
    """A model in inference mode, and what each of its inputs is."""

    def __init__(self, model: keras.Model, takes: tuple[str, ...], files: SourceFiles) -> None:
        self.model = model
        self.takes = takes  # of INPUT_NAMES, in the order of the model's inputs
        self._files = files
        ordered = tuple(name for name in INPUT_NAMES if name in takes)
        self.inputs = (INPUT_IDS, LENGTHS) if ordered == (INPUT_IDS,) else ordered  # of the artifact
        self._run = serving_function(self._call, ordered, files)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Keras and its backend."""
        import keras

        return {"keras": str(keras.__version__), **versions()}

    @property
    def columns(self) -> int:
        """Columns of the model's answer."""
        shape = self.model.outputs[0].shape
        return 1 if len(shape) == 1 else int(shape[-1])

    def outputs(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Run the model as its author would: no input but its own, no ids but the given."""
        mask = (np.arange(ids.shape[1])[None, :] < lengths[:, None]).astype(np.int64)
        arrays = {INPUT_IDS: ids, ATTENTION_MASK: mask, LENGTHS: lengths}
        answer = self._run(*(arrays[name] for name in INPUT_NAMES if name in self.takes))
        outputs: Outputs = answer[LOGITS].numpy()
        return outputs

    def ending(self, ids: Ids, lengths: Lengths) -> Ending | None:
        """Return the operator that its graph ends in."""
        del ids, lengths
        return ending(self._run)

    def serving(self, model: keras.Model | None = None) -> tf.Function:
        """Return the artifact's function, of the model itself or of a copy that takes the same inputs."""

        def answer(**tensors: tf.Tensor) -> tf.Tensor:
            return self._call(model=model, **self._sealed(tensors))

        return serving_function(answer, self.inputs, self._files)

    def _sealed(self, tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Set the ids beyond each row's end to the id that the source masks."""
        import tensorflow as tf

        ids = tensors[INPUT_IDS]
        kept = inside(ids, tensors[LENGTHS]) if LENGTHS in tensors else tf.not_equal(tensors[ATTENTION_MASK], 0)
        fill = 0 if self._masks_zero() else self._files.pad_id
        sealed = ids * tf.cast(kept, ids.dtype) if fill == 0 else tf.where(kept, ids, fill)
        return {**tensors, INPUT_IDS: sealed}

    def _masks_zero(self) -> bool:
        return any(getattr(layer, "mask_zero", False) for layer in self.model._flatten_layers())

    def _call(self, *, model: keras.Model | None = None, **tensors: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        called = model or self.model
        fed = [tf.cast(tensors[name], tensor.dtype) for name, tensor in zip(self.takes, called.inputs, strict=True)]
        return called(fed[0] if len(fed) == 1 else fed, training=False)


def open_source(files: SourceFiles) -> KerasSource:
    """Load the model in safe mode, which runs no code of the file's; raises `SourceError`."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise SourceError(f"Keras runs on {keras.backend.backend()}; exports need KERAS_BACKEND=tensorflow")
    try:
        model = keras.models.load_model(files.weights, compile=False, safe_mode=True)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{files.weights}: not a whole .keras file ({error})") from error
    except (ValueError, TypeError, OSError, KeyError, EOFError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(f"{files.weights}: cannot be loaded in Keras' safe mode: {reason}") from error
    if len(model.outputs) != 1:
        raise SourceError(f"{files.weights}: the model has {len(model.outputs)} outputs, not one")
    return KerasSource(model, _takes(model), files)


def _takes(model: keras.Model) -> tuple[str, ...]:
    for tensor in model.inputs:
        if tensor.dtype == "string":
            raise SourceError(
                f"the model takes text ({tensor.name!r} is of dtype string), and this version exports models that take "
                "token ids: export the layers after its TextVectorization, with a tokenizer of the same words"
            )
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False):
            raise SourceError(
                f"the layer {layer.name!r} is stateful: its answer to a row depends on the rows before; build it with "
                "stateful=False"
            )
    names = [tensor.name for tensor in model.inputs]
    if len(names) == 1:
        return (INPUT_IDS,)
    if INPUT_IDS not in names or not set(names) <= set(INPUT_NAMES):
        raise SourceError(f"the model's inputs are {names}: name them of {', '.join(INPUT_NAMES)}")
    return tuple(names)


Swap = Callable[[Any], Any]
"""From a layer to what takes its place; itself where it stays."""


def has_layer_graph(model: keras.Model) -> bool:
    """Return whether the model is a graph of layers, not a subclass with code of its own."""
    import keras

    return isinstance(model, keras.Sequential) or hasattr(model, "operations")


def swapped(model: keras.Model, swap: Swap) -> keras.Model:
    """Return a copy of a graph of layers with some swapped; the others are shared, weights and all."""
    import keras

    return keras.models.clone_model(model, clone_function=swap, recursive=True)
