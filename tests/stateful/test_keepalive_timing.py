"""When beats come, compared with a model of a few lines."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
from hypothesis import given, strategies as st

from streamkit import with_keepalive
from support import Backend, Log

from . import examples

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

# Small numbers, so that much happens at the same time.
times = st.lists(st.integers(0, 9), max_size=12)


def expected(
    interval: int, delays: Iterable[int], pauses: Iterable[int], initial: bool
) -> list[tuple[float, object]]:
    """Return what a consumer gets, and when: the rules K1 to K8 in one loop.

    :param delays: how long the source takes over each item, from the ask for it
    :param pauses: how long the consumer is busy after each item and beat; then no more

    """
    received: list[tuple[float, object]] = []
    busy = deque(pauses)
    now = 0.0

    def receive(event: object) -> None:
        nonlocal now
        received.append((now, event))
        now += busy.popleft() if busy else 0

    if initial:
        receive("beat")
    for item, delay in enumerate(delays):
        ready = now + delay
        while now + interval < ready:
            now += interval
            receive("beat")
        now = max(now, ready)
        receive(item)
    return received


@examples(40)
@given(interval=st.integers(1, 5), delays=times, pauses=times, initial=st.booleans())
def test_beats(
    backend: Backend, interval: int, delays: list[int], pauses: list[int], initial: bool
) -> None:
    """K8: beats come when the model says, for any times of items and of the consumer (K1 to K8)."""
    log = Log()

    async def source() -> AsyncGenerator[int, None]:
        for item, delay in enumerate(delays):
            await anyio.sleep(delay)
            yield item

    async def main() -> Any:
        busy = deque(pauses)
        async with with_keepalive(source(), interval, "beat", initial=initial) as stream:
            log.start()
            async for event in stream:
                log(event)
                if busy:
                    await anyio.sleep(busy.popleft())
        return stream.outcome

    outcome = backend.run(main)
    assert log == expected(interval, delays, pauses, initial)
    assert outcome.items == len(delays)
    assert outcome.beats == log.events.count("beat")
