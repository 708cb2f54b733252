"""The schema of manifests that is published is the one that the server holds them against."""

import json
from pathlib import Path

from lockstep.server.repository.manifest import Manifest

PUBLISHED = Path(__file__).resolve().parents[2] / "docs" / "manifest.schema.json"


def test_the_published_schema_is_the_servers() -> None:
    assert json.loads(PUBLISHED.read_text()) == Manifest.model_json_schema(), (
        "run: python -m lockstep.server.repository.manifest > docs/manifest.schema.json"
    )
