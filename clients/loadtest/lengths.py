"""Synthetic texts of a chosen distribution of lengths. Knows words, no tokenizer: n words make about n tokens."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final, Literal

MOST_WORDS: Final = 100_000
POOL: Final = 2_000
"""Texts made; they are sent again in another order after that."""

Kind = Literal["fixed", "uniform", "lognormal"]

# Short and common: one token each for most tokenizers.
_WORDS: Final = tuple(
    word
    for line in (
        "the a film was good bad and but not very it is this one of in that with for time story well made too long",
        "end way best never much more less like his her all great first last new old life day man world",
    )
    for word in line.split()
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many words texts have: `fixed:N`, `uniform:LOW:HIGH`, `lognormal:mean=M,sigma=S[,max=N]`.

    `mean` is of the lengths themselves, `sigma` of their logarithms; what is longer than `max` is cut to it.
    """

    kind: Kind
    low: float
    high: float
    most: int = MOST_WORDS

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """Read a distribution; raises `ValueError` that says what was expected."""
        kind, _, rest = text.partition(":")
        try:
            if kind == "fixed":
                return cls("fixed", _words(rest), _words(rest))
            if kind == "uniform":
                low, high = (_words(part) for part in rest.split(":"))
                if low > high:
                    raise ValueError(f"{low} is more than {high}")
                return cls("uniform", low, high)
            if kind == "lognormal":
                given = dict(part.split("=") for part in rest.split(","))
                mean, sigma = float(given.pop("mean")), float(given.pop("sigma"))
                most = _words(given.pop("max", str(MOST_WORDS)))
                if given:
                    raise ValueError(f"unknown: {', '.join(given)}")
                if not (1 <= mean <= MOST_WORDS and 0 <= sigma <= 5):
                    raise ValueError("the mean is 1 or more, sigma between 0 and 5")
                return cls("lognormal", mean, sigma, most)
        except KeyError as missing:
            raise ValueError(f"lengths {text!r}: {missing.args[0]} is missing; {_EXPECTED}") from None
        except ValueError as error:
            raise ValueError(f"lengths {text!r}: {error}; {_EXPECTED}") from None
        raise ValueError(f"lengths {text!r}: {_EXPECTED}")

    def draw(self, rng: random.Random) -> int:
        """Return one length, words."""
        if self.kind == "lognormal":
            mu = math.log(self.low) - self.high**2 / 2
            return min(self.most, max(1, round(rng.lognormvariate(mu, self.high))))
        return rng.randint(int(self.low), int(self.high))


def synthetic_pool(lengths: Lengths, seed: int) -> tuple[str, ...]:
    """Return texts of these lengths, the same for a seed."""
    rng = random.Random(f"lengths {seed}")
    return tuple(" ".join(rng.choices(_WORDS, k=lengths.draw(rng))) for _ in range(POOL))


_EXPECTED: Final = "expected fixed:32, uniform:1:128 or lognormal:mean=24,sigma=0.6,max=256"


def _words(text: str) -> int:
    words = int(text)
    if not 1 <= words <= MOST_WORDS:
        raise ValueError(f"{words} words: 1 to {MOST_WORDS} are possible")
    return words
