"""The base of every combinator: hooks on a stream, instead of one more task around it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, Literal, TypeVar, cast

import anyio

from .arguments import check_made, check_plain
from .beside import start_beside
from .exceptions import StreamCancelled, both
from .handoff import BATCH
from .metadata import Head, Metadata
from .outcome import Outcome
from .pipeline import SKIP as SKIP, Skip as Skip
from .pump import Pump
from .signal import Signal
from .timer import Timer

T_contra = TypeVar("T_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)


class Control:
    """
    What a stage may do with its stream. None of it blocks but :meth:`until_waited`, and all of it
    belongs to the event loop that the stream was opened in.
    """

    __slots__ = ("_handoff", "_outer", "_pump")

    def __init__(self, pump: Pump, outer: Sequence[Stage[Any, Any]]) -> None:
        self._pump = pump
        self._handoff = pump.handoff
        self._outer = outer

    def timer(self, function: Callable[[], object]) -> Timer:
        """
        Return a timer that calls ``function``, which must not block, until the source is closed.

        What the function raises ends the stream, like an error of any hook. It runs in a task that
        is neither the source's nor the consumer's, in the context of this call.
        """
        return self._pump.make_timer(function)

    def start_soon(
        self, function: Callable[[], Awaitable[object]], *, name: str | None = None
    ) -> None:
        """
        Call an async function in a task beside the source, which the block of the stream waits for.

        It is cancelled when the block is being left, and by nothing that is around the stream. What
        it raises ends the stream, like an error of any hook.

        :param function: the function
        :param name: of the task, or ``None`` for that of the function
        :raises RuntimeError: if the stream is not open yet, or was left

        """
        start_beside(self._pump, function, name)

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

        Those in :meth:`StatusStream.head` are among them. It counts from the first read on: read it
        in :meth:`Stage.lifespan` to miss none.
        """
        return self._handoff.clock().seconds

    async def until_waited(self, seconds: float) -> None:
        """Wait until :attr:`waited` has come to so many seconds: without end, if it never does."""
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
        Return what the end of the stream is to raise in the consumer, which then gets an end.

        Takes it even where the items of :meth:`Stage.final` come in its place.

        :return: ``None`` if the end raises nothing, or has done so

        """
        return self._pump.take_raises()

    @property
    def has_failed(self) -> bool:
        """Whether the stream has ended with something to raise, wherever that went."""
        return self._pump.has_failed

    def note_head(self, head: Head) -> None:
        """Let :attr:`Outcome.head` say that this is what was given as the status of the stream."""
        self._pump.head = head

    def wake_consumer(self) -> None:
        """Have a consumer that waits look again at what it waits for."""
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
            the item was taken. A source that has not started is told at once, and any other
            cancellation until then counts in place of this one
        :return: ``False`` if the stream is ending already, and the call changed nothing

        """
        signal = Signal(reason, self._pump.grace if grace is None else grace, kind, error)
        return self._pump.cancel_at_yield(signal) if at_yield else self._pump.cancel(signal)

    def end_grace(self) -> None:
        """
        End the grace of the source, as if its time were over: that which runs, or will.

        The same goes for the streams inside of it that are being left.
        """
        self._pump.end_grace()

    def fail(self, error: BaseException) -> None:
        """End the stream: the source is closed, then the consumer receives ``error``."""
        self._pump.fail(error)

    def beat(self, beat: object) -> bool:
        """
        Give the consumer something that is no item, if it waits and no item is ready.

        :return: ``False`` if it does not wait, or has something to receive already

        """
        beat = self._through_outer(beat)
        return beat is not SKIP and self._handoff.offer_beat(beat)

    def beat_first(self, beat: object) -> None:
        """Let the consumer's first ask be answered with something that is no item."""
        beat = self._through_outer(beat)
        if beat is not SKIP:
            self._handoff.put_beat_first(beat)

    def _through_outer(self, beat: Any) -> Any:
        for stage in self._outer:
            if beat is not SKIP:
                beat = stage.on_beat(beat)
                check_made(f"{type(stage).__qualname__}.on_beat", beat)
        return beat


# They are called, and nothing of them is awaited.
_PLAIN_HOOKS = ("on_open", "on_close", "on_item", "on_metadata", "on_beat", "final")


