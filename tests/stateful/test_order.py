"""Items come in order, once, and none is lost, whatever else happens."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import anyio
from hypothesis import given, strategies as st

from chains import NAMES, Chain, wrap
from streamkit import CancelToken, Left, Outcome, StreamCancelled
from support import Backend

from . import examples

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator


@dataclass(frozen=True)
class Plan:
    """What happens, in numbers of seconds that are small, so that much happens at once."""

    chain: Chain
    #: Of each buffer in the chain.
    size: float
    interval: int
    #: Before each item; -1 is for no suspension at all, 0 for a checkpoint.
    delays: list[int]
    #: What the source does after its items.
    ending: Literal["end", "error", "block"]
    #: What it does when it is cancelled.
    reaction: Literal["raise", "last items", "last items, raise", "go on"]
    fire: int | None
    #: What is said then.
    how: Literal["cancel", "cancel at a yield", "end the grace"]
    #: How long the consumer waits in each ask, and is busy after it; then for ever, and never.
    patience: list[int]
    pauses: list[int]

    @property
    def ends(self) -> bool:
        """Whether a consumer that waits for ever comes to an end."""
        fires = "cancellation" in self.chain and self.fire is not None
        return self.ending != "block" or (fires and self.how != "cancel at a yield")

    @property
    def read_ahead(self) -> float:
        """How many items may be ready that the consumer has not asked for, or one that it has."""
        return max(1, sum(self.size for name in self.chain if name == "buffer"))


plans = st.builds(
    Plan,
    chain=st.lists(st.sampled_from([*NAMES, "buffer"]), min_size=1, max_size=4).map(tuple),
    size=st.sampled_from([0, 1, 2, 5, inf]),
    interval=st.integers(1, 4),
    delays=st.lists(st.integers(-1, 4), max_size=10),
    ending=st.sampled_from(["end", "error", "block"]),
    reaction=st.sampled_from(["raise", "last items", "last items, raise", "go on"]),
    fire=st.none() | st.integers(0, 20),
    how=st.sampled_from(["cancel", "cancel at a yield", "end the grace"]),
    patience=st.lists(st.integers(0, 4), max_size=15),
    pauses=st.lists(st.integers(0, 4), max_size=15),
)


@dataclass
class Run:
    """One run of a plan, and what was seen of it from both ends."""

    plan: Plan
    produced: list[object] = field(default_factory=list)
    received: list[object] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    started: bool = False
    closed: int = 0
    fired: bool = False
    left: bool = False
    #: Items that the source was too far ahead of the consumer.
    excess: float = 0
    #: What came out of the iteration, if anything did.
    error: BaseException | None = None
    outcomes: list[Outcome | None] = field(default_factory=list)

    @contextmanager
    def noting(self) -> Iterator[None]:
        try:
            yield
        except BaseException as exc:
            self.raised.append(exc)
            raise

    async def source(self) -> AsyncGenerator[object, None]:
        self.started = True
        try:
            for number, delay in enumerate(self.plan.delays):
                if delay >= 0:
                    with self.noting():
                        await anyio.sleep(delay)
                self.produced.append(number)
                self.measure()
                with self.noting():
                    yield number
            if self.plan.ending == "error":
                raise LookupError("source")
            if self.plan.ending == "block":
                with self.noting():
                    await anyio.sleep_forever()
        except StreamCancelled:
            if self.plan.reaction != "raise":
                for number in range(1000 if self.plan.reaction == "go on" else 3):
                    if number:
                        with self.noting():
                            await anyio.sleep(1)
                    self.produced.append(("last", number))
                    with self.noting():
                        yield ("last", number)
            if self.plan.reaction in {"raise", "last items, raise"}:
                raise
        finally:
            self.closed += 1

    def measure(self) -> None:
        # A source that a token has resumed may come to one more yield.
        waiting = len(self.produced) - len(self.items) - self.fired
        self.excess = max(self.excess, waiting - self.plan.read_ahead)

    @property
    def items(self) -> list[object]:
        """What was received, without beats."""
        return [item for item in self.received if item != "beat"]

    async def main(self) -> None:
        token = CancelToken()
        stream = wrap(
            self.source(),
            self.plan.chain,
            token=token,
            interval=self.plan.interval,
            size=self.plan.size,
        )
        async with anyio.create_task_group() as tasks:
            if self.plan.fire is not None:
                tasks.start_soon(self.fire, token, self.plan.fire)
            async with stream:
                try:
                    await self.consume(stream)
                except (LookupError, StreamCancelled) as exc:
                    self.error = exc
                self.outcomes.append(stream.outcome if stream.ended else None)
            self.outcomes.append(stream.outcome)
            await anyio.sleep(20)
            self.outcomes.append(stream.outcome)

    async def fire(self, token: CancelToken, after: int) -> None:
        await anyio.sleep(after)
        if self.plan.how == "end the grace":
            self.fired = token.end_grace("stop")
        else:
            self.fired = token.cancel("stop", at_yield=self.plan.how == "cancel at a yield")

    async def consume(self, stream: Any) -> None:
        patience, pauses = deque(self.plan.patience), deque(self.plan.pauses)
        while patience or self.plan.ends:
            with anyio.move_on_after(patience.popleft() if patience else None):
                try:
                    self.received.append(await anext(stream))
                except StopAsyncIteration:
                    return
            if pauses:
                await anyio.sleep(pauses.popleft())
        self.left = True


@examples(60)
@given(plan=plans)
def test_order(backend: Backend, plan: Plan) -> None:
    """B5: any source, chain, beats, cancel and cancelled asks: all items, once, in order.

    And never more of them ready than there is read-ahead for.

    That no task is left is checked at the end of each run, for every test.
    """
    run = Run(plan)
    backend.run(run.main)

    items = run.items
    assert run.excess == 0
    if run.left:
        # Without those that were ready when the consumer left, if there were some.
        assert items == run.produced[: len(items)]
    else:
        assert items == run.produced
    assert run.closed == run.started
    told = [exc for exc in run.raised if isinstance(exc, StreamCancelled)]
    delivered = [exc for exc in told if not isinstance(exc.reason, Left)]
    assert len(told) <= run.fired + run.left
    assert len(told) <= 1
    assert isinstance(run.error, StreamCancelled) <= run.fired

    before, outcome, after = run.outcomes
    assert outcome is not None
    assert after is outcome
    assert before is (None if run.left and before is None else outcome)
    # Written before the consumer left, it counts what that could still have taken.
    assert outcome.items == len(items if before is None else run.produced)
    assert outcome.beats == len(run.received) - len(items)
    assert (outcome.kind == "cancelled") >= bool(delivered)
    assert outcome.grace_exceeded <= (plan.reaction == "go on" or plan.how == "end the grace")
