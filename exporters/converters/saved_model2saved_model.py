"""SavedModel -> SavedModel: served as it is, its tensors named in the manifest."""

from __future__ import annotations

import shutil
from pathlib import Path

from lockstep.exporters.conversion import (
    LOGITS,
    SAVED_MODEL_SIGNATURE,
    Conversion,
    NamedTensor,
    Say,
    SourceFiles,
    Status,
    activation_of,
    output_of,
)
from lockstep.exporters.converters.tensorflow_forms import save
from lockstep.exporters.sources.saved_model_source import SavedModelSource, open_source


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Copy the SavedModel into `folder`, or wrap it where its signature is not an artifact's.

    Wrapped are a signature of another name, one with token types, and a single sigmoid column. Raises `SourceError`.
    """
    source = open_source(files)
    as_it_is = (
        files.signature == SAVED_MODEL_SIGNATURE
        and not source.found.zeros
        and source.columns == files.labels
        and source.found.logits.dtype == "float32"
    )
    if as_it_is:
        say("copying the SavedModel")
        shutil.copytree(files.weights, folder, dirs_exist_ok=True)
    else:
        say("wrapping the SavedModel in the artifact's signature")
        save(source.serving, source.loaded, folder)
    return Conversion(
        path=".",
        inputs=source.inputs,
        tensors=_named(source) if as_it_is else {},
        output=output_of(files),
        activation=activation_of(source.columns, files),
        method="saved_model" if as_it_is else "wrapped",
        status=Status.EXACT,
        versions=source.versions,
    )


def _named(source: SavedModelSource) -> dict[str, NamedTensor]:
    tensors = {**source.found.inputs, LOGITS: source.found.logits}
    return {
        ours: NamedTensor.model_validate({"name": theirs.name, "dtype": theirs.dtype})
        for ours, theirs in tensors.items()
    }
