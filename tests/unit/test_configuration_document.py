"""docs/configuration.md shows files that the server reads."""

import re
import tomllib
from pathlib import Path

import pytest

from lockstep.server.config import ServerConfig

DOCUMENT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
EXAMPLES = re.findall(r"^## (.+?)\n.*?```toml\n(.*?)```", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("title", "text"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_every_example_is_a_configuration(title: str, text: str) -> None:
    assert ServerConfig.model_validate(tomllib.loads(text)), title


def test_every_example_of_the_document_is_found() -> None:
    assert len(EXAMPLES) == DOCUMENT.count("```toml") > 0
