"""The columns that are added to each row: label, score, probabilities, truncated, error. Knows no format's files."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from lockstep.clients.batch.batch_errors import ColumnsCollide
from lockstep.clients.errors import RowError
from lockstep.clients.results import Prediction, Result

if TYPE_CHECKING:
    import pyarrow as pa

ADDED: Final = ("label", "score", "probabilities", "truncated", "error")


class AnswerColumns:
    """The added columns, with a prefix to their names; `labels` are the model's, in its order."""

    def __init__(self, labels: Sequence[str], prefix: str = "") -> None:
        self.labels = tuple(labels)
        self.names = tuple(prefix + name for name in ADDED)
        self._names = frozenset(self.names)
        # What is the same in every row is written once: rows come by the million.
        keys = [_quoted(name).replace("%", "%%") for name in self.names]
        self._json = ", ".join(f"{key}: %s" for key in keys)

    def check(self, columns: Iterable[str], where: str = "the input") -> None:
        """Raise `ColumnsCollide` where a column has one of the names."""
        if not self._names.isdisjoint(columns):
            taken = set(columns)
            raise ColumnsCollide([name for name in self.names if name in taken], where)

    def json_members(self, result: Result) -> bytes:
        """Return the members of a JSON object, without its braces."""
        if isinstance(result, RowError):
            error = json.dumps(_message(result), ensure_ascii=False)
            return (self._json % ("null", "null", "null", "null", error)).encode("utf-8", "replace")
        return (
            self._json % (_quoted(result.label), repr(result.score), _object(result), _word(result.truncated), "null")
        ).encode()

    def csv_fields(self, result: Result) -> tuple[str, ...]:
        """Return the fields as text, not quoted yet; what is not there is empty."""
        if isinstance(result, RowError):
            return ("", "", "", "", _message(result))
        return (result.label, repr(result.score), _object(result), _word(result.truncated), "")

    def fields(self) -> list[pa.Field]:
        """Return the columns' types. The probabilities are a struct with a member for each label."""
        import pyarrow as pa

        probabilities = pa.struct([(label, pa.float32()) for label in self.labels])
        types = (pa.string(), pa.float32(), probabilities, pa.bool_(), pa.string())
        return [pa.field(name, kind) for name, kind in zip(self.names, types, strict=True)]

    def arrays(self, results: Sequence[Result]) -> list[pa.Array]:
        """Return the columns of these rows."""
        import pyarrow as pa

        found = [result if isinstance(result, Prediction) else None for result in results]
        columns: tuple[list[object], ...] = (
            [one and one.label for one in found],
            [one and one.score for one in found],
            [one and dict(one.probabilities) for one in found],
            [one and one.truncated for one in found],
            [_message(result) if isinstance(result, RowError) else None for result in results],
        )
        return [pa.array(column, field.type) for column, field in zip(columns, self.fields(), strict=True)]


def _message(error: RowError) -> str:
    return f"{error.kind}: {error.message}"


def _word(value: bool) -> str:
    return "true" if value else "false"


@functools.lru_cache(maxsize=1024)
def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _object(prediction: Prediction) -> str:
    members = (f"{_quoted(label)}: {probability!r}" for label, probability in prediction.probabilities.items())
    return f"{{{', '.join(members)}}}"
