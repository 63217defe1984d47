"""
What is published of a run: a line that says what has happened, and then bytes.

Anybody may have published it who can reach the server. So what is none of ours is passed over, and
what is ours is a hint, which is believed as far as it fits to what is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Appended:
    """Entries were added."""

    epoch: str
    #: The position of the first of them.
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
    """Something has changed that is to be read: what was added is large, or the run is gone."""

    epoch: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The producer is asked for something: to cancel, to prove that it is alive, to stop."""

    epoch: str
    what: Literal["cancel", "prove", "stop"]
    reason: bytes = b""


#: What may be published.
Message: TypeAlias = Appended | Ended | Changed | Asked


def parse(data: object) -> Message | None:
    """Return what has come on a channel, or ``None`` if it is none of ours."""
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
