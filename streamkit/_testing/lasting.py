"""
A context manager that may be entered in one task and left in another: it has a task of its own.

Scopes and task groups belong to the task that enters them. pytest-asyncio begins a fixture in one
task and ends it in another, and so does anyone who keeps a resource for several tasks.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio

from .backend import on_trio

T = TypeVar("T")


def lasting(manager: AbstractAsyncContextManager[T, Any]) -> Lasting[T]:
    """
    Return a context manager that may be entered in one task and left in another.

    It enters and leaves ``manager`` in a task of its own: for instance, for a pytest-asyncio
    fixture that holds a stream or a :class:`~streamkit.asgi.StreamHost`. If a task group in
    ``manager`` cancels that task because a child has failed, the cancellation does not reach the
    block: the error is raised at the end of the block.

    :param manager: an async context manager
    :return: a context manager that yields the same
    """
    return Lasting(manager)


class Lasting(Generic[T]):
    """What :func:`lasting` returns. It can be used once."""

    def __init__(self, manager: AbstractAsyncContextManager[T, Any]) -> None:
        self._manager = manager
        self._scope: anyio.CancelScope
        self._entered: anyio.Event
        self._leave: anyio.Event
        self._left: anyio.Event
        self._task: object = None
        self._value: list[T] = []
        self._body: BaseException | None = None
        self._error: BaseException | None = None
        self._suppressed = False

    async def __aenter__(self) -> T:
        """
        Enter the context manager. If the wait is cancelled, it is left again.

        :raises RuntimeError: if it was entered before
        :raises BaseException: what entering it raises
        """
        if self._task is not None:
            raise RuntimeError("it was entered before: call lasting() for each block")
        self._scope = anyio.CancelScope()
        self._entered, self._leave, self._left = anyio.Event(), anyio.Event(), anyio.Event()
        if on_trio():
            spawn: Any = sys.modules["trio"].lowlevel.spawn_system_task
            self._task = spawn(self._hold, context=copy_context())
        else:
            self._task = asyncio.get_running_loop().create_task(self._hold())
        try:
            await self._entered.wait()
        except BaseException:
            self._scope.cancel()
            await self._wait_left()
            raise
        if not self._value:
            await self._wait_left()
            self._raise()
        [value] = self._value
        return value

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """
        Leave the context manager, and wait until that is done, shielded from cancellation.

        :raises BaseException: what leaving it raises
        """
        self._body = exc
        self._leave.set()
        try:
            await self._wait_left()
            if self._error is not None and self._error is not exc:
                self._raise()
            return self._suppressed
        finally:
            self._body = None
            del exc, traceback

    async def _wait_left(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._left.wait()

    def _raise(self) -> None:
        error, self._error = self._error, None
        assert error is not None
        try:
            raise error
        finally:
            del error

    def _raise_body(self) -> None:
        if self._body is not None:
            raise self._body

    async def _hold(self) -> None:
        # It must not raise: on trio, that would crash the whole run.
        try:
            with self._scope:
                async with self._manager as value:
                    self._value.append(value)
                    self._entered.set()
                    await self._leave.wait()
                    self._raise_body()
                self._suppressed = self._body is not None
        except BaseException as exc:
            self._error = exc
        self._value.clear()
        self._entered.set()
        self._left.set()
