"""The place of a reader, which is sent away while it waits, and at no other time."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from streamkit._runs.attendance import Seat


class Changed:
    """A watch that hears of a change in the moment in which the reader is sent away."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat

    async def wait(self) -> None:
        self.seat.close()


class Silent:
    async def wait(self) -> None:
        await anyio.sleep_forever()


async def test_closed_at_a_change() -> None:
    """Runs: a reader that is sent away as it is woken is so there, and not where it yields."""
    seat = Seat(("id", "ab"))
    with seat.scope:
        await seat.wait(Changed(seat))
        pytest.fail("it went on")
    await checkpoint()


@pytest.mark.parametrize("closed_before", [False, True])
async def test_until(closed_before: bool) -> None:
    """Runs: a seat with a limit of time is left at that, or at once if it is closed."""
    now = anyio.current_time()
    seat = Seat(("id", "ab"), now + 5)
    if closed_before:
        seat.close()
    with seat.scope:
        await seat.wait(Silent())
    assert anyio.current_time() == now + (0 if closed_before else 5)


async def test_limit_is_for_waits() -> None:
    """Runs: no limit of time cancels what a reader does between two waits."""
    seat = Seat(("id", "ab"), anyio.current_time() + 5)

    class Soon:
        async def wait(self) -> None:
            await anyio.sleep(1)

    with seat.scope:
        await seat.wait(Soon())
        await anyio.sleep(10)
    assert not seat.scope.cancelled_caught
