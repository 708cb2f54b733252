"""ONNX Runtime executes `onnx` artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.runtimes.base import Ids, Lengths, Outputs, feeds, rounded_up

if TYPE_CHECKING:
    import onnxruntime


class OnnxRuntimeAdapter:
    """A session over one ONNX file."""

    def __init__(self, session: onnxruntime.InferenceSession, artifact: ArtifactSpec, *, on_gpu: bool) -> None:
        self._session = session
        self._artifact = artifact
        self._on_gpu = on_gpu

    @classmethod
    def load(cls, artifact: ArtifactSpec, budget: Budget) -> OnnxRuntimeAdapter:
        """Open a session; raises `ValueError` where the device is not there, else ONNX Runtime's own errors."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = budget.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Cores are shared with the gateway and other workers: a spinning thread takes theirs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[object] = ["CPUExecutionProvider"]
        # On CPUs this fusion was measured 10 to 16 % slower than the operators it replaces.
        disabled = ["SkipLayerNormFusion"]
        if budget.device != "cpu":
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise ValueError(f"device {budget.device}: this ONNX Runtime has no CUDA provider")
            onnxruntime.preload_dlls()
            ordinal = int(budget.device.partition(":")[2] or 0)
            # TF32 is off: it would break the parity that let this artifact be published.
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": ordinal, "use_tf32": "0"}))
            disabled = []
        session = onnxruntime.InferenceSession(
            artifact.path, options, providers=providers, disabled_optimizers=disabled
        )
        if budget.device != "cpu" and "CUDAExecutionProvider" not in session.get_providers():
            raise ValueError(f"device {budget.device}: ONNX Runtime could not open it and fell back to the CPU")
        return cls(session, artifact, on_gpu=budget.device != "cpu")

    @property
    def versions(self) -> dict[str, str]:
        """The version of ONNX Runtime."""
        import onnxruntime

        return {"onnxruntime": str(onnxruntime.__version__)}

    def execute(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Run one batch."""
        if self._on_gpu:
            return self._execute_bound(ids, lengths)
        (outputs,) = self._session.run([self._artifact.logits.name], feeds(self._artifact, ids, lengths))
        return np.ascontiguousarray(outputs, dtype=np.float32)

    def _execute_bound(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Run one batch on a GPU: inputs and output are bound, so that each crosses the bus once.

        Never replayed from a captured CUDA graph: the recurrent kernels read `sequence_lens` on the host, and a
        replay would use the lengths of another batch.
        """
        rows = len(ids)
        ids, lengths = rounded_up(ids, lengths)
        binding = self._session.io_binding()
        for name, array in feeds(self._artifact, ids, lengths).items():
            binding.bind_cpu_input(name, array)
        binding.bind_output(self._artifact.logits.name, "cpu")
        self._session.run_with_iobinding(binding)
        (outputs,) = binding.copy_outputs_to_cpu()
        return np.ascontiguousarray(outputs[:rows], dtype=np.float32)
