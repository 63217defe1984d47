"""What a response was asked to do, and how it says that it could not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from .._core.arguments import check_plain
from .._core.telemetry import Telemetry
from .headers import RawHeaders

# Seconds until there is a status, whatever the source does: proxies wait for about a minute.
FIRST_ITEM_WITHIN = 15.0


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The reason that a source is told when the client of its response has gone."""


class ResponseCancelled(Exception):
    """
    Raised by a response whose source was cancelled, without a last word to say so.

    It replaces :exc:`~streamkit.StreamCancelled`, which no server expects, and no exception
    handler of a framework catches. It is not raised when the client has gone, or when the program
    ends.

    :param reason: why the stream was cancelled

    """

    def __init__(self, reason: object = None) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the source was cancelled (reason: {self.reason!r}) and the client was not told: give "
            "the response a final=..., or catch StreamCancelled in the source"
        )


@dataclass(slots=True, kw_only=True)
class Terms:
    """What a response was asked to do. Its own: it may be changed until the response starts."""

    headers: RawHeaders
    on_disconnect: Literal["cancel", "drain", "close"]
    grace: float
    drain_timeout: float
    send_timeout: float | None
    #: Seconds that the stream may go on after the notice of a shutdown; ``None``: as the host says.
    finish: float | None = None
    #: Unless a :class:`Head` has another.
    status: int = 200
    #: What is sent with a status that comes before the first item.
    opening: bytes = b""
    #: Whether to log a failure that the client was told, and that is therefore not raised.
    logs_failures: bool = True
    #: Whether the stream knows the status of the answer to a ``HEAD``.
    asks_for_head: bool = False
    #: Called when the program ends, instead of telling the stream, which should then end by
    #: itself.
    tell: Callable[[], object] | None = None
    #: Receives how the stream goes, if not the host's; and the name for it, if it has none.
    telemetry: Telemetry | None = None
    name: str | None = None
    #: Returns the end that the client was told, if it is not that of the stream.
    told: Callable[[], BaseException | None] | None = None
    #: Called and awaited when the stream is closed, if nothing is raised.
    background: Callable[[], Awaitable[object]] | None = None


def check_final(given: object) -> None:
    """Check what is to have the last word."""
    if given is None:
        return
    if not callable(given):
        raise TypeError(
            f"final must be callable, got {type(given).__qualname__}: write "
            "final=lambda outcome: ..."
        )
    check_plain("final", given)
