"""Which adapter loads which runtime's artifacts. Names only: an adapter is imported in its worker, never here."""

from __future__ import annotations

ADAPTERS: dict[str, str] = {
    "onnxruntime": "lockstep.server.runtimes.onnxruntime_adapter:OnnxRuntimeAdapter",
    "tensorflow": "lockstep.server.runtimes.tensorflow_adapter:TensorFlowAdapter",
    "torch": "lockstep.server.runtimes.torch_adapter:TorchAdapter",
}
"""Runtime name -> `module:class` of its `base.Adapter`."""
