"""What is entered to hold a key: the holder in this process, and a look at the server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType

import anyio

from .._signals.token import CancelToken
from .ledger import Ledger


class RegistryUnavailable(Exception):
    """The server has not answered in time, and the caller said that it must."""


class Holder(
    AbstractAsyncContextManager[CancelToken, None], AbstractContextManager[CancelToken, None]
):
    """
    What :meth:`RedisCancelRegistry.open` returns: a sync and an async context manager that yields a
    token. Used once.
    """

    def __init__(
        self,
        key: str,
        holder: AbstractContextManager[CancelToken, None],
        ledger: Ledger,
        is_connected: Callable[[], bool],
        patience: float,
        on_late: Callable[[], None],
        must_look_up: bool,
    ) -> None:
        self._key = key
        self._holder = holder
        self._ledger = ledger
        self._is_connected = is_connected
        self._patience = patience
        self._on_late = on_late
        self._must_look_up = must_look_up

    def __enter__(self) -> CancelToken:
        if self._must_look_up:
            raise TypeError(
                "must_look_up needs an 'async with': a plain 'with' cannot wait for the server"
            )
        return self._enter()

    def _enter(self) -> CancelToken:
        token = self._holder.__enter__()
        self._looked_up = self._ledger.join(self._key)
        return token

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._holder.__exit__(exc_type, exc, traceback)
        self._ledger.leave(self._key)

    async def __aenter__(self) -> CancelToken:
        token = self._enter()
        try:
            if not token.cancelled:
                await self._wait_looked_up()
        except BaseException as exc:
            self.__exit__(type(exc), exc, exc.__traceback__)
            raise
        return token

    async def _wait_looked_up(self) -> None:
        if self._is_connected():
            with anyio.move_on_after(self._patience):
                await self._looked_up.wait()
        if self._looked_up.cancelled and self._is_connected():
            return
        self._on_late()
        if self._must_look_up:
            raise RegistryUnavailable(
                f"it could not be looked up in time if {self._key!r} was cancelled before: start "
                "the run without must_look_up=True, or answer that it must be tried again later"
            )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)
