"""The whole way of a source: converted, verified, published, or refused with the reason.

Composes the other files of this package; each conversion and the source's own run have a process each.
`export_model` is the plain entry; `export_model_async` shares its process slots with other exports.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from lockstep.exporters import processes
from lockstep.exporters.conversion import (
    ATTENTION_MASK,
    CONVERTERS,
    INPUT_IDS,
    LENGTHS,
    LOGITS,
    VARIANTS,
    Conversion,
    ConversionError,
    ConvertJob,
    ExportError,
    Reference,
    ReferenceJob,
    Say,
    SourceError,
    SourceFiles,
    Status,
    artifact_of,
    runtime_of,
)
from lockstep.exporters.converters.onnx_file import status_of
from lockstep.exporters.gate import held_out, label_order, output_meaning, verification
from lockstep.exporters.gate.held_out import HeldOut
from lockstep.exporters.gate.output_meaning import Meaning
from lockstep.exporters.gate.parity import Accuracy, Refusal, VariantBound, accuracy
from lockstep.exporters.publish import (
    TOKENIZER_FILE,
    check_name,
    checksums,
    fingerprint,
    latest,
    publish,
    staging,
)
from lockstep.exporters.source import Description, Framework
from lockstep.exporters.sources.loaded_config import DEFAULT_MAX_TOKENS, DescribeJob, load_config, resolved
from lockstep.exporters.sources.tokenizer_settings import CONFIG_FILE, TokenizerSettings, read_json
from lockstep.server.core.artifact import ArtifactSpec, Budget, TensorSpec
from lockstep.server.core.probabilities import reader
from lockstep.server.repository.catalog import PublishedModel
from lockstep.server.repository.manifest import Artifact, Inputs, Manifest, Parity, Source, Tensor
from lockstep.server.runtimes.registry import ADAPTERS
from lockstep.server.text.encoder import TextEncoder

JOB_TIMEOUT_S = 1800.0
"""Of one conversion, or of the source's run over the held-out rows."""

