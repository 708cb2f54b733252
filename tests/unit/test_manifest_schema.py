"""The schema of manifests that is published is the one that the server holds them against."""

import json
from pathlib import Path

from lockstep.server.repository.manifest import Manifest
from tests import doubles

PUBLISHED = Path(__file__).resolve().parents[2] / "docs" / "manifest.schema.json"


def test_the_published_schema_is_the_servers() -> None:
    assert json.loads(PUBLISHED.read_text()) == Manifest.model_json_schema(), (
        "run: python -m lockstep.server.repository.manifest > docs/manifest.schema.json"
    )


def test_a_manifest_of_before_truncation_had_a_side_is_cut_on_the_right(tmp_path: Path) -> None:
    manifest = json.loads((doubles.publish(tmp_path, "old") / "manifest.json").read_text())
    del manifest["truncation_side"]
    assert Manifest.model_validate_json(json.dumps(manifest)).truncation_side == "right"
