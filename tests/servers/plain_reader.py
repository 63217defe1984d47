"""A reader that asks once, and does not come back by itself: what one server says, and no other."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.event_stream import EventStreamParser

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.event_stream import Event

# Real seconds for a whole answer, where a hundred others are read on the same machine.
PATIENCE = 60.0


@dataclass
class Reader:
    """
    One reader of one run, over HTTP/1.0: its body is what comes until the end of the connection.

    :param port: of the server
    :param run_id: what it reads

    """

    port: int
    run_id: str
    status: int = 0
    seen: str = ""
    events: list[Event] = field(default_factory=list)

    async def read(
        self, limit: float = float("inf"), on_event: Callable[[], object] | None = None
    ) -> None:
        """
        Ask once, and read to the end, or so many bytes.

        :param on_event: called when the first event has come

        """
        parser = EventStreamParser()
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                lines = [f"GET /runs/{self.run_id} HTTP/1.0", "Host: localhost"]
                if self.seen:
                    lines.append(f"Last-Event-ID: {self.seen}")
                writer.write("\r\n".join([*lines, "", ""]).encode())
                self.status = int((await reader.readline()).split()[1])
                while (await reader.readline()).strip():
                    pass
                while limit > 0 and (data := await reader.read(int(min(limit, 65536)))):
                    limit -= len(data)
                    parser.feed(data)
                    if parser.events and on_event is not None:
                        on_event()
                        on_event = None
            finally:
                writer.close()
            # What a server makes of a client that leaves is not what this is about.
            with suppress(OSError):
                await writer.wait_closed()
        self.events += parser.events
        self.seen = parser.last_event_id or self.seen
