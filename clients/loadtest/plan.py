"""What to send, when, to whom: data and pure arithmetic. Knows neither a clock nor a wire."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from lockstep.clients.loadtest.lengths import Lengths

Mode = Literal["closed", "open"]
Arrivals = Literal["poisson", "constant"]
Wire = Literal["unary", "stream"]

FREE: Final = "free"
"""In place of a backend's name: rows that are pinned to none, so that the server chooses."""

MOST: Final = {
    "concurrency": 10_000,  # callers: a task each
    "rate": 1e6,  # rows a second: no generator sends so many
    "seconds": 86_400.0,
    "rows": 10**9,
    "rounds": 1_000,
    "warmup_s": 3_600.0,
    "texts_per_call": 10_000,
    "timeout_s": 1_800.0,  # latencies are recorded up to an hour
    "processes": 64,
}
"""What a plan may ask for. Beyond is a slip of the pen: the test would never end, or eat the machine."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A load test of one model. Whole at construction; raises `ValueError` naming what is wrong.

    `closed`: `concurrency` callers, each sending its next call when the last is answered. It finds
    throughput; its latency is that of a full house.
    `open`: calls start at `rate` whether or not the server keeps up, and their latency counts from the
    instant they were meant to start: a server that stalls is charged for everyone who queued.
    """

    model: str
    address: str = "127.0.0.1:8001"
    backends: tuple[str, ...] = ()  # empty: every one the server lists; `free`: unpinned rows
    mode: Mode = "closed"
    arrivals: Arrivals = "poisson"  # of the open loop
    concurrency: int = 32  # callers of the closed loop
    rate: float | None = None  # rows a second of the open loop
    seconds: float = 10.0  # measured for each backend, all its rounds together
    rows: int | None = None  # measured for each backend at most
    rounds: int = 3
    warmup_s: float = 1.0  # before the measured part of each round, at the same load
    texts_per_call: int = 1
    truncate: bool = True
    timeout_s: float = 10.0  # deadline of each call
    seed: int = 0
    texts: str | None = None  # a file of texts; None: the built-in sample
    lengths: str | None = None  # synthetic texts instead, of these lengths: see `lockstep.clients.loadtest.lengths`
    wire: Wire = "unary"  # a call each, or messages on a stream that each generator process has
    processes: int | None = None  # that generate the load; None: by the cores of the machine
    http: str | None = None  # host:port of the metrics; None: 127.0.0.1:8002 if it answers

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name)
            if value is None:
                continue
            least_is_zero = name == "warmup_s"
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}, and must be a number")
            if value < 0 or (value == 0 and not least_is_zero):
                raise ValueError(f"{name} is {value}, and must {'not be negative' if least_is_zero else 'be positive'}")
            if value > most:
                raise ValueError(f"{name} is {value:,}, and may be {most:,.0f} at most")
        if self.rows is not None and self.rows < self.rounds * self.texts_per_call:
            raise ValueError(
                f"rows is {self.rows}: {self.rounds} rounds of {self.texts_per_call} texts a call need "
                f"{self.rounds * self.texts_per_call} at least"
            )
        if self.mode == "open" and self.rate is None:
            raise ValueError("an open loop needs a rate (rows a second)")
        if self.mode == "closed" and self.rate is not None:
            raise ValueError("a closed loop has no rate: it goes as fast as the answers come")
        if self.texts is not None and self.lengths is not None:
            raise ValueError("texts come from a file or from a distribution of lengths, not from both")
        if self.lengths is not None:
            Lengths.parse(self.lengths)

    @property
    def calls_per_s(self) -> float | None:
        """Of an open loop; a closed one has no rate."""
        return None if self.rate is None else self.rate / self.texts_per_call

    @property
    def load(self) -> str:
        """The load in few words: "200 texts/s", "32 callers"."""
        return f"{self.rate:g} texts/s" if self.mode == "open" else f"{self.concurrency} callers"


@dataclass(frozen=True, slots=True)
class Share:
    """Which of a leg's calls one generator sends: every `of`-th, beginning with number `index`.

    Each generator goes through the same arrivals and texts and leaves out the others': together they send what
    one alone would have sent, at the same instants.
    """

    index: int = 0
    of: int = 1

    def part(self, count: int) -> int:
        """Return this generator's part of so many callers or calls."""
        return count // self.of + (self.index < count % self.of)


WHOLE: Final = Share()
CORES_A_GENERATOR: Final = 4
MOST_GENERATORS: Final = 8


def generators(plan: LoadPlan, cores: int) -> int:
    """Return how many processes generate a plan's load.

    Unless the plan says, one for every four cores: server and generator mostly share a machine, and there each
    generator takes a core from what it measures. A caller of a closed loop lives in one process.
    """
    wanted = plan.processes or min(MOST_GENERATORS, max(1, cores // CORES_A_GENERATOR))
    return min(wanted, plan.concurrency) if plan.mode == "closed" else wanted


@dataclass(frozen=True, slots=True)
class Leg:
    """One backend's part of one round."""

    backend: str
    round: int  # from 0
    warmup_s: float
    window_s: float  # how long it is measured
    calls: int | None  # how many calls are measured at most
    seed: int  # of its texts and arrivals: the same for every backend of a round


def legs(plan: LoadPlan, backends: Sequence[str]) -> tuple[Leg, ...]:
    """Interleave the backends: each round visits all, each starting one further on.

    So a machine that warms up, throttles or is shared changes all backends alike, and none is
    always first. Every backend of a round gets the same texts at the same instants.
    """
    window_s = plan.seconds / plan.rounds
    calls = None if plan.rows is None else round(plan.rows / plan.rounds / plan.texts_per_call)
    return tuple(
        Leg(
            backend=backends[(turn + number) % len(backends)],
            round=number,
            warmup_s=plan.warmup_s,
            window_s=window_s,
            calls=calls,
            seed=plan.seed + number,
        )
        for number in range(plan.rounds)
        for turn in range(len(backends))
    )


def arrival_offsets(arrivals: Arrivals, calls_per_s: float, rng: random.Random) -> Iterator[float]:
    """Yield when each call is meant to start, seconds from the leg's start, without end.

    `constant` leaves 1 / rate between calls; `poisson` leaves exponential gaps of that mean, as many
    independent callers together would.
    """
    if arrivals == "constant":
        number = 0
        while True:
            yield number / calls_per_s
            number += 1
    offset_s = 0.0
    while True:
        offset_s += rng.expovariate(calls_per_s)
        yield offset_s
