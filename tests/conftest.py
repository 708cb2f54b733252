from collections.abc import Iterator

import pytest

from tests.processes import children

pytest_plugins = ["tests.tiny.fixtures"]


@pytest.fixture(autouse=True, scope="module")
def _no_process_is_left_behind() -> Iterator[None]:
    """Blame the tests that left a process behind, not the later ones that find it."""
    before = children()
    yield
    assert children() <= before, "these tests left processes behind, running or unreaped"
