"""
What is published about a run: a line that says what has happened, and then bytes.

Anybody who can reach the server can publish. So an unknown message is ignored, and a known one is a
hint, which is believed only as far as it fits what is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Appended:
    """Entries were added."""

    epoch: str
    #: The position of the first entry.
    position: int
    entries: list[bytes]
    #: The first position that is kept.
    first: int
    head: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The run has ended."""

    epoch: str
    last: int
    outcome: bytes


@dataclass(frozen=True, slots=True)
class Changed:
    """There is something to read (large entries, or only a status), or the run is gone."""

    epoch: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The producer is asked to cancel, to prove that it is alive, or to stop."""

    epoch: str
    what: Literal["cancel", "prove", "stop"]
    reason: bytes = b""


#: All messages that may be published.
Message: TypeAlias = Appended | Ended | Changed | Asked


def parse(data: object) -> Message | None:
    """Return a message that came on a channel, or ``None`` if it is not one of these."""
    if not isinstance(data, bytes):
        return None
    header, _, body = data.partition(b"\n")
    try:
        match header.decode("ascii").split(" "):
            case ["a", epoch, position, first, head, *sizes]:
                entries: list[bytes] = []
                start = 0
                for size in sizes:
                    end = start + int(size)
                    entries.append(body[start:end])
                    start = end
                if start != len(body) or not all(map(str.isdigit, sizes)):
                    return None
                status = None if head == "-" else int(head)
                return Appended(epoch, int(position), entries, int(first), status)
            case ["e", epoch, last]:
                return Ended(epoch, int(last), body)
            case ["h" | "d", epoch, *_]:
                return Changed(epoch)
            case ["c", epoch]:
                return Asked(epoch, "cancel", body)
            case ["q", epoch]:
                return Asked(epoch, "prove")
            case ["f", epoch]:
                return Asked(epoch, "stop")
            case _:
                return None
    except ValueError:
        return None
