"""A Hugging Face model's configuration as the library loads it, and how many tokens the model's positions hold.

The number of positions is measured, not known by name: models count them from 0 (BERT), from the padding id plus
one (RoBERTa, XLM-R, MPNet, Longformer) or from 2 (OPT), and others have none (T5, XLNet, Llama). A row of n tokens
shows where the counting begins: the largest index that is looked up in a table of embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lockstep.exporters.conversion import SourceError
from lockstep.exporters.sources.huggingface_source import authors_tokenizer, load
from lockstep.exporters.sources.loaded_config import PROBLEM_TYPES, DescribeJob, LoadedConfig
from lockstep.server.core.messages import Encoding
from lockstep.server.text.encoder import TextEncoder

if TYPE_CHECKING:
    import torch

_TEXTS = ("It isn't SO bad, naïve Ünïcode 12.5", " two  spaces ", "日本語 🙂")
"""Cases, accents, signs, spaces and characters that settings of tokenizers treat differently."""
_ANY_LENGTH = 1_000

_LENGTHS = (7, 2)  # of rows that show where positions begin: the longest that fits, with one of a token more


def describe(job: DescribeJob) -> LoadedConfig:
    """Load the model and return what its configuration decides; raises `SourceError`."""
    model = load(job.checkpoint)
    config = model.config
    _check_tokenizer(job)
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    max_positions = most if isinstance(most, int) and most > 0 else None
    positions = held_positions(model)
    asked = job.max_tokens
    if asked is not None and positions is None and max_positions is not None and asked > max_positions:
        _try(model, asked, max_positions)
    return LoadedConfig(
        labels=_labels(config, job),
        problem_type=_problem_type(config, job),
        positions=positions,
        max_positions=max_positions,
        pad_id=config.get_text_config().pad_token_id,
    )


def _check_tokenizer(job: DescribeJob) -> None:
    """Raise `SourceError` where the author's tokenizer makes of a text what the server's cannot.

    Token types other than 0 (XLNet's once did), or other ids than its `tokenizer.json` alone, which
    `tokenizer_config.json` overrules (`do_lower_case`).
    """
    own = authors_tokenizer(job.checkpoint)
    if own is None:
        return
    if job.tokenizer is not None:
        alone = TextEncoder.from_file(job.tokenizer, _ANY_LENGTH)
        for text, row in zip(_TEXTS, alone.encode(_TEXTS), strict=True):
            if isinstance(row, Encoding) and row.ids.tolist() != (theirs := own(text)["input_ids"]):
                raise SourceError(
                    f"{job.tokenizer}: transformers' tokenizer of this folder makes other ids of {text!r}: "
                    f"{theirs}, not {row.ids.tolist()}. tokenizer_config.json says otherwise than tokenizer.json: save "
                    "both anew, AutoTokenizer.from_pretrained(folder).save_pretrained(folder), or name the "
                    "tokenizer.json that the model was trained with, in another folder, with --tokenizer"
                )
    types = set(own("a").get("token_type_ids", []))
    if types - {0}:
        raise SourceError(
            f"{job.checkpoint}: the tokenizer gives the tokens of one text the types {sorted(types)}, and only type 0 "
            "can be part of an artifact: if the model was trained without types, take token_type_ids out of "
            "model_input_names in tokenizer_config.json"
        )


def held_positions(model: Any) -> int | None:
    """Return how many tokens the smallest table of positions has rows for; None where no lookup counts tokens."""
    for length in _LENGTHS:
        shorter, longer = _lookups(model, length), _lookups(model, length + 1)
        held = {
            rows - (last - (length - 1)): table
            for table, (rows, last) in shorter.items()
            if table in longer and longer[table][1] - last == 1
        }
        # Buckets of relative distances grow like positions at first; positions alone use their last row at their end.
        for tokens in sorted(held):
            rows, last = _lookups(model, tokens).get(held[tokens], (0, 0))
            if last == rows - 1:
                return tokens
    return None


def _lookups(model: Any, length: int) -> dict[int, tuple[int, int]]:
    """Run a row of `length` tokens; return each embedding table's rows and the largest index looked up in it.

    Empty where the model cannot run such a row: one that is too long for a tiny model, or no text for this
    architecture, whose reference run says why.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    seen: dict[int, tuple[int, int]] = {}

    class Watch(TorchFunctionMode):  # type: ignore[misc]  # the framework has no types here
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(function, "__name__", "") == "embedding":
                tensors = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, torch.Tensor)]
                (table,) = [tensor for tensor in tensors if tensor.is_floating_point()]
                (index,) = [tensor for tensor in tensors if not tensor.is_floating_point()]
                _, before = seen.get(table.data_ptr(), (0, -1))
                seen[table.data_ptr()] = (table.shape[0], max(before, int(index.max())))
            return function(*args, **(kwargs or {}))

    ids = _row(model, length)
    try:
        with torch.inference_mode(), Watch():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError, ValueError):
        return {}
    return seen


def _row(model: Any, length: int) -> torch.Tensor:
    """Return one row of a word that pads nothing, ending with the end of a text where the model knows one."""
    import torch

    config = model.config.get_text_config()
    vocabulary = model.get_input_embeddings().num_embeddings
    pad, end = config.pad_token_id, getattr(config, "eos_token_id", None)
    end = end[0] if isinstance(end, list) else end
    word = next(candidate for candidate in range(vocabulary - 1, -1, -1) if candidate not in (pad, end))
    ids = torch.full((1, length), word)
    if end is not None and end != pad and 0 <= end < vocabulary:
        ids[0, -1] = end
    return ids


def _try(model: Any, tokens: int, max_positions: int) -> None:
    """Run a row longer than the configuration names; raises `SourceError` where the model cannot."""
    import torch

    ids = _row(model, tokens)
    try:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError, ValueError) as error:
        raise SourceError(
            f"max tokens {tokens}: the model's config.json names {max_positions} positions, and the model fails on a "
            f"row of {tokens} tokens ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]}). Give "
            f"--max-tokens {max_positions} or less, or leave it out"
        ) from error


def _problem_type(config: Any, job: DescribeJob) -> Any:
    stated = config.problem_type
    if stated is not None and stated not in PROBLEM_TYPES:
        raise SourceError(
            f"{job.checkpoint / 'config.json'}: problem_type {stated!r}: use one of {', '.join(PROBLEM_TYPES)}, or none"
        )
    return stated


def _labels(config: Any, job: DescribeJob) -> tuple[str, ...]:
    outputs = range(config.num_labels)
    if set(config.id2label) != set(outputs):
        raise SourceError(
            f"{job.checkpoint / 'config.json'}: id2label names {sorted(config.id2label)}; the outputs are numbered "
            f"{', '.join(map(str, outputs))}: mend id2label"
        )
    return tuple(str(config.id2label[output]) for output in outputs)
