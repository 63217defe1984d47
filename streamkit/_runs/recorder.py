"""The stage at the end of a run's stream: items become bytes as soon as they are made."""

from __future__ import annotations

from typing import Any

from .._core.stage import Stage
from .codec import encode


class Recorder(Stage[Any, bytes]):
    """
    Encodes what the source yields, in the source task. An item that cannot be kept fails the run
    there.

    It also lets the source go on while a write is under way: its items wait in the stream
    meanwhile, unseen, until the producer takes all of them at once.

    :param max_bytes: the most bytes in one item
    :param max_held: items that may wait

    """

    def __init__(self, max_bytes: int, max_held: int) -> None:
        self.read_ahead: float = max_held
        self._max_bytes = max_bytes
        #: How many items there have been.
        self.made: int = 0

    def on_item(self, item: Any) -> bytes:
        data = encode(item)
        if len(data) > self._max_bytes:
            raise ValueError(
                f"an item of {type(item).__qualname__} has {len(data):,} bytes, but the run keeps "
                f"{self._max_bytes:,}: yield smaller ones, or write max_bytes=..."
            )
        self.made += 1
        return data
