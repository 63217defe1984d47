"""A server that answers as it is told, in virtual time: one answer for each request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import httpx2

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
LINES = {"content-type": "application/x-ndjson"}
# Longer than any client waits.
SILENCE = float("inf")


class Body(httpx2.AsyncByteStream):
    """
    A body in pieces.

    :param pieces: bytes; seconds in which nothing comes; or what is raised
    :param read: seconds after which the client no longer waits

    """

    def __init__(self, pieces: Iterable[Any], read: float) -> None:
        self._pieces = pieces
        self._read = read
        self.is_closed = False
        #: how many pieces were asked for
        self.sent = 0
        #: the tasks that have read and closed it: one, if all is well
        self.tasks = set[int]()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.tasks.add(anyio.get_current_task().id)
        for piece in self._pieces:
            await anyio.lowlevel.checkpoint()
            self.sent += 1
            if isinstance(piece, bytes):
                yield piece
            elif isinstance(piece, Exception):
                raise piece
            elif piece > self._read:
                await anyio.sleep(self._read)
                raise httpx2.ReadTimeout("silent")
            else:
                await anyio.sleep(piece)

    async def aclose(self) -> None:
        self.tasks.add(anyio.get_current_task().id)
        self.is_closed = True


@dataclass
class Asked:
    """A request, and when it came."""

    at: float
    request: httpx2.Request

    @property
    def cursor(self) -> str | None:
        return self.request.headers.get("last-event-id")


@dataclass
class Script:
    """What is answered: each a tuple of status, headers and pieces; or what is raised."""

    answers: list[Any]
    asked: list[Asked] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.asked.append(Asked(anyio.current_time(), request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, headers, *pieces = answer
        body = Body(pieces, request.extensions["timeout"]["read"])
        self.bodies.append(body)
        return httpx2.Response(status, headers=headers, stream=body)

    def client(self, **options: Any) -> httpx2.AsyncClient:
        handler: Callable[..., Any] = self
        return httpx2.AsyncClient(transport=httpx2.MockTransport(handler), **options)

    @property
    def cursors(self) -> list[str | None]:
        return [asked.cursor for asked in self.asked]

    @property
    def pauses(self) -> list[float]:
        times = [asked.at for asked in self.asked]
        return [later - earlier for earlier, later in pairwise(times)]


def script(*answers: Any) -> Script:
    return Script(list(answers))


def events(*pieces: Any) -> tuple[Any, ...]:
    """Return an answer of an event stream."""
    return (200, EVENTS, *pieces)
