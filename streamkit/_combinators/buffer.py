"""``with_buffer``: let the source run ahead of its consumer."""

from __future__ import annotations

import math
import sys
from typing import Any, TypeVar

from .._core.source import AsyncSource
from .._core.stage import Stage
from .._core.stream import Stream, with_stage

T = TypeVar("T")


def with_buffer(source: AsyncSource[T], size: float) -> Stream[T]:
    """
    Let the source run ahead, while up to ``size`` items wait for the consumer.

    The source begins at the consumer's first ask, as always. From then on it waits only while
    ``size`` items are there. They are ready when the consumer asks, and most asks do not switch
    tasks. Several buffers in a chain add up, and need no extra task or hand-off. With a ``size`` of
    0 nothing is read ahead.

    An ask that finds an item need not be a checkpoint: every 64th is one. So is every 64th step of
    the source. A source or a consumer that never blocks still lets other tasks run.

    Items that wait come before an error, before the end, and before what the source yields when it
    is cancelled. They are dropped when the consumer leaves, and ``outcome.items`` does not count
    them, unless the source had been closed by then.

    :param source: an async iterable, an async context manager that yields one, or a stream; owned
        and closed by the new stream
    :param size: number of items: an ``int`` >= 0, or ``math.inf`` for no limit
    :return: a stream of the same items
    :raises TypeError: if ``source`` is not a source, or ``size`` is not a number
    :raises ValueError: if ``size`` is negative, or a ``float`` other than ``math.inf``

    """
    return with_stage(source, _Buffer(_checked(size)))


class _Buffer(Stage[Any, Any]):
    def __init__(self, size: float) -> None:
        self.read_ahead = size


def _checked(size: object) -> float:
    advice = f"size must be an int >= 0 or math.inf, got {size!r}; write size=64, for instance"
    if isinstance(size, bool) or not isinstance(size, int | float):
        raise TypeError(advice)
    if size != math.inf and (isinstance(size, float) or size < 0):
        raise ValueError(advice)
    # The same, and no more than can be counted with when several of them add up.
    return size if size < sys.maxsize else math.inf
