"""The benchmarks: that they refuse what loses an item, and judge as they say. CI runs them all."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import cost_per_item, responses, run_readers, run_sources, runs
from benchmarks.backends import BACKENDS
from benchmarks.peers import (
    BARE,
    BUFFERED,
    BUFFERED_FLOOR,
    MEMORY_STREAM,
    QUEUE,
    READ_AHEAD,
    peers_on,
)
from benchmarks.report import Ratio, Result, Table, read_json, text, write_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from benchmarks.peers import SourceFunction, Take

# How many items wait when the source goes on, of those that read ahead.
AHEAD = {
    MEMORY_STREAM: 1,
    # The task that wait_for() once made runs a little later than its caller.
    QUEUE: 2 if sys.version_info < (3, 12) else 1,
    BUFFERED: READ_AHEAD - 1,
    BUFFERED_FLOOR: READ_AHEAD - 1,
}

each_loop = pytest.mark.parametrize("loop", BACKENDS, ids=lambda loop: loop.name)


async def loses_the_last(source: SourceFunction, take: Take) -> None:
    items = [item async for item in source()]
    for item in items[:-1]:
        take(item)


async def doubles_the_first(source: SourceFunction, take: Take) -> None:
    items = [item async for item in source()]
    for item in (items[0], *items):
        take(item)


async def swaps_two(source: SourceFunction, take: Take) -> None:
    first, second, *others = [item async for item in source()]
    for item in (second, first, *others):
        take(item)


@each_loop
def test_every_peer_is_right(loop: Any) -> None:
    """Each peer hands over every item, once and in order, of both sources."""
    for source in cost_per_item.SOURCES:
        costs = loop.run(cost_per_item.measure_all, loop.name, source, 100, 1)
        assert costs.keys() == peers_on(loop.name).keys()


@each_loop
@pytest.mark.parametrize("broken", [loses_the_last, doubles_the_first, swaps_two])
def test_a_wrong_peer_is_refused(
    loop: Any,
    broken: Callable[[SourceFunction, Take], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A peer that loses, repeats or reorders an item ends the measurement, by its name."""
    monkeypatch.setattr(cost_per_item, "peers_on", lambda _: {BARE: broken})
    with pytest.raises(RuntimeError, match=r"'bare loop'.*lost, repeated or reordered"):
        loop.run(cost_per_item.measure_all, loop.name, "ready", 10, 1)


@each_loop
def test_every_response_is_right(loop: Any) -> None:
    """Each peer sends every event, once and in order, from both sources, and the same bytes."""
    for source in responses.SOURCES:
        costs = loop.run(responses.measure_all, loop.name, source, 10, 1)
        assert costs.keys() == responses.peers_on(loop.name).keys()


@each_loop
def test_every_run_is_right(loop: Any) -> None:
    """A run keeps every item, and each of its readers has every item, once and in order."""
    for source in run_sources.SOURCES:
        assert runs.RUN in loop.run(runs.measure_log, loop.name, source, 100, 1)
        costs = loop.run(run_readers.measure_readers, source, 3, 20, 1)
        assert run_readers.READERS.keys() <= costs.keys()
    assert run_readers.READERS.keys() <= loop.run(run_readers.measure_slow, 3, 5, 1).keys()
    assert runs.REPLAY in loop.run(runs.measure_replay, 500, 1)
    assert 0 < loop.run(runs.weigh_entry, 500) < 500


def test_a_wrong_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that keeps less than there was ends the measurement."""

    async def short(count: int) -> AsyncGenerator[str, None]:
        async for item in run_sources.ready(count - 1):
            yield item

    monkeypatch.setitem(run_sources.SOURCES, "ready", short)
    with pytest.raises(RuntimeError, match="has kept 9 of 10 items"):
        BACKENDS[0].run(run_readers.measure_readers, "ready", 3, 10, 1)
    with pytest.raises(RuntimeError, match="lost, repeated or reordered items"):
        BACKENDS[0].run(runs.measure_log, "asyncio", "ready", 10, 1)


def test_a_wrong_response_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that adds something of its own ends the measurement, by its name."""

    def chatty(source: responses.Source) -> responses.App:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await responses.bare(source)(scope, receive, send)
            await send({"type": "http.response.body", "body": b"bye", "more_body": False})

        return app

    monkeypatch.setattr(responses, "peers_on", lambda _: {"chatty": chatty})
    with pytest.raises(RuntimeError, match=r"'chatty'.*did not send what it was given"):
        BACKENDS[0].run(responses.measure_all, "asyncio", "ready", 10, 1)


@each_loop
def test_read_ahead(loop: Any) -> None:
    """Each peer reads as many items ahead as docs/cost.md says, so that like is compared."""
    for name, peer in peers_on(loop.name).items():
        taken: list[int] = []
        ahead: list[int] = []
        loop.run(peer, partial(watched_source, taken, ahead), taken.append)
        assert max(ahead) == AHEAD.get(name, 0), name


async def watched_source(taken: list[int], ahead: list[int]) -> AsyncGenerator[int, None]:
    for item in range(200):
        ahead.append(item - len(taken))
        yield item


def test_ratio_is_taken_within_a_round() -> None:
    """A round in which the machine was slow for both does not change the ratio."""
    ratio = Ratio.of("a / b", [2, 40, 6], [1, 20, 3])
    assert (ratio.value, ratio.low, ratio.high) == (2, 2, 2)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(1.0, "aim"), (1.3, "aim"), (1.31, "must"), (2.0, "must"), (2.1, "MISSED")],
)
def test_verdict(value: float, verdict: str) -> None:
    """The verdict is the better of the two limits that holds."""
    assert Ratio.once("a / b", value, 2.0, 1.3).verdict == verdict


def test_ratio_without_a_limit() -> None:
    """What is only there for comparison is not judged."""
    assert Ratio.once("a / b", 100).verdict == ""


def test_json(tmp_path: Path) -> None:
    """What is written as JSON reads back as the same result, so that it can be drawn again."""
    table = Table("Title", ["", "µs"], [["one", "1.00"]])
    result = Result("B0", "Nothing", [table], [Ratio.once("a / b", 1, 2)], {"a": [1, 2]})
    write_json(tmp_path / "new" / "results.json", {"Python": "3"}, [result])
    assert read_json(tmp_path / "new" / "results.json") == ({"Python": "3"}, [result])


def test_text() -> None:
    """A result as text has its tables and its ratios, those that are judged first."""
    ratios = [Ratio.once("c / d", 3), Ratio.once("a / b", 1, 2, 0.5)]
    table = Table("Title", ["", "µs"], [["one", "1.00"]])
    assert text(Result("B0", "Nothing", [table], ratios)).splitlines() == [
        "B0. Nothing",
        "",
        "Title",
        "",
        "     µs",
        "---  ----",
        "one  1.00",
        "",
        "Ratios",
        "",
        "ratio of  median  quartiles  must  aim    met",
        "--------  ------  ---------  ----  -----  ----",
        "a / b     1.00               ≤ 2   ≤ 0.5  must",
        "",
        "For comparison",
        "",
        "ratio of  median  quartiles",
        "--------  ------  ---------",
        "c / d     3.00",
    ]
