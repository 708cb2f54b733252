"""TensorFlow 1 sources: the author's graph-building function with its checkpoint.

`build(input_ids, lengths)` adds the model to the default graph, over `tf.compat.v1`, and returns
[batch, labels]. Its cells live in tf_keras now: TensorFlow finds them where TF_USE_LEGACY_KERAS is set.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lockstep.exporters.conversion import INPUT_IDS, LENGTHS, LOGITS, Ending, Ids, Outputs, SourceError, SourceFiles
from lockstep.exporters.conversion import Lengths as LengthsArray
from lockstep.exporters.converters.tensorflow_forms import labelled, versions
from lockstep.exporters.gate.tensorflow_ending import ending_of
from lockstep.exporters.sources.user_code import build_function

if TYPE_CHECKING:
    import tensorflow as tf

INPUTS = (INPUT_IDS, LENGTHS)


class Tf1Source:
    """A graph with the model in it, and a session that holds its variables."""

    def __init__(
        self, session: tf.compat.v1.Session, inputs: dict[str, tf.Tensor], logits: tf.Tensor, columns: int
    ) -> None:
        self.session = session
        self.tensors = inputs
        self.logits = logits
        self.columns = columns  # of the model's answer

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what the graph is fed."""
        return INPUTS

    @property
    def versions(self) -> dict[str, str]:
        """The versions of TensorFlow and of what its cells are."""
        from importlib import metadata

        return {**versions(), "tf_keras": metadata.version("tf_keras")}

    def outputs(self, ids: Ids, lengths: LengthsArray) -> Outputs:
        """Run the graph as its author would: in a session."""
        outputs: Outputs = self.session.run(self.logits, {self.tensors[INPUT_IDS]: ids, self.tensors[LENGTHS]: lengths})
        return outputs

    def ending(self, ids: Ids, lengths: LengthsArray) -> Ending | None:
        """Return the operator that the graph ends in."""
        del ids, lengths
        return ending_of(self.session.graph, self.logits.name)


def open_source(files: SourceFiles) -> Tf1Source:
    """Build the graph and restore its checkpoint; raises `SourceError` naming what is at fault."""
    return build_graph(files, prepare(files))


def prepare(files: SourceFiles) -> Callable[..., Any]:
    """Import the author's function, with TensorFlow 1's cells to be found; raises `SourceError`."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported, by the author's code or by ours
    return build_function(files.build, files.python_path)


def build_graph(files: SourceFiles, build: Callable[..., Any]) -> Tf1Source:
    """As `open_source`, with the author's function imported already."""
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.logging.set_verbosity(v1.logging.ERROR)  # that all of this is deprecated is known
    with tf.Graph().as_default() as graph:
        ids = v1.placeholder(tf.int64, [None, None], name=INPUT_IDS)
        lengths = v1.placeholder(tf.int64, [None], name=LENGTHS)
        answer = build(ids, lengths)
        if not isinstance(answer, tf.Tensor):
            raise SourceError(f"build {files.build!r} returned a {type(answer).__name__}, not a tensor [batch, labels]")
        logits = tf.identity(labelled(answer, files), name=LOGITS)
        columns = int(answer.shape[1]) if answer.shape.rank == 2 else 1
        variables = v1.global_variables()
        if not variables:
            raise SourceError(f"build {files.build!r} made no variables")
        threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS", "1"))
        config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1)
        session = v1.Session(graph=graph, config=config)
        try:
            v1.train.Saver(variables).restore(session, str(files.weights))
        except (tf.errors.OpError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SourceError(f"checkpoint {files.weights} does not fit {files.build}: {reason}") from error
    return Tf1Source(session, {INPUT_IDS: ids, LENGTHS: lengths}, logits, columns)
