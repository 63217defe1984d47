"""How much of a run is kept."""

from __future__ import annotations

from streamkit._runs.budget import budget


def test_trim_by_number() -> None:
    """The oldest entries go when there are too many."""
    limits = budget("trim", 3, 1_000)
    assert limits.admit([b"a"] * 3) == [b"a"] * 3
    assert limits.first == 1
    assert limits.admit([b"a"] * 2) == [b"a"] * 2
    assert limits.first == 3
    assert not limits.is_full


def test_trim_by_size() -> None:
    """The oldest entries go when they are too large together."""
    limits = budget("trim", 100, 10)
    limits.admit([b"1234", b"5678"])
    assert limits.first == 1
    limits.admit([b"90a"])
    assert limits.first == 2
    limits.admit([b"1234567890"])
    assert limits.first == 4


def test_end_by_number() -> None:
    """A source that is told has 100 more items, and nothing comes after one that was dropped."""
    limits = budget("end", 3, 1_000)
    assert limits.admit([b"a"] * 3) == [b"a"] * 3
    assert not limits.is_full
    assert limits.admit([b"a"]) == [b"a"]
    assert limits.is_full
    assert not limits.has_dropped
    assert limits.admit([b"a"] * 100) == [b"a"] * 99
    assert limits.has_dropped
    assert limits.admit([b"a"]) == []
    assert limits.first == 1


def test_end_by_size() -> None:
    """It has as many bytes more; no smaller item takes the place of one that was too large."""
    limits = budget("end", 100, 10)
    limits.admit([b"1234567890"])
    assert not limits.is_full
    assert limits.admit([b"12345", b"123456", b"1"]) == [b"12345"]
    assert limits.is_full
    assert limits.has_dropped
