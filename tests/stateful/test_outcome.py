"""The outcome and on_end, when several things end a stream at once."""

from __future__ import annotations

import dataclasses
import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import anyio
import anyio.lowlevel
from hypothesis import given, strategies as st

from chains import ORDERS, Chain, wrap
from streamkit import CancelToken, Outcome, StreamCancelled, StreamTimeout, with_timeout
from support import BACKENDS, Backend

from . import examples

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Event = Literal["token", "timeout", "scope", "aclose", "leave", "body raises", "body is cancelled"]


@dataclass(frozen=True)
class Moment:
    """A second, and a number of passes of the event loop after its beginning."""

    second: int
    passes: int

    async def come(self) -> None:
        await anyio.sleep(self.second)
        for _ in range(self.passes):
            await anyio.lowlevel.checkpoint()


# Few seconds, so that things meet in one of them.
moments = st.builds(Moment, st.integers(0, 4), st.integers(0, 6))


@dataclass(frozen=True)
class Plan:
    chain: Chain
    #: Seconds before each item.
    delays: list[int]
    #: What the source does after its items, after some seconds.
    ending: Literal["end", "error", "block"]
    #: Seconds that the source takes to clean up.
    clean_up: int
    #: Seconds that the consumer is busy after each item.
    busy: int
    #: What else happens, and when. The consumer does its part at its next turn.
    events: dict[Event, Moment]


plans = st.builds(
    Plan,
    chain=st.sampled_from(ORDERS),
    delays=st.lists(st.integers(0, 2), max_size=4),
    ending=st.sampled_from(["end", "error", "block"]),
    clean_up=st.integers(0, 2),
    busy=st.integers(0, 2),
    events=st.dictionaries(
        st.sampled_from(get_args(Event)),
        moments,
        min_size=1,
        max_size=3,
    ),
)


@dataclass
class Run:
    plan: Plan
    started: bool = False
    closed: int = 0
    #: What on_end was called with, and how often the source had been closed by then.
    calls: list[tuple[Outcome, Outcome, int]] = field(default_factory=list)
    #: When things happened that may decide the kind of the outcome.
    happened: dict[str, float] = field(default_factory=dict)
    stream: Any = None

    def note(self, kind: str) -> None:
        self.happened.setdefault(kind, anyio.current_time())

    async def source(self) -> AsyncGenerator[int, None]:
        self.started = True
        kind = ""
        try:
            for number, delay in enumerate(self.plan.delays):
                await anyio.sleep(delay)
                yield number
            if self.plan.ending == "block":
                await anyio.sleep_forever()
            if self.plan.ending == "error":
                kind = "failed"
                raise LookupError("source")
            kind = "completed"
        finally:
            try:
                await anyio.sleep(self.plan.clean_up)
                # Only now: what comes while it still runs comes before its end.
                if kind:
                    self.note(kind)
            finally:
                self.closed += 1

    async def on_end(self, outcome: Outcome) -> None:
        await anyio.lowlevel.checkpoint()
        self.calls.append((outcome, dataclasses.replace(outcome), self.closed))

    async def main(self) -> None:
        token, scope = CancelToken(), anyio.CancelScope()
        self.stream = wrap(
            self.source(), self.plan.chain, token=token, interval=1, on_end=self.on_end
        )
        if "timeout" in self.plan.events:
            total = self.plan.events["timeout"].second + 1
            self.stream = with_timeout(self.stream, total=total)
            self.happened["timed_out"] = anyio.current_time() + total
        async with anyio.create_task_group() as tasks:
            try:
                with scope:
                    async with self.stream:
                        for event, moment in self.plan.events.items():
                            tasks.start_soon(self.act, event, moment, token, scope)
                        await self.consume(anyio.current_time())
            except* (LookupError, StreamCancelled, StreamTimeout, anyio.ClosedResourceError):
                pass  # in a group where the scope and the source ended the stream together
            outcome = self.stream.outcome
            # What has not happened yet finds a stream that has ended.
            await anyio.sleep(10)
            assert self.stream.outcome is outcome

    async def act(
        self, event: Event, moment: Moment, token: CancelToken, scope: anyio.CancelScope
    ) -> None:
        await moment.come()
        if event == "token":
            self.note("cancelled")
            token.cancel("stop")
        elif event == "scope":
            self.note("closed")
            scope.cancel()
        elif event == "aclose":
            self.note("closed")
            with suppress(LookupError):
                await self.stream.aclose()

    async def consume(self, started_at: float) -> None:
        turns: dict[float, Event] = {
            started_at + moment.second: event
            for event, moment in self.plan.events.items()
            if event in {"leave", "body raises", "body is cancelled"}
        }
        turn = min(turns, default=math.inf)
        while anyio.current_time() < turn:
            with anyio.CancelScope(deadline=turn):
                try:
                    await anext(self.stream)
                except StopAsyncIteration:
                    return
                await anyio.sleep(self.plan.busy)
        if turns[turn] == "body is cancelled":
            self.note("cancelled")
            raise StreamCancelled("body")
        self.note("closed")
        if turns[turn] == "body raises":
            raise LookupError("body")


@examples(1 + 1000 // len(BACKENDS))
@given(plan=plans)
def test_first_event_wins(backend: Backend, plan: Plan) -> None:
    """S7, S10: on_end once, source closed; the kind is that of the first event, for good.

    More than 1,000 examples on all backends together.
    """
    run = Run(plan)
    backend.run(run.main)

    outcome = run.stream.outcome
    ((given_outcome, as_it_was, closed),) = run.calls
    assert given_outcome is outcome
    assert as_it_was == outcome
    assert closed == run.closed == run.started

    first = min(run.happened.values())
    kinds = {kind for kind, at in run.happened.items() if at == first}
    if len(kinds) > 1 and "body is cancelled" in plan.events:
        # The consumer leaves with it; where the source ended before it saw that, this is the kind.
        kinds.add("closed")
    assert outcome.kind in kinds
    assert (outcome.error is None) == (outcome.kind != "failed")
    if outcome.kind == "cancelled":
        assert outcome.reason in {"stop", "body"}
    assert not outcome.grace_exceeded
