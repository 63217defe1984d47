"""The block that holds a key: a holder in this process, a look-up on the server, and a lease."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

import anyio

from .._signals.holder import KeyHeld
from .._signals.token import CancelToken
from .lease import Lease, Leases
from .ledger import Ledger


class RegistryUnavailable(Exception):
    """The server has not answered in time, and the caller insisted on an answer."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A registry, as its holders see it."""

    ledger: Ledger
    leases: Leases
    is_connected: Callable[[], bool]
    #: Called when a holder begins, or is refused, before its key was looked up.
    on_late: Callable[[], None]
    #: Seconds to wait for the server.
    patience: float


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
        desk: Desk,
        must_look_up: bool,
        exclusive: bool,
    ) -> None:
        self._key = key
        self._holder = holder
        self._desk = desk
        self._must_look_up = must_look_up
        self._exclusive = exclusive
        self._lease: Lease | None = None

    def __enter__(self) -> CancelToken:
        if self._must_look_up or self._exclusive:
            option = "exclusive" if self._exclusive else "must_look_up"
            raise TypeError(
                f"{option} needs an 'async with': a plain 'with' cannot wait for the server"
            )
        return self._enter()

    def _enter(self) -> CancelToken:
        token = self._holder.__enter__()
        self._looked_up = self._desk.ledger.join(self._key)
        return token

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._holder.__exit__(exc_type, exc, traceback)
        self._desk.ledger.leave(self._key)
        if self._lease is not None:
            self._desk.leases.give_back(self._lease)

    async def __aenter__(self) -> CancelToken:
        # First the lease: a caller that is refused must not look like a holder to a cancellation.
        lease = await self._take_lease() if self._exclusive else None
        try:
            token = self._enter()
        except BaseException:
            if lease is not None:
                self._desk.leases.give_back(lease)
            raise
        self._lease = lease
        try:
            if lease is not None:
                lease.lost.on_cancel(token.cancel)
            if not token.cancelled:
                await self._wait_looked_up()
        except BaseException as exc:
            self.__exit__(type(exc), exc, exc.__traceback__)
            raise
        return token

    async def _take_lease(self) -> Lease:
        if not self._desk.is_connected():
            raise RegistryUnavailable(f"{self._key!r} cannot be held exclusively: Redis is away")
        lease = self._desk.leases.take(self._key)
        try:
            with anyio.move_on_after(self._desk.patience):
                await lease.decided.wait()
            if not lease.decided.cancelled:
                raise RegistryUnavailable(
                    f"it was not known in time whether {self._key!r} can be held exclusively"
                )
            match lease.decided.reason:
                case None:
                    return lease
                case KeyHeld() as error:
                    raise error
                case error:
                    raise RegistryUnavailable(
                        f"{self._key!r} cannot be held exclusively: Redis refuses it ({error})"
                    )
        except BaseException:
            self._desk.leases.give_back(lease)
            raise

    async def _wait_looked_up(self) -> None:
        if self._desk.is_connected():
            with anyio.move_on_after(self._desk.patience):
                await self._looked_up.wait()
        if self._looked_up.cancelled and self._desk.is_connected():
            return
        self._desk.on_late()
        if self._must_look_up:
            raise RegistryUnavailable(
                f"it could not be looked up in time whether {self._key!r} was cancelled before: "
                "start the run without must_look_up=True, or tell the client to try again later"
            )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)
