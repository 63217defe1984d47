"""What happens in one generator of a source, and how it is cleaned up."""

from __future__ import annotations

import inspect
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

import anyio

from streamkit import StreamCancelled

from .record import INNER, SOFT, CleanUpError, Record, current_task, is_native, text

#: The length of an ordinary clean-up: three waits.
WAITS, WAIT = 3, 0.1

_inside: ContextVar[str] = ContextVar("inside", default="nothing")


class Frame:
    """
    What happens in one generator: an async context manager, whose end is the clean-up.

    :param name: what reports call it
    :param lasts: seconds of each of the waits of the clean-up
    :param shielded: whether it has a shield of its own
    :param fails: whether it raises in the end
    :param child: whether it is that of a task which the source has started: no grace is due then
    :param in_own_scope: whether the source has a scope around it that a fault may cancel

    """

    def __init__(
        self,
        record: Record,
        name: str = "source",
        *,
        lasts: float = WAIT,
        shielded: bool = False,
        fails: bool = False,
        child: bool = False,
        in_own_scope: bool = False,
    ) -> None:
        record.frames.append(self)
        self._record = record
        self.name = name
        self.lasts = lasts
        self.child = child
        self.in_own_scope = in_own_scope
        self.begun = self.ended = 0
        self.begun_at = self.over_at = 0.0
        self.was_interrupted_by: BaseException | None = None
        #: The first exception that came through, and how many times the source was told.
        self.saw: BaseException | None = None
        self.told: list[StreamCancelled] = []
        #: Whether it was told at an ``await`` what it was to be told at a ``yield``.
        self.told_at_await = False
        self._shielded = shielded
        self._fails = fails
        self._task: object = None
        self._token: Token[str] | None = None

    async def __aenter__(self) -> Self:
        self._task = anyio.get_current_task().id
        if not self._record.source_task and not self.child:
            self._record.source_task = current_task()
        self._token = _inside.set(self.name)
        self._record.note(f"{self.name}: begins")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self.sees(exc)
        self.begun += 1
        self.begun_at = anyio.current_time()
        self._record.note(f"{self.name}: clean-up begins, after {text(exc)}")
        try:
            with anyio.CancelScope(shield=self._shielded):
                for _ in range(WAITS):
                    await anyio.sleep(self.lasts)
        except BaseException as interruption:
            self.was_interrupted_by = interruption
            self._record.note(f"{self.name}: clean-up interrupted by {text(interruption)}")
            raise
        else:
            self.ended += 1
            self._record.note(f"{self.name}: clean-up ended")
        finally:
            self.over_at = anyio.current_time()
            self._look_around()
            del exc, traceback
        if self._fails:
            raise self._record.error(CleanUpError(self.name))

    @property
    def ends_by_itself(self) -> bool:
        """Whether its clean-up began without anybody having ended it."""
        if isinstance(self.was_interrupted_by, StreamCancelled):
            if self._record.source == "abandoning" and isinstance(self.saw, GeneratorExit):
                # The source has left it, and was told while it was closed.
                return True
            if isinstance(self.saw, StreamCancelled) and self.saw.reason == INNER:
                # It was an inner stream that was told first, and has raised that.
                return True
        ended = isinstance(self.saw, StreamCancelled | GeneratorExit)
        return not ended and not is_native(self.saw)

    def sees(self, exc: BaseException) -> None:
        """Remember an exception that was raised in the generator."""
        if self.saw is None:
            self.saw = exc
        if isinstance(exc, StreamCancelled) and exc not in self.told:
            self.told.append(exc)
            if exc.reason == SOFT and not _was_thrown_at_yield(exc):
                self.told_at_await = True

    def _look_around(self) -> None:
        if anyio.get_current_task().id != self._task:
            self._record.problem("wrong-task", f"{self.name} is cleaned up in another task")
        assert self._token is not None
        try:
            _inside.reset(self._token)
        except ValueError:
            self._record.problem("wrong-context", f"{self.name} is cleaned up in another context")


def _was_thrown_at_yield(exc: BaseException) -> bool:
    """Tell whether an exception was raised in an async generator itself, and in nothing below."""
    code, traceback = None, exc.__traceback__
    while traceback is not None:
        code, traceback = traceback.tb_frame.f_code, traceback.tb_next
    return code is not None and bool(code.co_flags & inspect.CO_ASYNC_GENERATOR)
