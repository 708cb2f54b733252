import grpc
import pytest

from lockstep.clients.errors import InvalidInput, Overloaded, Unavailable
from lockstep.clients.retry import NEVER, RetryPolicy

UNAVAILABLE = Unavailable("", code=grpc.StatusCode.UNAVAILABLE)
POLICY = RetryPolicy(initial_s=0.1, longest_s=1.0)


def overloaded(pushback_s: float | None) -> Overloaded:
    return Overloaded("", code=grpc.StatusCode.RESOURCE_EXHAUSTED, pushback_s=pushback_s)


def test_waits_double_up_to_the_longest() -> None:
    waits = [POLICY.wait_s(UNAVAILABLE, attempt=n, remaining_s=60) for n in range(1, 7)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_the_dice_shorten_a_wait_by_half_at_most() -> None:
    assert POLICY.wait_s(UNAVAILABLE, attempt=1, remaining_s=60, dice=1.0) == pytest.approx(0.05)


def test_a_pushback_is_a_floor() -> None:
    assert POLICY.wait_s(overloaded(0.5), attempt=9, remaining_s=60) == pytest.approx(0.5)
    assert POLICY.wait_s(overloaded(0.5), attempt=9, remaining_s=60, dice=1.0) == pytest.approx(0.6)


def test_overload_without_pushback_is_final() -> None:
    assert POLICY.wait_s(overloaded(None), attempt=1, remaining_s=60) is None


def test_a_wait_that_would_reach_the_deadline_is_not_begun() -> None:
    assert POLICY.wait_s(UNAVAILABLE, attempt=1, remaining_s=0.1) is None
    assert POLICY.wait_s(UNAVAILABLE, attempt=1, remaining_s=0.11) is not None


def test_a_permanent_error_is_final() -> None:
    error = InvalidInput("", code=grpc.StatusCode.INVALID_ARGUMENT)
    assert POLICY.wait_s(error, attempt=1, remaining_s=60) is None


def test_attempts_bound_the_sendings() -> None:
    assert NEVER.wait_s(UNAVAILABLE, attempt=1, remaining_s=60) is None


def test_a_very_long_retry_does_not_overflow() -> None:
    assert POLICY.wait_s(UNAVAILABLE, attempt=10_000, remaining_s=60) == pytest.approx(1.0)
