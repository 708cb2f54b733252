"""The columns that are added to each row: label, score, probabilities, truncated, error. Knows no format's files."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clients.batch.errors import ColumnsCollide
from clients.results import Prediction, Result, RowError

if TYPE_CHECKING:
    import pyarrow as pa

ADDED: Final = ("label", "score", "probabilities", "truncated", "error")


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The added columns, with a prefix to their names; `labels` are the model's, in its order."""

    labels: tuple[str, ...]
    prefix: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names as they are written."""
        return tuple(self.prefix + name for name in ADDED)

    def check(self, columns: Iterable[str], where: str = "the input") -> None:
        """Raise `ColumnsCollide` where a column has one of the names."""
        taken = set(columns)
        if found := [name for name in self.names if name in taken]:
            raise ColumnsCollide(found, where)

    def json_members(self, result: Result) -> bytes:
        """Return the members of a JSON object, without its braces."""
        label, score, probabilities, truncated, error = (_quoted(name) for name in self.names)
        if isinstance(result, RowError):
            return (
                f"{label}: null, {score}: null, {probabilities}: null, {truncated}: null, "
                f"{error}: {json.dumps(_message(result), ensure_ascii=False)}"
            ).encode("utf-8", "replace")
        return (
            f"{label}: {_quoted(result.label)}, {score}: {result.score!r}, {probabilities}: {_object(result)}, "
            f"{truncated}: {_word(result.truncated)}, {error}: null"
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
