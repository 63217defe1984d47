"""What holds for every source and its request when all is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving import Server

# Seconds after the client's departure in which its source has to be closed.
SOON = 1.0


def assert_closed(server: Server, key: str, *, left: float | None = None) -> None:
    """Wait until all is over, and check what holds for every source."""
    server.wait_for(key, "dependency closed")
    time.sleep(0.05)  # for what must not come after that
    events = server.events(key)
    assert events[:2] == ["dependency opened", "started"]
    assert events[-3:] == ["closed", "ended", "dependency closed"]
    task = server.record(key, "started")["task"]
    assert server.record(key, "closed")["task"] == task
    assert server.record(key, "dependency opened")["task"] != task
    if left is not None:
        assert server.record(key, "closed")["time"] - left < SOON


def assert_cancelled(server: Server, key: str, left: float) -> None:
    """Check that the source was told why it ends."""
    assert_closed(server, key, left=left)
    assert server.record(key, "raised")["reason"] == "Disconnected"
    ended = server.record(key, "ended")
    assert (ended["kind"], ended["reason"]) == ("cancelled", "Disconnected")
