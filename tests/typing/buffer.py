"""``with_buffer``. Checked by mypy and pyright, never run."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable
from typing import assert_type

from streamkit import Stage, Stream, with_buffer, with_keepalive


def sizes(source: AsyncIterable[int]) -> None:
    assert_type(with_buffer(source, 16), Stream[int])
    assert_type(with_buffer(source, size=0), Stream[int])
    assert_type(with_buffer(source, math.inf), Stream[int])
    assert_type(with_buffer(with_keepalive(source, 15, "beat"), 16), Stream[int | str])
    with_buffer(source)  # type: ignore[call-arg]
    with_buffer(source, "16")  # type: ignore[arg-type]


class Hurries(Stage[int, int]):
    """A stage of one's own that reads ahead."""

    read_ahead: float = 16


class HurriesMore(Stage[int, int]):
    """The same, as an instance says."""

    def __init__(self, size: float) -> None:
        self.read_ahead = size
