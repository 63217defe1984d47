"""``Event``: what a client reads, whether it came as an event or as a line of JSON."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """An event of an event stream, or a record of JSON lines."""

    #: The text. The lines of an event are joined by LF.
    data: str
    _: KW_ONLY
    #: The name, or ``"message"`` if it has none. ``None`` for a record of JSON lines.
    event: str | None = "message"
    #: The last id when the event came, after which its reader goes on; ``""`` if there was none, or
    #: an empty one.
    id: str = ""

    def json(self) -> Any:
        """
        Return the data, parsed as JSON.

        :raises ValueError: if it is not JSON

        """
        return json.loads(self.data)
