"""What was written lately, to be written again."""

from __future__ import annotations

from streamkit._redislog.ring import Ring


def test_kept() -> None:
    """What was written follows; what comes twice is kept once, and a hole begins anew."""
    ring = Ring()
    assert (ring.oldest, ring.last) == (1, 0)
    ring.add(1, [b"1", b"2"], 0)
    ring.add(1, [b"1", b"2"], 0)
    ring.add(2, [b"2", b"3"], 0)
    assert (ring.oldest, ring.last) == (1, 3)
    assert ring.between(1, 3) == [b"1", b"2", b"3"]
    assert ring.between(2, 2) == [b"2"]
    assert ring.between(4, 3) == []
    ring.add(7, [b"7"], 0)
    assert (ring.oldest, ring.last) == (7, 7)


def test_bounded() -> None:
    """It is forgotten when it is old, and when it is too much."""
    ring = Ring()
    ring.add(1, [b"x"] * 100, 0)
    ring.add(101, [b"y"], 9)
    assert ring.oldest == 1
    ring.forget(11)
    assert (ring.oldest, ring.last) == (101, 101)
    ring.forget(100)
    assert (ring.oldest, ring.last) == (102, 101)
    ring.add(102, [b"x"] * 3_000, 100)
    assert ring.oldest == 1_102
    ring.add(3_102, [b"x" * 400_000, b"y" * 400_000], 100)
    assert ring.oldest == ring.last == 3_103
