"""The load: requests serialised beforehand, sent with bare grpc.aio from a process of its own.

As light as can be, because the server under test shares the cores: no client library, and answers are kept as bytes
and read only when the window is over. Every answer is read then: an error anywhere fails the measurement.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import grpc
import psutil

from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.core.lengths import LENGTH_BUCKETS

UNARY: Final = "/sentiment.v1.SentimentService/Classify"
STREAM: Final = "/sentiment.v1.SentimentService/ClassifyStream"
Way = Literal["unary", "stream", "stream_apart"]
"""A call for each text; a message for each on one stream, answers together where they may; or each answer apart."""

_DRAIN_S: Final = 60.0
LENGTH_LABELS: Final = (*(f"<={bound}" for bound in LENGTH_BUCKETS), f">{LENGTH_BUCKETS[-1]}")
_KEPT_LABELS: Final = re.compile(r'(?:le|length)="([^"]+)"')
_SAMPLE: Final = re.compile(r"^lockstep_(\w+?)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)


class LoadFailed(Exception):
    """The server answered with an error, lost a worker, or did not answer: nothing was measured."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server under test."""

    grpc: str  # host:port
    http: str  # host:port
    pid: int
    model: str


@dataclass(frozen=True, slots=True)
class Window:
    """What a server did in a span of time under steady load, by its own counters and the system's."""

    seconds: float
    gateway_cpu_s: float
    worker_cpu_s: float
    rows: int
    tokens: int
    padded_tokens: int
    batches: int
    rows_by_length: tuple[int, ...]  # in the length buckets of the server's metrics
    execute_cpu_s: float
    counters: dict[str, float]  # every other counter of /metrics that grew

    @property
    def cpu_s(self) -> float:
        """CPU time of all the server's processes, s."""
        return self.gateway_cpu_s + self.worker_cpu_s

    @property
    def rows_per_s(self) -> float:
        """Rows executed a second."""
        return self.rows / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU time of a row, ms."""
        return self.cpu_s * 1e3 / self.rows

    @property
    def padding(self) -> float:
        """Padded tokens / tokens."""
        return self.padded_tokens / self.tokens


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of a server at an instant."""

    at_ns: int
    cpu_s: dict[int, float]  # by process
    counters: dict[str, float]  # /metrics, summed over labels

    @classmethod
    def take(cls, target: Target) -> Reading:
        """Read /metrics, then CPU times, of the server and its children; blocks for some milliseconds."""
        counters = scrape(target.http)
        server = psutil.Process(target.pid)
        processes = [server, *server.children(recursive=True)]
        cpu_s = {process.pid: sum(process.cpu_times()[:2]) for process in processes}
        return cls(time.monotonic_ns(), cpu_s, counters)

    def until(self, later: Reading, target: Target) -> Window:
        """Return what happened between two readings. Raises `LoadFailed` where a process came or went."""
        if self.cpu_s.keys() != later.cpu_s.keys():
            raise LoadFailed("a process of the server came or went while it was measured")
        cpu_s = {pid: later.cpu_s[pid] - self.cpu_s[pid] for pid in self.cpu_s}
        grown = {name: value - self.counters.get(name, 0.0) for name, value in later.counters.items()}
        if grown.get("rows_total", 0.0) <= 0:
            raise LoadFailed("the server executed no row in the window")
        return Window(
            seconds=(later.at_ns - self.at_ns) / 1e9,
            gateway_cpu_s=cpu_s[target.pid],
            worker_cpu_s=sum(cpu_s.values()) - cpu_s[target.pid],
            rows=int(grown["rows_total"]),
            tokens=int(grown["tokens_total"]),
            padded_tokens=int(grown["padded_tokens_total"]),
            batches=int(grown["batches_total"]),
            rows_by_length=tuple(int(grown.get(f"execute_seconds_count{{{label}}}", 0.0)) for label in LENGTH_LABELS),
            execute_cpu_s=grown["execute_cpu_seconds_total"],
            counters={name: value for name, value in grown.items() if value > 0},
        )


@dataclass(frozen=True, slots=True)
class SaturatedPlan:
    """Keep `rows_in_flight` rows in flight for `warm_s`, then for `window_s` more."""

    target: Target
    texts: tuple[str, ...]
    way: Way
    rows_a_call: int
    rows_in_flight: int
    warm_s: float
    window_s: float


