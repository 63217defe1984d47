"""Many readers of runs at once, each on a connection of its own, that leave when they like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from streamkit.client import browser_end, connect
from support.reading import asking_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamkit.client import Event

# Real seconds for a whole answer, where a hundred others are read on the same machine.
PATIENCE = 60.0


@dataclass
class Reader:
    """
    One reader of one run.

    :param port: of the server
    :param run_id: what it reads

    """

    port: int
    run_id: str
    events: list[Event] = field(default_factory=list)

    async def read(
        self,
        limit: Callable[[], float] = lambda: float("inf"),
        *,
        last_word: Callable[[Event], bool | None] = browser_end,
        on_event: Callable[[], object] = lambda: None,
    ) -> list[Event]:
        """
        Read to the end, and come back when it is cut.

        :param limit: asked for each answer: after how many bytes it is cut
        :param on_event: called when the first event has come

        """
        with anyio.fail_after(PATIENCE):
            async with asking_at(self.port, limit) as client:
                async with connect(client, f"/runs/{self.run_id}", last_word=last_word) as stream:
                    async for event in stream:
                        self.events.append(event)
                        if len(self.events) == 1:
                            on_event()
        return self.events
