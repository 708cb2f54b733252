"""Keras -> SavedModel: the model's own graph, with the artifact's signature."""

from __future__ import annotations

from pathlib import Path

from lockstep.exporters.conversion import Conversion, Say, SourceFiles, Status, activation_of, output_of
from lockstep.exporters.converters.tensorflow_forms import save
from lockstep.exporters.sources.keras_source import open_source


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Write a SavedModel into `folder`; raises `SourceError`."""
    source = open_source(files)
    say("writing the SavedModel")
    # The variables alone: a tracked model would bring every layer's own functions along.
    save(source.serving(), [variable.value for variable in source.model.variables], folder)
    return Conversion(
        path=".",
        inputs=source.inputs,
        output=output_of(files),
        activation=activation_of(source.columns, files),
        method="saved_model",
        status=Status.EXACT,
        versions=source.versions,
    )
