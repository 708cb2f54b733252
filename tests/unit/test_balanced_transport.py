"""Which address a call goes to, by hand-driven transports and a clock that the test moves."""

import asyncio
import itertools
from collections import deque

import grpc
import pytest

from lockstep.clients.address import targets_of
from lockstep.clients.balanced_transport import LONGEST_PAUSE_S, BalancedTransport
from lockstep.clients.errors import CallError, ClientNotOpen, DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from lockstep.clients.transport import SERVER_LIVE, Method, Request, Response
from lockstep.protos import sentiment_pb2 as wire

ASK = wire.ClassifyRequest(texts=["x"])


class PuppetTransport:
    """Answers each call as the test says: with what is queued in `fails`, else at once, or when `release` is set."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.fails: deque[CallError] = deque()
        self.calls = 0
        self.holding: asyncio.Event | None = None
        self.questions: list[asyncio.Future[None]] = []  # whether it lives; the test answers
        self.closed = False

    async def classify(self, request: wire.ClassifyRequest, *, timeout_s: float) -> wire.ClassifyResponse:
        self.calls += 1
        if self.holding is not None:
            await self.holding.wait()
        if self.fails:
            raise self.fails.popleft()
        return wire.ClassifyResponse(model=self.address)

    async def call(self, method: Method[Request, Response], request: Request, *, timeout_s: float) -> Response:
        assert method.path == SERVER_LIVE.path
        question: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.questions.append(question)
        await question
        return method.response()

    async def close(self) -> None:
        self.closed = True


class Balanced:
    """A balanced transport over puppets, and its clock."""

    def __init__(self, *addresses: str) -> None:
        self.now_s = 100.0
        self.puppets: dict[str, PuppetTransport] = {}
        self.transport = BalancedTransport(addresses, self._connect, clock_s=lambda: self.now_s, dice=lambda: 0.0)

    def _connect(self, address: str) -> PuppetTransport:
        return self.puppets.setdefault(address, PuppetTransport(address))

    async def ask(self) -> str:
        return (await self.transport.classify(ASK, timeout_s=1.0)).model

    async def fail(self) -> CallError:
        with pytest.raises(CallError) as raised:
            await self.ask()
        return raised.value


def unavailable() -> Unavailable:
    return Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE)


def overloaded(pushback_s: float | None) -> Overloaded:
    return Overloaded("full", code=grpc.StatusCode.RESOURCE_EXHAUSTED, pushback_s=pushback_s)


def no_word() -> DeadlineExceeded:
    late = DeadlineExceeded("no answer", code=grpc.StatusCode.DEADLINE_EXCEEDED)
    late.passed_here = True
    return late


async def settle() -> None:
    """Let what is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_call_goes_to_the_address_with_the_fewest_in_flight() -> None:
    balanced = Balanced("a", "b", "c")
    held = asyncio.Event()
    for puppet in balanced.puppets.values():
        puppet.holding = held
    pending = [asyncio.create_task(balanced.ask()) for _ in range(7)]
    await asyncio.sleep(0)
    assert sorted(puppet.calls for puppet in balanced.puppets.values()) == [2, 2, 3]
    held.set()
    await asyncio.gather(*pending)


async def test_what_one_address_cannot_answer_may_go_to_another_at_once() -> None:
    balanced = Balanced("a", "b")
    balanced.puppets["a"].fails.append(unavailable())
    error = await balanced.fail()
    assert error.pushback_s == 0.0
    assert error.may_retry
    assert [await balanced.ask() for _ in range(3)] == ["b", "b", "b"]


async def test_an_address_that_says_when_to_come_back_is_left_alone_until_then() -> None:
    balanced = Balanced("a", "b")
    balanced.puppets["a"].fails.append(overloaded(5.0))
    assert (await balanced.fail()).pushback_s == 0.0
    balanced.now_s += 4.9
    assert [await balanced.ask() for _ in range(3)] == ["b", "b", "b"]
    balanced.now_s += 0.2
    assert await balanced.ask() == "a"


