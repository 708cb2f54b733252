"""Which of the served models and backends a person means. Pure: knows only what the server listed."""

from __future__ import annotations

from collections.abc import Sequence

from lockstep.clients.errors import ClientError
from lockstep.clients.results import ServedModel


class ChoiceUnclear(ClientError):
    """The name is not served, or none was given where there are several; lists what there is."""


def choose_model(served: Sequence[ServedModel], wanted: str | None) -> ServedModel:
    """Return the model of that name, or the only one that takes calls; raises `ChoiceUnclear`.

    One that was refused or unloaded is listed without backends: whoever names it hears the reason from the server.
    """
    for model in served:
        if model.name == wanted:
            return model
    taking_calls = [model for model in served if model.backends or model.ready]
    listed = ", ".join(model.name for model in taking_calls)
    if not taking_calls:
        raise ChoiceUnclear("the server serves no model")
    if wanted is None:
        if len(taking_calls) == 1:
            return taking_calls[0]
        raise ChoiceUnclear(f"which model? The server serves: {listed}")
    raise ChoiceUnclear(f"the server has no model {wanted!r}; it serves: {listed}")


def choose_backends(model: ServedModel, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the backends of those names in that order, or all of the model's; raises `ChoiceUnclear`."""
    served = tuple(backend.name for backend in model.backends)
    if not served:
        raise ChoiceUnclear(f"the server lists no backend of model {model.name!r}")
    unknown = [name for name in wanted if name not in served]
    if unknown:
        raise ChoiceUnclear(f"model {model.name!r} has no backend {', '.join(unknown)}; it has: {', '.join(served)}")
    return tuple(dict.fromkeys(wanted)) or served
