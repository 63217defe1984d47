"""Cancellations that come before their runs."""

from __future__ import annotations

import gc

import anyio

from streamkit._runs.agenda import Agenda
from streamkit._runs.early import EarlyCancels, _Early


async def test_the_first_reason_stays() -> None:
    """The reason of who has asked first is that of the run, whether or not they named its owner."""
    for askers in (None, "me"), ("me", None):
        early = EarlyCancels(Agenda())
        for number, asker in enumerate(askers):
            early.remember("chat", b"%d" % number, asker)
            await anyio.sleep(1)
        assert early.take("chat", "me") == b"0"
        assert not early


async def test_no_more_than_a_number() -> None:
    """What is dropped because there is too much is not held until its time is over."""
    early = EarlyCancels(Agenda())
    first = bytes(bytearray(b"first"))

    def is_held() -> bool:
        gc.collect()
        return any(each.reason is first for each in gc.get_objects() if isinstance(each, _Early))

    early.remember("chat", first, None)
    assert is_held()
    for number in range(10_000):
        early.remember(str(number), b"stop", None)
    assert len(early) == 10_000
    assert not is_held()
    await anyio.sleep(31)
    early.remember("chat", b"again", None)
    assert len(early) == 1


async def test_too_late() -> None:
    """What was asked too long ago does not hold, also where nothing was swept meanwhile."""
    early = EarlyCancels(Agenda())
    early.remember("chat", b"old", None)
    await anyio.sleep(29)
    early.remember("chat", b"other", "me")
    await anyio.sleep(2)
    assert early.take("chat", "me") == b"other"
    assert early.take("chat", "me") is None
