"""PyTorch executes `torch` artifacts: an `ExportedProgram` in a `.pt2` archive, with none of its source's code."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.runtimes.base import Ids, Lengths, Outputs, feeds


class TorchAdapter:
    """The module of one exported program."""

    def __init__(self, module: Any, artifact: ArtifactSpec, device: Any) -> None:
        self._module = module
        self._artifact = artifact
        self._device = device

    @classmethod
    def load(cls, artifact: ArtifactSpec, budget: Budget) -> TorchAdapter:
        """Load the archive; raises `ValueError` where the device is not there, else PyTorch's own errors."""
        # An archive may hold pickles: never let one be more than tensors.
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        if budget.device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        import torch

        torch.set_num_threads(budget.threads)
        torch.set_num_interop_threads(1)
        device = torch.device("cpu")
        if budget.device != "cpu":
            device = torch.device("cuda", int(budget.device.partition(":")[2] or 0))
            gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if device.index >= gpus:
                raise ValueError(f"device {budget.device}: PyTorch sees {gpus} GPUs")
            # TF32 is off: it would break the parity that let this artifact be published.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        program = torch.export.load(artifact.path)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(device))
            _keep_packing_on_cpu(program)
        return cls(program.module(), artifact, device)

    @property
    def versions(self) -> dict[str, str]:
        """The version of PyTorch."""
        import torch

        return {"torch": str(torch.__version__)}

    def execute(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Run one batch."""
        import torch

        arrays = feeds(self._artifact, ids, lengths)
        # A copy: an exported program may answer views, and the buffer of the inputs is not ours to keep.
        inputs = [torch.tensor(array, device=self._device) for array in arrays.values()]
        with torch.inference_mode():
            outputs = self._module(*inputs).cpu().numpy()
        return np.ascontiguousarray(outputs, dtype=np.float32)


def _keep_packing_on_cpu(program: Any) -> None:
    """Leave on the CPU the lengths that packing reads there: moving the program to a GPU moved them too."""
    import torch

    for node in program.graph.nodes:
        if node.target is torch.ops.aten._pack_padded_sequence.default:
            lengths = node.args[1]
            lengths.kwargs = {**lengths.kwargs, "device": torch.device("cpu")}
    program.graph_module.recompile()
