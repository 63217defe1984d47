"""What a stage may do with its stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import anyio

from .arguments import check_made
from .beside import start_beside
from .exceptions import StreamCancelled
from .metadata import Head
from .outcome import Outcome
from .pipeline import SKIP
from .pump import Pump
from .signal import Signal
from .timer import Timer

if TYPE_CHECKING:
    from .stage import Stage


class Control:
    """
    What a stage may do with its stream. None of it blocks, except :meth:`until_waited`, and all of
    it belongs to the event loop in which the stream was opened.
    """

    __slots__ = ("_handoff", "_number", "_pump", "_stages")

    def __init__(self, pump: Pump, stages: Sequence[Stage[Any, Any]], number: int) -> None:
        self._pump = pump
        self._handoff = pump.handoff
        self._stages = stages
        # Which one the stage is, counted from 1.
        self._number = number

    def timer(self, function: Callable[[], object]) -> Timer:
        """
        Return a timer that calls ``function``, which must not block, until the source is closed.

        What the function raises ends the stream, like an error of any hook. It runs in a task that
        is neither the source's nor the consumer's, in the context of this call.
        """
        return self._pump.make_timer(function)

    def start_soon(
        self, function: Callable[[], Awaitable[object]], *, name: str | None = None
    ) -> anyio.CancelScope:
        """
        Call an async function in a task beside the source. The block of the stream waits for it.

        It is cancelled when the block is being left, and by no scope around the stream. An error
        that it raises ends the stream, like an error of any hook.

        :param function: the function
        :param name: the name of the task, or ``None`` for that of the function
        :return: the scope in which it runs: cancel it to end only this
        :raises RuntimeError: if the stream is not open yet, or was left

        """
        return start_beside(self._pump, function, name)

    @property
    def source_name(self) -> str:
        """The name of the source: that of the generator function, or of the class."""
        return self._pump.source_name

    @property
    def started_at(self) -> float:
        """When the stream was entered, in seconds on the clock of :func:`anyio.current_time`."""
        return self._pump.started_at

    @property
    def now(self) -> Callable[[], float]:
        """The clock of :func:`anyio.current_time`, cheap enough to be asked for each item."""
        return self._handoff.now

    @property
    def waited(self) -> float:
        """
        Seconds for which the consumer has waited for items, in all its waits together.

        Includes those in :meth:`StatusStream.head`. It counts from the first read on: read it
        in :meth:`Stage.lifespan` to miss none.
        """
        return self._handoff.clock().seconds

    async def until_waited(self, seconds: float) -> None:
        """Wait until :attr:`waited` has reached this many seconds: for ever, if it never does."""
        await self._handoff.clock().reach(seconds)

    @property
    def waiting_since(self) -> float | None:
        """
        When the consumer began to wait, in seconds on the clock of :func:`anyio.current_time`, or
        ``None`` while it is busy elsewhere.
        """
        return self._handoff.waiting_since

    @property
    def asked_at(self) -> float | None:
        """When the consumer first asked for an item, or ``None`` if it has not."""
        return self._handoff.asked_at

    @property
    def waits(self) -> int:
        """How often the consumer has begun to wait: tells one wait from the next."""
        return self._handoff.waits

    def is_waiting(self, wait: int) -> bool:
        """Tell whether the consumer is still in this wait, with nothing to receive yet."""
        return self._handoff.waits == wait and self._handoff.wants_beat()

    @property
    def has_item(self) -> bool:
        """Whether the source has made an item for the consumer."""
        return self._pump.has_item

    @property
    def outcome(self) -> Outcome | None:
        """How the stream ended, or ``None`` while it goes on."""
        return self._pump.outcome

    def take_error(self) -> BaseException | None:
        """
        Return the error that the end of the stream would raise in the consumer, which then gets an
        end.

        Takes it even if the items of :meth:`Stage.final` come instead.

        :return: ``None`` if the end raises nothing, or has done so

        """
        return self._pump.take_raises()

    @property
    def has_failed(self) -> bool:
        """Whether the stream has ended with something to raise, wherever that went."""
        return self._pump.has_failed

    def note_head(self, head: Head) -> None:
        """Let :attr:`Outcome.head` be this one: the status that the stream was given."""
        self._pump.head = head

    def wake_consumer(self) -> None:
        """Make a waiting consumer look again at what it waits for."""
        self._handoff.wake_consumer()

    def cancel(
        self,
        reason: object = None,
        *,
        grace: float | None = None,
        kind: Literal["cancelled", "timed_out"] = "cancelled",
        error: Callable[[Any], BaseException] = StreamCancelled,
        at_yield: bool = False,
    ) -> bool:
        """
        Deliver :exc:`StreamCancelled` into the source.

        :param reason: the reason it carries
        :param grace: seconds that the source then has to clean up and say a last word: by default
            as many as it has to clean up when it is left
        :param kind: the kind of the outcome
        :param error: called with the reason, for the exception that the consumer receives if the
            source lets this one out
        :param at_yield: deliver it at the ``yield`` that the source is at or comes to next, when
            the item was taken. A source that has not started is told at once. Any other
            cancellation until then counts instead of this one
        :return: ``False`` if the stream is ending already, and the call changed nothing

        """
        signal = Signal(reason, self._pump.grace if grace is None else grace, kind, error)
        return self._pump.cancel_at_yield(signal) if at_yield else self._pump.cancel(signal)

    def end_grace(self) -> None:
        """
        End the grace of the source, as if its time were over: the running one, or a later one.

        The same holds for the streams inside it that are being left.
        """
        self._pump.end_grace()

    def fail(self, error: BaseException) -> None:
        """End the stream: the source is closed, then the consumer receives ``error``."""
        self._pump.fail(error)

    def beat(self, beat: object) -> bool:
        """
        Give the consumer something that is not an item, if it waits and no item is ready.

        :return: ``False`` if it does not wait, or has something to receive already

        """
        beat = self._through_outer(beat)
        return beat is not SKIP and self._handoff.offer_beat(beat)

    def beat_first(self, beat: object) -> None:
        """Let the consumer's first ask be answered with something that is not an item."""
        beat = self._through_outer(beat)
        if beat is not SKIP:
            self._handoff.put_beat_first(beat)

    def _through_outer(self, beat: Any) -> Any:
        for stage in self._stages[self._number :]:
            if beat is not SKIP:
                beat = stage.on_beat(beat)
                check_made(f"{type(stage).__qualname__}.on_beat", beat)
        return beat
