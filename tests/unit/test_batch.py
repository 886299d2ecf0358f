"""Operations that gather, and the delivery of their answers, whatever the store."""

import asyncio
import threading

import pytest

from afterward.errors import StoreUnavailable
from afterward.stores.batch import Operation, answer, by_kind, deliver
from tests.support.loops import OtherLoop
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio


def operation(kind: str = "enqueue", loop: asyncio.AbstractEventLoop | None = None) -> Operation:
    return Operation(kind, [], loop or asyncio.get_running_loop())


def answered(kind: str = "enqueue", loop: asyncio.AbstractEventLoop | None = None) -> Operation:
    """One that has been carried out, and whose answer is on its way."""
    asked = operation(kind, loop)
    asked.answer = f"the answer to {kind}"
    return asked


async def test_operations_are_told_by_kind_in_the_order_in_which_kinds_go() -> None:
    """Those of one kind stay in the order in which they were asked for."""
    claim, first, second = operation("claim"), operation("enqueue"), operation("enqueue")
    found = list(by_kind([claim, first, second], ["enqueue", "finish", "claim"]))
    assert found == [("enqueue", [first, second]), ("claim", [claim])]


async def test_each_gets_its_answer_or_its_error() -> None:
    good, bad = answered(), operation()
    bad.error = StoreUnavailable("its disk is full")
    answer([good, bad])
    assert await good == "the answer to enqueue"
    with pytest.raises(StoreUnavailable, match="its disk is full"):
        await bad


async def test_who_is_cancelled_gets_the_answer_first() -> None:
    """And is cancelled then: what was written is accounted for."""
    asked = answered()

    async def wait() -> None:
        await asked

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    answer([asked])
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asked.result() == "the answer to enqueue"


async def test_answers_are_delivered_to_the_loops_that_asked_and_each_goes_on() -> None:
    """From any thread; also on a loop that only waits for its turn."""
    went_on: list[asyncio.AbstractEventLoop] = []

    def then() -> None:
        went_on.append(asyncio.get_running_loop())

    with OtherLoop() as elsewhere, OtherLoop() as waiting:
        here, there = answered("claim"), answered("finish", elsewhere.loop)
        closed = await asyncio.to_thread(deliver, [here, there], [waiting.loop], then)
        assert await here == "the answer to claim"
        await soon(lambda: len(went_on) == 3)
        assert there.result() == "the answer to finish"
        assert set(went_on) == {asyncio.get_running_loop(), elsewhere.loop, waiting.loop}
        assert closed == []


async def test_a_loop_that_is_closed_is_told_and_stops_no_other() -> None:
    gone = asyncio.new_event_loop()
    here, there = answered(), answered(loop=gone)
    gone.close()
    assert deliver([there, here]) == [gone]
    assert await here == "the answer to enqueue"


async def test_a_loop_that_is_blocked_stops_no_other() -> None:
    blocked, free = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        free.wait(30)

    with OtherLoop() as elsewhere:
        try:
            elsewhere.loop.call_soon_threadsafe(block)
            await soon(blocked.is_set, "the loop is blocked")
            here = answered()
            deliver([answered(loop=elsewhere.loop), here])
            assert await here == "the answer to enqueue"
        finally:
            free.set()
