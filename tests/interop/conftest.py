from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import doubles
from tests.interop.environments import environment
from tests.serving import Served, serving


@pytest.fixture(scope="session")
def triton_python() -> Path:
    """The interpreter of an environment with tritonclient and a reflection client."""
    return environment("tritonclient")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A server of two models, one of them with a backend that only pinned rows start."""
    doubles.publish(tmp_path, "model")
    doubles.publish(tmp_path, "other", kinds=("onnx",))
    async with serving(tmp_path, doubles.ADAPTERS) as one:
        yield one
