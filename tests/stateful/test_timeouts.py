"""When limits are reached, compared with a model of a few lines."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from hypothesis import given, strategies as st

from streamkit import StreamTimeout, TimedOut, with_keepalive, with_timeout
from support import Backend, Log

from . import examples

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@dataclass(frozen=True)
class Plan:
    #: Seconds that the source takes over each item, and at last over its end.
    delays: list[int]
    #: Seconds for which the consumer is busy after each item and beat; then no more.
    pauses: list[int]
    first: int | None
    idle: int | None
    total: int | None
    #: Seconds of waiting before a beat.
    interval: int
    #: Which of the two is further in.
    beats_inside: bool


# Small numbers, so that much happens at the same time.
limits = st.none() | st.integers(1, 12)
plans = st.builds(
    Plan,
    delays=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    pauses=st.lists(st.integers(0, 9), max_size=12),
    first=limits,
    idle=limits,
    total=st.none() | st.integers(1, 60),
    interval=st.integers(1, 12),
    beats_inside=st.booleans(),
).filter(lambda plan: any((plan.first, plan.idle, plan.total)))


def expected(plan: Plan) -> tuple[list[tuple[float, object]], set[str]]:
    """
    Return what the consumer gets, and when: the rules T1 to T3 in two loops.

    The second result has the limits of which one was reached: two may be at once.
    """
    received: list[tuple[float, object]] = []
    busy = deque(plan.pauses)
    now = 0.0
    # When the source is told, and of what.
    told, limits = math.inf if plan.total is None else plan.total, {"total"}

    def receive(event: object) -> None:
        nonlocal now
        received.append((now, event))
        now += busy.popleft() if busy else 0

    for item, delay in enumerate(plan.delays):
        ready = now + delay
        name = "first" if item == 0 and plan.first is not None else "idle"
        limit = getattr(plan, name) or math.inf
        waited = 0.0
        while now < min(ready, told):
            reached, beat = now + limit - waited, now + plan.interval
            until = min(ready, told, reached, beat)
            waited, now = waited + until - now, until
            if until == ready:
                break
            if until == reached:
                told, limits = until, {name} | (limits if until == told else set())
            if until == beat:
                receive("beat")
        if told <= now and told < ready:
            receive("told")
            return received, limits
        receive("end" if item == len(plan.delays) - 1 else item)
    return received, set()


@examples(60)
@given(plan=plans)
def test_limits(backend: Backend, plan: Plan) -> None:
    """T1: limits are reached when the model says, whatever the times of both sides (T1 to T3)."""
    log, reached = Log(), list[TimedOut]()

    async def source() -> AsyncGenerator[int, None]:
        *items, end = plan.delays
        for item, delay in enumerate(items):
            await anyio.sleep(delay)
            yield item
        await anyio.sleep(end)

    async def main() -> Any:
        stream: Any = source()
        if plan.beats_inside:
            stream = with_keepalive(stream, plan.interval, "beat")
        stream = with_timeout(stream, first=plan.first, idle=plan.idle, total=plan.total)
        if not plan.beats_inside:
            stream = with_keepalive(stream, plan.interval, "beat")
        busy = deque(plan.pauses)
        async with stream:
            log.start()
            try:
                async for event in stream:
                    log(event)
                    if busy:
                        await anyio.sleep(busy.popleft())
            except StreamTimeout as error:
                log("told")
                reached.append(error.reason)
            else:
                log("end")
        return stream.outcome

    outcome = backend.run(main)
    events, limits = expected(plan)
    assert log == events
    if limits:
        assert outcome.kind == "timed_out"
        assert outcome.reason is reached[0]
        assert outcome.reason.limit in limits
        assert outcome.reason.seconds == getattr(plan, outcome.reason.limit)
    else:
        assert outcome.kind == "completed"
