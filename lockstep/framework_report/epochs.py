"""Static against dynamic lengths, and eager against graph, in training: a part of an epoch in each framework.

Each condition is a process of its own, since frameworks alter what is process-wide. Figures are of one core.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

from lockstep import child_processes
from lockstep.exporters.source import Framework
from lockstep.framework_report.gather import Gathered, ModelRow
from lockstep.framework_report.interleaved_benchmark import one_thread_environment
from lockstep.framework_report.measurement import Measurement, MeasuringFailed, Say
from lockstep.framework_report.settings import Settings, fingerprint
from lockstep.zoo import train as trainings
from lockstep.zoo.corpus import Corpus

DYNAMIC: Final = "dynamic"
EAGER: Final = "eager"
_HAS_GRAPHS_TO_LEAVE: Final = (Framework.KERAS, Framework.TF2)


def measurements(gathered: Gathered, settings: Settings, corpus: Corpus, tokenizer: Path) -> list[Measurement]:
    """List one measurement for each model that stands for a framework and each condition, trained before or not."""
    found = []
    for row in gathered.rows:
        if row.id not in settings.epochs:
            continue
        made_of = trainings.fingerprint(row.entry, trainings.Materials(corpus, tokenizer))
        conditions: dict[str, list[str]] = {DYNAMIC: []}
        conditions |= {f"fixed-{length}": ["--length", str(length)] for length in settings.epoch_lengths}
        if row.framework in _HAS_GRAPHS_TO_LEAVE:
            conditions[EAGER] = ["--eager"]
        for name, flags in conditions.items():
            texts = settings.eager_texts if name == EAGER else settings.epoch_texts
            of = fingerprint("epochs", made_of, {"flags": flags, "texts": texts})
            run = partial(_measure, row, corpus.folder, tokenizer, ["--texts", str(texts), *flags])
            found.append(Measurement(f"epochs/{row.id}/{name}", of, run))
    return found


def _measure(row: ModelRow, corpus: Path, tokenizer: Path, flags: list[str], say: Say) -> dict[str, Any]:
    """Return what the process tells."""
    say("training")
    ours, theirs = os.pipe()
    command = child_processes.command("lockstep.framework_report.epoch_process:main", row.id, "--fd", str(theirs))
    command += ["--corpus", str(corpus), "--tokenizer", str(tokenizer), *flags]
    with os.fdopen(ours, encoding="utf-8") as channel, tempfile.TemporaryFile() as words:
        try:
            process = subprocess.Popen(
                command,
                pass_fds=[theirs],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                env=one_thread_environment(**dict(row.entry.family.environment)),
                start_new_session=True,  # Ctrl-C is ours to answer
            )
        finally:
            os.close(theirs)
        try:
            line = channel.readline()
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if not line:
            words.seek(0)
            last = words.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise MeasuringFailed(f"the training of {row.id} ended with status {code}: {last or 'without a word'}")
    told: dict[str, Any] = json.loads(line)
    if told["steps"] < 1:
        raise MeasuringFailed(f"the training of {row.id} made one step, which is not counted: give it more texts")
    return told
