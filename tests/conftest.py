import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import children

# Children of ours find nothing in the folder that they are started in; workers of tests run adapters of the tests.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])

pytest_plugins = ["tests.tiny.fixtures"]


@pytest.fixture(autouse=True, scope="module")
def _no_process_is_left_behind() -> Iterator[None]:
    """Blame the tests that left a process behind, not the later ones that find it."""
    before = children()
    yield
    assert children() <= before, "these tests left processes behind, running or unreaped"
