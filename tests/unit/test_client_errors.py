import grpc
import pytest

from lockstep.clients import errors
from lockstep.clients.errors import ERROR_BY_STATUS, CallError, Overloaded, RowError, RowsFailed, pushback_s, status_of
from lockstep.clients.results import raise_for_errors


def test_every_status_but_ok_has_an_error() -> None:
    assert set(ERROR_BY_STATUS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


def test_the_drawing_in_the_docstring_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for status, kind in ERROR_BY_STATUS.items():
        (line,) = [line for line in drawn.splitlines() if f"─ {kind.__name__} " in line]
        assert status.name in line


def test_only_unavailable_is_retried_unasked_and_only_overload_besides_it_when_asked() -> None:
    unasked = {status for status, kind in ERROR_BY_STATUS.items() if kind("", code=status).may_retry}
    asked = {status for status, kind in ERROR_BY_STATUS.items() if kind("", code=status, pushback_s=0.1).may_retry}
    assert unasked == {grpc.StatusCode.UNAVAILABLE}
    assert asked == {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_negative_pushback_means_never() -> None:
    for status, kind in ERROR_BY_STATUS.items():
        assert not kind("", code=status, pushback_s=-0.001).may_retry


@pytest.mark.parametrize(
    ("value", "seconds"), [("250", 0.25), ("0", 0.0), ("-1", -0.001), ("soon", -1.0), ("1.5", -1.0)]
)
def test_pushback_is_read_from_the_trailing_metadata(value: str, seconds: float) -> None:
    assert pushback_s((("other", "1"), ("grpc-retry-pushback-ms", value))) == seconds


def test_no_metadata_means_no_pushback() -> None:
    assert pushback_s(None) is None
    assert pushback_s(()) is None


def test_a_status_that_grpc_does_not_define_reads_as_unknown() -> None:
    assert status_of(99) is grpc.StatusCode.UNKNOWN


def test_a_row_error_becomes_the_exception_of_its_status() -> None:
    row = RowError("Overloaded", grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    error = row.as_exception()
    assert type(error) is Overloaded
    assert str(error) == "full"


def test_raise_for_errors_names_the_first_row_and_keeps_all() -> None:
    rows = [
        RowError("InputTooLong", grpc.StatusCode.INVALID_ARGUMENT, "600 tokens, at most 512"),
        RowError("InvalidInput", grpc.StatusCode.INVALID_ARGUMENT, "empty"),
    ]
    with pytest.raises(RowsFailed, match="2 of 2 rows failed; row 0: InputTooLong: 600 tokens") as caught:
        raise_for_errors(rows)
    assert dict(caught.value.errors) == dict(enumerate(rows))


def test_every_error_of_a_call_keeps_its_status() -> None:
    assert isinstance(CallError("x", code=grpc.StatusCode.ABORTED).code, grpc.StatusCode)