@dataclass(frozen=True, slots=True)
class PoissonPlan:
    """One text a call, at random instants; those before `warm_calls` are sent and not counted."""

    target: Target
    texts: tuple[str, ...]
    rate: float  # calls a second
    calls: int
    warm_calls: int
    seed: int


@dataclass(frozen=True, slots=True)
class LonePlan:
    """One text after the other, never two at once."""

    target: Target
    texts: tuple[str, ...]
    way: Way


def saturate(plan: SaturatedPlan) -> Window:
    """Run a plan; blocks. Raises `LoadFailed`."""
    return asyncio.run(_saturate(plan))


def poisson(plan: PoissonPlan) -> list[float]:
    """Return the latency of each call, ms, from the instant it was meant to start. Raises `LoadFailed`."""
    return asyncio.run(_poisson(plan))


def lone(plan: LonePlan) -> list[float]:
    """Return the latency of each text, ms. Raises `LoadFailed`."""
    return asyncio.run(_lone(plan))


def scrape(http: str) -> dict[str, float]:
    """Return the samples of /metrics without their prefix: summed over labels, but for `le` and `length`."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{http}/metrics", timeout=10) as answer:
        return parse_exposition(answer.read().decode())


def parse_exposition(text: str) -> dict[str, float]:
    """Read a Prometheus exposition; see `scrape`."""
    found: dict[str, float] = {}
    for sample in _SAMPLE.finditer(text):
        name, labels, value = sample[1], sample[2] or "", float(sample[3])
        kept = ",".join(_KEPT_LABELS.findall(labels))
        key = f"{name}{{{kept}}}" if kept else name
        found[key] = found.get(key, 0.0) + value
    return found


async def _saturate(plan: SaturatedPlan) -> Window:
    answers: list[bytes] = []
    async with _channel(plan.target) as channel:
        sending = asyncio.create_task(
            (_keep_calling if plan.way == "unary" else _keep_streaming)(channel, plan, answers)
        )
        try:
            await _unless_ended(sending, plan.warm_s)
            before = await asyncio.to_thread(Reading.take, plan.target)
            await _unless_ended(sending, plan.window_s)
            after = await asyncio.to_thread(Reading.take, plan.target)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    await _until_idle(plan.target)
    _check(answers, plan.way)
    return before.until(after, plan.target)


async def _unless_ended(sending: asyncio.Task[None], seconds: float) -> None:
    """Sleep; what ended the load meanwhile is raised."""
    done, _ = await asyncio.wait([sending], timeout=seconds)
    if done:
        sending.result()
        raise LoadFailed("the load ended before its time")


async def _keep_calling(channel: grpc.aio.Channel, plan: SaturatedPlan, answers: list[bytes]) -> None:
    call = _unary(channel)
    size = plan.rows_a_call
    whole = len(plan.texts) // size * size
    requests = [
        _request(plan.target.model, plan.texts[start : start + size]).SerializeToString()
        for start in range(0, whole, size)
    ]
    turn = itertools.count()

    async def one_after_the_other() -> None:
        while True:
            answers.append(await call(requests[next(turn) % len(requests)]))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, plan.rows_in_flight // size)):
                group.create_task(one_after_the_other())
    except* grpc.aio.AioRpcError as errors:
        raise LoadFailed(f"a call failed: {errors.exceptions[0]}") from None


async def _keep_streaming(channel: grpc.aio.Channel, plan: SaturatedPlan, answers: list[bytes]) -> None:
    messages = _messages(plan.target.model, plan.texts, together=plan.way == "stream")
    call = _stream(channel)
    turn = itertools.count()
    try:
        for _ in range(plan.rows_in_flight):
            await call.write(messages[next(turn) % len(messages)])
        while True:
            answer = await call.read()
            if answer is grpc.aio.EOF:
                raise LoadFailed("the server ended the stream")
            answers.append(answer)
            for _ in range(1 + len(pb.StreamResponse.FromString(answer).more)):
                await call.write(messages[next(turn) % len(messages)])
    except grpc.aio.AioRpcError as error:
        raise LoadFailed(f"the stream failed: {error}") from None
    finally:
        call.cancel()


async def _poisson(plan: PoissonPlan) -> list[float]:
    randomness = random.Random(plan.seed)
    due_s = list(itertools.accumulate(randomness.expovariate(plan.rate) for _ in range(plan.calls)))
    requests = [
        _request(plan.target.model, [plan.texts[randomness.randrange(len(plan.texts))]]).SerializeToString()
        for _ in range(plan.calls)
    ]
    answers: list[bytes] = [b""] * plan.calls
    latency_ms = [0.0] * plan.calls
    loop = asyncio.get_running_loop()
    async with _channel(plan.target) as channel:
        call = _unary(channel)
        await call(requests[0])  # the connection is there
        start = loop.time() + 0.1

        async def one(number: int) -> None:
            answers[number] = await call(requests[number])
            latency_ms[number] = (loop.time() - start - due_s[number]) * 1e3

        tasks = []
        for number in range(plan.calls):
            if (pause := start + due_s[number] - loop.time()) > 0:
                await asyncio.sleep(pause)
            tasks.append(loop.create_task(one(number)))
        done, late = await asyncio.wait(tasks, timeout=_DRAIN_S)
        for task in late:
            task.cancel()
        if late:
            raise LoadFailed(
                f"{len(late)} of {plan.calls} calls were not answered {_DRAIN_S:.0f} s after the last began"
            )
        for task in done:
            task.result()
    _check(answers, "unary")
    return latency_ms[plan.warm_calls :]


async def _lone(plan: LonePlan) -> list[float]:
    latency_ms: list[float] = []
    answers: list[bytes] = []

    async def measure(exchange: Callable[[bytes], Awaitable[bytes]], requests: Sequence[bytes]) -> None:
        for request in requests[:20]:  # warms up
            await exchange(request)
        for request in requests:
            began_ns = time.perf_counter_ns()
            answers.append(await exchange(request))
            latency_ms.append((time.perf_counter_ns() - began_ns) / 1e6)

    async with _channel(plan.target) as channel:
        if plan.way == "unary":
            requests = [_request(plan.target.model, [text]).SerializeToString() for text in plan.texts]
            await measure(_unary(channel), requests)
        else:
            call = _stream(channel)

            async def write_and_read(message: bytes) -> bytes:
                await call.write(message)
                answer: bytes = await call.read()
                return answer

            await measure(write_and_read, _messages(plan.target.model, plan.texts, together=True))
            await call.done_writing()
    _check(answers, plan.way)
    return latency_ms


def _channel(target: Target) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target.grpc, options=[("grpc.max_receive_message_length", 64 << 20)])


def _unary(channel: grpc.aio.Channel) -> Any:
    """Return the callable of a call, bytes in and bytes out."""
    return channel.unary_unary(UNARY)


def _stream(channel: grpc.aio.Channel) -> Any:
    """Open a stream, bytes in and bytes out."""
    return channel.stream_stream(STREAM)()


def _request(model: str, texts: Sequence[str]) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(model=model, texts=texts, truncate=True)


def _messages(model: str, texts: Sequence[str], *, together: bool) -> list[bytes]:
    """Return one message a text for a stream, each with an id: answers then come as soon as they are ready."""
    found = []
    for number, text in enumerate(texts):
        request = _request(model, [text])
        request.id = str(number)
        found.append(pb.StreamRequest(classify=request, together=together).SerializeToString())
    return found


async def _until_idle(target: Target) -> None:
    """Wait until the server has no row left of a load that was stopped."""
    deadline_s = time.monotonic() + _DRAIN_S
    rows = -1.0
    while time.monotonic() < deadline_s:
        counters = await asyncio.to_thread(scrape, target.http)
        executed = counters.get("rows_total", 0.0)  # not there before the first batch
        if counters.get("queue_rows", 0.0) == 0 and executed == rows:
            return
        rows = executed
        await asyncio.sleep(0.5)
    raise LoadFailed(f"the server was still busy {_DRAIN_S:.0f} s after the load had ended")


def _check(answers: Sequence[bytes], way: Way) -> None:
    """Read every answer; raises `LoadFailed` for one that is an error."""
    for raw in answers:
        if way == "unary":
            _check_response(pb.ClassifyResponse.FromString(raw))
            continue
        first = pb.StreamResponse.FromString(raw)
        for message in (first, *first.more):
            if message.WhichOneof("outcome") == "error":
                raise LoadFailed(f"a message failed: {message.error.kind}: {message.error.message}")
            _check_response(message.response)


def _check_response(response: pb.ClassifyResponse) -> None:
    for result in response.results:
        if result.WhichOneof("outcome") != "prediction":
            raise LoadFailed(f"a row failed: {result.error.kind}: {result.error.message}")
