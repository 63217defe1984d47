"""
What a producer writes, and writes again if the server has lost it: the same entries at the same
positions.

If the missing entries are no longer here, the server finds out, and accepts nothing more from this
producer.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import anyio

from .call import Call
from .desk import Desk
from .produced import Produced
from .scripts_producer import APPEND, END

# The most bytes of entries that are published with the news. Readers ask the server for more.
_MOST_PUBLISHED = 8 * 1024
# The most bytes of entries that one script writes, unless one entry alone has more.
_MOST_AT_ONCE = 1024 * 1024


class Writing:
    """
    Writes what the producers of a log append.

    :param desk: the work of the log

    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def renew(self, produced: Produced, acknowledged: int) -> list[Any]:
        """Renew the lease of a run."""
        produced.alive_at = now = anyio.current_time()
        ring = produced.ring
        ring.forget(now)
        reply = await self._send(self._desk.renewal(produced, acknowledged=acknowledged))
        if reply[0] == b"behind":
            return await self.append(produced, ring.last + 1, [], ring.last)
        return reply

    async def end(self, produced: Produced, outcome: bytes, acknowledged: int) -> bool:
        """End a run, and return whether it was this producer's."""
        names, ring, token = produced.names, produced.ring, secrets.token_hex(4)
        while True:
            call = Call(
                END,
                (names.meta, names.entries),
                (produced.epoch, *ring.has(acknowledged), outcome, token),
                channels=(names.news,),
            )
            reply = await self._send(call)
            if reply[0] != b"behind":
                return bool(reply[0] == b"ok")
            await self.append(produced, ring.last + 1, [], ring.last)

    async def append(
        self, produced: Produced, position: int, entries: Sequence[bytes], acknowledged: int
    ) -> list[Any]:
        """Append, in pieces that the server writes in a moment, and return its last answer."""
        rest = entries
        while True:
            number = _how_many(rest)
            reply = await self._append(produced, position, rest[:number], acknowledged)
            position, rest = position + number, rest[number:]
            if not rest or reply[0] != b"ok":
                return reply
            acknowledged = position - 1

    async def _append(
        self, produced: Produced, position: int, entries: Sequence[bytes], acknowledged: int
    ) -> list[Any]:
        """Append, and first write again what the server has lost."""
        produced.alive_at = anyio.current_time()
        names, ring = produced.names, produced.ring
        # The last position that the server is known to have.
        known = acknowledged
        while True:
            oldest = ring.oldest if ring.last >= acknowledged else acknowledged + 1
            begin, missing = position, entries
            if oldest <= known + 1 <= acknowledged:
                begin = known + 1
                missing = [*ring.between(begin, position - 1), *entries]
            else:
                # The missing entries are no longer here, and the server must find out.
                known = acknowledged
            call = Call(
                APPEND,
                (names.meta, names.entries),
                (
                    produced.epoch,
                    known,
                    oldest,
                    begin,
                    produced.first,
                    "" if produced.head is None else produced.head,
                    _MOST_PUBLISHED,
                    *missing,
                ),
                channels=(names.news,),
                size=sum(map(len, missing)) + len(missing),
            )
            reply = await self._send(call)
            if reply[0] == b"ok" and entries:
                ring.add(position, entries, anyio.current_time())
            if reply[0] != b"behind":
                return reply
            known = reply[1]

    async def _send(self, call: Call) -> list[Any]:
        await self._desk.call(call, self._desk.writes)
        reply: list[Any] = call.reply
        return reply


def _how_many(entries: Sequence[bytes]) -> int:
    """Return how many entries are written at once."""
    size = 0
    for number, entry in enumerate(entries):
        size += len(entry)
        if size > _MOST_AT_ONCE and number:
            return number
    return len(entries)