async def test_where_every_address_is_aside_the_pushback_is_that_of_the_first_to_come_back() -> None:
    balanced = Balanced("a", "b")
    balanced.puppets["a"].fails.append(overloaded(2.0))
    balanced.puppets["b"].fails.append(overloaded(5.0))
    await balanced.fail()
    balanced.now_s += 0.5
    assert (await balanced.fail()).pushback_s == pytest.approx(1.5)
    assert await balanced.ask() == "a"  # a call that comes all the same goes to the first to come back


async def test_where_every_address_is_gone_the_retry_policy_decides() -> None:
    balanced = Balanced("a", "b")
    for puppet in balanced.puppets.values():
        puppet.fails.append(unavailable())
    await balanced.fail()
    assert (await balanced.fail()).pushback_s is None


async def test_one_call_at_a_time_tries_an_address_that_failed() -> None:
    balanced = Balanced("a", "b")
    balanced.puppets["a"].fails.append(unavailable())
    await balanced.fail()
    balanced.now_s += 60
    balanced.puppets["a"].holding = held = asyncio.Event()
    pending = [asyncio.create_task(balanced.ask()) for _ in range(5)]
    await asyncio.sleep(0)
    assert balanced.puppets["a"].calls == 2
    held.set()
    assert sorted(await asyncio.gather(*pending)) == ["a", "b", "b", "b", "b"]
    balanced.puppets["a"].holding = held = asyncio.Event()
    balanced.puppets["b"].holding = held
    pending = [asyncio.create_task(balanced.ask()) for _ in range(4)]
    await asyncio.sleep(0)
    held.set()
    assert sorted(await asyncio.gather(*pending)) == ["a", "a", "b", "b"]


async def test_pauses_double_while_an_address_goes_on_failing_and_are_bounded() -> None:
    balanced = Balanced("a", "b")
    pauses_s = []
    for _ in range(8):
        balanced.puppets["a"].fails.append(unavailable())
        await balanced.fail()
        began_s, calls = balanced.now_s, balanced.puppets["a"].calls
        balanced.puppets["a"].fails.append(unavailable())
        while balanced.puppets["a"].calls == calls:
            balanced.now_s += 0.01
            await asyncio.gather(balanced.ask(), return_exceptions=True)
        pauses_s.append(balanced.now_s - began_s)
        balanced.now_s += LONGEST_PAUSE_S
    assert pauses_s[:3] == pytest.approx([0.05, 0.2, 0.8], abs=0.011)
    assert pauses_s[3:] == pytest.approx([LONGEST_PAUSE_S] * 5, abs=0.011)


async def test_the_calls_that_were_in_flight_when_an_address_failed_are_one_failure() -> None:
    balanced = Balanced("a", "b")
    held = asyncio.Event()
    balanced.puppets["a"].holding = balanced.puppets["b"].holding = held
    balanced.puppets["a"].fails.extend(unavailable() for _ in range(10))
    pending = [asyncio.create_task(balanced.ask()) for _ in range(20)]
    await asyncio.sleep(0)
    held.set()
    await asyncio.gather(*pending, return_exceptions=True)
    balanced.puppets["a"].holding = None
    balanced.now_s += 0.051
    assert await balanced.ask() == "a"


@pytest.mark.parametrize(
    "error", [InvalidInput("no", code=grpc.StatusCode.INVALID_ARGUMENT), overloaded(None), overloaded(-1.0)]
)
async def test_a_final_error_says_nothing_of_its_address(error: CallError) -> None:
    balanced = Balanced("a", "b")
    balanced.puppets["a"].fails.append(error)
    raised = await balanced.fail()
    assert not raised.may_retry
    assert await balanced.ask() == "a"


async def test_an_address_that_said_nothing_takes_no_call_until_it_is_heard_of() -> None:
    balanced = Balanced("a", "b")
    silent = balanced.puppets["a"]
    silent.fails.append(no_word())
    await balanced.fail()
    assert {await balanced.ask() for _ in range(20)} == {"b"}
    await settle()
    assert len(silent.questions) == 1  # one at a time
    silent.questions[0].set_result(None)
    await settle()
    assert await balanced.ask() == "a"


