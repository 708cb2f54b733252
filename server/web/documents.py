"""What the use cases tell, as JSON documents: the fields of sentiment.v1's messages, by the same names.

Descriptions that have those names already, as lists and latency reports do, are written as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from aiohttp import web

from lockstep.server.backend_comparison import Comparison
from lockstep.server.core.errors import LockstepError
from lockstep.server.core.messages import Answer, Prediction

Document = dict[str, Any]
"""A JSON object."""


def response(document: object) -> web.Response:
    """Answer with a document, in which dataclasses stand for objects of their fields."""
    return web.json_response(text=json.dumps(document, default=_fields))


def _fields(one: object) -> Document:
    """Name an object's fields: `dataclasses.asdict` would copy them all first, which takes longer than writing them."""
    if not is_dataclass(one):
        raise TypeError(f"{type(one).__name__} cannot be written as JSON")
    return {field.name: getattr(one, field.name) for field in fields(one)}


def comparison(found: Comparison) -> Document:
    """Write a CompareResponse."""
    return {
        "model": found.model,
        "version": found.version,
        "labels": found.labels,
        "reference": found.reference or "",
        "agreement": found.agreement,
        "backends": [
            {
                "backend": one.backend,
                "held_to_float32": one.held_to_float32,
                "agreement": one.agreement,
                "error": _error(one.outcome) if isinstance(one.outcome, LockstepError) else None,
                "results": [] if isinstance(one.outcome, LockstepError) else _results(one.outcome),
            }
            for one in found.backends
        ],
    }


def failure(outcome: Prediction | LockstepError) -> LockstepError | None:
    """Return why a backend has no answer to the first text, where it has none."""
    first = outcome if isinstance(outcome, LockstepError) else outcome.outcomes[0]
    return first if isinstance(first, LockstepError) else None


def _results(prediction: Prediction) -> Sequence[Document]:
    return [
        {"error": _error(outcome)}
        if isinstance(outcome, LockstepError)
        else {"prediction": _prediction(prediction, outcome)}
        for outcome in prediction.outcomes
    ]


def _prediction(prediction: Prediction, answer: Answer) -> Document:
    return {
        "label": prediction.labels[answer.label],
        "probabilities": list(map(float, answer.probabilities)),
        "truncated": answer.encoding.truncated,
        "tokens": len(answer.encoding.ids),
        "backend": answer.batch.backend,
        "phases": {f"{name}_us": ns // 1000 for name, ns in prediction.phases(answer)._asdict().items()},
        "batch_rows": answer.batch.rows,
        "batch_tokens": answer.batch.length,
    }


def _error(error: LockstepError) -> Document:
    return {"kind": type(error).__name__, "message": error.message}
