"""
How a source is stepped: from the first ask on, until it ends or must not be stepped again.

Each step gives one item, which is handed over; then the next ask is waited for. In between, the
source may hold scopes and task groups. They are its own business: if one of them is cancelled
while it waits for its consumer, the source finds that out when it goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from .exceptions import is_stream_cancelled, without_own_frames
from .generators import Generators
from .handoff import Handoff
from .pipeline import SKIP, Pipeline
from .relay import Relay
from .scopes import Scopes
from .signal import Signal
from .source import Source
from .unwinding import close_abandoned


class Steps:
    """
    The steps of one source.

    :param source: the source, which nobody else steps
    :param generators: what it has begun
    :param scopes: those around it
    :param handoff: where its items go
    :param pipeline: what its items go through
    :param cancelled: what the backend raises in a task that is cancelled

    """

    __slots__ = (
        "_cancelled",
        "_generators",
        "_handoff",
        "_pipeline",
        "_relay",
        "_scopes",
        "_source",
        "at_yield",
        "disturbed",
        "exhausted",
        "first_item_at",
        "has_started",
        "is_tidying",
        "items",
        "stopping",
    )

    def __init__(
        self,
        source: Source[Any],
        generators: Generators,
        scopes: Scopes,
        handoff: Handoff,
        pipeline: Pipeline,
        cancelled: type[BaseException],
    ) -> None:
        self._source = source
        self._generators = generators
        self._scopes = scopes
        self._handoff = handoff
        self._pipeline = pipeline
        self._cancelled = cancelled
        self._relay: Relay
        self.has_started = False
        #: The number of items that it has made.
        self.items = 0
        self.first_item_at: float | None = None
        #: It came to its own end.
        self.exhausted = False
        #: The consumer has left, or a stage has failed: it is no longer stepped.
        self.stopping = False
        #: What it will be told at a yield, and nowhere else.
        self.at_yield: Signal | None = None
        #: It was told something, or will be: it does not just wait for the next ask.
        self.disturbed = False
        #: Something that it has abandoned is being closed, while it is at a yield.
        self.is_tidying = False

    async def run(
        self, relay: Relay, fail: Callable[[BaseException], object]
    ) -> BaseException | None:
        """
        Step the source until it ends or must not be stepped again. Driven by its relay.

        :param fail: called with an error of the pipeline
        :return: what the source raised

        """
        self._relay = relay
        source, scopes, handoff = self._source, self._scopes, self._handoff
        cancelled = self._cancelled
        transform: Callable[[Any], Any] = self._pipeline.transform
        if source.is_batched:
            transform = self._put_all_but_last
        abandoned = self._generators.abandoned
        throw = await self._next_demand()
        if not self._may_start(throw):
            return throw
        try:
            relay.in_source = True
            source.start(self._generators)
            while True:
                item = await (source.next() if throw is None else source.throw(throw))
                relay.in_source = False
                throw = None
                try:
                    outgoing = transform(item)
                except BaseException as exc:
                    fail(exc)
                    outgoing = SKIP
                if self.stopping:
                    demand = None
                elif outgoing is SKIP:
                    demand = handoff.skip()
                else:
                    if not self.items:
                        self.first_item_at = handoff.now()
                    self.items += 1
                    demand = handoff.put(outgoing)
                if abandoned and not self.stopping:
                    throw = await self._close_abandoned()
                    if demand is not None:
                        # The consumer may have asked meanwhile.
                        demand = handoff.demand
                if not self.disturbed:
                    # What is next, for nearly every item.
                    if demand is not None and throw is None:
                        try:
                            await demand()
                        except cancelled as exc:
                            throw = exc
                        if throw is not None:
                            throw = await self._demand_again(throw)
                elif throw is None and scopes.armed and not scopes.is_left:
                    # It came to a yield before it blocked: the signal is raised at that yield.
                    scopes.deliver()
                    throw = relay.exception()
                if self.disturbed or throw is not None:
                    if throw is None:
                        throw = await self._look_up(must_wait=demand is not None)
                    if not self._may_go_on(throw):
                        return throw
                relay.in_source = True
        except StopAsyncIteration:
            self.exhausted = True
            return None
        except BaseException as exc:
            return without_own_frames(exc)
        finally:
            relay.in_source = False
            del throw

    def _put_all_but_last(self, batch: Any) -> Any:
        """
        Hand over what the pipeline makes of several items, all but the last.

        :return: the last as the consumer receives it, or ``SKIP``

        """
        handoff = self._handoff
        if self.stopping:
            return SKIP
        if self._pipeline.is_transparent:
            last = batch.pop()
            self._note(len(batch))
            handoff.put_all(batch)
            return last
        transform = self._pipeline.transform
        outgoing: list[Any] = []
        try:
            for item in batch:
                made = transform(item)
                if made is not SKIP:
                    outgoing.append(made)
        except BaseException:
            # What came before it is for the consumer.
            self._note(len(outgoing))
            handoff.put_all(outgoing)
            raise
        last = outgoing.pop() if outgoing else SKIP
        self._note(len(outgoing))
        handoff.put_all(outgoing)
        return last

    def _note(self, count: int) -> None:
        if count and not self.items:
            self.first_item_at = self._handoff.now()
        self.items += count

    async def _look_up(self, *, must_wait: bool) -> BaseException | None:
        """
        Wait at a yield for what comes next, and watch for what the source is told.

        :return: what to raise in the source

        """
        throw: BaseException | None = None
        try:
            if must_wait or self._is_told_here:
                throw = await self._next_demand()
            if throw is None and self._is_told_here:
                assert self.at_yield is not None
                self._scopes.tell_at_yield(self.at_yield)
                throw = self._relay.exception()
            return throw
        finally:
            del throw

    async def _close_abandoned(self) -> BaseException | None:
        """Close what the source has abandoned on its way, as if it had done so itself."""
        relay = self._relay
        relay.in_source = self.is_tidying = True
        interrupted = await close_abandoned(self._generators)
        relay.in_source = self.is_tidying = False
        try:
            if interrupted is None or is_stream_cancelled(interrupted):
                return interrupted
            return relay.put_off(interrupted)
        finally:
            del interrupted

    def _may_start(self, throw: BaseException | None) -> bool:
        if throw is not None or self.stopping or self._scopes.signal is not None:
            return False
        self.has_started = True
        return True

    def _may_go_on(self, throw: BaseException | None) -> bool:
        if throw is not None:
            return self._source.can_throw
        if self._scopes.armed and not self._scopes.is_left:
            return True
        if self._scopes.delivered and self._scopes.expired:
            self._scopes.cut = True
            # Not in an await, but at a yield.
            self._scopes.look_at(self._source.iterator)
        return not (self.stopping or self._scopes.cut)

    async def _next_demand(self) -> BaseException | None:
        """
        Wait until the source should be stepped or told, or be left alone.

        :return: a native cancellation of asyncio, which comes only once, to be raised in the source

        """
        if self._must_act():
            return None
        scopes = self._scopes
        interrupted: BaseException | None = None
        pauses = scopes.delivered
        if pauses:
            scopes.pause()
        try:
            try:
                await self._wait()
            except self._cancelled as exc:
                interrupted = exc
            return None if interrupted is None else await self._demand_again(interrupted)
        finally:
            interrupted = None
            if pauses:
                scopes.resume()

    async def _demand_again(self, interrupted: BaseException) -> BaseException | None:
        """
        Go on with a wait for the consumer that was cancelled, unless that should end it.

        The wait may be inside scopes and task groups that the source holds across its yield. When
        one of them is cancelled, that is the source's business and not the consumer's, so the
        source finds it at its next await and the wait goes on.
        """
        try:
            native = self._relay.put_off(interrupted)
            if native is not None or self._must_act():
                return native
            try:
                # Entered on top of the source's scopes, and left before the source runs again.
                with anyio.CancelScope(shield=True):
                    await self._wait()
            except self._cancelled as exc:
                return self._relay.put_off(exc)
            return None
        finally:
            del interrupted

    def _wait(self) -> Awaitable[None]:
        handoff = self._handoff
        return handoff.taken() if self._is_told_here else handoff.demand()

    @property
    def _is_told_here(self) -> bool:
        """Whether the source should be told at its yield, and is not told otherwise meanwhile."""
        return self.at_yield is not None and self._scopes.signal is None

    def _must_act(self) -> bool:
        """Tell whether the source should be told or closed, not wait for the consumer."""
        return self.stopping or self._scopes.has_pending_signal or self._scopes.expired
