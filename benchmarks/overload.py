"""Goodput beyond saturation: rows answered within a second, at a multiple of the rate that the server can hold.

    python -m benchmarks.overload --repository models --model torch-transformer
    python -m benchmarks.overload --repository models --model torch-bilstm --way stream --in-flight 256

The peak is the closed loop's throughput. Then calls arrive at random, `--times` as often, each with a deadline of a
second from the instant at which it was meant to start, and are not sent again. On a stream the client bounds what is
in flight and drops what arrives beyond that. Peak and overload take turns, `--rounds` times; the shares' median counts,
and the generator's share of the cores is told, since it takes them from the server.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import json
import random
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import click
import grpc
import psutil

from benchmarks.gateway import Generator
from benchmarks.generator import STREAM, UNARY, SaturatedPlan, Target, Way, saturate
from benchmarks.workload import of_corpus
from lockstep.local_server import local_server
from lockstep.protos import sentiment_pb2 as pb
from lockstep.zoo.corpus import fetch


@dataclass(frozen=True, slots=True)
class OverloadPlan:
    """Send at `rate` rows a second for `warm_s`, then count for `window_s` more."""

    target: Target
    texts: tuple[str, ...]
    way: Way
    rate: float
    deadline_s: float
    in_flight: int  # of a stream; what arrives beyond is dropped
    warm_s: float
    window_s: float


@dataclass(frozen=True, slots=True)
class Goodput:
    """What became of the rows meant to start in the window."""

    offered_per_s: float
    in_time_per_s: float
    outcomes: dict[str, int]
    refusal_p50_ms: float  # of rows refused with RESOURCE_EXHAUSTED: from the sending to the refusal
    generator_cores: float  # CPU time a second of the generator, which the server lacks where they share the cores


def overload(plan: OverloadPlan) -> Goodput:
    """Run a plan; blocks."""
    return asyncio.run(_overload(plan))


async def _overload(plan: OverloadPlan) -> Goodput:
    dice = random.Random(7)
    span_s = plan.warm_s + plan.window_s
    due_s = list(itertools.takewhile(lambda at: at < span_s, itertools.accumulate(_gaps(dice, plan.rate))))
    outcomes: collections.Counter[str] = collections.Counter()
    refusals_ms: list[float] = []
    loop = asyncio.get_running_loop()
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    async with grpc.aio.insecure_channel(plan.target.grpc) as channel:
        send, has_room = _unary(channel, plan) if plan.way == "unary" else await _Stream.open(channel, plan)
        start = loop.time() + 0.1

        async def one(number: int) -> None:
            due, sent = start + due_s[number], loop.time()
            text = plan.texts[number % len(plan.texts)]
            outcome = await send(text, max(0.001, due + plan.deadline_s - sent))
            late = outcome == "OK" and loop.time() > due + plan.deadline_s
            if due_s[number] >= plan.warm_s:
                outcomes["late" if late else outcome] += 1
                if outcome == "RESOURCE_EXHAUSTED":
                    refusals_ms.append((loop.time() - sent) * 1e3)

        tasks = []
        for number, at_s in enumerate(due_s):
            if (pause := start + at_s - loop.time()) > 0:
                await asyncio.sleep(pause)
            if has_room():
                tasks.append(loop.create_task(one(number)))
            elif at_s >= plan.warm_s:
                outcomes["dropped by the client"] += 1
        await asyncio.gather(*tasks)
    refusals_ms.sort()
    return Goodput(
        offered_per_s=sum(outcomes.values()) / plan.window_s,
        in_time_per_s=outcomes["OK"] / plan.window_s,
        outcomes=dict(outcomes),
        refusal_p50_ms=refusals_ms[len(refusals_ms) // 2] if refusals_ms else 0.0,
        generator_cores=(time.process_time() - began_cpu_s) / (time.monotonic() - began_s),
    )


def _gaps(dice: random.Random, rate: float) -> Any:
    while True:
        yield dice.expovariate(rate)


def _unary(channel: grpc.aio.Channel, plan: OverloadPlan) -> Any:
    call = channel.unary_unary(UNARY)

    async def send(text: str, timeout_s: float) -> str:
        request = pb.ClassifyRequest(model=plan.target.model, texts=[text], truncate=True)
        try:
            raw = await call(request.SerializeToString(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return _outcome(pb.ClassifyResponse.FromString(raw))

    return send, lambda: True


class _Stream:
    """One stream with at most `in_flight` unanswered messages."""

    @classmethod
    async def open(cls, channel: grpc.aio.Channel, plan: OverloadPlan) -> Any:
        call = channel.stream_stream(STREAM)()
        waiting: dict[str, asyncio.Future[str]] = {}
        numbers, writing = itertools.count(), asyncio.Lock()

        async def read() -> None:
            while (raw := await call.read()) is not grpc.aio.EOF:
                message = pb.StreamResponse.FromString(raw)
                error = message.WhichOneof("outcome") == "error"
                outcome = grpc_name(message.error.code) if error else _outcome(message.response)
                waiting.pop(message.id).set_result(outcome)

        reading = asyncio.ensure_future(read())

        async def send(text: str, timeout_s: float) -> str:
            key = str(next(numbers))
            answer = waiting[key] = asyncio.get_running_loop().create_future()
            request = pb.ClassifyRequest(model=plan.target.model, texts=[text], truncate=True, id=key)
            message = pb.StreamRequest(classify=request, timeout_us=int(timeout_s * 1e6))
            async with writing:  # gRPC takes one write at a time
                await call.write(message.SerializeToString())
            await asyncio.wait([answer, reading], return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else "stream ended"

        return send, lambda: len(waiting) < plan.in_flight


def grpc_name(number: int) -> str:
    """Return the name of a status."""
    return next(status.name for status in grpc.StatusCode if status.value[0] == number)


def _outcome(response: pb.ClassifyResponse) -> str:
    (result,) = response.results
    return "OK" if result.WhichOneof("outcome") == "prediction" else grpc_name(result.error.code)


@click.command()
@click.option("--repository", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--model", required=True)
@click.option("--way", type=click.Choice(get_args(Way)), default="unary", show_default=True)
@click.option("--times", type=float, default=3.0, show_default=True, help="Offered rate / peak.")
@click.option("--in-flight", type=int, default=256, show_default=True, help="Of a stream.")
@click.option("--seconds", type=float, default=6.0, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache"), show_default=True)
def main(
    repository: Path, model: str, way: Way, times: float, in_flight: int, seconds: float, rounds: int, cache: Path
) -> None:
    """Print the peak and the goodput beyond it, round by round, as JSON."""
    texts = of_corpus(fetch(cache / "corpus")).texts
    found = []
    with tempfile.TemporaryDirectory() as folder, Generator() as generator:
        flags = ("--state", folder, "--start", "preferred")
        with local_server(repository, Path(folder) / "log", *flags) as server:
            pid = next(one.pid for one in psutil.Process().children() if server.grpc in one.cmdline())
            target = Target(server.grpc, server.http, pid, model)
            generator.run(saturate, SaturatedPlan(target, texts, way, 1, 64, 2.0, 0.5 * seconds))  # starts every worker
            for _ in range(rounds):
                peak = generator.run(saturate, SaturatedPlan(target, texts, way, 1, 64, 1.0, seconds)).rows_per_s
                plan = OverloadPlan(target, texts, way, times * peak, 1.0, in_flight, 2.0, seconds)
                beyond = generator.run(overload, plan)
                share = beyond.in_time_per_s / peak
                found.append({"peak_per_s": peak, "share_of_peak": share, **asdict(beyond)})
        log = (Path(folder) / "log").read_text()
    shares = sorted(float(one["share_of_peak"]) for one in found)
    told = {"median": statistics.median(shares), "least": shares[0], "most": shares[-1]}
    click.echo(json.dumps({"share_of_peak": told, "rounds": found, "tracebacks": log.count("Traceback")}, indent=1))


if __name__ == "__main__":
    main()
