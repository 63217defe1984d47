"""The base of every combinator: hooks on a stream, instead of one more task around it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar, cast

import anyio

from .arguments import check_made, check_plain
from .backend import error_of_stray
from .control import Control
from .exceptions import both, not_an_end, only_backend_cancellation
from .handoff import BATCH
from .metadata import Metadata
from .outcome import Outcome, told_of_failure
from .pipeline import SKIP as SKIP, Skip as Skip

T_contra = TypeVar("T_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)


# They are called, and their results are not awaited.
_PLAIN_HOOKS = ("on_open", "on_close", "on_item", "on_metadata", "on_beat", "final")


class Stage(Generic[T_contra, T_co]):
    """
    A combinator as a set of hooks: what it does with items, and beside them.

    Override what you need, and put the stage on a stream with :func:`with_stage`. A stage belongs
    to one stream. Stages are called in the order in which they were put on: the innermost first.
    An error that a hook raises ends the stream: the source is closed, then the consumer receives
    the error.
    """

    #: Seconds that :meth:`on_end` may take.
    on_end_timeout: float = 5.0
    #: Seconds that a source has to clean up, or ``None`` to leave it to other stages.
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
        Note that the stream is being entered. Called once, in the consumer's task.

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
        Code without an ``await`` costs less in those two.
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
        """Take metadata, which is not an item. Returns ``True`` if the stage has taken it."""
        return False

    def on_beat(self, beat: Any) -> Any:
        """Return what the consumer receives for a beat of an inner stage, or :data:`SKIP`."""
        return beat

    async def on_end(self, outcome: Outcome) -> None:
        """
        Note the end. Called once, in the source task, when the source has been closed.

        If the ``on_end`` of an inner stage has failed, the outcome's ``on_end_error`` says so.

        Shielded from cancellation, and cancelled after :attr:`on_end_timeout` seconds.
        """

    def final(self, outcome: Outcome) -> Iterable[T_co] | None:
        """
        Return items for the consumer to receive last, or ``None``.

        Not called if the consumer has left. If the outcome would raise in the consumer, the items
        come instead of the exception, even if there are none.
        """
        return None


# Those that do nothing. What a class has is asked each time: it may get a hook after it was made,
# by a decorator or in a test, and a subclass may have an __init_subclass__ of its own.
_BASE: Any = Stage
_LIFESPAN, _RUN, _ON_ITEM = _BASE.lifespan, _BASE.run, _BASE.on_item
_ON_END, _FINAL = _BASE.on_end, _BASE.final


def has_lifespan(stage: Stage[Any, Any]) -> bool:
    """Tell whether a stage encloses the stream with something."""
    return type(stage).lifespan is not _LIFESPAN


def runs_beside(stage: Stage[Any, Any]) -> bool:
    """Tell whether a stage has something to run beside the source."""
    return type(stage).run is not _RUN


class Stages:
    """The stages of one stream, the innermost first, and what they ask for together."""

    def __init__(self, stages: Sequence[Stage[Any, Any]]) -> None:
        self._stages = stages
        self.read_ahead: float = 0
        self.in_a_row: int = BATCH
        self.grace: float | None = None
        #: Whether one of them encloses the stream with something.
        self.have_lifespan: bool = False
        #: Whether one of them has something to run beside the source.
        self.run_beside: bool = False
        on_item: list[Callable[[Any], Any]] = []
        # In one pass, because each open stream makes it.
        for stage in stages:
            kind: Any = type(stage)
            self.read_ahead += stage.read_ahead
            if stage.in_a_row < self.in_a_row:
                self.in_a_row = stage.in_a_row
            if stage.grace is not None:
                self.grace = stage.grace
            if kind.on_item is not _ON_ITEM:
                on_item.append(stage.on_item)
            if kind.lifespan is not _LIFESPAN:
                self.have_lifespan = True
            if kind.run is not _RUN:
                self.run_beside = True
        # Mostly there is none, and an empty tuple is no new object.
        self._on_item = tuple(on_item)

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
        told = outcome
        for stage in self._stages:
            if type(stage).on_end is not _ON_END:
                try:
                    await _bounded_on_end(stage, told)
                except BaseException as exc:
                    error = both(error, exc)
                    if not only_backend_cancellation(exc):
                        told = told_of_failure(outcome, not_an_end(exc))
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback includes this frame.
                del error, told

    def final(self, outcome: Outcome) -> Iterable[Any] | None:
        last = [
            (_final_of(stage, outcome), number)
            for number, stage in enumerate(self._stages, 1)
            if type(stage).final is not _FINAL
        ]
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
        try:
            await stage.on_end(outcome)
        except BaseException as exc:
            stray = error_of_stray(exc, "on_end")
            if stray is None:
                raise
            try:
                raise stray
            finally:
                # Its traceback includes this frame.
                del stray
    if scope.cancelled_caught:
        raise TimeoutError(f"on_end took longer than {stage.on_end_timeout} seconds")
