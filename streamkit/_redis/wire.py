"""
What the processes that share a server write to each other, and under which names.

A cancellation is *stored* under its key, with its id and its reason. It is *published* with that
key, and with the requests of those who wait until it is done: each a channel to answer on, and a
number. An *answer* has that number, the process that sends it, and whether that still holds the
key. A cancellation is *settled* by a mark under its id.

All of it is JSON that anybody may have written who can reach the server, so that what is read is
taken apart here, and what is none of ours is passed over.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast
from uuid import uuid4

_logger = logging.getLogger("streamkit")

#: To say when a cancellation is done: a channel, and the number of the request.
Request: TypeAlias = tuple[str, str]


class Names:
    """The names of channels and keys on the server."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._answers = f"{prefix}:answers:"
        #: Where cancellations are published.
        self.channel = f"{prefix}:cancel"
        #: Where this process is answered. It is also what tells it from others.
        self.own_channel = f"{self._answers}{uuid4().hex}"

    def stored(self, key: str) -> bytes:
        """Return where the cancellation of a key is stored."""
        return f"{self.channel}:{key}".encode("utf-8", "surrogatepass")

    def settled(self, cancellation_id: str) -> str:
        """Return where the mark is that a cancellation is settled."""
        return f"{self._prefix}:settled:{cancellation_id}"

    def is_for_answers(self, channel: str) -> bool:
        """Tell whether a channel is one of those on which processes are answered."""
        return channel.startswith(self._answers) and channel.isascii()


@dataclass(slots=True, eq=False)
class Cancellation:
    """A cancellation of a key, as it is stored and sent."""

    key: str
    id: str
    reason: str | None
    #: Who waits until it is done.
    requests: list[Request] = field(default_factory=list[Request])

    @property
    def content(self) -> str:
        """What is stored under the key."""
        return json.dumps({"id": self.id, "reason": self.reason})

    @classmethod
    def parse(cls, key: str, content: object) -> Cancellation | None:
        """Return what is stored under a key, or ``None`` if that is no cancellation."""
        match _parse(content):
            case {"id": str(cancellation_id), "reason": str() | None as reason} if (
                cancellation_id.isascii()
            ):
                return cls(key, cancellation_id, reason)
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Stored:
    """A cancellation that was found on the server."""

    cancellation: Cancellation
    #: Whether those that were told of it have let go of the key.
    settled: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process says to a request."""

    request: str
    process: str
    #: Whether it holds the key.
    holds: bool

    @property
    def content(self) -> str:
        """What is published."""
        return json.dumps({"request": self.request, "process": self.process, "holds": self.holds})


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to be published."""

    channel: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Settlement:
    """A mark to be set: those that were told of a cancellation have let go of the key."""

    cancellation_id: str


def announcement(key: str, content: str, requests: list[Request]) -> str:
    """Return what is published to cancel a key."""
    return json.dumps({"key": key, "content": content, "requests": requests})


def parse_message(data: object, names: Names) -> Cancellation | Answer | None:
    """Return what has come on a channel, or ``None`` if it is none of ours."""
    match _parse(data):
        case {"key": str(key), "content": str(content), "requests": [*requests]}:
            cancellation = Cancellation.parse(key, content)
            if cancellation is not None:
                cancellation.requests = _parse_requests(requests, names)
            return cancellation
        case {"request": str(request), "process": str(process), "holds": bool(holds)}:
            return Answer(request, process, holds)
        case _:
            _logger.debug("a message on %s that is none of streamkit's", names.channel)
            return None


def _parse_requests(requests: list[object], names: Names) -> list[Request]:
    parsed: list[Request] = []
    for request in requests:
        match request:
            case [str(channel), str(number)] if names.is_for_answers(channel):
                parsed.append((channel, number))
            case _:
                pass
    return parsed


def _parse(data: object) -> dict[str, Any]:
    """Return what a server has sent, or nothing if it is no object of JSON."""
    if not isinstance(data, str | bytes):
        return {}
    try:
        parsed: Any = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}


def check_text(what: str, value: object, limit: int) -> None:
    """
    Check a key or a reason.

    :param what: the one or the other, with its article
    :param limit: bytes of UTF-8 that it may have
    :raises TypeError: if it is no string
    :raises ValueError: if it is too long

    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, got {type(value).__qualname__}: write str(...)")
    if len(value.encode("utf-8", "surrogatepass")) > limit:
        raise ValueError(f"{what} must not be longer than {limit} bytes of UTF-8")