async def test_an_address_that_goes_on_saying_nothing_is_asked_again_after_pauses_that_grow() -> None:
    balanced = Balanced("a", "b")
    silent = balanced.puppets["a"]
    silent.fails.append(no_word())
    await balanced.fail()
    pauses_s = []
    for asked in range(1, 10):
        while len(silent.questions) < asked:
            balanced.now_s += 0.01
            assert await balanced.ask() == "b"
            await settle()
        pauses_s.append(balanced.now_s)
        silent.questions[-1].set_exception(no_word() if asked % 2 else unavailable())
        await settle()
    assert silent.calls == 1  # no caller paid for it again
    waited_s = [after - before for before, after in itertools.pairwise(pauses_s)]
    assert waited_s[:6] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6], abs=0.011)
    assert waited_s[6:] == pytest.approx([LONGEST_PAUSE_S] * 2, abs=0.011)


async def test_a_deadline_that_the_server_itself_says_has_passed_is_a_sign_of_life() -> None:
    balanced = Balanced("a", "b")
    balanced.puppets["a"].fails.append(DeadlineExceeded("late", code=grpc.StatusCode.DEADLINE_EXCEEDED))
    await balanced.fail()
    assert await balanced.ask() == "a"
    assert not balanced.puppets["a"].questions


async def test_an_address_that_answered_another_call_meanwhile_is_slow_and_not_silent() -> None:
    balanced = Balanced("a")
    puppet = balanced.puppets["a"]
    puppet.holding = held = asyncio.Event()
    late = asyncio.create_task(balanced.ask())
    await settle()
    puppet.holding = None
    assert await balanced.ask() == "a"
    puppet.fails.append(no_word())
    held.set()
    with pytest.raises(DeadlineExceeded):
        await late
    assert await balanced.ask() == "a"
    assert not puppet.questions


async def test_where_every_address_is_silent_calls_go_to_one_all_the_same_and_its_answer_counts() -> None:
    balanced = Balanced("a")
    puppet = balanced.puppets["a"]
    puppet.fails.append(no_word())
    await balanced.fail()
    await settle()
    assert await balanced.ask() == "a"
    puppet.questions[0].set_exception(no_word())  # older news than the answer
    await settle()
    assert await balanced.ask() == "a"
    assert len(puppet.questions) == 1


async def test_an_error_that_the_server_answers_ends_the_time_of_one_call_after_the_other() -> None:
    balanced = Balanced("a", "b")
    tried = balanced.puppets["a"]
    tried.fails.extend([unavailable(), InvalidInput("no", code=grpc.StatusCode.INVALID_ARGUMENT)])
    await balanced.fail()
    balanced.now_s += 60
    await balanced.fail()
    for puppet in balanced.puppets.values():
        puppet.holding = asyncio.Event()
    pending = [asyncio.create_task(balanced.ask()) for _ in range(4)]
    await settle()
    assert (tried.calls, balanced.puppets["b"].calls) == (4, 2)
    for puppet in balanced.puppets.values():
        assert puppet.holding is not None
        puppet.holding.set()
    await asyncio.gather(*pending)


async def test_closing_ends_the_questions_and_refuses_calls() -> None:
    balanced = Balanced("a", "b")
    balanced.puppets["a"].fails.append(no_word())
    await balanced.fail()
    await settle()
    await balanced.transport.close()
    assert balanced.puppets["a"].questions[0].cancelled()
    with pytest.raises(ClientNotOpen):
        await balanced.ask()


async def test_closing_closes_every_transport() -> None:
    balanced = Balanced("a", "b")
    await balanced.transport.close()
    assert all(puppet.closed for puppet in balanced.puppets.values())


def test_addresses_come_in_a_sequence_or_between_commas() -> None:
    assert targets_of("h:1") == ("h:1",)
    assert targets_of("h:1, i:2") == targets_of(["h:1", "i:2"]) == ("h:1", "i:2")


@pytest.mark.parametrize("named", ["", "h:1,", [], ["h:1", ""]])
def test_a_missing_address_is_refused(named: str | list[str]) -> None:
    with pytest.raises(ValueError, match="an address is missing"):
        targets_of(named)


def test_an_address_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="named twice"):
        targets_of("h:1,h:1")
