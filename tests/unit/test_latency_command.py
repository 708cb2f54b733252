import json

import click
from click.testing import CliRunner

from lockstep.clients import BackendLatency, GatewayLoad, LatencyReport, LengthLatency, PhaseLatency
from lockstep.commands.latency import show, watch

QUEUE, REQUEST = PhaseLatency(3, 1.25, 1, 2, 3, 4), PhaseLatency(3, 2.5, 2, 3, 4, 5)
PHASES = {"queue": QUEUE, "request": REQUEST}
LENGTHS = (LengthLatency(0, 16, {"queue": QUEUE}), LengthLatency(512, None, {"queue": QUEUE}))
BUSY = BackendLatency(
    "film", 1, "torch", 3, 1, 30, 36, 0.05, 0.5, 1.2, 3.0, 0.5, 166.6, 9.0, 5 * 10**7, PHASES, LENGTHS
)
IDLE = BackendLatency("film", 1, "tensorflow", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, ())
REPORT = LatencyReport(61.0, 1 / 128, (BUSY, IDLE), GatewayLoad(9.0, 0.25, 10**8))


def printed(*, by_length: bool = False, as_json: bool = False, compact: bool = False) -> str:
    command = click.Command(
        "show", callback=lambda: show(REPORT, by_length=by_length, as_json=as_json, compact=compact)
    )
    return CliRunner().invoke(command).output


def test_each_backend_has_its_work_and_its_phases_and_those_without_rows_are_named() -> None:
    output = printed()
    for part in ("film@torch", "1.20", "166.60", "queue", "1.25", "request", "2.50", "Over 61.0 s", "within 0.8%"):
        assert part in output
    assert "No rows: film@tensorflow" in output
    assert "1 to 16" not in output


def test_lengths_are_told_apart_when_asked() -> None:
    output = printed(by_length=True)
    assert "1 to 16" in output
    assert "> 512" in output


def test_json_holds_everything_and_lengths_when_asked() -> None:
    document = json.loads(printed(as_json=True))
    assert document["backends"][0]["phases"]["queue"]["mean_ms"] == 1.25
    assert "lengths" not in document["backends"][0]
    by_length = printed(by_length=True, as_json=True, compact=True)
    assert len(by_length.splitlines()) == 1
    assert json.loads(by_length)["backends"][0]["lengths"][1]["up_to"] is None


def test_watching_asks_again_until_it_is_interrupted() -> None:
    shown: list[LatencyReport] = []
    pauses: list[float] = []

    def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    watch(lambda: REPORT, shown.append, 0.5, sleep)
    assert shown == [REPORT] * 3
    assert pauses == [0.5] * 3
