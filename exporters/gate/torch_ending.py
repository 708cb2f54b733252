"""The operator that computes a PyTorch module's answer: what the numbers mean, where that can be seen.

The module is run once, and the operators that PyTorch dispatches are recorded: no capture of a graph, which fails on
much code that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lockstep.exporters.conversion import Ending, EndingKind

_PASSING = frozenset(
    {"view", "unsafe_view", "reshape", "squeeze", "unsqueeze", "to_copy", "clone", "alias", "detach", "contiguous"}
)
"""Operators that pass numbers on as they are, in their first argument."""

_PICKING = frozenset({"select", "slice", "index", "index_select", "gather"})
"""Operators that pass some of the numbers on, of their first argument."""

_KINDS: Mapping[str, EndingKind] = {
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    "hardsigmoid": "sigmoid",
    "log_softmax": "log_softmax",
    "log_sigmoid_forward": "log_sigmoid",
    "addmm": "affine",
}
_PRODUCTS = frozenset({"mm", "bmm", "addmm"})


def ending_of(run: Callable[[], Any]) -> Ending | None:
    """Return what computed the tensor that `run` returns; None where that does not tell what it means."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    producers: dict[int, tuple[str, tuple[Any, ...]]] = {}
    kept: list[Any] = []  # every result, so that no other gets its identity

    class Recorder(TorchDispatchMode):  # type: ignore[misc]  # the framework has no types here
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if args and result is args[0] and _name(function) in _PASSING:
                return result  # in place: what computed the numbers stays what it was
            for one in result if isinstance(result, tuple | list) else (result,):
                if isinstance(one, torch.Tensor):
                    kept.append(one)
                    producers[id(one)] = (_name(function), args)
            return result

    try:
        with torch.no_grad(), Recorder():
            answer = run()
    except Exception:  # code that runs may refuse to be recorded: what it answers without has to tell
        return None
    name, args, picked = _producer(producers, answer)
    if name in _KINDS:
        return Ending.of(_KINDS[name], name, picked=picked)
    before = [_producer(producers, one)[0] for one in args if isinstance(one, torch.Tensor)]
    if name == "add" and _PRODUCTS & set(before):
        return Ending(kind="affine", where="add of a matrix product")
    if name == "log" and before and before[0] in ("softmax", "sigmoid"):
        kind: EndingKind = "log_softmax" if before[0] == "softmax" else "log_sigmoid"
        return Ending.of(kind, f"log of {before[0]}", picked=picked)
    return None


def _producer(producers: Mapping[int, tuple[str, tuple[Any, ...]]], tensor: Any) -> tuple[str, tuple[Any, ...], bool]:
    """Return the operator that computed a tensor, its arguments, and whether only some of its numbers are passed on.

    Looks through the operators that pass numbers on.
    """
    name, args = producers.get(id(tensor), ("", ()))
    picked = False
    while args and (name in _PASSING or name in _PICKING):
        picked |= name in _PICKING
        name, args = producers.get(id(args[0]), ("", ()))
    return name, args, picked


def _name(function: Any) -> str:
    """Return an operator's plain name: `sigmoid` of `aten.sigmoid_.default`, `softmax` of `aten._softmax.default`."""
    return str(function).split(".")[1].strip("_")
