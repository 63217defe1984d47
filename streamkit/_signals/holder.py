"""Who holds a key of a registry: a token, while a block is open."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType

import anyio

from .token import CancelToken


class KeyHeld(Exception):
    """
    Somebody else holds a key exclusively.

    A web endpoint answers 409, or stops the other one with ``cancel_and_wait()`` and tries again.
    """

    def __init__(self, key: Hashable) -> None:
        super().__init__(key)
        #: The key.
        self.key = key

    def __str__(self) -> str:
        return (
            f"{self.key!r} is held exclusively by somebody else: answer 409, or write 'await "
            "registry.cancel_and_wait(key)' before"
        )


class Holder(
    AbstractContextManager[CancelToken, None], AbstractAsyncContextManager[CancelToken, None]
):
    """
    What :meth:`CancelRegistry.open` returns: a sync and an async context manager that yields a
    token. Used once.
    """

    def __init__(
        self,
        key: Hashable,
        exclusive: bool,
        join: Callable[[Holder], None],
        leave: Callable[[Holder], None],
    ) -> None:
        self._join = join
        self._leave = leave
        self._entered = False
        #: What is held.
        self.key = key
        #: Whether no second exclusive holder may have it.
        self.exclusive = exclusive
        #: What the block is given.
        self.token: CancelToken = CancelToken()
        #: Fires when the block is left: other threads and loops may be waiting for that.
        self.left: CancelToken = CancelToken()
        #: The id of the task that has entered the block, if there is one.
        self.task: int | None = None

    def __enter__(self) -> CancelToken:
        if self._entered:
            raise RuntimeError("what open() returns is used once: write open(key) for each block")
        self._entered = True
        self.task = current_task()
        self._join(self)
        return self.token

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(self)
        self.left.cancel()

    async def __aenter__(self) -> CancelToken:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def current_task() -> int | None:
    """Return the id of the running task, or ``None`` where there is none."""
    try:
        return anyio.get_current_task().id
    except RuntimeError:
        return None
