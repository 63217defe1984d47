"""A consumer and a source that log what they see, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from streamkit import CancelToken, Left, Stream, StreamCancelled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from support import Log


async def consume(
    stream: Stream[Any],
    log: Log,
    token: CancelToken | None = None,
    *,
    after: float = 1.0,
    busy: float = 0.0,
) -> None:
    """
    Log the items of a stream, and how the iteration ended.

    :param token: cancelled with the reason "stop" when ``after`` seconds have passed
    :param busy: seconds spent on each item

    """
    log.start()
    async with anyio.create_task_group() as tasks:
        if token is not None:
            tasks.start_soon(call_later, after, token.cancel, "stop")
        async with stream:
            try:
                async for item in stream:
                    log(item)
                    await anyio.sleep(busy)
            except StreamCancelled as stop:
                # Of the plain class: the consumer is not being cancelled.
                log(f"consumer: {stop.reason}" if type(stop) is StreamCancelled else repr(stop))
            else:
                log("end")
        tasks.cancel_scope.cancel()


async def call_later(delay: float, function: Callable[..., object], *args: object) -> None:
    """Call a function when ``delay`` seconds have passed."""
    await anyio.sleep(delay)
    function(*args)


async def blocked(log: Log, *items: object) -> AsyncGenerator[object, None]:
    """Yield the items, then wait for ever. Logs what is raised here, and the end."""
    try:
        for item in items:
            yield item
        await anyio.sleep_forever()
    except BaseException as exc:
        log(f"source: {kind(exc)}")
        raise
    finally:
        log("closed")


def kind(exc: BaseException) -> str:
    """Name an exception in the same way on all backends."""
    if isinstance(exc, StreamCancelled):
        if isinstance(exc.reason, Left):
            return "told that the consumer has left"
        return f"told to {exc.reason}"
    if isinstance(exc, anyio.get_cancelled_exc_class()):
        return "cancelled"
    return type(exc).__name__
