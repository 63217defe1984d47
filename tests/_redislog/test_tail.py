"""What was heard of a run: never a hole, never another run, never that there is nothing new."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from streamkit._redislog.messages import Appended, Asked, Changed, Ended, parse
from streamkit._redislog.tail import Tail
from streamkit.runs import Page

ENTRIES = [b"%d" % number for number in range(1, 2_001)]


def page(after: int, last: int, *, up_to: int | None = None, epoch: str = "0a") -> Page:
    """What the server answers."""
    return Page(ENTRIES[after : last if up_to is None else up_to], 1, last, epoch, None, None)


def news(first: int, last: int, *, epoch: str = "0a", kept: int = 1) -> Appended:
    """What is published when some entries are added."""
    return Appended(epoch, first, ENTRIES[first - 1 : last], kept, None)


def known(last: int = 3, after: int = 0) -> Tail:
    tail = Tail()
    tail.learn(page(after, last), after, tail.version)
    return tail


def said(tail: Tail, after: int, limit: int = 200) -> list[bytes] | None:
    found = tail.page(after, limit)
    return None if found is None else list(found.entries)


def test_goes_on() -> None:
    """What follows what is known is known; what is known already is not doubled."""
    tail = known(3)
    tail.hear(news(4, 5))
    tail.hear(news(3, 6))
    tail.hear(news(2, 4))
    assert said(tail, 0) == ENTRIES[:6]
    assert said(tail, 4) == ENTRIES[4:6]
    assert said(tail, 1, 2) == ENTRIES[1:3]
    first = tail.page(2, 200)
    assert first is tail.page(2, 200)
    assert first is not None
    assert (first.last, first.epoch, first.outcome, first.lapsed) == (6, "0a", None, False)


def test_nothing_new() -> None:
    """That there is nothing new is for the server to say, as is what is before or after."""
    tail = known(3, 1)
    assert said(tail, 1) == ENTRIES[1:3]
    for after in 0, 3, 4:
        assert said(tail, after) is None
    assert said(Tail(), 0) is None


def test_hole() -> None:
    """A message was missed: all is forgotten, and what came later follows what the server says."""
    tail = known(3)
    tail.hear(news(5, 6))
    assert said(tail, 0) is None
    tail.learn(page(3, 4), 3, tail.version)
    assert said(tail, 3) == ENTRIES[3:6]


def test_heard_before() -> None:
    """What is heard while the server is asked follows its answer, if it fits."""
    tail = Tail()
    for message in news(1, 1), news(2, 3), news(4, 4), Ended("0a", 4, b"end"):
        tail.hear(message)
    tail.learn(page(1, 2), 1, tail.version)
    found = tail.page(2, 200)
    assert found is not None
    assert (list(found.entries), found.outcome) == (ENTRIES[2:4], b"end")


def test_answer_that_is_late() -> None:
    """An answer that is older than what was heard, or than what was forgotten, changes nothing."""
    tail = known(3)
    version = tail.version
    tail.hear(news(4, 5))
    tail.learn(page(0, 4), 0, version)
    assert said(tail, 3) == ENTRIES[3:5]
    tail.forget()
    tail.learn(page(0, 4), 0, version)
    assert said(tail, 0) is None


def test_far_behind() -> None:
    """A page that does not lead to the end is not kept."""
    tail = Tail()
    tail.learn(page(0, 10, up_to=5), 0, tail.version)
    assert said(tail, 0) is None
    tail = known(3)
    tail.learn(page(0, 3, up_to=2), 0, tail.version)
    assert said(tail, 0) == ENTRIES[:3]


def test_begins_anew() -> None:
    """A page that does not touch what is known takes its place."""
    tail = known(3)
    tail.learn(page(8, 10), 8, tail.version)
    assert said(tail, 0) is None
    assert said(tail, 8) == ENTRIES[8:10]


def test_another_run() -> None:
    """News of another run of the id are believed only when the server has named it."""
    tail = known(3)
    tail.hear(news(4, 4, epoch="0b"))
    assert said(tail, 0) is None
    tail.learn(page(0, 3, epoch="0b"), 0, tail.version)
    found = tail.page(3, 200)
    assert found is not None
    assert (found.epoch, list(found.entries)) == ("0b", ENTRIES[3:4])
    tail.hear(Ended("0a", 4, b"end"))
    assert said(tail, 0) is None


def test_doubted() -> None:
    """Somebody comes: nothing is said until the server has named the run again."""
    tail = known(3)
    version = tail.version
    tail.doubt()
    tail.hear(news(4, 4))
    tail.learn(page(0, 3), 0, version)
    assert said(tail, 0) is None
    tail.learn(page(0, 9, up_to=2), 0, tail.version)
    assert said(tail, 0) == ENTRIES[:4]
    tail.doubt()
    tail.learn(page(0, 9, up_to=2, epoch="0b"), 0, tail.version)
    assert said(tail, 0) is None


def test_end() -> None:
    """The end is known with the last entry, and else it is asked for."""
    tail = known(3)
    tail.hear(Ended("0a", 3, b"end"))
    found = tail.page(3, 200)
    assert found is not None
    assert (list(found.entries), found.last, found.outcome) == ([], 3, b"end")
    tail = known(3)
    tail.hear(Ended("0a", 4, b"end"))
    assert said(tail, 0) is None


def test_trimmed() -> None:
    """What is kept no more is not told, for the server tells what is."""
    tail = known(3)
    tail.hear(news(4, 5, kept=3))
    assert said(tail, 1) is None
    assert said(tail, 2) == ENTRIES[2:5]


def test_bounded() -> None:
    """So many entries and bytes are kept, and the rest is asked for."""
    tail = known(3)
    for number in range(4, 1_001):
        tail.hear(news(number, number))
    assert said(tail, 0) is None
    assert said(tail, 900) == ENTRIES[900:1_000]
    large = Appended("0a", 1_001, [b"x" * 40_000, b"y" * 40_000], 1, None)
    tail.hear(large)
    assert said(tail, 1_000) is None
    tail.hear(news(1_003, 1_003))
    assert said(tail, 1_002) == ENTRIES[1_002:1_003]
    silent = Tail()
    for number in range(1, 1_001):
        silent.hear(news(number, number))
    silent.learn(page(0, 900), 0, silent.version)
    assert said(silent, 899) == ENTRIES[899:900]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("hear"), st.integers(1, 12), st.integers(0, 4)),
            st.tuples(st.just("learn"), st.integers(0, 12), st.integers(0, 4)),
            st.tuples(st.just("doubt"), st.just(0), st.just(0)),
            st.tuples(st.just("forget"), st.just(0), st.just(0)),
        ),
        max_size=30,
    )
)
def test_never_wrong(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is heard and learned, in whichever order: what is said is what the log has."""
    tail = Tail()
    for what, where, number in steps:
        if what == "hear":
            tail.hear(news(where, where + number))
        elif what == "learn":
            tail.learn(page(where, where + number), where, tail.version)
        else:
            getattr(tail, what)()
        for after in range(20):
            entries = said(tail, after)
            if entries is not None:
                assert entries
                assert entries == ENTRIES[after : after + len(entries)]


def test_messages() -> None:
    """What is published is told apart, and what is none of ours passed over."""
    assert parse(b"a 0a 7 2 409 3 0 1\none\n") == Appended("0a", 7, [b"one", b"", b"\n"], 2, 409)
    assert parse(b"a 0a 7 2 -\n") == Appended("0a", 7, [], 2, None)
    assert parse(b"e 0a 7\nend") == Ended("0a", 7, b"end")
    assert parse(b"h 0a 7\n") == parse(b"d 0a\n") == Changed("0a")
    assert parse(b"c 0a\nwhy") == Asked("0a", "cancel", b"why")
    assert parse(b"q 0a\n") == Asked("0a", "prove")
    assert parse(b"f 0a\n") == Asked("0a", "stop")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x 0a",
        b"a 0a 7 2 - 4\none",
        b"a 0a 7 2 - 4 -1\none",
        b"a 0a seven 2 - 3\none",
        b"e 0a 7 8\n",
        b"\xff\xfe",
        "text",
        None,
        7,
    ],
)
def test_messages_of_others(data: object) -> None:
    """Anybody may publish anything."""
    assert parse(data) is None
