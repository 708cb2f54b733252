"""TensorFlow executes `saved_model` artifacts."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.runtimes.base import Ids, Lengths, Outputs, feeds, rounded_up

SIGNATURE = "serving_default"


class TensorFlowAdapter:
    """The serving signature of one SavedModel."""

    def __init__(self, loaded: Any, artifact: ArtifactSpec, *, on_gpu: bool) -> None:
        # The loaded object owns the variables that the signature uses: keep both.
        self._loaded = loaded
        self._signature = loaded.signatures[SIGNATURE]
        self._artifact = artifact
        self._on_gpu = on_gpu

    @classmethod
    def load(cls, artifact: ArtifactSpec, budget: Budget) -> TensorFlowAdapter:
        """Load the SavedModel; raises `ValueError` where the device is not there, else TensorFlow's own errors."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        if budget.device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(budget.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        if budget.device != "cpu":
            ordinal = int(budget.device.partition(":")[2] or 0)
            gpus = tf.config.list_physical_devices("GPU")
            if ordinal >= len(gpus):
                raise ValueError(f"device {budget.device}: TensorFlow sees {len(gpus)} GPUs")
            tf.config.set_visible_devices(gpus[ordinal], "GPU")
            tf.config.experimental.set_memory_growth(gpus[ordinal], True)
            tf.config.experimental.enable_tensor_float_32_execution(False)
        loaded = tf.saved_model.load(artifact.path)
        if SIGNATURE not in loaded.signatures:
            raise ValueError(f"the SavedModel has no signature {SIGNATURE!r}, only {sorted(loaded.signatures)}")
        return cls(loaded, artifact, on_gpu=budget.device != "cpu")

    @property
    def versions(self) -> dict[str, str]:
        """The version of TensorFlow."""
        import tensorflow as tf

        return {"tensorflow": str(tf.__version__)}

    def execute(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Run one batch."""
        import tensorflow as tf

        rows = len(ids)
        if self._on_gpu:
            ids, lengths = rounded_up(ids, lengths)
        named = {name: tf.constant(array) for name, array in feeds(self._artifact, ids, lengths).items()}
        outputs = self._signature(**named)[self._artifact.logits.name]
        return np.ascontiguousarray(outputs.numpy()[:rows], dtype=np.float32)
