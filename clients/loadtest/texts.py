"""The texts that a load test sends. Knows files, synthetic texts and a built-in sample; sends nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lockstep.clients.loadtest.lengths import Lengths, synthetic_pool
from lockstep.clients.loadtest.plan import LoadPlan

PROBE: Final = "A film to remember."
"""A text that every model takes."""


class TextsUnreadable(Exception):
    """The file of texts cannot be read as one; says where and why."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A pool of texts and where it came from."""

    source: str
    pool: tuple[str, ...]

    def draw(self, rng: random.Random) -> Iterator[str]:
        """Yield texts without end: the pool in shuffled order, and again in another."""
        order = list(self.pool)
        while True:
            rng.shuffle(order)
            yield from order


def texts_of(plan: LoadPlan) -> Texts:
    """Return a plan's texts: the same in every process. Raises `TextsUnreadable`."""
    if plan.texts is not None:
        return read_texts(Path(plan.texts))
    if plan.lengths is not None:
        return Texts(f"synthetic, {plan.lengths} words", synthetic_pool(Lengths.parse(plan.lengths), plan.seed))
    return sample_texts(plan.seed)


def read_texts(path: Path) -> Texts:
    """Read a `.jsonl` file (objects with a "text", or strings) or any other file of one text a line.

    UTF-8, with a byte order mark or without. Empty lines are skipped. Raises `TextsUnreadable` naming the line at
    fault.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a text may hold other ends of line
    except (OSError, UnicodeDecodeError) as error:
        raise TextsUnreadable(f"{path}: {error}") from error
    numbered = [(number, line.rstrip("\r")) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise TextsUnreadable(f"{path}: holds no text")
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return Texts(str(path), tuple(line for _, line in numbered))
    return Texts(str(path), tuple(_text_of(path, number, line) for number, line in numbered))


def _text_of(path: Path, number: int, line: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # a number of many digits, deep nesting
        raise TextsUnreadable(f"{path}:{number}: not JSON: {error}") from error
    text = record.get("text") if isinstance(record, dict) else record
    if not isinstance(text, str):
        raise TextsUnreadable(f'{path}:{number}: no string under "text"')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextsUnreadable(f"{path}:{number}: not valid Unicode: {error.reason}") from error
    return text


_SENTENCES: Final = (
    "A fine film.",
    "Dull from the first minute to the last.",
    "I laughed more than I expected to.",
    "The plot makes no sense, and the actors seem to know it.",
    "Warm, funny and quietly sad, with a last scene that stays with you.",
    "It is two hours long and has ideas enough for twenty minutes.",
    "The battery lasts two days and the screen is bright enough for the garden.",
    "It broke in a week.",
    "Service was slow, the soup was cold, and nobody seemed to mind but us.",
    "Best bread in town.",
    "The speech promised much, named no cost, and was applauded for both.",
    "A careful book that earns every one of its conclusions.",
    "Unreadable.",
    "The new edition mends most of what was wrong with the old one.",
    "Prices rose again, which surprised only the people who set them.",
    "She plays the piece as if she had just thought of it.",
    "The instructions are wrong in three places, one of them dangerous.",
    "A small, honest hotel with a good breakfast and a better view.",
    "They cancelled our booking twice and blamed the weather, which was fine.",
    "What a relief to find a tool that does one thing well.",
)


def sample_texts(seed: int = 0) -> Texts:
    """Return the built-in sample: 85 % sentences, 15 % documents of 4 to 16 of them."""
    rng = random.Random(seed)
    documents = [" ".join(rng.choices(_SENTENCES, k=rng.randint(4, 16))) for _ in range(30)]
    sentences = [_SENTENCES[number % len(_SENTENCES)] for number in range(170)]
    return Texts("built-in sample", (*sentences, *documents))
