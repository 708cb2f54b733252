"""What the loaded configuration of a Hugging Face model decides: labels, activation, the longest text.

`LoadedConfig` is read in a process of its own (`huggingface_config`), by the library that loads the model, so that
every default is the library's. `resolved` makes the description whole by it. Imports no framework.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from lockstep.exporters import processes
from lockstep.exporters.conversion import ConversionError, Say, SourceError, Strict
from lockstep.exporters.source import Description

DEFAULT_MAX_TOKENS = 512
"""Where neither the description, the tokenizer nor the config says one."""


ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]
PROBLEM_TYPES: tuple[ProblemType, ...] = get_args(ProblemType)

DESCRIBER = "lockstep.exporters.sources.huggingface_config:describe"
"""`module:function` that does a `DescribeJob`."""


class DescribeJob(Strict):
    """Load a checkpoint and tell what its configuration decides."""

    job: Literal["describe"] = "describe"
    checkpoint: Path
    tokenizer: Path | None  # the checkpoint's own, as its author saved it; None: one from elsewhere
    max_tokens: int | None  # that a person asked for: tried, where the configuration is for shorter texts
    threads: int


class LoadedConfig(Strict):
    """A Hugging Face model's configuration as the library loaded it."""

    labels: tuple[str, ...]  # in the order of the outputs, as many as these
    problem_type: ProblemType | None
    positions: int | None  # tokens that the model's table of positions holds; None: it has no such table
    max_positions: int | None  # what the configuration calls the most positions, where it does
    pad_id: int | None


async def load_config(job: DescribeJob, *, timeout_s: float, say: Say) -> LoadedConfig:
    """Have a process of its own load the model and tell what its configuration decides; raises `SourceError`."""
    with tempfile.TemporaryDirectory(prefix="lockstep-") as work:
        log = Path(work) / "describe.log"
        try:
            answer = await processes.run(job, threads=job.threads, timeout_s=timeout_s, log=log, say=say)
        except ConversionError as error:  # nothing is converted yet
            raise SourceError(f"the source's configuration cannot be loaded: {error}") from error
    return LoadedConfig.model_validate(answer)


def resolved(description: Description, loaded: LoadedConfig, tokenizer_limit: int | None) -> Description:
    """Return the description with what it left open as the loaded configuration has it.

    Raises `SourceError` where it contradicts the configuration, or the model answers no labels.
    """
    activation = _activation(description, loaded)
    labels = description.labels or loaded.labels
    outputs = len(loaded.labels)
    if len(labels) != (2 if outputs == 1 else outputs):
        raise SourceError(
            "the model has one output: its sigmoid needs two labels, the second being the one that the output is the "
            "probability of. Name both: --labels NO,YES"
            if outputs == 1
            else f"{len(labels)} labels ({', '.join(labels)}) for a model of {outputs} outputs: name {outputs} with "
            f"--labels, or leave them out for the configuration's ({', '.join(loaded.labels[:4])}"
            f"{', ...' if outputs > 4 else ''})"
        )
    stated = description.model_dump(exclude_unset=True)
    stated |= {"labels": labels, "activation": activation}
    stated |= {"max_tokens": _max_tokens(description.max_tokens, loaded, tokenizer_limit)}
    try:
        return Description.model_validate(stated)
    except ValidationError as error:
        raise SourceError(f"the configuration's labels cannot be served: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")


def _activation(description: Description, loaded: LoadedConfig) -> Literal["softmax", "sigmoid"]:
    """Return what the model's author turns logits into probabilities with."""
    stated = description.activation if "activation" in description.model_fields_set else None
    problem = loaded.problem_type
    if problem == "regression":
        raise SourceError(
            "the model is a regression (problem_type of its config.json): its outputs are numbers, not labels, and "
            "only labels can be served"
        )
    if len(loaded.labels) == 1 and problem is None and stated != "sigmoid":
        raise SourceError(
            "the model has one output (num_labels 1 of its config.json), which transformers trains as a regression: a "
            "number, not labels, and only labels can be served. If it was trained as the logit of yes or no, export "
            "it with --activation sigmoid --labels NO,YES"
        )
    if problem == "multi_label_classification":
        if stated == "softmax":
            raise SourceError(_contradiction(stated, problem, "sigmoid"))
        return "sigmoid"
    if problem == "single_label_classification" and stated == "sigmoid":
        raise SourceError(_contradiction(stated, problem, "softmax"))
    return stated or "softmax"


def _contradiction(stated: str, problem: str, right: str) -> str:
    return (
        f"activation {stated} contradicts the model's config.json, whose problem_type is {problem}: leave --activation "
        f"out for {right}, or mend problem_type"
    )


def _max_tokens(stated: int | None, loaded: LoadedConfig, tokenizer_limit: int | None) -> int:
    if stated is not None:
        if loaded.positions is not None and stated > loaded.positions:
            raise SourceError(
                f"max tokens {stated}: the model has positions for {loaded.positions} tokens. Give --max-tokens "
                f"{loaded.positions} or less, or leave it out"
            )
        return stated
    limits = [limit for limit in (tokenizer_limit, loaded.positions, loaded.max_positions) if limit is not None]
    return min(limits, default=DEFAULT_MAX_TOKENS)
