"""PyTorch's recurrent layers as ONNX's fused operators.

Gates, from https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers to ONNX: LSTM i,f,g,o -> i,o,f,c;
GRU r,z,n -> z,r,h with `linear_before_reset`; the input's bias and the hidden state's concatenated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lockstep.exporters.standins.recurrence import (
    SIGMOID,
    TANH,
    Activation,
    Recurrence,
    RecurrenceKind,
    bidirectional,
    reorder,
)
from lockstep.exporters.standins.torch_standins import StandInLayer, refuse_projection, stand_in_base

if TYPE_CHECKING:
    import torch

_GATE_ORDER = {RecurrenceKind.RNN: (0,), RecurrenceKind.GRU: (1, 0, 2), RecurrenceKind.LSTM: (0, 3, 1, 2)}


def describe(module: torch.nn.RNNBase) -> tuple[Recurrence, ...]:
    """Return a description of each layer, the first layer first; raises `UnsupportedRecurrence`."""
    refuse_projection(module)
    layers = []
    for layer in range(module.num_layers):
        forward = _describe_direction(module, f"_l{layer}", "forward")
        if module.bidirectional:
            backward = _describe_direction(module, f"_l{layer}_reverse", "reverse")
            layers.append(bidirectional(forward, backward))
        else:
            layers.append(forward)
    return tuple(layers)


def _describe_direction(module: torch.nn.RNNBase, suffix: str, direction: str) -> Recurrence:
    kind = RecurrenceKind(module.mode.partition("_")[0])
    order = _GATE_ORDER[kind]
    weights = reorder(_array(module, f"weight_ih{suffix}"), order)
    recurrent_weights = reorder(_array(module, f"weight_hh{suffix}"), order)
    if module.bias:
        parts = [_array(module, f"bias_ih{suffix}"), _array(module, f"bias_hh{suffix}")]
        biases = np.concatenate([reorder(part, order) for part in parts])
    else:
        biases = np.zeros(2 * len(weights), dtype=np.float32)
    activations: dict[RecurrenceKind, tuple[Activation, ...]] = {
        RecurrenceKind.RNN: (Activation("Relu") if module.mode == "RNN_RELU" else TANH,),
        RecurrenceKind.GRU: (SIGMOID, TANH),
        RecurrenceKind.LSTM: (SIGMOID, TANH, TANH),
    }
    return Recurrence(
        kind=kind,
        input_size=weights.shape[1],
        hidden_size=module.hidden_size,
        direction=direction,
        weights=weights[None],
        recurrent_weights=recurrent_weights[None],
        biases=biases[None],
        linear_before_reset=kind is RecurrenceKind.GRU,
        activations=activations[kind],
    )


def _array(module: torch.nn.Module, name: str) -> Any:
    return getattr(module, name).detach().float().numpy()


def fused_layer(module: torch.nn.RNNBase) -> StandInLayer:
    """Return the stand-in of one `nn.RNN`, `nn.GRU` or `nn.LSTM`: one fused operator for each of its layers."""
    import torch

    recurrences = describe(module)

    class Fused(stand_in_base(module)):  # type: ignore[misc]  # the framework has no types here
        """Takes and answers what the layer does."""

        def __init__(self) -> None:
            super().__init__()
            for layer, recurrence in enumerate(recurrences):
                self.register_buffer(f"w{layer}", torch.from_numpy(recurrence.weights))
                self.register_buffer(f"r{layer}", torch.from_numpy(recurrence.recurrent_weights))
                self.register_buffer(f"b{layer}", torch.from_numpy(recurrence.biases))

        def run(
            self, x: torch.Tensor, lengths: torch.Tensor | None, initial: tuple[torch.Tensor, ...]
        ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            ends = None if lengths is None else lengths.to(torch.int32)
            finals: list[list[torch.Tensor]] = []
            first = 0
            for layer, recurrence in enumerate(recurrences):
                states = [state[first : first + recurrence.directions] for state in initial]
                x, *final = self._operator(layer, recurrence, x, ends, states)
                finals.append(final)
                first += recurrence.directions
            return x, tuple(torch.cat(layers, dim=0) for layers in zip(*finals, strict=True))

        def _operator(
            self,
            layer: int,
            recurrence: Recurrence,
            x: torch.Tensor,
            lengths: torch.Tensor | None,
            initial: list[torch.Tensor],
        ) -> list[torch.Tensor]:
            length, batch = x.shape[0], x.shape[1]
            hidden, directions = recurrence.hidden_size, recurrence.directions
            weights = [getattr(self, f"{name}{layer}") for name in "wrb"]
            state = [directions, batch, hidden]
            y, *final = torch.onnx.ops.symbolic_multi_out(
                recurrence.kind.value,
                [x, *weights, lengths, *initial],
                recurrence.attributes,
                dtypes=[torch.float32] * (1 + recurrence.states),
                shapes=[[length, directions, batch, hidden], *[state] * recurrence.states],
            )
            # [length, directions, batch, hidden] -> [length, batch, directions * hidden]
            y = y.transpose(1, 2).flatten(2) if directions == 2 else y.squeeze(1)
            return [y, *final]

    return StandInLayer(Fused(), len(recurrences))
