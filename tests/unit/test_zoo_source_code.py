"""What of the zoo's source counts for a model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lockstep.zoo.registry import ENTRIES
from lockstep.zoo.source_code import lines_of_code, modules

MODEL = '''"""A module's own words
do not count."""

from lockstep.zoo.corpus import LABELS
from lockstep.zoo.small_layers import dense as layer

# Nor does a comment.
SIZE = 3
UNUSED = 4


@staticmethod
def build():
    """Nor do a function's words.

    However long.
    """
    # a remark

    return layer(
        SIZE, LABELS,
    )


def other():
    return UNUSED
'''

LAYERS = '''from lockstep.zoo.batches import pad


class Base:
    """Counted where a class is built on it."""

    size = 1


class Dense(Base):
    text = """three
lines

of text"""


def dense(size, labels):
    return Dense, pad, dense
'''


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add two modules to the package."""
    from lockstep import zoo

    (tmp_path / "small_models.py").write_text(MODEL)
    (tmp_path / "small_layers.py").write_text(LAYERS)
    monkeypatch.setattr(zoo, "__path__", [*zoo.__path__, str(tmp_path)])


@pytest.mark.usefixtures("small")
def test_lines_that_hold_code_count_wherever_they_are_used_from() -> None:
    model = 1 + 5  # SIZE; the decorator, the signature and the statement of three lines
    layers = 2 + 2 + 5 - 1  # dense; Base; Dense, whose text holds a blank line
    assert lines_of_code("lockstep.zoo.small_models:build") == model + layers
    assert lines_of_code("lockstep.zoo.small_models:other") == 1 + 2
    assert lines_of_code("lockstep.zoo.small_models:build", "lockstep.zoo.small_models:other") == model + layers + 3


@pytest.mark.usefixtures("small")
def test_model_is_made_of_the_modules_that_it_imports() -> None:
    assert modules(["lockstep.zoo.small_models"]) == (
        "lockstep.zoo.small_models",
        "lockstep.zoo.small_layers",
        "lockstep.zoo.batches",
    )
    assert "lockstep.zoo.small_models" not in sys.modules


def test_editing_one_family_leaves_the_others_as_they_are() -> None:
    made_of = {entry.id: set(modules([entry.module, entry.family.training])) for entry in ENTRIES.values()}
    families = {name: {module.partition("_")[0] for module in used} for name, used in made_of.items()}
    shared = {"lockstep.zoo.batches"}
    assert families["torch-lstm"] - shared == {"lockstep.zoo.torch"}
    assert families["keras-lstm"] - shared == {"lockstep.zoo.keras"}
    assert families["tf2-lstm"] - shared == {"lockstep.zoo.tf2"}
    assert families["tf1-gru"] - shared == {"lockstep.zoo.tf1"}
    assert not made_of["torch-lstm"] & {"lockstep.zoo.torch_cells", "lockstep.zoo.torch_transformer"}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda entry: entry.id)
def test_every_model_and_its_training_take_lines(entry: object) -> None:
    from lockstep.zoo.registry import Entry

    assert isinstance(entry, Entry)
    model = lines_of_code(entry.build)
    both = lines_of_code(entry.build, f"{entry.family.training}:learn")
    assert 0 < model < both < 200
