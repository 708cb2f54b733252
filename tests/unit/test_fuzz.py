"""A short run of the fuzzer; `python -m tests.fuzz --seconds 600` is the long one."""

import pytest

from tests.fuzz.driver import broken_by
from tests.fuzz.properties import properties

with properties() as known:
    NAMES = tuple(known)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_comes_is_read_or_refused_by_name(name: str) -> None:
    with properties() as promises:
        error = broken_by(promises[name], examples=300, seed=5)
    if error is not None:
        raise error
