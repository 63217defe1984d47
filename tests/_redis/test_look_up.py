"""Rather no run than one that begins before its key was looked up."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio
import pytest

from streamkit import with_cancellation
from streamkit._redis.store import Store
from streamkit.redis import RegistryUnavailable
from support.valkey import MARKS, Outage, is_sent, registry, two_of_them, until

pytestmark = MARKS


async def source() -> AsyncGenerator[int, None]:
    raise AssertionError("must not be started")
    yield 1


async def test_in_time(url: str) -> None:
    """C13: it was looked up in time: all is as without it."""
    async with two_of_them(url) as (here, there):
        async with here.open("run", must_look_up=True) as token:
            assert not token.cancelled
        there.cancel("other", "early")
        await is_sent(there)
        async with here.open("other", must_look_up=True) as token:
            assert token.reason == "early"
        assert here.stats().late_look_ups == 0


async def test_away(outage: Outage) -> None:
    """C13: the server is away: the run does not begin, and nothing is held."""
    async with registry(outage.url) as here:
        async with here.open("held", must_look_up=True):
            outage.begin()
            await until(lambda: not here.connected)
            for key in "run", "held":
                with pytest.raises(RegistryUnavailable, match=f"'{key}'.*must_look_up=True"):
                    async with with_cancellation(source(), here.open(key, must_look_up=True)):
                        raise AssertionError("must not be entered")
            assert here.keys() == ["held"]
            assert here.stats().late_look_ups == 2


@pytest.mark.usefixtures("impatient")
async def test_late(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C13: the look-up takes too long: the run does not begin, or begins and is counted."""
    async with registry(url) as here:
        monkeypatch.setattr(Store, "find", lambda *args: anyio.sleep_forever())
        with pytest.raises(RegistryUnavailable):
            async with here.open("run", must_look_up=True):
                raise AssertionError("must not be entered")
        assert len(here) == 0
        async with here.open("run"):
            assert here.stats().late_look_ups == 2


async def test_plain_with(url: str) -> None:
    """Misuse: a plain `with` cannot wait for the server: that is an error, and nothing is held."""
    async with registry(url) as here:
        with pytest.raises(TypeError, match="needs an 'async with'"):
            with here.open("run", must_look_up=True):
                raise AssertionError("must not be entered")
        assert len(here) == 0
