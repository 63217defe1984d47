"""The rest of a stream whose client has gone: consumed, and dropped."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio

from .._combinators.status import StatusStream
from .._core.exceptions import StreamCancelled
from .failures import log_failure
from .home import Home
from .last_word import LastWord
from .outlet import Outlet
from .terms import Disconnected, Terms

_GONE = Disconnected()


class Rest:
    """
    The rest of a stream without a client.

    :param stream: the stream
    :param outlet: its stage
    :param last_word: its ``final``
    :param terms: what to do with the rest
    :param host: says whether it may be drained, if there is one

    """

    __slots__ = (
        "_has_begun",
        "_host",
        "_last_word",
        "_let_go",
        "_on_disconnect",
        "_outlet",
        "_stream",
        "_terms",
        "has_let_go",
    )

    def __init__(
        self,
        stream: StatusStream[Any],
        outlet: Outlet,
        last_word: LastWord,
        terms: Terms,
        host: Home | None,
    ) -> None:
        #: Whether the request need not wait for the end, because the rest is done in a task of the
        #: host.
        self.has_let_go: bool = False
        # Made when it is asked for: most requests have no use for it.
        self._let_go: anyio.Event | None = None
        self._stream = stream
        self._outlet = outlet
        self._last_word = last_word
        self._terms = terms
        self._host = host
        self._on_disconnect = terms.on_disconnect
        self._has_begun = False

    @property
    def let_go(self) -> anyio.Event:
        """Set when the request should stop waiting, or has nothing left to wait for."""
        if self._let_go is None:
            self._let_go = anyio.Event()
        return self._let_go

    @property
    def is_drained(self) -> bool:
        """Whether the source runs on to its end."""
        return self._has_begun and self._on_disconnect == "drain"

    def begin(self, reason: object = _GONE) -> bool:
        """
        Decide what becomes of the stream, and tell its source. Does not block.

        :param reason: what it is told, if it must stop
        :return: whether to end a wait for an item, which nothing else ends now

        """
        is_full = self._host is not None and not self._host.has_room_to_drain
        if self._on_disconnect == "drain" and is_full:
            self._on_disconnect = "cancel"
        self._has_begun = True
        self._last_word.is_heard = False
        if self._on_disconnect != "cancel":
            return True
        self._outlet.cancel(reason, self._terms.grace)
        return False

    async def consume(self) -> None:
        """Consume it, in the task of the request."""
        if self._on_disconnect == "close":
            await self._stream.aclose()
            return
        # Whatever it was told, there is nobody left to hear that.
        with suppress(StreamCancelled):
            if self._on_disconnect == "drain":
                self.has_let_go = self._host is not None
                self.let_go.set()
                with anyio.move_on_after(self._terms.drain_timeout) as limit:
                    await self._drop()
                if not limit.cancelled_caught:
                    return
                self._outlet.cancel(_GONE, self._terms.grace)
            await self._drop()

    async def _drop(self) -> None:
        try:
            async for _ in self._stream:
                pass
        except BaseException as exc:
            if exc is not self._last_word.told:
                raise
            log_failure(self._stream, self._terms, exc, gone=True)
