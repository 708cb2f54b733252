"""TensorFlow 1 -> SavedModel: the graph as its author built it, with the artifact's signature."""

from __future__ import annotations

from pathlib import Path

from lockstep.exporters.conversion import LOGITS, Conversion, Say, SourceFiles, Status, activation_of, output_of
from lockstep.exporters.sources.tf1_source import open_source


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Write a SavedModel into `folder`; raises `SourceError`."""
    import tensorflow as tf

    source = open_source(files)
    say("writing the SavedModel")
    folder.rmdir()  # it insists on making the folder itself
    with source.session.graph.as_default():
        tf.compat.v1.saved_model.simple_save(source.session, str(folder), source.tensors, {LOGITS: source.logits})
    return Conversion(
        path=".",
        inputs=source.inputs,
        output=output_of(files),
        activation=activation_of(source.columns, files),
        method="saved_model",
        status=Status.EXACT,
        versions=source.versions,
    )