class Stage(Generic[T_contra, T_co]):
    """
    A combinator as a set of hooks: what it does with items, and what it does beside them.

    Override what you need, and put the stage on a stream with :func:`with_stage`. A stage belongs
    to one stream. Stages are called in the order in which they were put on: the innermost first.
    An error that a hook raises ends the stream: the source is closed, then the consumer receives
    the error.
    """

    #: Seconds that :meth:`on_end` may take.
    on_end_timeout: float = 5.0
    #: Seconds that a source has to clean up, or ``None`` to leave that to other stages.
    grace: float | None = None
    #: Number of items that the source may be ahead of the consumer. Those of several stages add up.
    read_ahead: float = 0
    #: Number of items that were read ahead and may be taken in a row, without a turn for other
    #: tasks: the least of all stages', and at least one.
    in_a_row: int = BATCH

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for hook in _PLAIN_HOOKS:
            check_plain(f"{cls.__qualname__}.{hook}", getattr(cls, hook))
        if inspect.isasyncgenfunction(cls.lifespan):
            raise TypeError(
                f"{cls.__qualname__}.lifespan must return a context manager: write "
                "'@asynccontextmanager' above it"
            )

    def on_open(self, control: Control) -> None:
        """
        Take note that the stream is being entered. Called once, in the consumer's task.

        :param control: what the stage may do with its stream until :meth:`on_close`

        """

    def on_close(self) -> None:
        """
        Let go of what :meth:`on_open` took.

        Called once, in the consumer's task, after the source has been closed, or if the stream
        could not be entered. Must not raise.
        """

    @asynccontextmanager
    async def lifespan(self, control: Control) -> AsyncGenerator[None, None]:
        """
        Enclose the time in which the stream is open, between :meth:`on_open` and :meth:`on_close`.

        Entered and left in the consumer's task, before the source starts and after it is closed.
        What needs no ``await`` costs less in these two.
        """
        yield

    async def run(self, control: Control) -> None:
        """
        Run beside the source, in a task of its own that is cancelled when the source is closed.

        The task is started only if a stage overrides this method.
        """

    def on_item(self, item: T_contra) -> T_co | Skip:
        """
        Return what the consumer receives for an item, or :data:`SKIP`.

        Runs in the source task, right after the source has yielded the item.
        """
        return cast("T_co", item)

    def on_metadata(self, item: Metadata) -> bool:
        """Take what is no item. Returns ``True`` if the stage has taken it."""
        return False

    def on_beat(self, beat: Any) -> Any:
        """Return what the consumer receives for a beat of a stage further in, or :data:`SKIP`."""
        return beat

    async def on_end(self, outcome: Outcome) -> None:
        """
        Take note of the end. Called once, in the source task, when the source has been closed.

        Shielded from cancellation, and cancelled after :attr:`on_end_timeout` seconds.
        """

    def final(self, outcome: Outcome) -> Iterable[T_co] | None:
        """
        Return items for the consumer to receive last, or ``None``.

        Not called if the consumer has left. If the outcome would raise in the consumer, the items
        come in place of the exception, also if there are none.
        """
        return None


def overrides(stage: Stage[Any, Any], hook: str) -> bool:
    """Tell whether a stage has a hook of its own, and not just the one of the base class."""
    return getattr(type(stage), hook) is not getattr(Stage, hook)


class Stages:
    """The stages of one stream, the innermost first, as the pump sees them."""

    def __init__(self, stages: Sequence[Stage[Any, Any]]) -> None:
        self._stages = stages
        self._on_item = [stage.on_item for stage in stages if overrides(stage, "on_item")]

    def transform(self, item: Any) -> Any:
        if isinstance(item, Metadata) and any(stage.on_metadata(item) for stage in self._stages):
            return SKIP
        for on_item in self._on_item:
            item = on_item(item)
            if item is SKIP:
                break
        return item

    @property
    def is_transparent(self) -> bool:
        return not self._on_item

    async def end(self, outcome: Outcome) -> None:
        error: BaseException | None = None
        for stage in self._stages:
            if overrides(stage, "on_end"):
                try:
                    await _bounded_on_end(stage, outcome)
                except BaseException as exc:
                    error = both(error, exc)
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback includes this frame.
                del error

    def final(self, outcome: Outcome) -> Iterable[Any] | None:
        last = [(_final_of(stage, outcome), number) for number, stage in enumerate(self._stages, 1)]
        if all(items is None for items, _ in last):
            return None
        return (
            outgoing
            for items, number in last
            for item in items or ()
            if (outgoing := Stages(self._stages[number:]).transform(item)) is not SKIP
        )


def _final_of(stage: Stage[Any, Any], outcome: Outcome) -> Iterable[Any] | None:
    last = stage.final(outcome)
    check_made(f"{type(stage).__qualname__}.final", last)
    return last


async def _bounded_on_end(stage: Stage[Any, Any], outcome: Outcome) -> None:
    with anyio.CancelScope(shield=True) as scope:
        scope.deadline = anyio.current_time() + stage.on_end_timeout
        await stage.on_end(outcome)
    if scope.cancelled_caught:
        raise TimeoutError(f"on_end took longer than {stage.on_end_timeout} seconds")
