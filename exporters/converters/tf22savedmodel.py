"""TensorFlow -> SavedModel: the module's own function, with the artifact's signature."""

from __future__ import annotations

from pathlib import Path

from lockstep.exporters.conversion import Conversion, Say, SourceFiles, Status, activation_of, output_of
from lockstep.exporters.converters.tensorflow_forms import save
from lockstep.exporters.sources.tf2_source import open_source


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Write a SavedModel into `folder`; raises `SourceError`."""
    source = open_source(files)
    say("writing the SavedModel")
    save(source.serving, source.module, folder)
    return Conversion(
        path=".",
        inputs=source.inputs,
        output=output_of(files),
        activation=activation_of(source.columns, files),
        method="saved_model",
        status=Status.EXACT,
        versions=source.versions,
    )
