"""Each label has a name of its own, wherever labels come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from lockstep.commands.export import export
from lockstep.exporters.source import Description
from lockstep.server.core.labels import fault
from lockstep.server.repository.catalog import RefusedError, read_version
from tests import doubles
from tests.tiny.descriptions import DESCRIPTIONS


def test_labels_that_differ_are_fine() -> None:
    assert fault(["bad", "Bad", "bad "]) is None


@pytest.mark.parametrize(
    ("labels", "told"),
    [(["x", "y", "x"], "labels 1 and 3 are both 'x'"), (["x", " "], "label 2 of 2 is empty")],
)
def test_duplicates_and_empty_names_are_told_by_their_places(tmp_path: Path, labels: list[str], told: str) -> None:
    assert told in str(fault(labels))
    described = DESCRIPTIONS["tiny-bilstm"].model_dump(mode="json") | {"labels": labels}
    with pytest.raises(ValidationError, match=told):
        Description.model_validate(described)
    options = ("--name", "m", "--tokenizer", "t.json", "--labels", ",".join(labels))
    result = CliRunner().invoke(export, ["keras", "m.keras", *options])
    assert result.exit_code == 2
    assert f"labels: {told}" in result.output
    folder = doubles.publish(tmp_path, "model")
    doubles.rewrite_manifest(folder, labels=labels)
    with pytest.raises(RefusedError, match=rf"manifest\.json: labels: {told}"):
        read_version(folder)
