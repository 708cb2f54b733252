"""What a tokenizer's own files say beside its vocabulary: how long a text may be, where it is cut, what pads it.

Reads `tokenizer.json` and the `tokenizer_config.json` beside it, as `save_pretrained` writes them. Imports no
framework. What is read here is what `tokenizer(text, truncation=True)` of the author does: the configuration's
side before the file's; always the longest text first, and no stride, whatever the file's truncation says of those.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.exporters.conversion import SourceError
from lockstep.server.text.encoder import Side

CONFIG_FILE = "tokenizer_config.json"

_PAD_TOKENS = ("[PAD]", "<pad>", "<PAD>", "<|pad|>")
_NO_LIMIT = 1_000_000
"""From here on a `model_max_length` stands for none: transformers writes 1e30, others 1e9 or 2**63."""


@dataclass(frozen=True, slots=True)
class TokenizerSettings:
    """What the files say; `max_tokens` is None where they name no limit, `pad_id` where they name no padding."""

    max_tokens: int | None
    truncation_side: Side
    pad_id: int | None

    @classmethod
    def read(cls, tokenizer: Path, checkpoint: Path | None = None) -> TokenizerSettings:
        """Read a `tokenizer.json` and the configuration beside it, or else in the checkpoint's folder.

        Raises `SourceError` where a file is not JSON or names a side that is none.
        """
        known = read_json(tokenizer)
        places = [tokenizer.with_name(CONFIG_FILE), *([checkpoint / CONFIG_FILE] if checkpoint else [])]
        path = next((place for place in places if place.is_file()), None)
        config = read_json(path) if path is not None else {}
        truncation = known.get("truncation") or {}
        stated = [truncation.get("max_length"), config.get("model_max_length", config.get("max_len"))]
        limits = [limit for limit in map(_limit, stated) if limit is not None]
        side = _side(config.get("truncation_side") or truncation.get("direction") or "right", path or tokenizer)
        return cls(min(limits, default=None), side, _pad_id(known, config))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `SourceError` naming the file."""
    try:
        read = json.loads(path.read_bytes())
    except ValueError as error:
        raise SourceError(f"{path}: not JSON ({error})") from error
    if not isinstance(read, dict):
        raise SourceError(f"{path}: not a JSON object")
    return read


def _limit(stated: object) -> int | None:
    """Return a limit in tokens; None for what stands for no limit."""
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 1 <= stated < _NO_LIMIT:
        return None
    return int(stated)


def _side(stated: object, path: Path) -> Side:
    side = str(stated).lower()  # tokenizer.json writes "Left"
    if side == "right":
        return "right"
    if side == "left":
        return "left"
    raise SourceError(f"{path}: truncation side {stated!r}: it is 'right' or 'left'")


def _pad_id(known: dict[str, Any], config: dict[str, Any]) -> int | None:
    if isinstance(known.get("padding"), dict):
        return int(known["padding"]["pad_id"])
    ids = {token["content"]: int(token["id"]) for token in known.get("added_tokens", [])}
    named = config.get("pad_token")
    token = named.get("content") if isinstance(named, dict) else named
    return next((ids[name] for name in (token, *_PAD_TOKENS) if name in ids), None)
