"""
What the processes that share a server write to each other, and under which names.

A cancellation is *stored* under its key, with its id and its reason. It is *published* with that
key, and with the requests of those who wait until it is done: each is a channel to answer on, and a
number. An *answer* has that number, the process that sends it, and whether it still holds the key.
A cancellation is *settled* by a mark under its id.

A process is known by the channel on which it receives answers: whoever is subscribed to it is
present. A database number separates keys but not channels, so it is part of their names. In a
cluster, all names begin with the same tag, which puts them into one slot: the keys of one command
must share a slot.

All of it is JSON that anybody who can reach the server may have written. So it is taken apart here:
what is too long is cut, and what is not ours is skipped.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

_logger = logging.getLogger("streamkit")

#: The most bytes of UTF-8 in a key and in a reason.
MAX_KEY = 1024
MAX_REASON = 4096

# Ids and numbers of ours are far shorter.
_MAX_ID = 100

# Thirty thousand years: the server refuses a time that does not fit into its clock.
_MAX_MILLISECONDS = 10**15

#: A request to say when a cancellation is done: a channel, and a number.
Request: TypeAlias = tuple[str, str]


class Names:
    """
    The names of channels and keys on the server.

    :param prefix: what all of them begin with
    :param process: what distinguishes this process from others
    :param database: the number of the database
    :param in_cluster: whether they must share a slot

    """

    def __init__(
        self, prefix: str, process: str, database: int = 0, *, in_cluster: bool = False
    ) -> None:
        self._prefix = tagged(prefix) if in_cluster else prefix
        # No number for the usual database, whose channels have the names of earlier releases.
        number = f"@{database}" if database else ""
        #: Where cancellations are published.
        self.channel = f"{self._prefix}:cancel{number}"
        answers = f"{self._prefix}:answers{number}:"
        #: Where this process receives answers. This name also distinguishes it from others.
        self.own_channel = f"{answers}{process}"
        #: A pattern for the channels of answers to processes. It may match some more.
        self.all_processes = re.sub(r"([*?\[\]\\^])", r"\\\1", answers) + "*"
        self._is_for_answers = re.compile(f"{re.escape(answers)}[0-9a-f]{{32}}")
        #: A key without a meaning: to see whether keys may be read and written.
        self.probe = self.settled(process)

    def stored(self, key: str) -> bytes:
        """Return where the cancellation of a key is stored."""
        return f"{self._prefix}:cancel:{key}".encode("utf-8", "surrogatepass")

    def settled(self, cancellation_id: str) -> str:
        """Return where a cancellation is marked as settled."""
        return f"{self._prefix}:settled:{cancellation_id}"

    def lease(self, key: str) -> bytes:
        """Return where the exclusive holder of a key is stored."""
        return f"{self._prefix}:lease:{key}".encode("utf-8", "surrogatepass")

    def is_for_answers(self, channel: str) -> bool:
        """Tell whether a channel is for answers to a process."""
        return self._is_for_answers.fullmatch(channel) is not None


def tagged(prefix: str) -> str:
    """
    Put all names with a prefix into one slot of a cluster.

    :return: the prefix in braces, or unchanged if it has a tag of its own

    """
    return prefix if re.match(r"[^{]*\{[^}]+\}", prefix) else f"{{{prefix}}}"


@dataclass(slots=True, eq=False)
class Cancellation:
    """A cancellation of a key, as it is stored and sent."""

    key: str
    id: str
    reason: str | None
    #: The requests of waiters elsewhere.
    requests: list[Request] = field(default_factory=list[Request])
    #: The numbers of the waiters in this process, if it is sent from here.
    numbers: list[str] = field(default_factory=list[str])

    @property
    def content(self) -> str:
        """What is stored under the key."""
        return json.dumps({"id": self.id, "reason": self.reason})

    @classmethod
    def parse(cls, key: str, content: object) -> Cancellation | None:
        """Return what is stored under a key, or ``None`` if that is not a cancellation."""
        match _parse(content):
            case {"id": str(cancellation_id), "reason": str() | None as reason} if (
                cancellation_id.isascii() and len(cancellation_id) <= _MAX_ID
            ):
                return cls(key, cancellation_id, reason and _cut(reason, MAX_REASON))
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Stored:
    """A cancellation that was found on the server."""

    cancellation: Cancellation
    #: Whether the holders that were told of it have let go of the key.
    settled: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process answers to a request."""

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
    """An answer to publish: where, to which request, and whether this process holds the key."""

    channel: str
    request: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """A mark to set: the holders that were told of a cancellation have let go of the key."""

    cancellation_id: str


def announcement(key: str, content: str, requests: list[Request]) -> str:
    """Return what is published to cancel a key."""
    return json.dumps({"key": key, "content": content, "requests": requests})


def parse_message(data: object, names: Names) -> Cancellation | Answer | None:
    """Return what has come on a channel, or ``None`` if it is not ours."""
    match _parse(data):
        case {"key": str(key), "content": str(content), "requests": [*requests]}:
            cancellation = Cancellation.parse(key, content)
            if cancellation is not None:
                cancellation.requests = _parse_requests(requests, names)
            return cancellation
        case {"request": str(request), "process": str(process), "holds": bool(holds)} if (
            names.is_for_answers(process)
        ):
            return Answer(request, process, holds)
        case _:
            _logger.debug("a message on %s that is not from streamkit", names.channel)
            return None


def _parse_requests(requests: list[object], names: Names) -> list[Request]:
    parsed: list[Request] = []
    for request in requests:
        match request:
            case [str(channel), str(number)] if len(number) <= _MAX_ID and names.is_for_answers(
                channel
            ):
                parsed.append((channel, number))
            case _:
                pass
    return parsed


def _parse(data: object) -> dict[str, Any]:
    """Return what a server has sent, or an empty object if it is not a JSON object."""
    if not isinstance(data, str | bytes):
        return {}
    try:
        parsed: Any = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}


def _cut(text: str, limit: int) -> str:
    encoded = text.encode("utf-8", "surrogatepass")
    return text if len(encoded) <= limit else encoded[:limit].decode("utf-8", "ignore")


def milliseconds(seconds: float) -> int:
    """Return a time in the form for the server."""
    return round(min(1000 * seconds, _MAX_MILLISECONDS))


def check_prefix(prefix: object) -> str:
    """
    Check the prefix of names on a server.

    :raises TypeError: if it is not a string
    :raises ValueError: if no name can begin with it, in a cluster for instance

    """
    if not isinstance(prefix, str):
        raise TypeError(
            f"prefix must be a string, got {type(prefix).__qualname__}: write prefix='chat'"
        )
    if not prefix or prefix.startswith("}") or not prefix.isprintable():
        raise ValueError(f"prefix must be a name, got {prefix!r}: write prefix='chat'")
    return prefix


def check_text(what: str, value: object, limit: int) -> None:
    """
    Check a key or a reason.

    :param what: which of them, with its article
    :param limit: the most bytes of UTF-8
    :raises TypeError: if it is not a string
    :raises ValueError: if it is too long

    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, got {type(value).__qualname__}: write str(...)")
    if len(value.encode("utf-8", "surrogatepass")) > limit:
        raise ValueError(f"{what} must not be longer than {limit} bytes of UTF-8")
