"""A worker without a process, moved by hand, and a model's queue over it: scheduling in milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lockstep.server.core.artifact import ArtifactSpec, Budget, TensorSpec
from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.core.messages import Encoding
from lockstep.server.runtimes.base import Ids, Lengths
from lockstep.server.runtimes.worker_process import BatchFailed, Executed, Launch
from lockstep.server.scheduling.backend import BackendSpec
from lockstep.server.scheduling.policy import Limits

SPEC = ArtifactSpec(
    path="/nowhere",
    input_ids=TensorSpec("input_ids", "int64"),
    attention_mask=None,
    lengths=TensorSpec("lengths", "int64"),
    logits=TensorSpec("logits", "float32"),
    labels=2,
)


@dataclass(eq=False)
class Batch:
    """A batch that a puppet was given; `answer`, `refuse` it, or let it wait."""

    ids: Ids
    outcome: asyncio.Future[Executed] = field(repr=False)

    def answer(self, ns: int = 1_000) -> None:
        """Answer zeros to every row, as if it had taken `ns` nanoseconds."""
        if not self.outcome.done():
            outputs = np.zeros((len(self.ids), 2), dtype=np.float32)
            self.outcome.set_result(Executed(outputs, 0, ns, ns))

    def refuse(self, words: str) -> None:
        """Refuse the batch, as a runtime does."""
        self.outcome.set_exception(BatchFailed(words))


class PuppetWorker:
    """Answers when it is told to; at once where `cost_ns` says what a batch of (rows, length) costs."""

    def __init__(self, launch: Launch, pid: int, cost_ns: Callable[[int, int], int] | None) -> None:
        self.launch = launch
        self.pid = pid
        self.versions: dict[str, str] = {"puppet": "1"}
        self.exited = asyncio.Event()
        self.ended = ""
        self.killed = False
        self.batches: list[Batch] = []
        self.cost_ns = cost_ns

    async def execute(self, ids: Ids, lengths: Lengths) -> Executed:
        """Take a batch and wait for its outcome."""
        batch = Batch(ids, asyncio.get_running_loop().create_future())
        self.batches.append(batch)
        if self.cost_ns is not None:
            batch.answer(self.cost_ns(*ids.shape))
        return await batch.outcome

    def die(self, words: str = "the worker ended (signal SIGKILL)") -> None:
        """End, as a process that is killed."""
        self.ended = words
        self.exited.set()
        for batch in self.batches:
            if not batch.outcome.done():
                batch.outcome.set_exception(BackendUnavailable(words))

    async def stop(self) -> None:
        """End in order."""
        self.die("the worker was stopped")

    async def kill(self) -> None:
        """End at once."""
        self.killed = True
        self.die()


@dataclass
class Stage:
    """Starts puppets; a test looks at them and moves them."""

    cost_ns: Callable[[int, int], int] | None = lambda rows, length: 1_000 * rows * length
    refuses_to_start: dict[str, str] = field(default_factory=dict)  # adapter -> why
    started: list[PuppetWorker] = field(default_factory=list)

    async def start(self, launch: Launch) -> PuppetWorker:
        """Start a puppet; raises `BackendUnavailable` where the test says so."""
        await asyncio.sleep(0)
        if why := self.refuses_to_start.get(launch.adapter):
            raise BackendUnavailable(why)
        worker = PuppetWorker(launch, 1000 + len(self.started), self.cost_ns)
        self.started.append(worker)
        return worker

    def of(self, adapter: str) -> list[PuppetWorker]:
        """Return the puppets of a backend that have not ended."""
        return [one for one in self.started if one.launch.adapter == adapter and not one.exited.is_set()]


def backend(
    name: str, *, cpu_ms: float = 1.0, max_tokens: int = 64, measure_s: float = 1.0, **more: object
) -> BackendSpec:
    """Return a backend whose adapter is its name."""
    fields: dict[str, object] = {
        "takes_free_rows": True,
        "circumstances": {"artifact": name, "max_tokens": str(max_tokens)},
        "vocabulary": 10,
        "probabilities": lambda outputs: np.full_like(outputs, 0.5),
        "limits": Limits(max_rows=8, max_padded_tokens=512),
        **more,
    }
    launch = Launch(name, SPEC, Budget())
    return BackendSpec(
        name=name,
        launch=launch,
        cpu_ms=cpu_ms,
        max_tokens=max_tokens,
        measure_s=measure_s,
        **fields,  # type: ignore[arg-type]
    )


def encoding(tokens: int) -> Encoding:
    """Return a row of so many tokens."""
    return Encoding(np.ones(tokens, dtype=np.int64))
