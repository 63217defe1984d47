"""
The answer to a request whose stream does not start: the program ends, or too many are open.

A client that asks again a little later finds another worker, or room. A status tells that to every
client except ``EventSource``, which gives up for good on any status except 200. So a response that
can tell its clients in the body to come back does so.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from .headers import RawHeaders
from .messages import Message, start

# Seconds after which clients are asked to come back: some sooner and some later, so that they do
# not come back all at once.
_SOON = (1, 5)


@dataclass(frozen=True, slots=True)
class Overloaded:
    """The reason in the outcome of a stream that never started because too many were open."""


class Refusal:
    """
    How a response refuses.

    :param in_band: called for the body of an answer with the status 200, or
        ``None`` for the status 503
    :param headers: the headers of the answer with the status 200
    :param closes: whether to close the connection, because its next request would come to the same
        process
    :param json: the body of an answer with the status 503, which no cache may store and which has
        the ``Location`` of the other answer, or ``None``

    """

    __slots__ = ("_closes", "_headers", "_in_band", "_json")

    def __init__(
        self,
        in_band: Callable[[], bytes] | None,
        headers: RawHeaders,
        *,
        closes: bool,
        json: bytes = b"",
    ) -> None:
        self._in_band = in_band
        self._json = json
        self._headers = headers
        self._closes = closes

    def answer(self, *, is_head: bool) -> tuple[Message, bytes]:
        """Return the first message that is sent, and the content of the last one."""
        closing: RawHeaders = [(b"connection", b"close")] if self._closes else []
        if self._in_band is None:
            again = str(random.randint(*_SOON)).encode()
            headers = [(b"retry-after", again), *closing]
            if self._json:
                headers += [(b"cache-control", b"no-store"), (b"content-type", b"application/json")]
                # What the client asks for later will be there.
                headers += [header for header in self._headers if header[0] == b"location"]
            content = b"" if is_head else self._json
            if not (is_head and self._json):
                headers.append((b"content-length", str(len(content)).encode()))
            return start(503, headers), content
        content = b"" if is_head else self._in_band()
        return start(200, self._headers + closing), content
