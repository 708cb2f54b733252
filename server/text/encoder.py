"""Text -> token ids, by the model's own `tokenizer.json`. Knows the model's maximum; knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

from lockstep.server.core.errors import InputTooLong, InvalidInput
from lockstep.server.core.messages import Encoding

Side = Literal["right", "left"]
"""Where a text that is too long loses tokens: at its end, or at its beginning."""


class TextEncoder:
    """A tokenizer bound to a maximum length.

    Texts are encoded without padding. Truncation takes tokens from the side that the model's author cuts
    (`right`: the end) and keeps the tokenizer's own special tokens, so a cut text still begins and ends as
    every other text of the model does.
    """

    def __init__(self, tokenizer_json: str, max_tokens: int, truncation_side: Side = "right") -> None:
        self._whole = Tokenizer.from_str(tokenizer_json)
        self._whole.no_padding()
        self._whole.no_truncation()
        self._cut = Tokenizer.from_str(tokenizer_json)
        self._cut.no_padding()
        self._cut.enable_truncation(max_tokens, direction=truncation_side)
        self._special_tokens = self._whole.num_special_tokens_to_add(False)
        self.max_tokens = max_tokens
        self.vocabulary: int = self._whole.get_vocab_size(with_added_tokens=True)

    @property
    def special_tokens(self) -> dict[int, str]:
        """The tokens that a text can spell out, and the one for unknown words: id -> token."""
        special = {number: token.content for number, token in self._whole.get_added_tokens_decoder().items()}
        unknown = getattr(self._whole.model, "unk_token", None)
        if isinstance(unknown, str) and (number := self._whole.token_to_id(unknown)) is not None:
            special[number] = unknown
        return special

    @classmethod
    def from_file(cls, path: Path, max_tokens: int, truncation_side: Side = "right") -> TextEncoder:
        """Read a `tokenizer.json`; raises `ValueError` naming the file where it cannot be parsed."""
        try:
            return cls(path.read_text(encoding="utf-8"), max_tokens, truncation_side)
        except OSError:
            raise
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ValueError(f"{path}: not a tokenizer of Hugging Face tokenizers ({error})") from error

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> list[Encoding | InvalidInput]:
        """Encode each text on its own: one that is empty, or too long and not to be cut, yields its error."""
        encoded = self._whole.encode_batch_fast(list(texts))
        return [self._row(text, one.ids, truncate) for text, one in zip(texts, encoded, strict=True)]

    def _row(self, text: str, ids: list[int], truncate: bool) -> Encoding | InvalidInput:
        if len(ids) <= self._special_tokens:
            return InvalidInput("the text has no tokens: send at least one word")
        if len(ids) <= self.max_tokens:
            return Encoding(np.array(ids, dtype=np.int64))
        if not truncate:
            return InputTooLong(
                f"the text has {len(ids)} tokens, the model's maximum is {self.max_tokens}: "
                "shorten it, or ask for truncation"
            )
        return Encoding(np.array(self._cut.encode(text).ids, dtype=np.int64), truncated=True)
