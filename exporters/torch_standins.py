"""Stand-ins that carry lengths through PyTorch code and become ONNX's fused recurrent operators.

In a copy of the author's module each `nn.RNN`, `nn.GRU` and `nn.LSTM` is swapped for a stand-in, and
`pack_padded_sequence` / `pad_packed_sequence` for a pair that passes the padded tensor and its lengths
along. The author's own code round them runs as it is while the graph is captured.

Gates, from https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers to ONNX: LSTM i,f,g,o -> i,o,f,c;
GRU r,z,n -> z,r,h with `linear_before_reset`; the input's bias and the hidden state's concatenated.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.recurrence import (
    SIGMOID,
    TANH,
    Activation,
    Recurrence,
    RecurrenceKind,
    UnsupportedRecurrence,
    bidirectional,
    reorder,
)

if TYPE_CHECKING:
    import torch

_GATE_ORDER = {RecurrenceKind.RNN: (0,), RecurrenceKind.GRU: (1, 0, 2), RecurrenceKind.LSTM: (0, 3, 1, 2)}


def describe(module: torch.nn.RNNBase) -> tuple[Recurrence, ...]:
    """Return a description of each layer, the first layer first; raises `UnsupportedRecurrence`."""
    if module.proj_size:
        raise UnsupportedRecurrence("an LSTM with proj_size: ONNX's operator has no projection")
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


@dataclass(frozen=True, slots=True)
class Packed:
    """What stands for a `PackedSequence`: the padded tensor itself, time first, and its lengths.

    `data` is all steps of all rows, as in a `PackedSequence`, but padded: a function of each step alone
    (a linear layer, a dropout, an activation) may be applied to it and put back by `_replace`.
    """

    data: torch.Tensor  # float32[length, batch, features]
    lengths: torch.Tensor  # int64[batch]

    def _replace(self, *, data: torch.Tensor) -> Packed:
        return Packed(data, self.lengths)

    def to(self, *_: object, **__: object) -> Packed:
        """Stay where it is, as an export runs on one device."""
        return self


def stand_in(module: torch.nn.Module) -> tuple[torch.nn.Module, int]:
    """Return a copy of `module` with its recurrent layers swapped, and how many operators they will be.

    The copy runs while `packing_stands_in` only. Raises `UnsupportedRecurrence`.
    """
    swapped = copy.deepcopy(module)
    operators = 0
    if _is_recurrent(swapped):
        swapped, count = _stand_in_layer(swapped)
        operators += count
    for parent in list(swapped.modules()):
        for name, child in list(parent.named_children()):
            if _is_recurrent(child):
                replacement, count = _stand_in_layer(child)
                setattr(parent, name, replacement)
                operators += count
    return swapped, operators


@contextmanager
def packing_stands_in() -> Iterator[None]:
    """Swap the packing functions in every loaded module, and back. Not for a process with other threads of torch."""
    from torch.nn.utils import rnn

    pairs = (
        (rnn.pack_padded_sequence, _pack_padded_sequence),
        (rnn.pad_packed_sequence, _pad_packed_sequence),
    )
    for original, replacement in pairs:
        _swap_everywhere(original, replacement)
    try:
        yield
    finally:
        for original, replacement in pairs:
            _swap_everywhere(replacement, original)


def _is_recurrent(module: torch.nn.Module) -> bool:
    import torch

    fused = (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM)
    # A subclass with a `forward` of its own is the author's code, and stays.
    return isinstance(module, fused) and type(module).forward in [base.forward for base in fused]


def _swap_everywhere(original: object, replacement: object) -> None:
    """Rebind every global that is `original`: authors import these functions by name."""
    for module in list(sys.modules.values()):
        if module.__name__ == __name__:
            continue
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is original:
                setattr(module, name, replacement)


def _pack_padded_sequence(
    input: torch.Tensor,
    lengths: torch.Tensor | list[int],
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> Packed:
    import torch

    if not isinstance(lengths, torch.Tensor):
        raise UnsupportedRecurrence(
            "pack_padded_sequence was given lengths that are not a tensor: pass the tensor itself "
            "(`lengths` or `lengths.cpu()`, not `lengths.tolist()`), or the batch axis freezes"
        )
    return Packed(input.transpose(0, 1) if batch_first else input, lengths)


def _pad_packed_sequence(
    sequence: Packed,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unlike the original, answer the whole length axis, not the longest row's: batches are padded to that."""
    import torch

    data = sequence.data  # [length, batch, features]
    if padding_value != 0.0:
        steps = torch.arange(data.shape[0], device=data.device)
        inside = steps[:, None, None] < sequence.lengths[None, :, None]
        data = torch.where(inside, data, padding_value)
    return (data.transpose(0, 1) if batch_first else data), sequence.lengths.to(torch.int64)


def _stand_in_layer(module: Any) -> tuple[torch.nn.Module, int]:
    """Return the stand-in of one `nn.RNN`, `nn.GRU` or `nn.LSTM` (of all its layers)."""
    import torch

    recurrences = describe(module)
    batch_first = module.batch_first

    class StandIn(torch.nn.Module):  # type: ignore[misc]  # the framework has no types here
        """Takes and answers what the layer does, by one fused operator a layer."""

        def __init__(self) -> None:
            super().__init__()
            # The author's code may read the layer's sizes.
            for name in ("input_size", "hidden_size", "num_layers", "bidirectional", "batch_first"):
                setattr(self, name, getattr(module, name))
            for layer, recurrence in enumerate(recurrences):
                self.register_buffer(f"w{layer}", torch.from_numpy(recurrence.weights))
                self.register_buffer(f"r{layer}", torch.from_numpy(recurrence.recurrent_weights))
                self.register_buffer(f"b{layer}", torch.from_numpy(recurrence.biases))

        def flatten_parameters(self) -> None:
            """Do nothing: there is no cuDNN here."""

        def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
            packed = input if isinstance(input, Packed) else None
            x = packed.data if packed else input.transpose(0, 1) if batch_first else input
            if x.dim() != 3:
                raise UnsupportedRecurrence("a recurrent layer that is given one row without its batch axis")
            lengths = packed.lengths.to(torch.int32) if packed else None
            initial = hx if isinstance(hx, tuple) else (hx,) if hx is not None else ()
            finals: list[list[torch.Tensor]] = []
            first = 0
            for layer, recurrence in enumerate(recurrences):
                states = [state[first : first + recurrence.directions] for state in initial]
                x, *final = self._operator(layer, recurrence, x, lengths, states)
                finals.append(final)
                first += recurrence.directions
            answered = tuple(torch.cat(layers, dim=0) for layers in zip(*finals, strict=True))
            state = answered if len(answered) == 2 else answered[0]
            if packed:
                return Packed(x, packed.lengths), state
            return (x.transpose(0, 1) if batch_first else x), state

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

    return StandIn(), len(recurrences)
