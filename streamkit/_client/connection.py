"""
One answer after another, until there is a last word.

What is read of an answer is passed on at once; how the answer ends decides whether there is a next
one. A request is repeated only after an error of the connection, or a status that blames the
server. Of the user's client, only ``stream()`` is used.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress

import anyio
import httpx2

from .._core.metadata import Head
from .asking import Asking, can_be_sent
from .errors import Refused, StreamCut
from .event import Event
from .parser import EventParser, Position
from .pauses import pause, seconds_in
from .records import RecordParser
from .words import LastWord

_EVENTS = ("text/event-stream",)
_RECORDS = tuple(f"application/{name}" for name in ("x-ndjson", "ndjson", "jsonl", "x-jsonl"))

# Bytes to read of an answer that is not a stream.
_BODY = 64 * 1024

# Errors that the client itself raises, and would raise again.
_OWN = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)

# The connection has failed, or the body is not compressed as it claims.
_CUTS = (httpx2.TransportError, httpx2.DecodingError)


class Connection:
    """
    Reads one stream, over as many answers as it takes.

    :param client: the user's client
    :param asking: knows the requests
    :param idle: seconds of silence after which an answer counts as cut
    :param attempts: how many attempts in a row may bring nothing, not even a beat
    :param last_word: tells which event is the last; ``None`` for a body that simply ends
    :param max_size: the most bytes in a line, and in an event
    :param last_event_id: where to begin
    :param head: the headers of the first answer to pass on with its status, or ``None``

    """

    __slots__ = (
        "_asking",
        "_attempts",
        "_client",
        "_count",
        "_error",
        "_has_bytes",
        "_head",
        "_idle",
        "_is_in_records",
        "_is_over",
        "_last_word",
        "_max_size",
        "_position",
        "_retry_after",
        "_timeout",
        "_withheld",
    )

    def __init__(
        self,
        client: httpx2.AsyncClient,
        asking: Asking,
        *,
        idle: float,
        attempts: int,
        last_word: LastWord | None,
        max_size: int,
        last_event_id: str,
        head: Iterable[str] | None,
    ) -> None:
        self._client = client
        self._asking = asking
        times = client.timeout
        self._timeout = httpx2.Timeout(
            connect=times.connect, read=idle, write=times.write, pool=times.pool
        )
        self._idle = idle
        self._attempts = attempts
        self._last_word = last_word
        self._max_size = max_size
        self._position = Position(last_event_id)
        # Until it was passed on.
        self._head = head
        self._is_over = False
        # How many events there were, of all answers.
        self._count = 0
        # An end that asks clients to come back. If there is nothing to come back to, it is the end.
        self._withheld: Event | None = None
        # Of the current answer.
        self._has_bytes = False
        self._is_in_records = False
        self._error: Exception | None = None
        self._retry_after = 0.0

    async def events(self) -> AsyncGenerator[Event | Head, None]:
        """
        Yield the head, if it is asked for, and the events, the last word included.

        :raises Refused: if an answer is not a stream
        :raises StreamCut: if there is no way to go on
        :raises TooLong: if a line or an event is too long

        """
        silent = fruitless = 0
        while True:
            before = self._count, self._position.last_event_id
            async with aclosing(self._answer()) as answer:
                async for event in answer:
                    if isinstance(event, Event):
                        self._count += 1
                        self._withheld = None
                    yield event
            if self._is_over:
                return
            self._check_that_it_goes_on()
            has_progress = before != (self._count, self._position.last_event_id)
            fruitless = 0 if has_progress else fruitless + 1
            silent = 0 if self._has_bytes else silent + 1
            if silent >= self._attempts:
                # Only the message of a refusal: its headers and its body are for nobody else.
                last = str(self._error) if isinstance(self._error, Refused) else repr(self._error)
                raise StreamCut(
                    f"{silent} attempts have brought nothing: the last one ended with "
                    f"{last if self._error else 'an empty body'}",
                    self._position.last_event_id,
                ) from self._error
            await anyio.sleep(pause(fruitless, self._position.retry, self._retry_after))

    async def _answer(self) -> AsyncGenerator[Event | Head, None]:
        """Ask once, and yield the events of the answer."""
        self._has_bytes, self._error, self._retry_after = False, None, 0.0
        asked = self._asking.next(self._position.last_event_id)
        try:
            async with self._client.stream(**asked, timeout=self._timeout) as response:
                self._asking.note(response)
                is_over = response.status_code == 204
                parser = None if is_over else self._parser_of(response)
                if parser is None and not is_over:
                    await self._no_stream(response)
                    return
                if self._head is not None:
                    told = {n: response.headers[n] for n in self._head if n in response.headers}
                    self._head = None
                    yield Head(response.status_code, told)
                if parser is None:
                    self._is_over = True
                    if self._withheld is not None:
                        yield self._withheld
                    return
                async for piece in response.aiter_bytes():
                    self._has_bytes = True
                    for event in parser.feed(piece):
                        is_last = self._is_last(event)
                        if is_last is None:
                            self._withheld = event
                            return
                        yield event
                        if is_last:
                            self._is_over = True
                            return
                for event in parser.close():
                    is_last = self._is_last(event)
                    if is_last is None:
                        self._withheld = event
                        return
                    self._is_over = is_last
                    yield event
                is_end = self._last_word is None and not parser.is_cut
                self._is_over = self._is_over or is_end
        except _OWN:
            raise
        except _CUTS as exc:
            self._error = exc

    def _is_last(self, event: Event) -> bool | None:
        return False if self._last_word is None else self._last_word(event)

    def _parser_of(self, response: httpx2.Response) -> EventParser | RecordParser | None:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not response.is_success or kind not in (*_EVENTS, *_RECORDS):
            return None
        self._is_in_records = kind in _RECORDS
        if self._is_in_records:
            return RecordParser(self._max_size)
        return EventParser(self._position, self._max_size)

    async def _no_stream(self, response: httpx2.Response) -> None:
        """Note an answer that is not a stream, and raise what another request would not mend."""
        status = response.status_code
        self._retry_after = seconds_in(response.headers.get("retry-after"))
        body = bytearray()
        # The part that was read will do.
        with anyio.move_on_after(self._idle), suppress(*_CUTS):
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) >= _BODY:
                    break
        refused = Refused(status, response.headers, bytes(body[:_BODY]))
        if not self._asking.may_go_on or (status < 500 and status not in (301, 302, 303)):
            raise refused
        self._error = refused

    def _check_that_it_goes_on(self) -> None:
        instead = ""
        if not can_be_sent(self._position.last_event_id):
            instead = "the id of its last event cannot be sent as a header"
        elif not self._asking.may_go_on:
            instead = (
                "the request is not repeated, and its answer has no Location: write resume='...'"
            )
            if self._asking.foreign:
                instead = (
                    f"the request is not repeated, and the Location {self._asking.foreign!r} is at "
                    "another origin, or none: write resume='...' if it is the right one"
                )
        elif self._is_in_records and self._count:
            instead = "JSON lines have no ids to go on from"
        elif not self._asking.is_repeatable and self._count and not self._position.last_event_id:
            instead = "its events have no ids to go on from"
        if instead:
            raise StreamCut(
                f"the answer has ended before its last word, and {instead}",
                self._position.last_event_id,
            ) from self._error
