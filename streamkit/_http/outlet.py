"""The stage of a response: makes bytes of a stream's items, and reaches into it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio

from .._core.control import Control
from .._core.metadata import Head
from .._core.pipeline import SKIP
from .._core.stage import Stage

#: What an item of a response may be. Text is encoded in UTF-8.
Content: TypeAlias = str | bytes | memoryview

# Answers with these have no body: a server that is still given one cuts the connection.
_BODILESS = frozenset((204, 205, 304))


class Outlet(Stage[Any, bytes]):
    """
    Makes bytes of items and beats, and lets a response tell the source.

    The grace of the stream stays that of its other stages.
    """

    # Servers do not suspend in send() when the client has gone, and neither does a stream that has
    # read ahead, so others must still get their turn. asyncio's transports log a warning for the
    # fifth message to a client that has gone, and tell that it has gone with the next turn.
    in_a_row = 4

    def __init__(self) -> None:
        #: Whether the status, as far as it is known, belongs to an answer with a body.
        self.has_body: bool = True
        #: Whether the status was sent.
        self.has_begun: bool = False
        self._control: Control | None = None
        self._early: tuple[object, float] | None = None

    def on_open(self, control: Control) -> None:
        self._control = control
        if self._early is not None:
            self.cancel(*self._early)

    def on_close(self) -> None:
        self._control = None

    def on_item(self, item: Any) -> bytes:
        return item if type(item) is bytes else encode(item)

    def on_head(self, head: Head) -> None:
        """Note the status that the source has yielded. It may be too late for it."""
        if not self.has_begun:
            self.expect(head.status)

    def on_beat(self, beat: Any) -> Any:
        return encode(beat) if self.has_body else SKIP

    def opening(self, beat: bytes) -> bytes:
        """Return what is sent with a status that comes before the first item, where a beat may."""
        return beat

    def expect(self, status: int) -> None:
        """Note the status of an answer whose source yields no :class:`Head`."""
        self.has_body = status not in _BODILESS

    def begin(self, status: int) -> None:
        """Note the status that is sent, whatever the source may yield later."""
        self.has_begun = True
        self.expect(status)

    def start_soon(self, function: Callable[[], Awaitable[object]], name: str) -> anyio.CancelScope:
        """
        Run something beside the source until the block of the stream is left.

        :return: the scope in which it runs
        """
        assert self._control is not None
        return self._control.start_soon(function, name=name)

    def fail(self, error: BaseException) -> None:
        """End the stream with an error, which its consumer receives."""
        assert self._control is not None
        self._control.fail(error)

    def cancel(self, reason: object, grace: float) -> None:
        """Tell the source, now or as soon as its stream is open."""
        if self._control is None:
            self._early = self._early or (reason, grace)
        else:
            self._control.cancel(reason, grace=grace)

    def end_within(self, reason: object, grace: float) -> None:
        """Do the same, and if it was told already, let its grace last no longer than that."""
        control = self._control
        if control is None:
            self.cancel(reason, grace)
        elif not control.cancel(reason, grace=grace):
            control.timer(control.end_grace).set(control.now() + grace)


def encode(item: object) -> bytes:
    """
    Return an item as the bytes that are sent.

    :raises TypeError: if it is not :data:`Content`

    """
    if isinstance(item, bytes):
        # Servers written in other languages may accept only this very class.
        return item if type(item) is bytes else bytes(item)
    if isinstance(item, str):
        # Half of a surrogate pair, which a model may well send, must not end the stream.
        return item.encode("utf-8", "replace")
    if isinstance(item, memoryview):
        return item.tobytes()
    raise TypeError(
        f"an item of a response is bytes, str or memoryview, got {type(item).__qualname__}: encode "
        "it in the source, with json.dumps(item), for instance"
    )
