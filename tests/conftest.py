from collections.abc import Iterator

import pytest

from tests.processes import children

pytest_plugins = ["tests.tiny.fixtures"]


@pytest.fixture(autouse=True)
def _no_process_is_left_behind() -> Iterator[None]:
    """Blame the test that left a process behind, not the later ones that find it."""
    before = children()
    yield
    assert children() <= before, "the test left processes behind, running or unreaped"
