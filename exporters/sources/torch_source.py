"""PyTorch sources: the author's module with its weights, called by the names of its inputs."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lockstep.exporters.conversion import (
    ATTENTION_MASK,
    INPUT_IDS,
    INPUT_NAMES,
    LENGTHS,
    Ending,
    Ids,
    Lengths,
    Outputs,
    SourceError,
    SourceFiles,
    is_single_column,
)
from lockstep.exporters.gate.torch_ending import ending_of
from lockstep.exporters.sources.user_code import build_function

if TYPE_CHECKING:
    import torch


class TorchSource:
    """A module in inference mode, and which of the input names its `forward` takes."""

    def __init__(self, module: torch.nn.Module, inputs: tuple[str, ...], files: SourceFiles) -> None:
        self.module = module
        self.inputs = inputs
        self._files = files

    @property
    def versions(self) -> dict[str, str]:
        """The version of PyTorch."""
        import torch

        return {"torch": str(torch.__version__)}

    def outputs(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Run the module as its author would."""
        return self.run(self.module, ids, lengths)

    def run(self, module: torch.nn.Module, ids: Ids, lengths: Lengths) -> Outputs:
        """Run a module of these inputs eagerly, without gradients."""
        import torch

        with torch.inference_mode():
            answer = module(**self.feeds(ids, lengths))
            outputs: Outputs = labelled(answer, self._files).float().numpy()
        return outputs

    def ending(self, ids: Ids, lengths: Lengths) -> Ending | None:
        """Return the operator that computes the module's answer to these rows."""
        return ending_of(lambda: self.module(**self.feeds(ids, lengths)))

    def feeds(self, ids: Ids, lengths: Lengths) -> dict[str, torch.Tensor]:
        """Return the arguments of `forward` by name."""
        import torch

        mask = (np.arange(ids.shape[1])[None, :] < lengths[:, None]).astype(np.int64)
        arrays = {INPUT_IDS: ids, ATTENTION_MASK: mask, LENGTHS: lengths}
        return {name: torch.from_numpy(arrays[name]) for name in self.inputs}


def open_source(files: SourceFiles) -> TorchSource:
    """Build the module and load its weights; raises `SourceError` naming what is at fault."""
    build = build_function(files.build, files.python_path)  # before the import below, which takes seconds
    import torch

    module = build()
    if not isinstance(module, torch.nn.Module):
        raise SourceError(f"build {files.build!r} returned a {type(module).__name__}, not a torch.nn.Module")
    state = read_weights(files.weights)
    try:
        module.load_state_dict(with_tied(module, state))
    except RuntimeError as error:  # names the keys and shapes that do not match
        raise SourceError(f"{files.weights} does not fit {files.build}: {error}") from error
    module.eval().requires_grad_(False)
    return TorchSource(module, _inputs(module), files)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict without running any code that the file may hold.

    `.safetensors`, or PyTorch's own format under `weights_only=True`. Raises `SourceError`.
    """
    import safetensors
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            read: dict[str, torch.Tensor] = safetensors.torch.load_file(path)
            return read
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except safetensors.SafetensorError as error:
        raise SourceError(f"{path}: not a whole safetensors file ({error})") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise SourceError(
            f"{path}: refused ({reason}). Only tensors are read: save a state_dict, best as .safetensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SourceError(f"{path}: holds a {type(state).__name__}, not a state_dict of tensors")
    return state


def with_tied(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the state dict with the names that `safetensors.torch.save_model` leaves out.

    It writes a tensor that the module has under several names (tied weights) under one of them.
    """
    import torch

    names: dict[tuple[int, torch.Size, tuple[int, ...]], list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            names.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), []).append(name)
    whole = dict(state)
    for shared in names.values():
        stored = next((name for name in shared if name in state), None)
        if stored is not None:
            whole |= {name: state[stored] for name in shared if name not in state}
    return whole


def labelled(answer: Any, files: SourceFiles) -> torch.Tensor:
    """Return [batch, labels] of what `forward` returned; a single sigmoid column becomes two labels."""
    import torch

    if not isinstance(answer, torch.Tensor):
        raise SourceError(f"forward returned a {type(answer).__name__}, not a tensor [batch, labels]")
    if answer.dim() == 1:
        answer = answer.unsqueeze(1)
    if answer.dim() != 2:
        raise SourceError(f"forward returned {answer.dim()} axes, not [batch, labels]")
    if not is_single_column(int(answer.shape[1]), files):
        return answer
    other = 1 - answer if files.output == "probabilities" else torch.zeros_like(answer)
    return torch.cat([other, answer], dim=1)


def _inputs(module: torch.nn.Module) -> tuple[str, ...]:
    parameters = inspect.signature(module.forward).parameters
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    unknown = [name for name in required if name not in INPUT_NAMES]
    taken = tuple(name for name in INPUT_NAMES if name in parameters)
    if unknown or INPUT_IDS not in taken or len(taken) < 2:
        raise SourceError(
            f"forward({', '.join(parameters)}): it must take input_ids, and attention_mask or lengths "
            "(or both), by these names, and need nothing else"
        )
    return taken
