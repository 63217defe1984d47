"""Cancellations that come before their runs."""

from __future__ import annotations

import anyio

from streamkit._runs.agenda import Agenda
from streamkit._runs.early import EarlyCancels


async def test_the_first_reason_stays() -> None:
    """The reason of who has asked first is that of the run, whether or not they named its owner."""
    for askers in (None, "me"), ("me", None):
        early = EarlyCancels(Agenda())
        for number, asker in enumerate(askers):
            early.remember("chat", b"%d" % number, asker)
            await anyio.sleep(1)
        assert early.take("chat", "me") == b"0"
        assert not early


async def test_too_late() -> None:
    """What was asked too long ago does not hold, also where nothing was swept meanwhile."""
    early = EarlyCancels(Agenda())
    early.remember("chat", b"old", None)
    await anyio.sleep(29)
    early.remember("chat", b"other", "me")
    await anyio.sleep(2)
    assert early.take("chat", "me") == b"other"
    assert early.take("chat", "me") is None