Outcome = Literal["published", "unchanged", "refused", "verified"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What an export does now."""

    model: str
    artifact: str | None  # None: the source itself
    message: str
    done: bool = False  # the last word on this artifact, or on the source


@dataclass(frozen=True, slots=True)
class ArtifactReport:
    """One artifact asked for: how it came out, and its figures where it was measured."""

    artifact: str
    status: Status
    reason: str | None  # of a refusal; of a loop: why it is not fused, where that is known
    method: str | None
    recurrent_ops: dict[str, int]
    max_abs_diff: float | None
    padding_invariance: float | None
    accuracy: float | None
    source_accuracy: float | None
    accuracy_sentences: float | None
    source_accuracy_sentences: float | None
    bytes: int | None
    seconds: float  # conversion and verification
    cpu_ms_b1_t32: float | None
    cpu_ms_b32_t64: float | None
    source_cpu_ms_b1_t32: float | None
    source_cpu_ms_b32_t64: float | None


@dataclass(frozen=True, slots=True)
class ExportReport:
    """One model's export."""

    model: str
    framework: str
    layer: str
    outcome: Outcome  # verified: a dry run, something could be published
    version: int | None
    artifacts: tuple[ArtifactReport, ...]
    seconds: float
    output: str | None = None  # what the source's output was found to mean, in a sentence; None: unchanged
    warning: str | None = None  # what to look at though it passed

    @property
    def refused(self) -> tuple[ArtifactReport, ...]:
        """The artifacts that were refused."""
        return tuple(report for report in self.artifacts if report.status is Status.REFUSED)


OnProgress = Callable[[Progress], None]


def export_model(
    description: Description,
    folder: Path,
    *,
    artifacts: Sequence[str],
    verify_with: Path,
    repository: Path,
    threads: int = 1,
    parallel: int = 2,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Export a source into the artifacts asked for; blocks until it is published, refused or unchanged.

    `folder` is what the description's paths are relative to; `verify_with` the held-out texts; `threads`
    the budget of each process and `parallel` how many work at once. Raises `ExportError` where nothing
    could be tried: a missing file, weights that do not load, a repository that cannot be written. An
    artifact that cannot be made or is wrong is not an error: its report says refused.
    """
    return asyncio.run(
        export_model_async(
            description,
            folder,
            artifacts=artifacts,
            verify_with=verify_with,
            repository=repository,
            threads=threads,
            slots=asyncio.Semaphore(parallel),
            dry_run=dry_run,
            on_progress=on_progress,
        )
    )


async def export_model_async(
    description: Description,
    folder: Path,
    *,
    artifacts: Sequence[str],
    verify_with: Path,
    repository: Path,
    threads: int = 1,
    slots: asyncio.Semaphore,
    dry_run: bool = False,
    again: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """As `export_model`; at most as many processes work at once as `slots` has, over all who share it.

    `again` converts and verifies a source that is published already, for the whole report; what is published
    stays as it is.
    """
    export = _Export(
        description=description,
        repository=repository,
        threads=threads,
        slots=slots,
        on_progress=on_progress or (lambda progress: None),
    )
    with _told_as_ours():
        return await export.run(Path.cwd() / folder, tuple(dict.fromkeys(artifacts)), verify_with, dry_run, again)


def source_fingerprint(description: Description, folder: Path) -> str:
    """Return the SHA-256 over a source's files and facts; raises `ExportError` where one cannot be read."""
    with _told_as_ours():
        return _Inputs.of(description, Path.cwd() / folder).fingerprint()


async def described(description: Description, folder: Path) -> tuple[SourceFiles, TextEncoder]:
    """Return what a job is told of a source, and its tokenizer; raises `ExportError`."""
    with _told_as_ours():
        inputs = await _Inputs.of(description, Path.cwd() / folder).resolved(
            slots=asyncio.Semaphore(1), threads=1, say=lambda text: None
        )
        return inputs.files, inputs.encoder()


@contextmanager
def _told_as_ours() -> Iterator[None]:
    """Tell of a file that cannot be read or written as an `ExportError`, by its name."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ExportError(f"{where}{error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class _Inputs:
    """A source's files, found, and what is known of it."""

    description: Description
    folder: Path  # absolute
    tokenizer: Path
    settings: TokenizerSettings
    max_tokens: int | None  # None: `resolved` finds it

    @classmethod
    def of(cls, description: Description, folder: Path) -> _Inputs:
        tokenizer = _existing(folder / description.tokenizer, "tokenizer")
        weights = folder / description.weights
        _weights(weights)
        settings = TokenizerSettings.read(tokenizer, weights if weights.is_dir() else None)
        max_tokens = description.max_tokens
        if max_tokens is None and description.framework is not Framework.HUGGINGFACE:
            max_tokens = _max_tokens(settings, weights, folder)
        return cls(description, folder, tokenizer, settings, max_tokens)

    async def resolved(self, *, slots: asyncio.Semaphore, threads: int, say: Say) -> _Inputs:
        """Return the source with what a Hugging Face model's loaded configuration decides; raises `SourceError`."""
        if self.description.framework is not Framework.HUGGINGFACE:
            return self
        checkpoint = self.folder / self.description.weights
        saved = self.tokenizer.resolve().parent == checkpoint.resolve() and (checkpoint / CONFIG_FILE).is_file()
        job = DescribeJob(
            checkpoint=checkpoint,
            tokenizer=self.tokenizer if saved else None,
            max_tokens=self.description.max_tokens,
            threads=threads,
        )
        async with slots:
            loaded = await load_config(job, timeout_s=JOB_TIMEOUT_S, say=say)
        description = resolved(self.description, loaded, self.settings.max_tokens)
        pad_id = self.settings.pad_id if loaded.pad_id is None or loaded.pad_id < 0 else loaded.pad_id
        settings = replace(self.settings, pad_id=pad_id)
        return replace(self, description=description, settings=settings, max_tokens=description.max_tokens)

    @property
    def files(self) -> SourceFiles:
        """What a job is told of the source."""
        return SourceFiles(
            name=self.description.name,
            framework=self.description.framework,
            weights=self.folder / self.description.weights,
            build=self.description.build,
            python_path=tuple(dict.fromkeys([self.folder, Path.cwd()])),
            labels=len(self.description.labels),
            output=self.description.output,
            activation=self.description.activation,
            pad_id=self.settings.pad_id or 0,  # 0 where none is named: no artifact may read the padding
            max_tokens=self._limit,
            tensors=self.description.tensors,
            signature=self.description.signature,
        )

    def encoder(self) -> TextEncoder:
        """Return the tokenizer; raises `SourceError`."""
        try:
            return TextEncoder.from_file(self.tokenizer, self._limit, self.settings.truncation_side)
        except ValueError as error:
            raise SourceError(str(error)) from error

    @property
    def _limit(self) -> int:
        if self.max_tokens is None:
            raise AssertionError("a Hugging Face source is resolved before it is used")
        return self.max_tokens

    def fingerprint(self) -> str:
        """Return one SHA-256 over what the source is now."""
        weights = _weights(self.folder / self.description.weights)
        files = {"tokenizer": self.tokenizer, **{f"weights/{name}": path for name, path in weights.items()}}
        code = _code_of(self.description.build, self.folder)
        if code is not None:
            files["build"] = code
        stated = self.description.model_dump(mode="json", exclude={"name", "tokenizer", "weights"})
        stated["max_tokens"] = self.max_tokens
        if self.settings.truncation_side != "right":
            stated["truncation_side"] = self.settings.truncation_side
        if self.description.framework is Framework.HUGGINGFACE:
            stated["configuration"] = "loaded"  # what was published by the raw config.json is exported anew
        stated["meaning"] = "checked"  # what was published before declarations were checked is exported anew
        return fingerprint(files, [json.dumps(stated, sort_keys=True)])


def possible_artifacts(description: Description) -> tuple[str, ...]:
    """Return the artifacts that a source of this framework can become; variants are made only where asked for."""
    return tuple(kind for framework, kind in CONVERTERS if framework is description.framework)


@dataclass(frozen=True, slots=True)
class _Referred:
    """What the source itself answered, and what was found in it."""

    reference: Reference
    expected: verification.Expected
    files: SourceFiles  # with what its output means
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class _Converted:
    conversion: Conversion
    parity: Parity


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One artifact's: what was made of it, or why not."""

    kind: str
    made: _Converted | Refusal
    conversion: Conversion | None  # also of one that the gate refused
    bytes: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class _Export:
    """One model on its way."""

    description: Description
    repository: Path
    threads: int
    slots: asyncio.Semaphore
    on_progress: OnProgress

    async def run(
        self, folder: Path, artifacts: tuple[str, ...], verify_with: Path, dry_run: bool, again: bool
    ) -> ExportReport:
        started = time.monotonic()
        self._check(artifacts)
        try:
            tempfile.gettempdir()  # frameworks need one, and fail in their own ways
        except FileNotFoundError as error:
            raise ExportError("there is no temporary folder that can be written: set TMPDIR to one") from error
        inputs = _Inputs.of(self.description, folder)
        sha256 = inputs.fingerprint()
        published = latest(self.repository, self.description.name)
        same = published if published and published.manifest.source.sha256 == sha256 else None
        if same is not None and not dry_run and not again and set(artifacts) <= _kinds(same):
            self._say(None, f"unchanged since version {same.manifest.version}", done=True)
            return self._unchanged(same, artifacts, time.monotonic() - started)
        found = await inputs.resolved(slots=self.slots, threads=self.threads, say=lambda text: self._say(None, text))
        encoder = found.encoder()
        files = found.files
        texts = held_out.read(verify_with, encoder, found.description.labels, files.pad_id)
        with ExitStack() as stack:
            place = self.repository
            if dry_run:
                place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lockstep-")))
            work = stack.enter_context(staging(place))
            staged = stack.enter_context(staging(place))
            referred, outcomes = await self._convert_and_verify(
                files, artifacts, texts, encoder.vocabulary, staged, work
            )
            if inputs.fingerprint() != sha256:
                raise SourceError("the source's files changed while it was exported: export it again")
            passed = [outcome for outcome in outcomes if isinstance(outcome.made, _Converted)]
            reference, expected = referred.reference, referred.expected
            of_source = accuracy(expected.rows, texts.labels, texts.sentences)
            version: int | None = None
            result: Outcome = "refused"
            if passed and dry_run:
                result = "verified"
            elif passed and same is not None and {outcome.kind for outcome in passed} <= _kinds(same):
                version, result = same.manifest.version, "unchanged"
            elif passed:
                manifest = self._manifest(outcomes, found, encoder, reference, of_source, sha256, staged)
                version = publish(staged, self.repository, manifest, carried=same).version
                result = "published"
                self._say(None, f"published as version {version}", done=True)
        return ExportReport(
            model=self.description.name,
            framework=self.description.framework.value,
            layer=self.description.layer,
            outcome=result,
            version=version,
            artifacts=tuple(_report(outcome, reference, of_source) for outcome in outcomes),
            seconds=time.monotonic() - started,
            output=referred.meaning.sentence,
            warning=label_order.warning(expected.rows, texts.labels, found.description.labels),
        )

    async def _convert_and_verify(
        self,
        files: SourceFiles,
        artifacts: tuple[str, ...],
        texts: HeldOut,
        vocabulary: int,
        staged: Path,
        work: Path,
    ) -> tuple[_Referred, list[_Outcome]]:
        try:
            async with asyncio.TaskGroup() as group:
                referring = group.create_task(self._refer(files, texts, vocabulary, work))
                converting = [
                    group.create_task(self._convert(kind, texts, vocabulary, staged, work, referring))
                    for kind in artifacts
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first; the others were ended because of it
        return referring.result(), [task.result() for task in converting]

    async def _refer(self, files: SourceFiles, texts: HeldOut, vocabulary: int, work: Path) -> _Referred:
        """Have the source itself answer every row, and find what its answers mean."""
        rows = (*texts.grid, *(row.ids for row in texts.special), *texts.rows)
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        job = ReferenceJob(
            source=files.model_copy(update={"output": None, "activation": None}),
            rows=work / "rows.npz",
            timing=work / "timing.npz",
            outputs=work / "outputs.npz",
            vocabulary=vocabulary,
            threads=self.threads,
        )
        np.savez(job.rows, ids=np.concatenate(rows), lengths=lengths)
        shapes = {
            name: texts.batch(*shape)
            for name, shape in verification.TIMED_SHAPES.items()
            if shape[1] <= files.max_tokens
        }
        np.savez(job.timing, **cast(dict[str, Any], shapes))
        try:
            async with self.slots:
                answer = await processes.run(
                    job,
                    threads=self.threads,
                    timeout_s=JOB_TIMEOUT_S,
                    log=work / "reference.log",
                    say=lambda text: self._say(None, text),
                )
        except ConversionError as error:  # of a reference job: there is nothing to compare with
            raise SourceError(f"the source cannot be run: {error}") from error
        reference = Reference.model_validate(answer)
        with np.load(job.outputs, allow_pickle=False) as stored:
            outputs = stored["outputs"]
        grid, special, held = np.split(outputs, [len(texts.grid), len(texts.grid) + len(texts.special)])
        if not (np.isfinite(grid).all() and np.isfinite(held).all()):
            raise SourceError("the source itself answers NaN or Inf on held-out rows")
        meaning = output_meaning.find(np.concatenate([held, grid]), files, reference.ending, texts.describe)
        self._say(None, meaning.sentence)
        found = {"output": meaning.output, "activation": meaning.activation, "columns": outputs.shape[1]}
        grid, special, held = (output_meaning.labelled(part, meaning, files.labels) for part in (grid, special, held))
        expected = verification.Expected(grid, held, reference.padding_invariance, special)
        return _Referred(reference, expected, files.model_copy(update=found), meaning)

    async def _convert(
        self,
        kind: str,
        texts: HeldOut,
        vocabulary: int,
        staged: Path,
        work: Path,
        referring: Awaitable[_Referred],
    ) -> _Outcome:
        """Convert into one artifact, once it is known what its output means, and verify it; a refusal is an outcome."""
        referred = await referring
        files, expected = referred.files, referred.expected
        folder = staged / kind
        folder.mkdir()
        started = 0.0
        try:
            async with self.slots:
                started = time.monotonic()  # waiting for a slot is no part of the work
                self._say(kind, "converting")
                answer = await processes.run(
                    ConvertJob(source=files, artifact=kind, folder=folder, threads=self.threads),
                    threads=self.threads,
                    timeout_s=JOB_TIMEOUT_S,
                    log=work / f"{kind}.log",
                    say=lambda text: self._say(kind, text),
                )
        except ConversionError as error:
            self._say(kind, "refused: cannot be converted", done=True)
            return _Outcome(kind, Refusal(f"cannot be converted: {error}"), None, None, time.monotonic() - started)
        converted_s = time.monotonic() - started
        conversion = Conversion.model_validate(answer)
        async with self.slots:
            started = time.monotonic()
            verdict: verification.Passed | Refusal
            try:
                async with asyncio.timeout(JOB_TIMEOUT_S):
                    verdict = await verification.verify(
                        artifact_spec(conversion, folder, files.labels),
                        ADAPTERS[runtime_of(kind)],
                        texts,
                        expected,
                        pad_id=files.pad_id,
                        vocabulary=vocabulary,
                        max_tokens=files.max_tokens,
                        budget=Budget(threads=self.threads),
                        variant=VariantBound() if kind in VARIANTS else None,
                        probabilities=reader(conversion.output, conversion.activation),
                        say=lambda text: self._say(kind, text),
                    )
            except TimeoutError:
                verdict = Refusal(f"it did not answer the held-out rows within {JOB_TIMEOUT_S:.0f} s")
        seconds = converted_s + time.monotonic() - started
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if isinstance(verdict, Refusal):
            self._say(kind, "refused by the gate", done=True)
            return _Outcome(kind, verdict, conversion, size, seconds)
        self._say(kind, f"verified: {conversion.status.value}", done=True)
        return _Outcome(kind, _Converted(conversion, verdict.parity), conversion, size, seconds)

    def _manifest(
        self,
        outcomes: Sequence[_Outcome],
        found: _Inputs,
        encoder: TextEncoder,
        reference: Reference,
        of_source: Accuracy,
        sha256: str,
        staged: Path,
    ) -> Manifest:
        """Clear what was refused out of the staged folder and describe the rest."""
        artifacts, refused, versions = [], {}, dict(reference.versions)
        for outcome in outcomes:
            if isinstance(outcome.made, Refusal):
                shutil.rmtree(staged / outcome.kind)
                refused[outcome.kind] = outcome.made.reason
                continue
            versions |= outcome.made.conversion.versions
            artifacts.append(_artifact(outcome.kind, outcome.made, staged))
        shutil.copyfile(found.tokenizer, staged / TOKENIZER_FILE)
        return Manifest(
            name=self.description.name,
            version=1,  # publishing counts
            labels=list(found.description.labels),
            pad_id=found.files.pad_id,
            vocabulary=encoder.vocabulary,
            max_tokens=encoder.max_tokens,
            truncation_side=found.settings.truncation_side,
            tokenizer={TOKENIZER_FILE: checksums(staged, staged)[TOKENIZER_FILE]},
            source=Source(
                framework=self.description.framework.value,
                layer=self.description.layer,
                sha256=sha256,
                versions=dict(sorted(versions.items())) | {"lockstep": metadata.version("lockstep")},
                accuracy_sentences=of_source.sentences,
            ),
            artifacts=artifacts,
            refused=refused,
        )

    def _unchanged(self, published: PublishedModel, artifacts: Sequence[str], seconds: float) -> ExportReport:
        manifest = published.manifest
        asked = [artifact for artifact in manifest.artifacts if artifact.kind in artifacts]
        return ExportReport(
            model=manifest.name,
            framework=manifest.source.framework,
            layer=manifest.source.layer,
            outcome="unchanged",
            version=manifest.version,
            artifacts=tuple(_known(artifact, published) for artifact in asked),
            seconds=seconds,
        )

    def _check(self, artifacts: Sequence[str]) -> None:
        check_name(self.description.name)
        possible = possible_artifacts(self.description)
        if not artifacts:
            raise ExportError("no artifact asked for: name at least one")
        for kind in artifacts:
            if kind not in possible and not (kind in VARIANTS and artifact_of(kind) in possible):
                raise ExportError(
                    f"a {self.description.framework} source cannot become {kind!r}, only {', '.join(possible)}"
                )

    def _say(self, artifact: str | None, message: str, *, done: bool = False) -> None:
        self.on_progress(Progress(self.description.name, artifact, message, done))


def artifact_spec(conversion: Conversion, folder: Path, labels: int) -> ArtifactSpec:
    """Return what a worker must know of a freshly converted artifact."""

    def spec(name: str) -> TensorSpec:
        tensor = conversion.tensor(name)
        return TensorSpec(tensor.name, tensor.dtype)

    return ArtifactSpec(
        path=str((folder / conversion.path).resolve()),
        input_ids=spec(INPUT_IDS),
        attention_mask=spec(ATTENTION_MASK) if ATTENTION_MASK in conversion.inputs else None,
        lengths=spec(LENGTHS) if LENGTHS in conversion.inputs else None,
        logits=spec(LOGITS),
        labels=labels,
    )


def _artifact(kind: str, made: _Converted, staged: Path) -> Artifact:
    conversion = made.conversion

    def tensor(name: str) -> Tensor:
        named = conversion.tensor(name)
        return Tensor(name=named.name, dtype=named.dtype)

    return Artifact(
        kind=kind,
        runtime=runtime_of(kind),
        path=(Path(kind) / conversion.path).as_posix(),
        files=checksums(staged / kind, staged),
        inputs=Inputs(
            input_ids=tensor(INPUT_IDS),
            attention_mask=tensor(ATTENTION_MASK) if ATTENTION_MASK in conversion.inputs else None,
            lengths=tensor(LENGTHS) if LENGTHS in conversion.inputs else None,
        ),
        logits=tensor(LOGITS),
        output=conversion.output,
        activation=conversion.activation,
        method=conversion.method,
        recurrent_ops=conversion.recurrent_ops,
        parity=made.parity,
    )


def _report(outcome: _Outcome, reference: Reference, of_source: Accuracy) -> ArtifactReport:
    refused = outcome.made if isinstance(outcome.made, Refusal) else None
    parity = outcome.made.parity if isinstance(outcome.made, _Converted) else None
    conversion = outcome.conversion
    notes = "; ".join(conversion.notes) if conversion else ""
    return ArtifactReport(
        artifact=outcome.kind,
        status=Status.REFUSED if refused or not conversion else conversion.status,
        reason=refused.reason if refused else notes or None,
        method=conversion.method if conversion else None,
        recurrent_ops=conversion.recurrent_ops if conversion else {},
        max_abs_diff=parity.max_abs_diff if parity else None,
        padding_invariance=parity.padding_invariance if parity else None,
        accuracy=parity.accuracy if parity else None,
        source_accuracy=of_source.all,
        accuracy_sentences=parity.accuracy_sentences if parity else None,
        source_accuracy_sentences=of_source.sentences,
        bytes=outcome.bytes,
        seconds=outcome.seconds,
        cpu_ms_b1_t32=parity.cpu_ms_b1_t32 if parity else None,
        cpu_ms_b32_t64=parity.cpu_ms_b32_t64 if parity else None,
        source_cpu_ms_b1_t32=reference.cpu_ms_b1_t32,
        source_cpu_ms_b32_t64=reference.cpu_ms_b32_t64,
    )


def _known(artifact: Artifact, published: PublishedModel) -> ArtifactReport:
    """Return the report of an artifact that is published already, from its manifest."""
    parity = artifact.parity
    status = status_of(artifact.recurrent_ops) if artifact_of(artifact.kind) == "onnx" else Status.EXACT
    return ArtifactReport(
        artifact=artifact.kind,
        status=status,
        reason=None,
        method=artifact.method,
        recurrent_ops=artifact.recurrent_ops,
        max_abs_diff=parity.max_abs_diff,
        padding_invariance=parity.padding_invariance,
        accuracy=parity.accuracy,
        source_accuracy=parity.source_accuracy,
        accuracy_sentences=parity.accuracy_sentences,
        source_accuracy_sentences=published.manifest.source.accuracy_sentences,
        bytes=sum((published.folder / file).stat().st_size for file in artifact.files),
        seconds=0.0,
        cpu_ms_b1_t32=parity.cpu_ms_b1_t32,
        cpu_ms_b32_t64=parity.cpu_ms_b32_t64,
        source_cpu_ms_b1_t32=None,
        source_cpu_ms_b32_t64=None,
    )


def _kinds(published: PublishedModel) -> set[str]:
    return {artifact.kind for artifact in published.manifest.artifacts}


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise SourceError(f"{what} {path}: no such file")
    return path


def _weights(path: Path) -> dict[str, Path]:
    """Return the files of the weights by name: one file, a folder's, or those of a checkpoint prefix."""
    if path.is_file():
        return {path.name: path}
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return {file.relative_to(path).as_posix(): file for file in files}
    shards = re.compile(re.escape(path.name) + r"\.(index|data-\d{5}-of-\d{5})")
    parent = path.parent
    found = [file for file in sorted(parent.iterdir()) if shards.fullmatch(file.name)] if parent.is_dir() else []
    if not any(file.suffix == ".index" for file in found):
        raise SourceError(f"weights {path}: no such file, folder or checkpoint prefix")
    return {file.name: file for file in found}


def _max_tokens(settings: TokenizerSettings, weights: Path, folder: Path) -> int:
    """Return the smallest limit that the tokenizer and a config.json name."""
    limits = [] if settings.max_tokens is None else [settings.max_tokens]
    config = next((place / "config.json" for place in (weights, folder) if (place / "config.json").is_file()), None)
    if config is not None and isinstance(positions := read_json(config).get("max_position_embeddings"), int):
        limits.append(positions)
    return min(limits, default=DEFAULT_MAX_TOKENS)


def _code_of(build: str | None, folder: Path) -> Path | None:
    """Return the file of the author's building code, without importing it, or None where it has none."""
    if build is None:
        return None
    package, *rest = build.partition(":")[0].split(".")
    roots = [root / package for root in (folder, Path.cwd())]
    spec = importlib.util.find_spec(package) if package else None  # of a top-level name: imports nothing
    if spec is not None:
        roots = [*map(Path, spec.submodule_search_locations or ()), *roots]
        if not rest and spec.origin is not None:
            return Path(spec.origin)
    for root in roots:
        path = root.joinpath(*rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
