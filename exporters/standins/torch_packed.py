"""PyTorch's recurrent layers in an exported program: as eager PyTorch runs them, packed, by its own operators.

`torch.export` unrolls a recurrent layer over the steps of its example, which freezes the length axis. So a
stand-in is captured as one node that no decomposition knows, and the finished graph has that node replaced by
what `pack_padded_sequence`, the layer and `pad_packed_sequence` run themselves: `aten.sort`,
`aten._pack_padded_sequence`, `aten.lstm.data` and their like. The saved program names PyTorch's own operators
only, and needs no code of ours or of the author's.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lockstep.exporters.standins.torch_standins import StandInLayer, refuse_projection, stand_in_base

if TYPE_CHECKING:
    import torch

_NAME = "lockstep::recurrence"
_SCHEMA = (
    "(Tensor x, Tensor lengths, Tensor[] states, Tensor[] weights, "
    "str kind, bool biases, int layers, bool both) -> Tensor[]"
)


def packed_layer(module: Any) -> StandInLayer:
    """Return the stand-in of one `nn.RNN`, `nn.GRU` or `nn.LSTM`, all its layers one node."""
    import torch

    refuse_projection(module)
    recurrence = _placeholder()
    kind = module.mode.lower()  # of aten: lstm, gru, rnn_tanh, rnn_relu
    names = list(module._flat_weights_names)
    states = 2 if kind == "lstm" else 1

    class PackedLayer(stand_in_base(module)):  # type: ignore[misc]  # the framework has no types here
        """Takes and answers what the layer does."""

        def __init__(self) -> None:
            super().__init__()
            for name in names:
                self.register_buffer(name, getattr(module, name).detach())

        def run(
            self, x: torch.Tensor, lengths: torch.Tensor | None, initial: tuple[torch.Tensor, ...]
        ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            length, batch = x.shape[0], x.shape[1]
            if lengths is None:  # no row ends before the others
                lengths = torch.full((batch,), length, dtype=torch.int64, device=x.device)
            if not initial:
                directions = 2 if module.bidirectional else 1
                zero = x.new_zeros(module.num_layers * directions, batch, module.hidden_size)
                initial = (zero,) * states
            weights = [getattr(self, name) for name in names]
            y, *final = recurrence(
                x, lengths, list(initial), weights, kind, module.bias, module.num_layers, module.bidirectional
            )
            return y, tuple(final)

    return StandInLayer(PackedLayer(), module.num_layers)


def expand(program: Any) -> None:
    """Replace every stand-in's node of an `ExportedProgram` by PyTorch's own operators."""
    graph = program.graph
    target = _placeholder()._opoverload
    for node in [node for node in graph.nodes if node.target is target]:
        outputs = _Expansion(graph, node).outputs()
        for use in list(node.users):
            use.replace_all_uses_with(outputs[use.args[1]])
            graph.erase_node(use)
        graph.erase_node(node)
    graph.lint()
    program.graph_module.recompile()


class _Expansion:
    """What one node becomes. Every node made is told its value's shape, since nothing is captured anew."""

    def __init__(self, graph: Any, node: Any) -> None:
        self._graph = graph
        self._node = node

    def outputs(self) -> list[Any]:
        """Return the nodes of the steps' outputs and of the final states."""
        import torch

        aten = torch.ops.aten
        x, lengths, states, weights, kind, biases, layers, both = self._node.args
        y, *finals = self._node.meta["val"]
        steps, batch, features = x.meta["val"].shape
        row = lengths.meta["val"]
        with self._graph.inserting_before(self._node), x.meta["val"].fake_mode:
            # How many steps the rows have together is known when they are: at most all.
            some = steps * batch
            length = self._call(aten.sym_size.int, (x, 0), steps)
            ordered, order = self._parts(aten.sort.default, (lengths, 0, True), (row, row))
            # Packing reads the lengths on the CPU, whatever the device.
            on_cpu = self._call(aten._to_copy.default, (ordered,), row.cpu(), {"device": torch.device("cpu")})
            sorted_x = self._pick(x, order)
            data, sizes = self._parts(
                aten._pack_padded_sequence.default,
                (sorted_x, on_cpu, False),
                (x.meta["val"].new_empty((some, features)), row.new_empty((steps,), device="cpu")),
            )
            initial = [self._pick(state, order) for state in states]
            operator_of = getattr(aten, kind).data
            packed, *ends = self._parts(
                operator_of,
                (data, sizes, initial if kind == "lstm" else initial[0], weights, biases, layers, 0.0, False, both),
                (y.new_empty((some, y.shape[2])), *finals),
            )
            padded, _ = self._parts(
                aten._pad_packed_sequence.default, (packed, sizes, False, 0.0, length), (y, row.cpu())
            )
            back = self._call(aten.argsort.default, (order,), row)
            return [self._pick(part, back) for part in (padded, *ends)]

    def _pick(self, tensor: Any, order: Any) -> Any:
        """Reorder the rows of [_, batch, _]."""
        import torch

        return self._call(torch.ops.aten.index_select.default, (tensor, 1, order), tensor.meta["val"].clone())

    def _parts(self, target: Any, arguments: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        whole = self._call(target, arguments, tuple(value for value in values))
        return [self._call(operator.getitem, (whole, place), value) for place, value in enumerate(values)]

    def _call(self, target: Any, arguments: Sequence[Any], value: Any, named: dict[str, Any] | None = None) -> Any:
        node = self._graph.call_function(target, tuple(arguments), named or {})
        node.meta["val"] = value
        return node


@functools.cache
def _placeholder() -> Any:
    """Return the operator that a stand-in is captured as; it is defined once in a process, and never run."""
    import torch

    @torch.library.custom_op(_NAME, mutates_args=(), schema=_SCHEMA)  # type: ignore[untyped-decorator]
    def recurrence(*_: Any) -> Any:
        raise AssertionError("a stand-in is captured, never run")

    @recurrence.register_fake  # type: ignore[untyped-decorator]
    def _(x: Any, lengths: Any, states: Any, weights: Any, kind: str, biases: bool, layers: int, both: bool) -> Any:
        width = weights[1].shape[1] * (2 if both else 1)
        return [x.new_empty(x.shape[0], x.shape[1], width), *(torch.empty_like(state) for state in states)]

    return recurrence
