"""``RAW`` and ``whole_events``: for bytes that are an event stream already, as in a proxy."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Any

from .events import Frame, utf8
from .profile import Profile


def _frame(item: object) -> Frame:
    if not isinstance(item, str | bytes):
        raise TypeError(
            f"RAW takes what is already encoded, got {type(item).__qualname__}: yield bytes or "
            "str, or a ServerSentEvent, or choose another profile"
        )
    return Frame(item if isinstance(item, bytes) else utf8(item))


#: For a source that yields the bytes of an event stream, such as a proxy.
#:
#: They pass unchanged. If they come in pieces, put :func:`whole_events` around them: a beat comes
#: between two items, and a last word after one. There is no beat after an item that does not end a
#: line. The client is told nothing of the end. If the stream fails, or is cancelled, the exception
#: is raised.
RAW = Profile("RAW", event_of=_frame)

_INSTEAD = "write whole_events(response.aiter_bytes()), for instance"

_BOM = b"\xef\xbb\xbf"
# What is not part of an event, before its beginning: comments and empty lines.
_BETWEEN = re.compile(rb"(?:(?::[^\n]*)?\n)*")


def whole_events(source: AsyncIterable[bytes]) -> AsyncGenerator[Frame, None]:
    """
    Join the bytes of an event stream into whole events.

    They may come in any pieces, cut within a line, a line end or a character. Each item that this
    yields is one or more whole events, so a beat or a last word may follow it. Comments between
    two events, such as the beats of the upstream, pass as they come. Lines end in LF, whatever they
    ended in before.

    An incomplete event passes unchanged when the source ends; if the source fails, it is dropped.

    :param source: an async iterable of bytes: ``response.aiter_bytes()`` of httpx, for instance;
        owned, and closed with the result. An event is kept until it is complete, however
        large it is
    :return: an async generator of frames, for any profile; :data:`RAW` adds no last word
    :raises TypeError: if the source is not an async iterable, or yields something else

    """
    if not hasattr(source, "__aiter__"):
        raise TypeError(
            "whole_events takes an async iterable of bytes, got "
            f"{type(source).__qualname__}: {_INSTEAD}"
        )
    return _whole_events(source)


async def _whole_events(source: AsyncIterable[bytes]) -> AsyncGenerator[Frame, None]:
    splitter = _Splitter()
    try:
        async for piece in source:
            if complete := splitter.feed(piece):
                yield complete
    finally:
        # Does nothing if the source has ended, or the stream around both has closed it.
        aclose: Callable[[], Awaitable[object]] | None = getattr(source, "aclose", None)
        if aclose is not None:
            await aclose()
    if rest := splitter.rest():
        yield rest


class _Splitter:
    """Finds the ends of events, looking at each byte once."""

    def __init__(self) -> None:
        # The incomplete event.
        self._rest = bytearray()
        self._after_cr = False
        self._is_first = True

    def feed(self, piece: Any) -> Frame:
        """Take a piece, and return the events that it completes."""
        if not isinstance(piece, bytes | bytearray):
            raise TypeError(
                f"whole_events takes an async iterable of bytes, but this one has yielded "
                f"{type(piece).__qualname__}: {_INSTEAD}"
            )
        piece = self._with_lf(bytes(piece))
        # An empty line may begin with the line end that is already there.
        searched = max(0, len(self._rest) - 1)
        self._rest += piece
        if self._is_first and not self._begin():
            return Frame()
        end = self._rest.rfind(b"\n\n", searched)
        end = 0 if end < 0 else end + 2
        if b"\n" in piece:
            between = _BETWEEN.match(self._rest, end)
            assert between is not None
            end = between.end()
        complete = Frame(self._rest[:end])
        del self._rest[:end]
        return complete

    def rest(self) -> Frame:
        """Return the rest."""
        return Frame(self._rest)

    def _with_lf(self, piece: bytes) -> bytes:
        if not piece:
            return piece
        if self._after_cr:
            # A CR counts as the end of a line as soon as it arrives.
            piece = piece.removeprefix(b"\n")
        self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _begin(self) -> bool:
        """Drop a byte order mark, which it is not if a beat has been sent before."""
        if len(self._rest) < len(_BOM) and _BOM.startswith(bytes(self._rest)):
            return False
        self._is_first = False
        if self._rest.startswith(_BOM):
            del self._rest[: len(_BOM)]
        return True
