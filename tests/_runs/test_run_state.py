"""The rules of a log for one run, without a store."""

from __future__ import annotations

import pytest

from streamkit.runs import Requests, RunExists, RunNotFound, RunRunning, RunState, Terms


def state(**attributes: object) -> RunState:
    """Return the state of a run that began at 100, and has what is given."""
    made = RunState("0e", Terms(owner="ada", keep=5.0), lease=15.0, now=100.0)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def test_fence() -> None:
    """The producer of this run writes, as long as it goes on, and nothing of it is missing."""
    assert state().is_writable("0e")
    assert state(last=3).is_writable("0e", 3)
    assert not state(last=3).is_writable("0e", 4)
    assert not state().is_writable("0f")
    assert not state(outcome=b"end").is_writable("0e")


def test_created_again() -> None:
    """A run is created once: by its own producer, that is a sign of life."""
    run = state(cancel=b"why", doubted_at=110.0)
    assert run.create_again("a", "0e", 120.0) == Requests(cancel=b"why", unwatched_for=20.0)
    assert (run.seen_at, run.doubted_at) == (120.0, None)
    with pytest.raises(RunExists):
        run.create_again("a", "0f", 120.0)
    with pytest.raises(RunExists):
        state(outcome=b"end").create_again("a", "0e", 120.0)


def test_entries() -> None:
    """What is there already is not added again, and no hole is left."""
    run = state()
    assert run.append(1, [b"a", b"b"], first=1, head=201) == [b"a", b"b"]
    assert run.append(1, [b"a", b"b", b"c"], first=2, head=None) == [b"c"]
    assert run.append(2, [b"b"], first=1, head=None) == []
    assert (run.first, run.last, run.head) == (2, 3, 201)
    with pytest.raises(ValueError, match="the entry 5 cannot follow 3"):
        run.append(5, [b"e"], first=1, head=None)
    # There is only a status to say.
    assert run.append(5, [], first=9, head=202) == []
    assert (run.first, run.last, run.head) == (4, 3, 202)


def test_doubt() -> None:
    """Who is silent for the lease is doubted, and dead if that is so five seconds later."""
    run = state()
    assert run.doubt(114.9) == "alive"
    assert run.doubted_at is None
    assert [run.doubt(now) for now in (115.0, 119.9, 120.0)] == ["doubted", "doubted", "dead"]
    run.renew(121.0)
    assert run.doubt(122.0) == "alive"
    assert run.doubt(136.0) == "doubted"
    # The clock has gone back: the doubt was of a time that is to come.
    run = state(doubted_at=500.0)
    assert [run.doubt(now) for now in (116.0, 121.0)] == ["doubted", "dead"]
    assert not state(outcome=b"end").has_lapsed(500.0)


def test_end() -> None:
    """An ended run is kept as long as was said, and longer for who follows or reads it."""
    run = state()
    assert not run.is_over(1e9)
    run.keep_read(200.0)
    assert run.expires_at is None
    assert run.end(b"end", 200.0, is_watched=False) == 205.0
    assert (run.is_over(204.9), run.is_over(205.0)) == (False, True)
    run.keep_read(201.0)
    assert run.expires_at == 261.0
    run.keep_read(200.0)
    assert run.expires_at == 261.0
    assert state().end(b"end", 200.0, is_watched=True) == 260.0
    assert run.record(300.0).outcome == b"end"
    assert run.page([], lapsed=False).outcome == b"end"


def test_cancel() -> None:
    """The first reason stays; who owns the run may ask, and who says which one is meant."""
    run = state()
    assert run.request_cancel("a", b"other", 101.0, None, "0f", None) == "ended"
    assert run.request_cancel("a", b"idle", 101.0, None, None, 5.0) == "ended"
    assert run.cancel is None
    assert run.request_cancel("a", b"one", 105.0, None, "0e", 5.0) == "running"
    assert run.request_cancel("a", b"two", 105.0, "ada", None, None) == "running"
    assert run.cancel == b"one"
    with pytest.raises(RunNotFound):
        run.request_cancel("a", b"two", 105.0, "bob", None, None)
    assert state(outcome=b"end").request_cancel("a", b"one", 105.0, None, None, None) == "ended"


def test_removal() -> None:
    """Only what has ended is removed."""
    with pytest.raises(RunRunning):
        state().check_removable("a", "0e")
    with pytest.raises(RunNotFound):
        state(outcome=b"end").check_removable("a", "0f")
    state(outcome=b"end").check_removable("a", "0e")
