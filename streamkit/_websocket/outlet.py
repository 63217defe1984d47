"""The stage of a socket: makes a frame of each item, text or bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from .._core.arguments import check_made
from .._core.metadata import Head
from .._core.outcome import Outcome
from .._core.pipeline import SKIP
from .._http.outlet import Outlet
from .._sse.json import ToJSON, encoding_with

#: From this status on, there is no handshake: a client that wants a socket does not follow
#: redirects.
REFUSED = 300


class SocketOutlet(Outlet):
    """
    Makes frames of items and beats, and lets the socket tell the source.

    :param encoder: called with a value that has no JSON otherwise, or ``None``

    """

    def __init__(self, encoder: Callable[[Any], object] | None) -> None:
        super().__init__()
        self._as_json: ToJSON = encoding_with(_refuse if encoder is None else encoder)
        #: Whether the source has refused the client, in time or too late.
        self.is_refused: bool = False
        #: The code and the reason of the close, if the stream completes.
        self.closing: tuple[int, str] | None = None

    def expect(self, status: int) -> None:
        super().expect(status)
        # A socket has a body, whatever status means success.
        self.has_body = self.has_body or status < REFUSED
        self.is_refused = self.is_refused or status >= REFUSED

    def on_head(self, head: Head) -> None:
        super().on_head(head)
        # Even when it is too late for the status, it decides the code of the close.
        self.is_refused = self.is_refused or head.status >= REFUSED

    def on_item(self, item: Any) -> Any:
        if type(item) is str and item.isascii():
            return item
        return self.content(item)

    def on_beat(self, beat: Any) -> Any:
        return SKIP if self.is_refused else self.content(beat)

    def content(self, item: object) -> str | bytes:
        """
        Return an item as the content of a frame.

        :raises TypeError: if there is no JSON for it
        :raises ValueError: if there is no valid JSON

        """
        if isinstance(item, bytes | memoryview):
            # Servers written in other languages may accept only the exact class.
            return bytes(cast("bytes", item))
        text = item if isinstance(item, str) else self._as_json(item)
        # Half of a surrogate pair, which a model may well send, must not end the stream.
        is_plain = type(text) is str and text.isascii()
        return text if is_plain else text.encode("utf-8", "replace").decode()

    def last(self, final: Callable[[Outcome], object], outcome: Outcome) -> Any:
        """Return the last word, which is empty for a client that was refused."""
        if self.is_refused:
            return () if outcome.kind == "completed" else None
        said: Any = final(outcome)
        check_made("final", said)
        if said is None:
            return None
        several = isinstance(said, list | tuple | Iterator)
        items = cast("Iterable[object]", said) if several else (said,)
        return [self.content(item) for item in items]


def _refuse(value: object) -> object:
    raise TypeError(
        f"there is no JSON for {type(value).__qualname__}: yield str, bytes, what json.dumps() "
        "takes, a dataclass or a model of pydantic, or write WebSocketStream(source, encoder=...) "
        "with a function that returns one of these for it"
    )
