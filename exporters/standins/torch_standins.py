"""Stand-ins that carry lengths through PyTorch code: what they take the place of, and how they are put there.

In a copy of the author's module each `nn.RNN`, `nn.GRU` and `nn.LSTM` is swapped for a stand-in, each cell for
one that `run_cell` may be given, and `pack_padded_sequence` / `pad_packed_sequence` for a pair that passes the
padded tensor and its lengths along. The author's own code round them runs as it is while the graph is captured.

Knows no artifact: `torch_fused` and `torch_packed` make the stand-ins of layers, and what becomes of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from lockstep.exporters.standins import recurrent_loop
from lockstep.exporters.standins.rebinding import rebound
from lockstep.exporters.standins.recurrence import UnsupportedRecurrence

if TYPE_CHECKING:
    import torch


class StandInLayer(NamedTuple):
    """What takes a recurrent layer's place, and how many operators it will be."""

    module: torch.nn.Module
    operators: int


MakeLayer = Callable[[Any], StandInLayer]
"""From an `nn.RNN`, `nn.GRU` or `nn.LSTM`; raises `UnsupportedRecurrence`."""


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


def stand_in(module: torch.nn.Module, make_layer: MakeLayer) -> StandInLayer:
    """Return a copy of `module` with its recurrent layers and cells swapped.

    The copy runs while `packing_stands_in` only. Raises `UnsupportedRecurrence`.
    """
    swapped = copy.deepcopy(module)
    operators = 0
    if _is_recurrent(swapped):
        swapped, count = make_layer(swapped)
        operators += count
    for parent in list(swapped.modules()):
        for name, child in list(parent.named_children()):
            if _is_recurrent(child):
                replacement, count = make_layer(child)
            elif _is_cell(child):
                replacement, count = _stand_in_cell(child, make_layer)
            else:
                continue
            setattr(parent, name, replacement)
            operators += count
    return StandInLayer(swapped, operators)


@contextmanager
def packing_stands_in() -> Iterator[None]:
    """Have every call of the functions round the layers pass lengths along.

    Not for a process with other threads of torch.
    """
    from torch.nn.utils import rnn

    replacements: dict[Callable[..., Any], Callable[..., Any]] = {
        rnn.pack_padded_sequence: _pack_padded_sequence,
        rnn.pad_packed_sequence: _pad_packed_sequence,
        recurrent_loop.run_cell: _run_cell,
    }
    with rebound(replacements):
        yield


def stand_in_base(module: Any) -> type[Any]:
    """Return the class that a stand-in of this layer extends by `run`.

    `run(x, lengths, initial)` is given x float32[length, batch, features], the lengths int64[batch] where the
    rows have ends, and the initial states (none, or h, or h and c); it answers the steps' outputs float32[length,
    batch, directions * hidden] and the final states float32[layers * directions, batch, hidden] of each row.
    """
    import torch

    batch_first = module.batch_first

    class StandIn(torch.nn.Module):  # type: ignore[misc]  # the framework has no types here
        def __init__(self) -> None:
            super().__init__()
            # The author's code may read the layer's sizes.
            for name in ("input_size", "hidden_size", "num_layers", "bidirectional", "batch_first"):
                setattr(self, name, getattr(module, name))

        def flatten_parameters(self) -> None:
            """Do nothing: there is no cuDNN here."""

        def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
            packed = input if isinstance(input, Packed) else None
            x = packed.data if packed else input.transpose(0, 1) if batch_first else input
            if x.dim() != 3:
                raise UnsupportedRecurrence("a recurrent layer that is given one row without its batch axis")
            initial = hx if isinstance(hx, tuple) else (hx,) if hx is not None else ()
            y, final = self.run(x, packed.lengths if packed else None, initial)
            state = final if len(final) == 2 else final[0]
            if packed:
                return Packed(y, packed.lengths), state
            return (y.transpose(0, 1) if batch_first else y), state

    return StandIn


def refuse_projection(module: Any) -> None:
    """Raise `UnsupportedRecurrence` where an LSTM projects its state."""
    if module.proj_size:
        raise UnsupportedRecurrence("an LSTM with proj_size: no operator with lengths has a projection")


def _is_recurrent(module: torch.nn.Module) -> bool:
    import torch

    fused = (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM)
    # A subclass with a `forward` of its own is the author's code, and stays.
    return isinstance(module, fused) and type(module).forward in [base.forward for base in fused]


def _is_cell(module: torch.nn.Module) -> bool:
    import torch

    cells = (torch.nn.RNNCell, torch.nn.GRUCell, torch.nn.LSTMCell)
    return isinstance(module, cells) and type(module).forward in [base.forward for base in cells]


def _stand_in_cell(cell: Any, make_layer: MakeLayer) -> StandInLayer:
    """Return a cell that takes a step as it did, and has its whole loop as `loop`."""
    import torch

    more = {"nonlinearity": cell.nonlinearity} if isinstance(cell, torch.nn.RNNCell) else {}
    kinds = {torch.nn.RNNCell: torch.nn.RNN, torch.nn.GRUCell: torch.nn.GRU, torch.nn.LSTMCell: torch.nn.LSTM}
    (kind,) = (layer for base, layer in kinds.items() if isinstance(cell, base))
    layer = kind(cell.input_size, cell.hidden_size, bias=cell.bias, **more)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    made = make_layer(layer.eval().requires_grad_(False))
    cell.loop = made.module
    return StandInLayer(cell, made.operators)


def _run_cell(cell: Any, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Take the place of `recurrent_loop.run_cell`, which says what it is given and answers."""
    if not hasattr(cell, "loop"):
        raise UnsupportedRecurrence(
            "run_cell was given a cell that is no attribute of the module, or of a kind of its own"
        )
    packed, state = cell.loop(Packed(inputs.transpose(0, 1), lengths))
    final = tuple(part[0] for part in state) if isinstance(state, tuple) else state[0]
    return packed.data.transpose(0, 1), final


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
