"""docs/protocol*.md say what the code does: their tables are compared with the code's own."""

import re
from collections.abc import Iterator
from pathlib import Path

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.core import errors
from lockstep.server.core.timing import Phases
from lockstep.server.rpc import guard, inference, status
from lockstep.server.rpc.model_config import INPUTS, outputs

DOCUMENT = "\n".join(path.read_text() for path in sorted((Path(__file__).parents[2] / "docs").glob("protocol*.md")))


def rows_under(heading: str) -> Iterator[list[str]]:
    """Yield the cells of every row of the tables under a heading, heads left out."""
    (section,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    for line in section.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def declared(file: object) -> set[str]:
    (service,) = file.DESCRIPTOR.services_by_name.values()  # type: ignore[attr-defined]
    return {method.name for method in service.methods}


def test_every_method_is_listed_and_every_other_is_told_to_be_unimplemented() -> None:
    assert {names(row[0])[0] for row in rows_under("Open Inference")} == declared(oip)
    assert {names(row[0])[0] for row in rows_under(r"sentiment\.v1")} == declared(pb)
    not_here = [name for row in rows_under("Not here") if len(row) == 2 for name in names(row[0])]
    assert sorted(not_here) == sorted(inference._NOT_HERE)


def test_tensors_are_as_the_models_describe_them() -> None:
    table = {names(name)[0]: (kind, datatype, shape) for name, kind, datatype, shape, _ in rows_under("Tensors")}
    labels = 7

    def shape(sizes: tuple[int, ...]) -> str:
        words = {-1: "length", labels: "labels", 1: "1"}
        return f"[{', '.join(['n', *(words[size] for size in sizes[1:])])}]"

    told = {one.name: ("in", one.datatype, shape(one.shape)) for one in INPUTS}
    told |= {one.name: ("out", one.datatype, shape(one.shape)) for one in outputs(labels)}
    assert table == told


def test_parameters_are_those_that_are_read_and_written() -> None:
    table = [(names(name)[0], kind) for name, kind, _, _ in rows_under("Parameters")]
    of_requests = {*inference._PARAMETERS, inference._ASKS_FOR_THE_LAST}
    assert {name for name, kind in table if kind == "request"} == of_requests
    assert {name for name, kind in table if kind == "response"} == {"backend", "<phase>_us", inference._IS_THE_LAST}
    (phases,) = [row[3] for row in rows_under("Parameters") if names(row[0]) == ["<phase>_us"]]
    assert phases.partition(": ")[2].split(", ") == list(Phases._fields)
    (extensions,) = [row[1] for row in rows_under("Open Inference") if names(row[0]) == ["ServerMetadata"]]
    assert names(extensions) == list(inference.EXTENSIONS)


def test_errors_have_the_statuses_of_the_table() -> None:
    table = {names(row[0])[0]: row[1] for row in rows_under("Errors") if hasattr(errors, names(row[0])[0])}
    assert table == {error.__name__: code.name for error, code in status.STATUS.items()}


def test_metadata_keys_are_those_that_are_read_and_written() -> None:
    keys = {names(row[0])[0] for row in rows_under("Errors") if not hasattr(errors, names(row[0])[0])}
    assert keys == {guard.AUTHORIZATION_KEY, status.REQUEST_ID_KEY, status.PUSHBACK_KEY}


def test_statistics_are_all_defined() -> None:
    defined = {names(row[0])[0] for row in rows_under("Statistics")} | {"cache_hit", "cache_miss"}
    fields = set(oip.ModelStatistics.DESCRIPTOR.fields_by_name) | set(oip.InferStatistics.DESCRIPTOR.fields_by_name)
    assert defined == fields - {"name", "version", "inference_stats"}
